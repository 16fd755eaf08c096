"""Users: create, look up, change, delete, and what becomes of their sessions."""

import asyncio

import pytest
from pybroker.broker import permissions
from pybroker.broker.session import Session
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import JoinConsumerGroup
from pybroker.protocol.model.system import GetMe
from pybroker.protocol.model.tokens import CreateToken, LoginWithToken
from pybroker.protocol.model.users import (
    ChangePassword,
    CreateUser,
    DeleteUser,
    GetUser,
    GetUsers,
    Login,
    UpdatePermissions,
    UpdateUser,
    User,
    UserDetails,
    Users,
)
from pybroker.protocol.primitives import Identifier, Permissions, StreamPermissions, TopicPermissions, UserStatus
from support.broker import Broker, text_option

ACTIVE, INACTIVE = UserStatus.ACTIVE, UserStatus.INACTIVE
OPTION = text_option("durability", "persisted")
HELD = Permissions(
    read_streams=True,
    streams={7: StreamPermissions(send_messages=True, topics={2**32 - 1: TopicPermissions(poll_messages=True)})},
)


def new_user(name: str = "carol", password: str = "secret", held: Permissions | None = None) -> CreateUser:
    return CreateUser(name, password, ACTIVE, held)


async def names(broker: Broker) -> list[tuple[int, str]]:
    listed = await broker.ask(GetUsers())
    assert isinstance(listed, Users)
    return [(user.id, user.username) for user in listed.users]


def closing(session: Session) -> list[str]:
    """Return what notes when the session's connection is told to close."""
    closed: list[str] = []
    session.close = lambda: closed.append("closed")
    return closed


@pytest.mark.parametrize("status", UserStatus)
@pytest.mark.parametrize("held", [None, Permissions(), HELD])
async def test_created_user_is_shown_as_created_also_after_a_restart(
    broker: Broker, status: UserStatus, held: Permissions | None
) -> None:
    created = await broker.ask(CreateUser("carol", "secret", status, held))
    assert created == UserDetails(User(2, broker.clock(), status, "carol"), held)
    for _ in range(2):
        for identifier in (2, "carol"):
            assert await broker.ask(GetUser(identifier)) == created
        assert (await broker.ask(GetUsers())).users[2] == created.user
        await broker.restart()


async def test_created_user_signs_in_with_the_password(broker: Broker) -> None:
    await broker.ask(new_user())
    session = broker.connect(None)
    assert await broker.status(Login("carol", "secret"), session) is Status.OK
    assert session.user_id == 2
    assert "secret" not in repr(broker.state.catalog.user("carol"))


async def test_unknown_user_is_none(broker: Broker) -> None:
    for identifier in (9, "nobody", "Iggy"):
        assert await broker.ask(GetUser(identifier)) is None


async def test_root_is_shown_with_all_permissions(broker: Broker) -> None:
    shown = await broker.ask(GetUser(0))
    assert shown.permissions == permissions.ROOT
    assert all(getattr(shown.permissions, flag) for flag in Permissions.__struct_fields__[:-1])


