"""The client against a broker in this process, and against a server that does what it is told."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
from pybroker.broker.listeners.peers import Peers
from pybroker.client import (
    BrokerError,
    Client,
    ConnectError,
    ConnectionLost,
    InvalidRequest,
    PybrokerError,
    Retry,
    Timeout,
)
from pybroker.client.client import ATTEMPTS_MAX
from pybroker.protocol.errors import Status
from pybroker.protocol.model.streams import GetStreams
from pybroker.protocol.model.users import LoggedIn, Login, Logout
from pybroker.protocol.vsr.frames import Reason, eviction, reply_header
from support.agents import until
from support.scripted import Scripted, scripted
from support.server import free_port

from .conftest import drop

FAST = Retry(first_s=0.001, max_s=0.01)


async def test_a_client_signs_in_with_a_password_or_a_token(client: Client, address: str) -> None:
    assert (await client.get_me()).client.user_id == 0
    async with Client(f"iggy://bob:bob@{address}") as bob:
        assert (await bob.get_me()).client.user_id == 1
        token = await bob.create_token("laptop")
    async with Client(f"iggy://{token}@{address}") as again:
        assert (await again.get_me()).client.user_id == 1


@pytest.mark.parametrize(("who", "status"), [("iggy:wrong", 42), ("nobody:nothing", 42), ("token", 53)])
async def test_a_sign_in_that_is_refused_says_so_and_shows_no_secret(
    address: str, peers: Peers, who: str, status: int
) -> None:
    client = Client(f"iggy://{who}@{address}")
    with pytest.raises(BrokerError, match=r"the sign-in was refused: invalid_") as caught:
        await client.connect()
    assert caught.value.code == status
    assert "wrong" not in str(caught.value) and "wrong" not in repr(client)
    await until(lambda: len(peers) == 0)


async def test_where_nobody_listens_there_is_no_connection() -> None:
    port = free_port()
    with pytest.raises(ConnectError, match=f"can't connect to 127.0.0.1:{port}"):
        await Client(f"iggy://iggy:iggy@127.0.0.1:{port}").connect()


async def test_a_server_that_does_not_answer_the_sign_in_is_given_up(script: Scripted) -> None:
    script.login = None
    with pytest.raises(ConnectError, match=r"no answer in 0\.05 s"):
        await Client(script.url, timeout_s=0.05).connect()


async def test_a_server_that_closes_during_the_sign_in_is_no_connection(script: Scripted) -> None:
    script.login = None
    connecting = asyncio.create_task(Client(script.url, timeout_s=10).connect())
    (await script.asked())[0].writer.close()
    with pytest.raises(ConnectError, match="the server closed the connection"):
        await connecting


@pytest.mark.parametrize(
    ("login", "error", "said"),
    [
        (Status.FEATURE_UNAVAILABLE, BrokerError, r"the sign-in at .* was refused: feature_unavailable \(5\)"),
        (LoggedIn(0, 0), ConnectError, "the answer to the sign-in makes no sense"),
    ],
)
async def test_a_sign_in_has_a_session(
    script: Scripted, login: Status | LoggedIn, error: type[PybrokerError], said: str
) -> None:
    script.login = login
    with pytest.raises(error, match=said):
        await Client(script.url, timeout_s=10).connect()


async def test_a_call_may_take_for_ever(url: str) -> None:
    async with Client(url, timeout_s=None) as client:
        await client.ping()


async def test_another_protocol_is_no_connection() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n" * 10)

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectError, match="the server's bytes make no sense"):
        await Client(f"iggy://iggy:iggy@127.0.0.1:{port}", timeout_s=10).connect()
    server.close()


async def test_what_the_broker_refuses_is_an_error_with_its_name_and_code(client: Client) -> None:
    await client.create_stream("s")
    with pytest.raises(BrokerError) as caught:
        await client.create_stream("s")
    error = caught.value
    assert (error.code, error.status, error.name) == (
        1012,
        Status.STREAM_NAME_ALREADY_EXISTS,
        "stream_name_already_exists",
    )
    assert str(error) == "create_stream: stream_name_already_exists (1012)"
    assert isinstance(error, PybrokerError)


def test_a_code_that_is_not_known_keeps_its_number() -> None:
    error = BrokerError(60_000, "ping")
    assert (error.code, error.status, str(error)) == (60_000, Status.ERROR, "ping: error (60000)")


@pytest.mark.parametrize("command", [Login("iggy", "secret"), Logout(), LoggedIn(1, 2)])
async def test_signing_in_and_out_are_the_clients_own(client: Client, command: Login | Logout | LoggedIn) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.call(command)
    assert "secret" not in str(caught.value)


async def test_what_no_frame_holds_is_refused_and_the_connection_lives(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="CreateStream has a part too long or out of range"):
        await client.create_stream("n" * 256)
    with pytest.raises(InvalidRequest, match="GetStream has a part too long or out of range"):
        await client.get_stream(-1)
    await client.ping()
    assert client.connection_id == 1


async def test_a_client_that_is_not_connected_says_so(url: str) -> None:
    client = Client(url)
    with pytest.raises(ConnectError, match=r"not connected: call connect\(\)"):
        await client.ping()
    async with client:
        await client.ping()
    with pytest.raises(ConnectError, match="the client is closed"):
        await client.ping()


async def test_a_closed_client_leaves_nothing_and_may_connect_again(client: Client, peers: Peers) -> None:
    await client.close()
    await client.close()
    await until(lambda: len(peers) == 0)
    await client.connect()
    await client.connect()
    await client.ping()
    assert (client.connection_id, len(peers)) == (2, 1)


async def test_calls_at_once_get_their_own_answers(client: Client) -> None:
    names = [f"stream-{number}" for number in range(300)]
    await asyncio.gather(*(client.create_stream(name) for name in names))
    found = await asyncio.gather(*(client.get_stream(name) for name in names))
    assert [each and each.stream.name for each in found] == names


async def test_a_broken_connection_is_dialled_again(url: str, peers: Peers) -> None:
    async with Client(url, retry=FAST) as client:
        for number in range(1, 5):
            assert client.connection_id == number
            drop(peers)
            await until(lambda number=number: client.connection_id > number)
            await client.create_stream(f"after-{number}")


async def test_reads_on_their_way_are_asked_again(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10, retry=FAST) as client:
        reading = asyncio.create_task(client.get_streams())
        for _ in range(ATTEMPTS_MAX - 1):
            dialogue, request = await script.asked()
            assert isinstance(request.command, GetStreams)
            dialogue.writer.close()
        dialogue, request = await script.asked()
        dialogue.answer(request, None)
        assert await reading == []
        assert client.connection_id == ATTEMPTS_MAX


async def test_reads_that_break_every_connection_fail_in_the_end(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10, retry=FAST) as client:
        reading = asyncio.create_task(client.get_streams())
        for _ in range(ATTEMPTS_MAX):
            (await script.asked())[0].writer.close()
        with pytest.raises(ConnectionLost):
            await reading


WRITES: list[Callable[[Client], Awaitable[object]]] = [
    lambda client: client.create_stream("s"),
    lambda client: client.send("s", "t", ["x"]),
    lambda client: client.store_offset("s", "t", 1, partition=0),
    lambda client: client.poll("s", "t", auto_commit=True),
]


@pytest.mark.parametrize("write", WRITES)
async def test_writes_on_their_way_are_lost_and_not_repeated(
    script: Scripted, write: Callable[[Client], Awaitable[object]]
) -> None:
    async with Client(script.url, timeout_s=10, retry=FAST) as client:
        writing = asyncio.ensure_future(write(client))
        (await script.asked())[0].writer.close()
        with pytest.raises(ConnectionLost, match="the server closed the connection"):
            await writing
        script.answers = True
        await client.ping()
        assert script.requests.empty()


async def test_calls_wait_for_the_next_connection(url: str, peers: Peers) -> None:
    async with Client(url, timeout_s=10, retry=FAST) as client:
        drop(peers)
        await until(lambda: client._ready is None)
        await asyncio.gather(*(client.create_stream(f"s{number}") for number in range(10)))
        assert len(await client.get_streams()) == 10


async def test_who_waits_in_vain_is_told_why() -> None:
    async with scripted() as script, Client(script.url, timeout_s=0.2, retry=FAST) as client:
        script.login = None
        script.dialogues[0].writer.close()
        await until(lambda: client._ready is None)
        with pytest.raises(ConnectError, match=r"ping: no connection in 0\.2 s"):
            await client.ping()


async def test_no_more_attempts_than_allowed(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10, retry=Retry(attempts_max=0)) as client:
        script.dialogues[0].writer.close()
        await until(lambda: client._ready is None)
        with pytest.raises(ConnectError, match="the server closed the connection"):
            await client.ping()
        assert len(script.dialogues) == 1


async def test_a_sign_in_that_is_refused_later_reaches_who_waits(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10, retry=FAST) as client:
        script.login = Status.INVALID_CREDENTIALS
        script.dialogues[0].writer.close()
        await until(lambda: client._ready is None)
        with pytest.raises(BrokerError) as caught:
            await client.ping()
        assert caught.value.status is Status.INVALID_CREDENTIALS
        script.login, script.answers = LoggedIn(0, 2), True
        await client.ping()


async def test_an_eviction_is_a_lost_connection(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10, retry=FAST) as client:
        sending = asyncio.create_task(client.send("s", "t", ["x"]))
        dialogue, request = await script.asked()
        dialogue.write([eviction(request.tag, Reason.STALE_CLIENT)])
        with pytest.raises(ConnectionLost, match="ended the session: stale_client"):
            await sending
        script.answers = True
        await client.ping()
        assert client.connection_id == 2


async def test_a_late_answer_reaches_nobody_else(script: Scripted) -> None:
    async with Client(script.url, timeout_s=0.05) as client:
        with pytest.raises(Timeout, match=r"ping: no answer in 0\.05 s"):
            await client.ping()
        late = await script.asked()
        client._timeout_s = 10
        asking = asyncio.create_task(client.create_stream("s"))
        dialogue, request = await script.asked()
        late[0].answer(late[1], None)
        dialogue.answer(request, Status.TOO_MANY_STREAMS)
        with pytest.raises(BrokerError, match="too_many_streams"):
            await asking
        assert client.connection_id == 1


async def test_an_answer_that_can_not_be_read_fails_its_call_only(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10) as client:
        asking = asyncio.create_task(client.get_stats())
        dialogue, request = await script.asked()
        dialogue.write([reply_header(request.tag, 3, session=1, commit=1) + b"\1\2\3"])
        with pytest.raises(PybrokerError, match="the answer to get_stats can't be read"):
            await asking
        script.answers = True
        await client.ping()
        assert client.connection_id == 1


async def test_hooks_run_at_each_sign_in_before_other_calls(url: str, peers: Peers) -> None:
    order: list[str] = []

    async def hook() -> None:
        await asyncio.sleep(0.01)
        await asyncio.gather(client.ping(), client.get_streams())
        order.append(f"hook {client.connection_id}")

    async def other() -> None:
        await client.ping()
        order.append("other")

    client = Client(url, timeout_s=10, retry=FAST)
    client.on_connect.append(hook)
    async with client:
        drop(peers)
        await until(lambda: client._ready is None)
        await other()
    assert order == ["hook 1", "hook 2", "other"]


async def test_a_hook_that_fails_ends_the_connection(url: str, peers: Peers) -> None:
    async def hook() -> None:
        await client.delete_stream("none")

    client = Client(url)
    client.on_connect.append(hook)
    with pytest.raises(BrokerError, match="delete_stream: stream_id_not_found"):
        await client.connect()
    await until(lambda: len(peers) == 0)
    client.on_connect.clear()
    async with client:
        await client.ping()


async def test_a_connection_that_breaks_under_a_hook_is_dialled_again(url: str, peers: Peers) -> None:
    broken: list[int] = []

    async def hook() -> None:
        if len(broken) < 3 and client.connection_id > 1:
            broken.append(client.connection_id)
            drop(peers)
            await client.create_stream("s")

    client = Client(url, timeout_s=10, retry=FAST)
    client.on_connect.append(hook)
    async with client:
        drop(peers)
        await until(lambda: client._ready is None)
        await client.ping()
    assert broken == [2, 3, 4]


async def test_an_idle_client_asks_whether_the_server_is_there(script: Scripted) -> None:
    async with Client(f"{script.url}?heartbeat_interval=10ms", timeout_s=10) as client:
        for _ in range(3):
            dialogue, request = await script.asked()
            assert type(request.command).__name__ == "Ping"
            dialogue.answer(request, None)
        assert client.connection_id == 1


async def test_a_server_that_falls_silent_is_given_up(script: Scripted) -> None:
    async with Client(f"{script.url}?heartbeat_interval=10ms", timeout_s=0.3, retry=FAST) as client:
        await until(lambda: client.connection_id > 2)


async def test_a_client_waits_before_it_signs_in_again_if_it_is_told_to(url: str, peers: Peers) -> None:
    async with Client(f"{url}?reestablish_after=1h", timeout_s=10) as client:
        drop(peers)
        await until(lambda: client._ready is None)
        client._timeout_s = 0.05
        with pytest.raises(ConnectError, match="no connection in"):
            await client.ping()


async def test_close_ends_what_waits(script: Scripted) -> None:
    client = Client(script.url, timeout_s=10)
    await client.connect()
    waiting = asyncio.create_task(client.get_streams())
    await script.asked()
    await client.close()
    with pytest.raises(ConnectionLost, match="the client is closed"):
        await waiting


async def test_close_ends_the_attempts_to_connect(script: Scripted) -> None:
    client = Client(script.url, timeout_s=10, retry=FAST)
    await client.connect()
    script.login = None
    script.dialogues[0].writer.close()
    await until(lambda: len(script.dialogues) > 1)
    waiting = asyncio.create_task(client.get_streams())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ConnectError, match="the client is closed"):
        await waiting
    assert client._redialling is None


def test_the_client_needs_little() -> None:
    program = "import sys, pybroker.client; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.startswith("pybroker.") and name.count(".") == 1}
    assert ours == {"pybroker.client", "pybroker.protocol"}
    heavy = {"starlette", "aioquic", "websockets", "cryptography", "prometheus_client", "psutil", "uvicorn", "argon2"}
    assert not loaded & heavy
    assert not {name for name in loaded if name.startswith("opentelemetry")}
