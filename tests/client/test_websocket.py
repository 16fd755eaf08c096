"""The client over WebSocket: what it does with a server that answers something else, or ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from pybroker.broker.listeners.peers import Peers
from pybroker.broker.listeners.websocket import WebSocketListener
from pybroker.client import Client, ConnectError, Retry
from support.agents import until
from support.cancelling import ask_something, every_connect, every_moment
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.server import ServerProtocol

from .conftest import drop

FAST = Retry(first_s=0.001, max_s=0.01)

Answer = Callable[[bytes], bytes]


@pytest.fixture
async def url(peers: Peers) -> AsyncIterator[str]:
    listener = WebSocketListener(peers)
    yield f"iggy+ws://iggy:iggy@{await listener.open('127.0.0.1', 0)}"
    listener.close()


@asynccontextmanager
async def answering(answer: Answer) -> AsyncGenerator[str]:
    """Run a server that gives an answer to everything that arrives; yield its URL."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(1 << 20):
            writer.write(answer(data))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"iggy+ws://iggy:iggy@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in writers:
        writer.close()


def always(answer: bytes) -> Answer:
    return lambda _data: answer


def upgrade_then(frame: bytes) -> Answer:
    """Return what accepts the upgrade and answers anything else with `frame`."""
    protocol = ServerProtocol()

    def answer(data: bytes) -> bytes:
        if protocol.state.name != "CONNECTING":
            return frame
        protocol.receive_data(data)
        (request,) = protocol.events_received()
        protocol.send_response(protocol.accept(request))  # pyright: ignore[reportArgumentType]
        return b"".join(protocol.data_to_send())

    return answer


async def test_calls_at_once_get_their_own_answers(client: Client) -> None:
    names = [f"stream-{number}" for number in range(100)]
    await asyncio.gather(*(client.create_stream(name) for name in names))
    found = await asyncio.gather(*(client.get_stream(name) for name in names))
    assert [each and each.stream.name for each in found] == names


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 5_000_000])
async def test_messages_of_any_size_arrive(client: Client, size: int) -> None:
    await client.create_stream("s")
    await client.create_topic("s", "t")
    payload = bytes(number % 251 for number in range(1000)) * (size // 1000) + b"x" * (size % 1000)
    await asyncio.gather(*(client.send("s", "t", [payload]) for _ in range(3)))
    polled = await client.poll("s", "t", start="first")
    assert [message.payload for message in polled.messages] == [payload] * 3


async def test_a_broken_connection_is_dialled_again(url: str, peers: Peers) -> None:
    async with Client(url, timeout_s=10, retry=FAST) as client:
        drop(peers)
        await until(lambda: client._ready is None)
        assert await client.get_streams() == []
        assert client.connection_id == 2
    await until(lambda: len(peers) == 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (always(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "nobody there speaks WebSocket: .*404"),
        (always(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "nobody there speaks WebSocket"),
        (upgrade_then(b"\xff" * 10), "nobody there speaks WebSocket"),
        (upgrade_then(Frame(Opcode.BINARY, b"x" * 1000).serialize(mask=False)), "the server's bytes make no sense"),
        (
            upgrade_then(Frame(Opcode.CLOSE, Close(CloseCode.GOING_AWAY, "").serialize()).serialize(mask=False)),
            "the server closed the connection",
        ),
    ],
)
async def test_a_server_that_speaks_otherwise_is_no_connection(answer: Answer, said: str) -> None:
    async with answering(answer) as url:
        with pytest.raises(ConnectError, match=said):
            await Client(url, timeout_s=10).connect()


async def test_a_handshake_that_is_not_answered_is_given_up_and_closed() -> None:
    async with answering(always(b"")) as url:
        with pytest.raises(ConnectError, match=r"no answer in 0\.05 s"):
            await Client(url, timeout_s=0.05).connect()


async def test_a_call_cancelled_at_any_moment_leaves_its_answer_to_nobody(client: Client) -> None:
    async for steps in every_moment(lambda: asyncio.gather(client.ping(), client.get_me(), client.get_streams())):
        await ask_something(client, steps)
    assert client.connection_id == 1


async def test_connecting_cancelled_at_any_moment_leaves_no_connection(url: str, peers: Peers) -> None:
    await every_connect(url, peers)
