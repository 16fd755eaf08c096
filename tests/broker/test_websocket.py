"""The WebSocket listener on asyncio's own loop, in this process, over the memory engine."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import pytest
from pybroker.broker.connection import WRITE_SIZE
from pybroker.broker.listeners.peers import Peers
from pybroker.broker.listeners.upgraded import REQUEST_SIZE_MAX, WebSocketChannel
from pybroker.broker.listeners.websocket import WebSocketListener
from pybroker.protocol.model.messages import PollMessages
from pybroker.protocol.model.system import Ping
from pybroker.protocol.primitives import Transport
from support.broker import FIRST, READER, Broker
from support.listeners import ANSWER_SIZE, ASKED, LIMITS, only
from support.raw import request_frame
from support.websocket import WebSocketClient
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.frames import Close, Frame, Opcode

T = TypeVar("T")

PINGS = 150_000  # as many bytes
TIMEOUT_S = 10.0
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PING_FRAME = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)


@pytest.fixture
def listener(peers: Peers) -> Iterator[WebSocketListener]:
    listener = WebSocketListener(peers)
    yield listener
    listener.close()


@pytest.fixture
async def port(listener: WebSocketListener) -> int:
    address = await listener.open("127.0.0.1", 0)
    return int(address.rpartition(":")[2])


@pytest.fixture
async def client(port: int) -> AsyncIterator[WebSocketClient]:
    client = await aside(lambda: WebSocketClient(port))
    assert (await aside(client.login)).status == 0
    yield client
    await aside(client.close)


async def aside(call: Callable[[], T]) -> T:
    """Do what blocks while the listener goes on."""
    async with asyncio.timeout(TIMEOUT_S):
        return await asyncio.to_thread(call)


def channel_of(peers: Peers) -> WebSocketChannel:
    channel = only(peers)._channel
    assert isinstance(channel, WebSocketChannel)
    return channel


def dial(port: int, data: bytes = b"") -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    peer.sendall(data)
    return peer


def read_to_end(peer: socket.socket) -> bytes:
    data = b""
    with peer:
        while part := peer.recv(65_536):
            data += part
    return data


def next_message(client: WebSocketClient) -> bytes:
    message = client.messages.recv(TIMEOUT_S)
    assert isinstance(message, bytes)
    return message


def closed_with(client: WebSocketClient) -> int:
    """Read to the end; return the code in the server's closing frame."""
    with pytest.raises(ConnectionClosed) as closed:
        client.messages.recv(TIMEOUT_S)
    received = closed.value.rcvd
    assert received is not None
    return received.code


def statuses_of(answers: bytes) -> int:
    """Return the HTTP status."""
    return int(answers.split(b" ", 2)[1])


async def test_session_says_by_which_transport_it_came(client: WebSocketClient, peers: Peers) -> None:
    assert only(peers).session.transport is Transport.WEBSOCKET
    assert await aside(lambda: client.ask(Ping())) is None


async def test_each_answer_is_one_message(client: WebSocketClient) -> None:
    ping = client.frame_of(Ping())
    poll = client.frame_of(PollMessages(READER, "s", "t", 0, FIRST, 1000, auto_commit=False))
    client.messages.send(b"".join([ping, poll, ping, poll]))
    sizes = await aside(lambda: [len(next_message(client)) for _ in range(4)])
    assert sizes[0] == sizes[2] == 256
    assert sizes[1] == sizes[3] > ANSWER_SIZE


@pytest.mark.parametrize("size", [1, 100, 255, 300])
async def test_requests_may_be_spread_over_messages(client: WebSocketClient, size: int) -> None:
    data = b"".join(client.frame_of(Ping()) for _ in range(3))

    def spread() -> None:
        for start in range(0, len(data), size):
            client.messages.send(data[start : start + size])

    await aside(spread)
    answers = await aside(lambda: [client.receive() for _ in range(3)])
    assert not any(answer.status for answer in answers)


async def test_request_in_fragments_is_one_request(client: WebSocketClient) -> None:
    ping = client.frame_of(Ping())
    await aside(lambda: client.messages.send([ping[:10], ping[10:200], ping[200:]]))
    assert (await aside(client.receive)).status == 0


async def test_large_request_arrives_whole(broker: Broker, client: WebSocketClient) -> None:
    signed_in = client.frame_of(Ping())
    body = bytes(LIMITS.frame_size_max - len(signed_in))
    answer = await aside(lambda: client.exchange(signed_in[:48] + request_frame(body)[48:60] + signed_in[60:] + body))
    assert answer.header[60] == 8  # a reply, whatever it says to such a ping
    assert await aside(lambda: client.ask(Ping())) is None


