"""Users, permissions and tokens, by the real client where its methods reach."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_iggy import (
    AutoLogin,
    GlobalPermissions,
    IggyClient,
    Permissions,
    PollingStrategy,
    StreamPermissions,
    TcpConfig,
    TcpReconnectionConfig,
    TopicPermissions,
    UserStatus,
)
from pybroker.protocol.errors import Status
from pybroker.protocol.model import system, tokens, users
from pybroker.protocol.primitives import U64_MAX
from pybroker.protocol.primitives import Permissions as Held
from pybroker.protocol.primitives import UserStatus as WireStatus
from support.raw import EVICTION, REGISTER, RawClient, login_body, request_frame
from support.server import Server
from support.wheel import bounded, connect, make_topic, poll, refused, send, texts_of

INVALID_CREDENTIALS, INVALID_TOKEN, USER_INACTIVE = 9, 10, 11


def token_body(token: str) -> bytes:
    """Return the body of a login with a token: a password's, one text shorter."""
    prefix = login_body("", "")[: -len(b"\0\0\0\0\0\0")]
    return prefix + bytes([len(token)]) + token.encode() + bytes(4)


def sign_in(server: Server, token: str) -> RawClient:
    client = RawClient(server.port)
    answer = client.exchange(request_frame(token_body(token), operation=REGISTER, client=client.client, request=0))
    assert answer.kind != EVICTION, answer.reason
    client.session = int.from_bytes(answer.body[4:12], "little")
    return client


async def connect_with_token(server: Server, token: str) -> IggyClient:
    client = IggyClient(
        TcpConfig(
            server_address=server.address,
            auto_login=AutoLogin.personal_access_token(token),
            reconnection=TcpReconnectionConfig(enabled=False),
        )
    )
    await bounded(client.connect())
    return client


async def create(server: Server, admin: IggyClient, name: str, permissions: Permissions | None) -> IggyClient:
    """Create a user, and return a client that is signed in as it."""
    await bounded(admin.create_user(name, "secret", permissions=permissions))
    return await connect(server.address, username=name, password="secret", redial=False)


async def test_user_is_shown_as_created(client: IggyClient, stream: str) -> None:
    permissions = Permissions(
        GlobalPermissions(read_servers=True, send_messages=True),
        {7: StreamPermissions(manage_topics=True, topics={9: TopicPermissions(read_topic=True)})},
    )
    name = stream[:40]
    await bounded(client.create_user(name, "secret", UserStatus.Inactive, permissions))
    shown = await bounded(client.get_user(name))
    assert shown is not None
    assert (shown.username, shown.status, shown.permissions) == (name, UserStatus.Inactive, permissions)
    assert [user.username for user in await bounded(client.get_users()) if user.id == shown.id] == [name]
    await refused(client.create_user(name, "secret"), Status.USER_ALREADY_EXISTS)
    await bounded(client.delete_user(name))
    assert await bounded(client.get_user(name)) is None
    await refused(client.delete_user(name), Status.RESOURCE_NOT_FOUND)


async def test_root_stays_what_it_is(client: IggyClient) -> None:
    root = await bounded(client.get_user(0))
    assert root is not None
    assert root.permissions is not None
    assert root.permissions.global_permissions.manage_users
    await refused(client.delete_user("iggy"), Status.CANNOT_DELETE_USER)
    await refused(client.update_permissions("iggy", None), Status.CANNOT_CHANGE_PERMISSIONS)
    await refused(client.update_user("iggy", status=UserStatus.Inactive), Status.INVALID_USER_STATUS)


async def test_reader_reads_its_topic_and_nothing_else(server: Server, client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "open")
    await bounded(client.create_topic(stream, "closed", 1))
    await send(client, stream, "open", ["message"])
    found = await bounded(client.get_stream(stream))
    assert found is not None
    held = StreamPermissions(topics={0: TopicPermissions(read_topic=True)})
    reader = await create(server, client, "reader", Permissions(streams={found.id: held}))
    assert texts_of(await poll(reader, stream, "open")) == ["message"]
    await refused(poll(reader, stream, "closed"), Status.UNAUTHORIZED)
    await refused(send(reader, stream, "open", ["another"]), Status.UNAUTHORIZED)
    await refused(reader.get_stream(stream), Status.UNAUTHORIZED)
    await refused(reader.create_stream("reader's"), Status.UNAUTHORIZED)
    await refused(reader.get_users(), Status.UNAUTHORIZED)
    await refused(poll(reader, stream, "missing"), Status.TOPIC_ID_NOT_FOUND)
    await bounded(client.update_permissions("reader", None))
    await refused(poll(reader, stream, "open"), Status.UNAUTHORIZED)
    await bounded(client.update_permissions("reader", Permissions(GlobalPermissions(send_messages=True))))
    await refused(poll(reader, stream, "open"), Status.UNAUTHORIZED)


async def test_password_is_changed_by_its_user(server: Server, client: IggyClient) -> None:
    await bounded(client.create_user("changer", "secret"))
    with RawClient(server.port) as raw:
        raw.login("changer", "secret")
        assert raw.ask(users.ChangePassword("changer", "wrong", "better")).status == Status.INVALID_CREDENTIALS
        assert raw.ask(users.ChangePassword("changer", "secret", "better")) is None
        assert raw.ask(system.GetMe()).client.user_id != 0
    with RawClient(server.port) as raw:
        assert raw.login("changer", "secret").reason == INVALID_CREDENTIALS
    with RawClient(server.port) as raw:
        assert raw.login("changer", "better").kind != EVICTION