REFUSED = [
    (new_user("bo"), Status.INVALID_USERNAME),
    (new_user("b" * 51), Status.INVALID_USERNAME),
    (new_user("é" * 26), Status.INVALID_USERNAME),  # 52 bytes
    (new_user("x", "y"), Status.INVALID_USERNAME),
    (new_user("carol", "se"), Status.INVALID_PASSWORD),
    (new_user("carol", "s" * 101), Status.INVALID_PASSWORD),
    (new_user("bob"), Status.USER_ALREADY_EXISTS),
    (CreateUser("carol", "secret", ACTIVE, None, (OPTION,)), Status.UNSUPPORTED_OPTION_KEY),
    (UpdateUser("bob", "iggy", None), Status.USER_ALREADY_EXISTS),
    (UpdateUser("bob", "bo", None), Status.INVALID_USERNAME),
    (UpdateUser("bob", "b" * 51, None), Status.INVALID_USERNAME),
    (UpdateUser("nobody", "bob", None), Status.RESOURCE_NOT_FOUND),
    (UpdateUser("bob", None, None, (OPTION,)), Status.UNSUPPORTED_OPTION_KEY),
    (UpdateUser(0, None, INACTIVE), Status.INVALID_USER_STATUS),
    (UpdateUser("iggy", "admin", INACTIVE), Status.INVALID_USER_STATUS),
    (DeleteUser("nobody"), Status.RESOURCE_NOT_FOUND),
    (DeleteUser(0), Status.CANNOT_DELETE_USER),
    (DeleteUser("iggy"), Status.CANNOT_DELETE_USER),
    (UpdatePermissions("nobody", None), Status.RESOURCE_NOT_FOUND),
    (UpdatePermissions(0, None), Status.CANNOT_CHANGE_PERMISSIONS),
    (UpdatePermissions("iggy", permissions.ROOT), Status.CANNOT_CHANGE_PERMISSIONS),
    (ChangePassword("nobody", "bob", "secret"), Status.RESOURCE_NOT_FOUND),
    (ChangePassword("bob", "wrong", "secret"), Status.INVALID_CREDENTIALS),
    (ChangePassword("bob", "iggy", "secret"), Status.INVALID_CREDENTIALS),  # root has to know it as well
    (ChangePassword("bob", "bob", "se"), Status.INVALID_PASSWORD),
    (ChangePassword("bob", "bob", "s" * 101), Status.INVALID_PASSWORD),
]


@pytest.mark.parametrize(("command", "status"), REFUSED, ids=lambda value: getattr(value, "name", type(value).__name__))
async def test_what_is_refused_changes_nothing(broker: Broker, command: CreateUser, status: Status) -> None:
    before = broker.engine.journal.load()
    bob = broker.connect("bob")
    assert await broker.status(command) is status
    assert broker.engine.journal.load() == before
    assert bob.signed_in


@pytest.mark.parametrize(("name", "password"), [("abc", "abc"), ("a" * 50, "p" * 100), ("é" * 25, "日本語")])
async def test_names_and_passwords_may_be_as_short_and_long_as_iggy_says(
    broker: Broker, name: str, password: str
) -> None:
    await broker.ask(new_user(name, password))
    assert await broker.status(Login(name, password), broker.connect(None)) is Status.OK


async def test_ids_are_small_and_the_one_freed_last_comes_first(broker: Broker) -> None:
    for name in ("carol", "dave"):
        await broker.ask(new_user(name))
    for name in ("bob", "carol"):
        await broker.ask(DeleteUser(name))
    await broker.restart()
    for name in ("erin", "frank"):
        await broker.ask(new_user(name))
    assert await names(broker) == [(0, "iggy"), (1, "frank"), (2, "erin"), (3, "dave")]


async def test_two_who_create_the_same_user_at_once_make_one(broker: Broker) -> None:
    statuses = await asyncio.gather(*(broker.status(new_user()) for _ in range(2)))
    assert sorted(statuses) == [Status.OK, Status.USER_ALREADY_EXISTS]
    assert len(await names(broker)) == 3


async def test_user_is_renamed_and_signs_in_under_the_new_name(broker: Broker) -> None:
    bob = broker.connect("bob")
    await broker.ask(UpdateUser("bob", "robert", None))
    assert await broker.status(Login("bob", "bob"), broker.connect(None)) is Status.INVALID_CREDENTIALS
    assert await broker.status(Login("robert", "bob"), broker.connect(None)) is Status.OK
    assert await broker.status(GetMe(), bob) is Status.OK
    assert await broker.ask(GetUser("bob")) is None


@pytest.mark.parametrize("user", [0, 1])
async def test_own_name_and_no_change_are_fine(broker: Broker, user: Identifier) -> None:
    before = await broker.ask(GetUser(user))
    await broker.ask(UpdateUser(user, before.user.username, None))
    await broker.ask(UpdateUser(user, None, None))
    await broker.ask(UpdateUser(user, None, ACTIVE))
    assert await broker.ask(GetUser(user)) == before


