"""Peers that ask for too much: without reading, too many at once, before they signed in, twice."""

import asyncio
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pybroker.protocol.errors import Status
from pybroker.protocol.model import messages, streams, system
from pybroker.protocol.primitives import Consumer, ConsumerKind, PollingKind
from pybroker.protocol.primitives import PollingStrategy as WireStrategy
from support.raw import EVICTION, REGISTER, REPLY, VERSION, Answer, RawClient, login_body, request_frame
from support.server import Server
from support.wheel import bounded, connect, make_topic, poll, send
from xxhash import xxh3_64_intdigest

CREATE_STREAM = 128
NO_SESSION, SESSION_TOO_LOW, INVALID_CREDENTIALS, INVALID_TOKEN, INCOMPATIBLE, INVALID_FORMAT = 1, 7, 9, 10, 14, 15
CONNECTIONS_MAX = 20
# A poll returns a mebibyte: unread, these would be 2 GB.
UNREAD_POLLS = 2000
MEMORY_GROWTH_MAX = 64 * 1024 * 1024
SETTINGS = {
    "IGGY_PYBROKER_WRITE_TIMEOUT": "1 s",
    "IGGY_PYBROKER_POLL_SIZE_MAX": "1 MiB",
    "IGGY_PYBROKER_CONNECTIONS_MAX": str(CONNECTIONS_MAX),
}
FIRST = WireStrategy(PollingKind.FIRST)
EVERYONE = Consumer(ConsumerKind.SINGLE, 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "data", settings=SETTINGS) as running:
        yield running


def register(client: RawClient, body: bytes) -> Answer:
    return client.exchange(request_frame(body, operation=REGISTER, client=client.client, request=0))


def short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


SDK = struct.pack("<I", VERSION) + short("sdk") + short("1.0")

LOGINS: dict[str, tuple[bytes, int]] = {
    "a wrong password": (login_body("iggy", "wrong"), INVALID_CREDENTIALS),
    "an unknown user": (login_body("nobody", "iggy"), INVALID_CREDENTIALS),
    "no user name": (login_body("", "iggy"), INVALID_CREDENTIALS),
    "a long password": (login_body("iggy", "x" * 255), INVALID_CREDENTIALS),
    "an unknown token": (SDK + short("token") + bytes(4), INVALID_TOKEN),
    "protocol 0.10": (login_body(version=10 << 10), INCOMPATIBLE),
    "protocol 0.12": (login_body(version=12 << 10), INCOMPATIBLE),
    "protocol 1.11": (login_body(version=1 << 20 | 11 << 10), INCOMPATIBLE),
    "junk": (struct.pack("<I", VERSION) + b"\xff" * 100, INVALID_FORMAT),
    "nothing": (b"", INVALID_FORMAT),
    "half a login": (login_body()[:-6], INVALID_FORMAT),
    "a login and more": (login_body() + b"more", INVALID_FORMAT),
    "a user that is not UTF-8": (SDK + b"\x02\xff\xfe" + short("iggy") + bytes(4), INVALID_FORMAT),
}


@pytest.mark.parametrize("case", LOGINS)
def test_a_login_that_cannot_be_is_evicted_with_its_reason(server: Server, case: str) -> None:
    body, reason = LOGINS[case]
    with RawClient(server.port) as client:
        answer = register(client, body)
        assert (answer.kind, answer.reason, len(answer.header)) == (EVICTION, reason, 256)
        newest, oldest = struct.unpack_from("<II", answer.header, 144)
        assert (newest, oldest) == ((VERSION, VERSION) if reason == INCOMPATIBLE else (0, 0))
        assert int.from_bytes(answer.header[128:144], "little") == client.client
    with RawClient(server.port) as client:
        assert client.login().kind == REPLY


@pytest.mark.parametrize("version", [VERSION, VERSION + 1, VERSION + 0x3FF])
def test_every_patch_of_the_protocol_is_taken(server: Server, version: int) -> None:
    with RawClient(server.port) as client:
        answer = register(client, login_body(version=version))
        assert (answer.kind, answer.status) == (REPLY, 0)


def test_before_the_login_only_a_ping_is_answered(server: Server) -> None:
    with RawClient(server.port) as client:
        assert client.ask(system.Ping()) is None
        reads = (system.GetStats(), system.GetMe(), streams.GetStreams(), streams.GetStream("any"))
        for command in (*reads, messages.PollMessages(EVERYONE, "any", "topic", 0, FIRST, 1, True)):
            assert client.ask(command).status == Status.UNAUTHENTICATED
        for operation in (CREATE_STREAM, 130, 148, 160, 161):
            answer = client.exchange(request_frame(short("new"), operation=operation, client=client.client, session=1))
            assert (answer.kind, answer.reason) == (EVICTION, NO_SESSION)
        assert client.login().kind == REPLY
        assert client.ask(streams.GetStream("new")) is None


def create_stream(client: RawClient, name: str, *, request: int, session: int = 0, checksum: int = 0) -> Answer:
    frame = request_frame(
        short(name),
        operation=CREATE_STREAM,
        request=request,
        session=session or client.session,
        client=client.client,
        checksum=checksum,
    )
    return client.exchange(frame)