ENDINGS = {"deleted": users.DeleteUser("leaver"), "inactive": users.UpdateUser("leaver", None, WireStatus.INACTIVE)}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_connection_of_a_user_who_may_no_more_is_closed(fresh_server: Server, ending: str) -> None:
    def attempt() -> None:
        with RawClient(fresh_server.port) as root, RawClient(fresh_server.port) as leaver:
            root.login()
            assert root.ask(users.CreateUser("leaver", "secret", WireStatus.ACTIVE, Held(read_servers=True)))
            leaver.login("leaver", "secret")
            assert leaver.ask(system.GetStats())
            assert root.ask(ENDINGS[ending]) is None
            with pytest.raises(ConnectionError):
                leaver.receive()
            assert len(root.ask(system.GetClients()).clients) == 1
        with RawClient(fresh_server.port) as again:
            assert again.login("leaver", "secret").reason == INVALID_CREDENTIALS

    await asyncio.to_thread(attempt)


async def test_token_signs_the_real_client_in(server: Server, client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    with RawClient(server.port) as raw:
        raw.login()
        token = raw.ask(tokens.CreateToken("wheel", 0)).token
        assert raw.ask(tokens.CreateToken("wheel", 0)).status == Status.PERSONAL_ACCESS_TOKEN_ALREADY_EXISTS
        agent = await connect_with_token(server, token)
        await send(agent, stream, "topic", ["by token"])
        assert texts_of(await poll(agent, stream, "topic", PollingStrategy.First())) == ["by token"]
        assert [held.name for held in raw.ask(tokens.GetTokens()).tokens] == ["wheel"]
        assert raw.ask(tokens.DeleteToken("wheel")) is None
        assert raw.ask(tokens.DeleteToken("wheel")).status == Status.RESOURCE_NOT_FOUND
    await refused(connect_with_token(server, token), Status.INVALID_PERSONAL_ACCESS_TOKEN)


async def test_login_with_a_token_is_refused_for_its_reason(fresh_server: Server) -> None:
    def reason(token: str) -> int:
        with RawClient(fresh_server.port) as stranger:
            frame = request_frame(token_body(token), operation=REGISTER, client=stranger.client, request=0)
            return stranger.exchange(frame).reason

    def attempt() -> None:
        with RawClient(fresh_server.port) as root, RawClient(fresh_server.port) as agent:
            root.login()
            root.ask(users.CreateUser("agent", "secret", WireStatus.ACTIVE, None))
            agent.login("agent", "secret")
            good = agent.ask(tokens.CreateToken("good", U64_MAX)).token
            short = agent.ask(tokens.CreateToken("short", 1)).token
            assert reason("unknown") == INVALID_TOKEN
            assert reason(short) == INVALID_TOKEN
            assert reason(good) == 0
            root.ask(users.UpdateUser("agent", None, WireStatus.INACTIVE))
            assert reason(good) == USER_INACTIVE

    await asyncio.to_thread(attempt)


@pytest.fixture
def talkative_server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", settings={"RUST_LOG": "debug"}) as running:
        yield running


async def test_users_permissions_and_tokens_are_there_after_a_restart(talkative_server: Server) -> None:
    held = Held(read_servers=True)
    with RawClient(talkative_server.port) as root, RawClient(talkative_server.port) as agent:
        root.login()
        root.ask(users.CreateUser("agent", "secret", WireStatus.ACTIVE, held))
        agent.login("agent", "secret")
        token = agent.ask(tokens.CreateToken("tok", 0)).token
        before = root.ask(users.GetUser("agent"))
    talkative_server.kill()
    talkative_server.start()
    with sign_in(talkative_server, token) as agent:
        assert agent.ask(users.GetUser("agent")) == before
        assert before.permissions == held
        assert agent.ask(system.GetStats())
        assert agent.ask(tokens.GetTokens()).tokens == [tokens.Token("tok", 0)]


async def test_no_secret_is_in_the_log_whatever_its_level(talkative_server: Server) -> None:
    with RawClient(talkative_server.port) as root:
        root.login()
        root.ask(users.CreateUser("agent", "s3cret-1", WireStatus.ACTIVE, None))
        root.ask(users.CreateUser("agent", "s3cret-2", WireStatus.ACTIVE, None))
        root.ask(users.ChangePassword("agent", "s3cret-3", "s3cret-4"))
        root.ask(users.ChangePassword("agent", "s3cret-1", "s3cret-5" * 20))
        token = root.ask(tokens.CreateToken("tok", 0)).token
    for attempt in (login_body("agent", "s3cret-6"), token_body("s3cret-7"), token_body(token)):
        with RawClient(talkative_server.port) as stranger:
            stranger.exchange(request_frame(attempt, operation=REGISTER, client=stranger.client, request=0))
    log = talkative_server.log()
    assert "refused ChangePassword" in log
    assert "refused LoginWithToken" in log
    assert "s3cret" not in log
    assert token not in log
    assert "argon2" not in log
