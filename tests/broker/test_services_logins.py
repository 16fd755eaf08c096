"""Signing in and out: with passwords and tokens, on new and on used connections."""

import asyncio

import pytest
from pybroker.broker import events, passwords
from pybroker.broker.throttle import DELAYS_S, FORGET_AFTER_US, FREE_FAILURES
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.model.system import GetMe, Ping
from pybroker.protocol.model.tokens import LoginWithToken
from pybroker.protocol.model.users import ChangePassword, LoggedIn, Login, Logout, UpdateUser
from pybroker.protocol.primitives import UserStatus
from support.broker import Broker, hashed

BOB_ID = 1
SECRET = "a token of bob's"
WRONG_LOGIN = Login("bob", "wrong")


def give_token(broker: Broker, name: str = "tok", secret: str = SECRET, expires_at_us: int = 0) -> None:
    digest = passwords.token_digest(secret)
    broker.state.catalog.record(events.TokenCreated(BOB_ID, name, digest, expires_at_us, broker.clock()))


async def test_login_gives_a_session_that_grows(broker: Broker) -> None:
    epochs: list[int] = []
    for name, number in (("iggy", 0), ("bob", 1), ("iggy", 0)):
        session = broker.connect(None)
        assert not session.signed_in
        answer = await broker.ask(Login(name, name), session)
        assert answer == LoggedIn(number, session.epoch)
        assert (session.user_id, session.signed_in) == (number, True)
        epochs.append(session.epoch)
    assert epochs == sorted(set(epochs))
    assert epochs[0] > 0


WRONG = [
    ("iggy", "wrong", Status.INVALID_CREDENTIALS),
    ("iggy", "Iggy", Status.INVALID_CREDENTIALS),
    ("nobody", "iggy", Status.INVALID_CREDENTIALS),
    ("Iggy", "iggy", Status.INVALID_CREDENTIALS),
    ("bob", "iggy", Status.INVALID_CREDENTIALS),
    ("", "iggy", Status.INVALID_USERNAME),
    ("bo", "iggy", Status.INVALID_USERNAME),
    ("b" * 51, "iggy", Status.INVALID_USERNAME),
    ("iggy", "", Status.INVALID_PASSWORD),
    ("iggy", "ig", Status.INVALID_PASSWORD),
    ("iggy", "i" * 101, Status.INVALID_PASSWORD),
]


@pytest.mark.parametrize(("username", "password", "status"), WRONG)
async def test_wrong_credentials_are_refused_and_change_nothing(
    broker: Broker, username: str, password: str, status: Status
) -> None:
    stranger, known = broker.connect(None), broker.connect("bob")
    epoch = known.epoch
    for session in (stranger, known):
        assert await broker.status(Login(username, password), session) is status
    assert not stranger.signed_in
    assert (known.user_id, known.epoch) == (1, epoch)


async def test_login_on_a_signed_in_connection_replaces_the_user(broker: Broker) -> None:
    session = broker.connect("bob")
    epoch = session.epoch
    await broker.ask(Login("iggy", "iggy"), session)
    assert session.user_id == 0
    assert session.epoch > epoch


async def test_logout_keeps_the_connection_and_is_fine_twice(broker: Broker) -> None:
    session = broker.connect()
    for _ in range(2):
        assert await broker.status(Logout(), session) is Status.OK
    assert await broker.status(GetMe(), session) is Status.UNAUTHENTICATED
    assert await broker.status(Ping(), session) is Status.OK
    await broker.ask(Login("iggy", "iggy"), session)
    assert await broker.status(GetMe(), session) is Status.OK


async def test_another_user_on_a_connection_is_in_none_of_the_firsts_groups(broker: Broker) -> None:
    await broker.create_topic()
    session = broker.connect()
    await broker.create_group(session)
    await broker.ask(Login("iggy", "iggy"), session)
    assert broker.state.groups.joined(session.client_id)
    await broker.ask(Login("bob", "bob"), session)
    assert not broker.state.groups.joined(session.client_id)


async def test_login_names_the_client_that_asked(broker: Broker) -> None:
    session = broker.connect(None)
    await broker.ask(Login("bob", "bob", client=bytes(range(16))), session)
    assert session.client == bytes(range(16))
    give_token(broker)
    await broker.ask(LoginWithToken(SECRET, client=bytes(16)), session)
    assert session.client == bytes(16)


async def test_inactive_user_is_told_so_only_with_the_right_password(broker: Broker) -> None:
    await broker.ask(UpdateUser("bob", None, UserStatus.INACTIVE))
    session = broker.connect(None)
    assert await broker.status(WRONG_LOGIN, session) is Status.INVALID_CREDENTIALS
    assert await broker.status(Login("bob", "bob"), session) is Status.USER_INACTIVE
    assert not session.signed_in
    await broker.ask(UpdateUser("bob", None, UserStatus.ACTIVE))
    assert await broker.status(Login("bob", "bob"), session) is Status.OK


