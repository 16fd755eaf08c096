"""Personal access tokens: create, list, delete, how many and how long. test_services_logins signs in with them."""

import pytest
from msgspec.structs import replace
from pybroker.broker.config import Config
from pybroker.protocol.errors import Status
from pybroker.protocol.model.tokens import CreateToken, DeleteToken, GetTokens, LoginWithToken, RawToken, Token
from pybroker.protocol.primitives import U64_MAX
from support.broker import Broker

DAY_US = 86_400_000_000


def broker_with_limit(limit: int) -> Broker:
    config = Config()
    tokens = replace(config.personal_access_token, max_tokens_per_user=limit)
    return Broker(config=replace(config, personal_access_token=tokens))


async def listed(broker: Broker, user: str = "bob") -> list[Token]:
    return (await broker.ask(GetTokens(), broker.connect(user))).tokens


async def create(broker: Broker, name: str = "tok", expiry_us: int = 0, user: str = "bob") -> str:
    raw = await broker.ask(CreateToken(name, expiry_us), broker.connect(user))
    assert isinstance(raw, RawToken)
    return raw.token


async def test_token_is_told_once_and_only_its_digest_is_kept(broker: Broker) -> None:
    token = await create(broker)
    assert len(token) == 67
    assert await listed(broker) == [Token("tok", 0)]
    snapshot, journal = broker.engine.journal.load()
    assert token.encode() not in b"".join([snapshot or b"", *journal])
    assert await broker.status(LoginWithToken(token), broker.connect(None)) is Status.OK


EXPIRIES = [(0, 0), (U64_MAX, 0), (1, 1), (DAY_US, DAY_US)]


@pytest.mark.parametrize(("expiry_us", "after_us"), EXPIRIES)
async def test_token_expires_when_it_was_told_to(broker: Broker, expiry_us: int, after_us: int) -> None:
    await create(broker, expiry_us=expiry_us)
    assert await listed(broker) == [Token("tok", broker.clock() + after_us if after_us else 0)]
    await broker.restart()
    assert await listed(broker) == [Token("tok", broker.clock() + after_us if after_us else 0)]


async def test_time_that_no_clock_can_show_is_the_last_it_can(broker: Broker) -> None:
    token = await create(broker, expiry_us=U64_MAX - 1)
    assert await listed(broker) == [Token("tok", U64_MAX)]
    assert await broker.status(LoginWithToken(token), broker.connect(None)) is Status.OK


@pytest.mark.parametrize("name", ["", "ab", "n" * 31, "é" * 16])
async def test_name_of_another_length_is_refused(broker: Broker, name: str) -> None:
    assert await broker.status(CreateToken(name, 0)) is Status.INVALID_PERSONAL_ACCESS_TOKEN_NAME
    assert await listed(broker, "iggy") == []


@pytest.mark.parametrize("name", ["abc", "n" * 30, "é" * 15])
async def test_name_may_be_as_short_and_long_as_iggy_says(broker: Broker, name: str) -> None:
    await create(broker, name)
    assert await listed(broker) == [Token(name, 0)]


async def test_names_are_a_users_own(broker: Broker) -> None:
    tokens = {await create(broker, user=user) for user in ("bob", "iggy")}
    assert len(tokens) == 2
    assert (
        await broker.status(CreateToken("tok", 0), broker.connect("bob")) is Status.PERSONAL_ACCESS_TOKEN_ALREADY_EXISTS
    )


async def test_only_own_tokens_are_listed_and_deleted(broker: Broker) -> None:
    token = await create(broker)
    assert await listed(broker, "iggy") == []
    assert await broker.status(DeleteToken("tok")) is Status.RESOURCE_NOT_FOUND
    assert await broker.status(LoginWithToken(token), broker.connect(None)) is Status.OK


async def test_deleted_token_signs_in_no_more_and_may_be_made_again(broker: Broker) -> None:
    old = await create(broker)
    await broker.ask(DeleteToken("tok"), broker.connect("bob"))
    assert await listed(broker) == []
    assert await broker.status(DeleteToken("tok"), broker.connect("bob")) is Status.RESOURCE_NOT_FOUND
    new = await create(broker)
    for _ in range(2):
        statuses = [await broker.status(LoginWithToken(token), broker.connect(None)) for token in (old, new)]
        assert statuses == [Status.INVALID_PERSONAL_ACCESS_TOKEN, Status.OK]
        await broker.restart()


async def test_only_so_many_live_tokens_are_a_users() -> None:
    broker = broker_with_limit(2)
    await create(broker, "first", DAY_US)
    await create(broker, "second")
    bob = broker.connect("bob")
    assert await broker.status(CreateToken("third", 0), bob) is Status.PERSONAL_ACCESS_TOKENS_LIMIT_REACHED
    await create(broker, "of another", user="iggy")
    broker.clock.now_us += DAY_US
    await create(broker, "third")
    assert [token.name for token in await listed(broker)] == ["second", "third"]
    assert await broker.status(CreateToken("fourth", 0), bob) is Status.PERSONAL_ACCESS_TOKENS_LIMIT_REACHED
    await broker.ask(DeleteToken("second"), bob)
    assert await broker.status(CreateToken("fourth", 0), bob) is Status.OK


async def test_expired_token_is_shown_until_another_is_made(broker: Broker) -> None:
    old = await create(broker, expiry_us=DAY_US)
    kept = await create(broker, "kept", expiry_us=DAY_US + 1)
    broker.clock.now_us += DAY_US
    assert [token.name for token in await listed(broker)] == ["tok", "kept"]
    assert await broker.status(LoginWithToken(old), broker.connect(None)) is Status.PERSONAL_ACCESS_TOKEN_EXPIRED
    new = await create(broker)
    for _ in range(2):
        assert [token.name for token in await listed(broker)] == ["kept", "tok"]
        statuses = [await broker.status(LoginWithToken(token), broker.connect(None)) for token in (old, kept, new)]
        assert statuses == [Status.INVALID_PERSONAL_ACCESS_TOKEN, Status.OK, Status.OK]
        await broker.restart()


async def test_expired_token_can_be_deleted(broker: Broker) -> None:
    await create(broker, expiry_us=1)
    broker.clock.now_us += 1
    await broker.ask(DeleteToken("tok"), broker.connect("bob"))
    assert await listed(broker) == []