async def test_listener_may_take_one_generation_only(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    listener = WebSocketListener(peers, "classic")
    port = int((await listener.open("127.0.0.1", 0)).rpartition(":")[2])
    client = await aside(lambda: WebSocketClient(port))
    with pytest.raises(ConnectionError):
        await aside(client.login)
    assert "a client of the classic wire, as configured" in caplog.text
    await aside(client.close)
    listener.close()


async def test_pings_are_answered(client: WebSocketClient) -> None:
    def ping() -> bool:
        return client.messages.ping(b"there?").wait(TIMEOUT_S)

    assert await aside(ping)


async def test_text_is_refused(client: WebSocketClient, caplog: pytest.LogCaptureFixture) -> None:
    client.messages.send("text")
    assert await aside(lambda: closed_with(client)) == 1003
    assert "requests are binary messages" in caplog.text


async def test_answers_to_what_came_before_a_refusal_arrive(client: WebSocketClient) -> None:
    client.messages.send(client.frame_of(Ping()))
    client.messages.send("text")
    assert (await aside(client.receive)).status == 0
    assert await aside(lambda: closed_with(client)) == 1003


async def test_oversize_is_refused_before_it_has_arrived(port: int) -> None:
    head = Frame(Opcode.BINARY, bytes(LIMITS.frame_size_max + 1)).serialize(mask=True)[:14]
    answer = await aside(lambda: read_to_end(dial(port, UPGRADE + head)))
    assert statuses_of(answer) == 101
    closing = answer.partition(b"\r\n\r\n")[2]
    assert closing[0] == 0x88
    assert Close.parse(closing[2:]).code == 1009


async def test_oversize_before_login_closes(port: int, caplog: pytest.LogCaptureFixture) -> None:
    request = request_frame(bytes(LIMITS.frame_size_max_before_login))
    data = UPGRADE + Frame(Opcode.BINARY, request).serialize(mask=True)[:400]
    answer = await aside(lambda: read_to_end(dial(port, data)))
    assert statuses_of(answer) == 101
    assert f"a frame of 256 to {LIMITS.frame_size_max_before_login} bytes" in caplog.text


@pytest.mark.parametrize(("sent", "answered"), [(b"\x03\xe8", b"\x03\xe8"), (b"", b""), (b"\x00\x01", b"\x03\xea")])
async def test_close_is_answered_after_what_came_before_it(port: int, sent: bytes, answered: bytes) -> None:
    closing = b"".join(
        Frame(opcode, data).serialize(mask=True) for opcode, data in ((Opcode.PING, b"?"), (Opcode.CLOSE, sent))
    )
    answer = await aside(lambda: read_to_end(dial(port, UPGRADE + closing)))
    frames = answer.partition(b"\r\n\r\n")[2]
    assert frames == b"\x8a\x01?" + bytes([0x88, len(answered)]) + answered


async def test_clean_end_is_clean_for_the_library(client: WebSocketClient, peers: Peers) -> None:
    await aside(client.close)
    with pytest.raises(ConnectionClosed) as closed:
        client.messages.recv(0)
    assert not isinstance(closed.value, ConnectionClosedError)
    async with asyncio.timeout(TIMEOUT_S):
        while len(peers):
            await asyncio.sleep(0)


async def test_closed_listener_tells_its_peers(
    client: WebSocketClient, listener: WebSocketListener, peers: Peers
) -> None:
    listener.close()
    await peers.close(1)
    assert await aside(lambda: closed_with(client)) == 1001
    assert not len(peers)


REQUESTS = {
    "another path": (UPGRADE.replace(b"GET /", b"GET /chat"), 404),
    "no upgrade": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
    "another method": (UPGRADE.replace(b"GET", b"POST"), 405),
    "another version": (UPGRADE.replace(b"13", b"12"), 400),
    "no key": (UPGRADE.replace(b"Sec-WebSocket-Key", b"Key"), 400),
    "not HTTP": (request_frame(), 400),
    "a greeting of TLS": (b"\x16\x03\x01\x02\x00", 400),
    "no HTTP request": (b"hello\r\n\r\n", 400),
    "an endless header": (UPGRADE[:-2] + b"X: " + b"x" * REQUEST_SIZE_MAX, 431),
    "a large request": (UPGRADE[:-2] + b"X: x\r\n" * REQUEST_SIZE_MAX + b"\r\n", 431),
    "endless headers": (UPGRADE[:-2] + b"X: x\r\n" * REQUEST_SIZE_MAX, 431),
}


@pytest.mark.parametrize(("request_bytes", "status"), REQUESTS.values(), ids=REQUESTS.keys())
async def test_what_is_no_upgrade_gets_its_http_status_and_a_line_in_the_log(
    port: int, caplog: pytest.LogCaptureFixture, request_bytes: bytes, status: int
) -> None:
    answer = await aside(lambda: read_to_end(dial(port, request_bytes)))
    assert statuses_of(answer) == status
    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lines[0].endswith(f"answered HTTP {status}")


async def test_upgrade_may_arrive_in_pieces_with_a_frame_behind_it(port: int, peers: Peers) -> None:
    data = UPGRADE + Frame(Opcode.PING, b"?").serialize(mask=True)
    with await aside(lambda: dial(port)) as peer:
        for index in range(len(data)):
            peer.sendall(data[index : index + 1])
            await asyncio.sleep(0)
        answer = b""
        while not answer.endswith(b"\x8a\x01?"):
            answer += await aside(lambda: peer.recv(1000))
    assert statuses_of(answer) == 101


async def test_query_is_no_other_path(port: int) -> None:
    data = UPGRADE.replace(b"GET /", b"GET /?a=b") + Frame(Opcode.CLOSE, b"").serialize(mask=True)
    assert statuses_of(await aside(lambda: read_to_end(dial(port, data)))) == 101


@pytest.mark.parametrize("data", [b"", UPGRADE[:40], UPGRADE, UPGRADE + PING_FRAME * 3])
async def test_peer_that_does_not_sign_in_is_dropped(
    port: int, peers: Peers, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    with await aside(lambda: dial(port, data)) as peer:
        async with asyncio.timeout(TIMEOUT_S):
            while not len(peers) or only(peers)._waiter is None:
                await asyncio.sleep(0)
        only(peers).check(LIMITS.login_timeout_s + 1)
        with pytest.raises(ConnectionResetError):
            while await aside(lambda: peer.recv(10_000)):
                pass
            raise ConnectionResetError  # a plain end is as good
    assert "no login" in caplog.text


async def test_half_a_message_counts_as_unread(client: WebSocketClient, peers: Peers) -> None:
    data = Frame(Opcode.BINARY, client.frame_of(Ping())).serialize(mask=True)
    client.socket.sendall(data[:100])
    connection = only(peers)
    async with asyncio.timeout(TIMEOUT_S):
        while not connection.wire.unread:
            await asyncio.sleep(0)
    assert connection.wire.unread == 100 - 8
    client.socket.sendall(data[100:])
    assert (await aside(client.receive)).status == 0


async def test_unsent_answers_of_a_slow_peer_stay_within_the_limit(port: int, peers: Peers) -> None:
    client = await aside(lambda: WebSocketClient(port))
    await aside(client.login)
    poll = client.frame_of(PollMessages(READER, "s", "t", 0, FIRST, 1000, auto_commit=False))
    await aside(lambda: client.messages.send(poll * ASKED))
    channel = channel_of(peers)
    async with asyncio.timeout(TIMEOUT_S):
        while channel._drained is None:
            await asyncio.sleep(0)
    assert channel.unsent < LIMITS.unread_size_max + WRITE_SIZE + 2 * ANSWER_SIZE
    sizes = await aside(lambda: {len(next_message(client)) for _ in range(ASKED)})
    assert len(sizes) == 1
    await aside(client.close)


async def test_pings_of_a_peer_that_does_not_read_fill_no_memory(port: int, peers: Peers) -> None:
    peer = await aside(lambda: dial(port, UPGRADE))
    await aside(lambda: peer.sendall(PING_FRAME * PINGS))
    assert channel_of(peers).unsent < LIMITS.unread_size_max + WRITE_SIZE
    closing = Frame(Opcode.CLOSE, b"").serialize(mask=True)
    await aside(lambda: peer.sendall(closing))
    frames = (await aside(lambda: read_to_end(peer))).partition(b"\r\n\r\n")[2]
    pong = Frame(Opcode.PONG, b"x" * 125).serialize(mask=False)
    count, rest = divmod(len(frames) - 2, len(pong))
    assert 0 < count < PINGS
    assert not rest
    assert frames == pong * count + b"\x88\x00"


async def test_one_connection_too_many_is_closed(port: int, client: WebSocketClient, peers: Peers) -> None:
    peers.room.connections_max = 2
    others = [await aside(lambda: dial(port)) for _ in range(2)]
    with pytest.raises(ConnectionResetError):
        others[1].settimeout(TIMEOUT_S)
        if not await aside(lambda: others[1].recv(1)):
            raise ConnectionResetError
    assert await aside(lambda: client.ask(Ping())) is None
    for other in others:
        other.close()