MEANWHILE = [
    (events.UserDeleted(BOB_ID), Status.INVALID_CREDENTIALS),
    (events.PasswordChanged(BOB_ID, hashed("new")), Status.INVALID_CREDENTIALS),
    (events.UserUpdated(BOB_ID, "bob", UserStatus.INACTIVE), Status.USER_INACTIVE),
    (events.UserUpdated(BOB_ID, "robert", UserStatus.ACTIVE), Status.OK),
]


@pytest.mark.parametrize(("event", "status"), MEANWHILE, ids=lambda value: type(value).__name__)
async def test_what_happens_while_a_password_is_checked_counts(
    broker: Broker, event: events.AnyEvent, status: Status
) -> None:
    login = asyncio.create_task(broker.status(Login("bob", "bob"), broker.connect(None)))
    await asyncio.sleep(0)  # the task has handed the password to a thread, and nothing came back yet
    broker.state.catalog.record(event)
    assert await login is status


async def test_token_signs_in_as_the_user_who_made_it(broker: Broker) -> None:
    give_token(broker)
    session = broker.connect(None)
    assert await broker.ask(LoginWithToken(SECRET), session) == LoggedIn(BOB_ID, session.epoch)
    assert session.user_id == BOB_ID
    await broker.restart()
    assert await broker.status(LoginWithToken(SECRET), broker.connect(None)) is Status.OK


@pytest.mark.parametrize("secret", ["", "x", SECRET[:-1], SECRET + " ", SECRET.upper(), "tok", "x" * 255])
async def test_unknown_token_is_refused_and_keeps_who_was_signed_in(broker: Broker, secret: str) -> None:
    give_token(broker)
    session = broker.connect()
    epoch = session.epoch
    assert await broker.status(LoginWithToken(secret), session) is Status.INVALID_PERSONAL_ACCESS_TOKEN
    assert (session.user_id, session.epoch) == (0, epoch)


async def test_token_is_good_until_the_microsecond_it_expires(broker: Broker) -> None:
    give_token(broker, expires_at_us=broker.clock() + 10)
    broker.clock.now_us += 9
    assert await broker.status(LoginWithToken(SECRET), broker.connect(None)) is Status.OK
    broker.clock.now_us += 1
    assert await broker.status(LoginWithToken(SECRET), broker.connect(None)) is Status.PERSONAL_ACCESS_TOKEN_EXPIRED


async def test_token_of_an_inactive_user_is_told_so(broker: Broker) -> None:
    give_token(broker)
    await broker.ask(UpdateUser("bob", None, UserStatus.INACTIVE))
    assert await broker.status(LoginWithToken(SECRET), broker.connect(None)) is Status.USER_INACTIVE


async def fail(broker: Broker, count: int) -> None:
    for _ in range(count):
        assert await broker.status(WRONG_LOGIN, broker.connect(None)) is Status.INVALID_CREDENTIALS


async def test_failed_logins_make_the_next_ones_from_that_address_wait_longer_and_longer(broker: Broker) -> None:
    await fail(broker, FREE_FAILURES)
    assert broker.waits == []
    await fail(broker, len(DELAYS_S) + 2)
    assert broker.waits == [*DELAYS_S, DELAYS_S[-1], DELAYS_S[-1]]


async def test_all_ways_to_try_a_secret_count_together(broker: Broker) -> None:
    bob, stranger = broker.connect("bob"), broker.connect(None)
    tries = [(WRONG_LOGIN, stranger), (LoginWithToken("x"), stranger), (ChangePassword(BOB_ID, "wrong", "new"), bob)]
    for command, session in tries * 2:
        assert await broker.status(command, session) is not Status.OK
    assert broker.waits == [DELAYS_S[0]]


async def test_right_password_ends_the_waiting(broker: Broker) -> None:
    await fail(broker, FREE_FAILURES + 1)
    assert await broker.status(Login("bob", "bob"), broker.connect(None)) is Status.OK
    await fail(broker, FREE_FAILURES)
    assert broker.waits == list(DELAYS_S[:2])


async def test_failures_are_forgotten_after_a_while(broker: Broker) -> None:
    await fail(broker, FREE_FAILURES)
    broker.clock.now_us += FORGET_AFTER_US + 1
    await fail(broker, FREE_FAILURES)
    assert broker.waits == []


async def test_other_addresses_and_other_commands_do_not_wait(broker: Broker) -> None:
    await fail(broker, FREE_FAILURES)
    other = broker.connect(None)
    other.address = "127.0.0.2:1"
    assert await broker.status(Login("bob", "bob"), other) is Status.OK
    assert await broker.status(GetMe(), broker.connect()) is Status.OK
    assert broker.waits == []


async def test_secrets_are_in_no_refusal(broker: Broker) -> None:
    commands = [Login("iggy", "s3cret"), Login("s3cret-not", "x"), LoginWithToken("s3cret")]
    commands += [ChangePassword("bob", "s3cret", "s3cret2"), ChangePassword("bob", "bob", "s3cret" * 50)]
    for command in commands:
        with pytest.raises(Refused) as caught:
            await broker.ask(command)
        assert "s3cret" not in str(caught.value).replace("s3cret-not", "")