def test_a_session_that_is_over_is_evicted(server: Server) -> None:
    with RawClient(server.port) as client:
        client.login()
        old = client.session
        client.login()
        assert client.session > old
        too_low = create_stream(client, "of an old session", request=1, session=old)
        assert (too_low.kind, too_low.reason) == (EVICTION, SESSION_TOO_LOW)
        to_come = create_stream(client, "of no session", request=1, session=client.session + 1000)
        assert (to_come.kind, to_come.reason) == (EVICTION, NO_SESSION)
        client.client += 1
        other = create_stream(client, "of another client", request=1)
        assert (other.kind, other.reason) == (EVICTION, NO_SESSION)
        assert client.ask(streams.GetStream("of an old session")) is None


def test_a_repeated_command_is_answered_with_the_same_bytes(server: Server) -> None:
    with RawClient(server.port) as client:
        client.login()
        done = [create_stream(client, f"repeated {number}", request=number) for number in range(1, 8)]
        assert all(answer.status == 0 for answer in done)
        for number in range(3, 8):
            again = create_stream(client, f"repeated {number}", request=number)
            assert again == done[number - 1]
        forgotten = create_stream(client, "repeated 1", request=1)
        assert (forgotten.status, forgotten.body) == (Status.REQUEST_ALREADY_APPLIED, b"")
        refused = [create_stream(client, "repeated 7", request=8) for _ in range(2)]
        assert refused[0] == refused[1]
        assert refused[0].status == Status.STREAM_NAME_ALREADY_EXISTS


def test_another_command_under_a_used_number_is_refused(server: Server) -> None:
    with RawClient(server.port) as client:
        client.login()
        name = "the first of its number"
        create_stream(client, name, request=1, checksum=xxh3_64_intdigest(short(name)))
        other = "the second of its number"
        answer = create_stream(client, other, request=1, checksum=xxh3_64_intdigest(short(other)))
        assert answer.status == Status.REQUEST_ALREADY_APPLIED
        assert client.ask(streams.GetStream(other)) is None


async def test_requests_that_come_at_once_are_answered_in_order(server: Server, stream: str) -> None:
    client = await connect(server.address)
    await make_topic(client, stream)
    with RawClient(server.port) as raw:
        raw.login()
        names = [f"{stream} {number}" for number in range(200)]
        raw.socket.sendall(b"".join(raw.frame_of(streams.CreateStream(name)) for name in names))
        answers = [raw.receive() for _ in names]
        requests = [struct.unpack_from("<Q", answer.header, 200)[0] for answer in answers]
        assert requests == list(range(1, 201))
        assert not any(answer.status for answer in answers)


@pytest.mark.parametrize("asked", ["polls", "pings"])
async def test_a_client_that_never_reads_is_closed_and_its_answers_do_not_pile_up(
    server: Server, stream: str, asked: str
) -> None:
    client = await connect(server.address, redial=False)
    await make_topic(client, stream)
    for _ in range(4):
        await send(client, stream, "topic", [b"x" * 256 * 1024])
    process = psutil.Process(server.process_id)
    before = process.memory_info().rss
    glutton = RawClient(server.port)
    glutton.login()
    address = "{}:{}".format(*glutton.socket.getsockname())
    everything = messages.PollMessages(EVERYONE, stream, "topic", 0, FIRST, 2**32 - 1, False)
    frame = glutton.frame_of(everything if asked == "polls" else system.Ping())
    flood = asyncio.create_task(asyncio.to_thread(_flood, glutton, frame * UNREAD_POLLS))
    peak = before
    deadline = time.monotonic() + 20
    while not (lines := [line for line in server.log().splitlines() if f"{address}:" in line]):
        assert time.monotonic() < deadline
        peak = max(peak, process.memory_info().rss)
        assert len(await poll(client, stream, "topic", count=1)) == 1
        await asyncio.sleep(0.01)
    assert len(lines) == 1
    assert "WARNING closed" in lines[0]
    assert "reads no answers" in lines[0]
    growth = peak - before
    assert growth < MEMORY_GROWTH_MAX, f"{growth} bytes on {before}"
    await bounded(flood)
    glutton.close()


def _flood(client: RawClient, frames: bytes) -> None:
    """Send until the server takes no more, or hangs up."""
    client.socket.settimeout(5)
    with pytest.raises((TimeoutError, ConnectionError)):
        while True:
            client.socket.sendall(frames)


def test_connections_over_the_limit_are_closed(tmp_path: Path) -> None:
    with Server(tmp_path / "data", settings=SETTINGS) as server:
        held = [RawClient(server.port) for _ in range(CONNECTIONS_MAX)]
        for client in held:
            assert client.login().kind == REPLY
        for _ in range(3):
            with RawClient(server.port) as late, pytest.raises(ConnectionError):
                late.login()
        assert len([line for line in server.log().splitlines() if "WARNING closed" in line]) == 3
        assert held[0].ask(system.Ping()) is None
        held.pop().close()
        deadline = time.monotonic() + 10
        while len(held[0].ask(system.GetClients()).clients) >= CONNECTIONS_MAX:
            assert time.monotonic() < deadline
        with RawClient(server.port) as next_one:
            assert next_one.login().kind == REPLY
        for client in held:
            client.close()


def test_a_thousand_connections_that_come_and_go_leave_nothing_behind(server: Server, raw: RawClient) -> None:
    before = raw.ask(system.GetClients()).clients
    for _ in range(1000):
        RawClient(server.port).close()
    deadline = time.monotonic() + 20
    while len(raw.ask(system.GetClients()).clients) > len(before):
        assert time.monotonic() < deadline
    assert psutil.Process(server.process_id).num_fds() < 200