async def test_root_may_have_another_name_and_keeps_its_rights(broker: Broker) -> None:
    await broker.ask(UpdateUser("iggy", "admin", None))
    session = broker.connect(None)
    await broker.ask(Login("admin", "iggy"), session)
    assert await broker.status(DeleteUser("bob"), session) is Status.OK


ENDINGS = [DeleteUser("bob"), UpdateUser("bob", None, INACTIVE), UpdateUser("bob", "robert", INACTIVE)]


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
async def test_deleted_or_inactive_user_is_signed_out_of_all_sessions_at_once(
    broker: Broker, ending: DeleteUser
) -> None:
    await broker.create_topic()
    sessions = [broker.connect("bob") for _ in range(3)]
    await broker.create_group()
    others = [broker.connect(), broker.connect(None)]
    closed = [closing(session) for session in (*sessions, *others)]
    await broker.ask(UpdatePermissions("bob", Permissions(read_topics=True)))
    for session in sessions:
        await broker.ask(JoinConsumerGroup("s", "t", "g"), session)
    await broker.ask(ending)
    assert closed == [["closed"]] * 3 + [[], []]
    for session in sessions:
        assert await broker.status(GetMe(), session) is Status.UNAUTHENTICATED
        assert broker.state.groups.joined(session.client_id) == []
    assert await broker.status(GetMe(), others[0]) is Status.OK


async def test_who_deletes_itself_is_told_so_and_is_out(broker: Broker) -> None:
    bob = broker.connect("bob")
    closed = closing(bob)
    await broker.ask(UpdatePermissions("bob", Permissions(manage_users=True)))
    assert await broker.status(DeleteUser("bob"), bob) is Status.OK
    assert await broker.status(GetMe(), bob) is Status.UNAUTHENTICATED
    assert closed == ["closed"]


async def test_tokens_go_with_their_user(broker: Broker) -> None:
    token = (await broker.ask(CreateToken("tok", 0), broker.connect("bob"))).token
    await broker.ask(DeleteUser("bob"))
    await broker.ask(new_user())
    for _ in range(2):
        session = broker.connect(None)
        assert await broker.status(LoginWithToken(token), session) is Status.INVALID_PERSONAL_ACCESS_TOKEN
        await broker.restart()


async def test_permissions_are_replaced_as_a_whole(broker: Broker) -> None:
    for held in (HELD, Permissions(send_messages=True), None, Permissions()):
        await broker.ask(UpdatePermissions("bob", held))
        assert (await broker.ask(GetUser("bob"))).permissions == held
        await broker.restart()


@pytest.mark.parametrize("own", [True, False])
async def test_new_password_replaces_the_old_and_keeps_sessions_and_tokens(broker: Broker, own: bool) -> None:
    bob = broker.connect("bob")
    closed = closing(bob)
    token = (await broker.ask(CreateToken("tok", 0), bob)).token
    await broker.ask(ChangePassword("bob", "bob", "secret"), bob if own else broker.root)
    await broker.restart()
    assert await broker.status(Login("bob", "bob"), broker.connect(None)) is Status.INVALID_CREDENTIALS
    assert await broker.status(Login("bob", "secret"), broker.connect(None)) is Status.OK
    assert await broker.status(LoginWithToken(token), broker.connect(None)) is Status.OK
    assert (bob.signed_in, closed) == (True, [])


async def test_of_two_changes_of_one_password_at_once_one_is_too_late(broker: Broker) -> None:
    changes = [broker.status(ChangePassword("bob", "bob", password)) for password in ("first", "second")]
    assert sorted(await asyncio.gather(*changes)) == [Status.OK, Status.INVALID_CREDENTIALS]


async def test_user_deleted_while_its_password_is_checked_stays_deleted(broker: Broker) -> None:
    change = asyncio.create_task(broker.status(ChangePassword("bob", "bob", "secret")))
    await asyncio.sleep(0)
    await broker.ask(DeleteUser("bob"))
    await broker.ask(new_user())
    assert await change is Status.INVALID_CREDENTIALS
    assert await broker.status(Login("carol", "secret"), broker.connect(None)) is Status.OK
