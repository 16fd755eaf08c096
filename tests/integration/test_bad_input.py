"""Peers that break the protocol: each gets a status or is closed with one log line, and nobody else notices."""

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from apache_iggy import IggyClient
from pybroker.protocol.batch import FRAME_HEADER_SIZE, checksum_of
from pybroker.protocol.batch import HEADER_SIZE as BATCH_HEADER_SIZE
from pybroker.protocol.errors import Status
from pybroker.protocol.model import messages, streams, system
from pybroker.protocol.primitives import Consumer, ConsumerKind, Partitioning, PartitioningKind, PollingKind
from pybroker.protocol.primitives import PollingStrategy as WireStrategy
from pybroker.protocol.vsr.overrides import CODECS
from support.batches import make_batch, make_frame
from support.raw import REPLY, Answer, RawClient, request_frame
from support.server import Server
from support.wheel import bounded, connect, make_topic, poll, send, texts_of, until

LOGIN_TIMEOUT_S = 1
SETTINGS = {
    "IGGY_PYBROKER_LOGIN_TIMEOUT": f"{LOGIN_TIMEOUT_S} s",
}
CREATE_STREAM, SEND_MESSAGES = 128, 160
PARTITION_0 = Partitioning(PartitioningKind.PARTITION, 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "data", settings=SETTINGS) as running:
        yield running


class Witness:
    """A client that goes on sending and reading all the while."""

    def __init__(self, client: IggyClient, stream: str) -> None:
        self.client = client
        self.stream = stream
        self.beats = 0
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            base = await send(self.client, self.stream, "topic", [str(self.beats)])
            assert base == self.beats
            (last,) = await poll(self.client, self.stream, "topic", None, count=1)
            assert last.offset() == 0
            self.beats += 1


@pytest.fixture
async def witness(server: Server, stream: str) -> AsyncIterator[Witness]:
    """The witness at work; afterwards it must have gone on, and everything that it sent must be there."""
    client = await connect(server.address, redial=False)
    await make_topic(client, stream)
    watcher = Witness(client, stream)
    work = asyncio.ensure_future(watcher.run())
    await _beat(watcher, work)
    yield watcher
    await _beat(watcher, work)
    watcher.stopping = True  # not cancelled: before Python 3.12 wait_for may swallow that
    await bounded(work)
    found = texts_of(await poll(client, stream, "topic"))
    assert found[: watcher.beats] == [str(number) for number in range(min(watcher.beats, 1000))]


async def _beat(watcher: Witness, work: "asyncio.Future[None]") -> None:
    """Wait until the witness has done one whole round more."""
    done = watcher.beats + 2

    async def is_done() -> bool:
        assert not work.done(), work.exception()
        return watcher.beats >= done

    await until(is_done)


def closing_lines(server: Server, address: str) -> list[str]:
    """Return the warnings about a connection, which must be all that was logged of it."""
    lines = [line for line in server.log().splitlines() if f"{address}:" in line or line.endswith(address)]
    assert all("WARNING closed" in line for line in lines), lines
    return lines


def address_of(client: RawClient) -> str:
    host, port = client.socket.getsockname()
    return f"{host}:{port}"


def expect_close(server: Server, client: RawClient, frame: bytes) -> None:
    """Send bytes; expect an end of the connection and one log line."""
    address = address_of(client)
    client.socket.sendall(frame)
    with pytest.raises(ConnectionError):
        client.receive()
    assert len(closing_lines(server, address)) == 1


def _noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(4096)


FATAL: dict[str, bytes] = {
    "random bytes": _noise(1),
    "other random bytes": _noise(2),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(300),
    "a classic frame of no command": struct.pack("<II", 4, 999) + bytes(300),
    "tls": bytes.fromhex("16030100f8010000f40303") + bytes(300),
    "a frame of 4 GiB": request_frame(size=2**32 - 1),
    "a frame over the limit": request_frame(size=64 * 2**20 + 1),
    "a size of 255": request_frame(size=255),
    "a size of 0": request_frame(size=0),
    "a reply": request_frame(command=8),
    "no command": request_frame(command=0),
    "an unknown operation": request_frame(operation=99),
    "an operation between servers": request_frame(operation=64),
    "no operation": request_frame(operation=0),
    "no client": request_frame(client=0),
}


@pytest.mark.parametrize("signed_in", [False, True], ids=["stranger", "signed in"])
@pytest.mark.parametrize("case", FATAL)
async def test_what_is_no_request_closes_the_connection(
    server: Server, witness: Witness, case: str, signed_in: bool
) -> None:
    def attack() -> None:
        with RawClient(server.port) as client:
            if signed_in:
                client.login()
            expect_close(server, client, FATAL[case])

    await asyncio.to_thread(attack)


async def test_a_stranger_may_not_send_large_frames(server: Server, witness: Witness) -> None:
    def attack() -> None:
        with RawClient(server.port) as client:
            expect_close(server, client, request_frame(size=64 * 1024 + 1))

    await asyncio.to_thread(attack)


async def test_frames_that_stall_are_given_up(server: Server, witness: Witness) -> None:
    frame = request_frame(bytes(100))
    sizes = [(size, signed_in) for size in (1, 51, 200, 255, 300) for signed_in in (False, True)]
    silent = (0, False)

    def attack(size: int, signed_in: bool) -> None:
        with RawClient(server.port) as client:
            if signed_in:
                client.login()
            expect_close(server, client, frame[:size])

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(sizes) + 1) as threads:
        await asyncio.gather(*(loop.run_in_executor(threads, attack, *case) for case in (*sizes, silent)))


async def test_whoever_is_signed_in_may_stay_silent(server: Server, raw: RawClient) -> None:
    await asyncio.sleep(2 * LOGIN_TIMEOUT_S + 1)
    assert raw.ask(system.Ping()) is None


async def test_a_disconnect_within_a_frame_is_no_fault(server: Server, witness: Witness) -> None:
    def attack() -> None:
        for size in (1, 100, 256, 300):
            with RawClient(server.port) as client:
                client.socket.sendall(request_frame(bytes(100))[:size])

    await asyncio.to_thread(attack)
    assert "Traceback" not in server.log()


def send_body(record: bytes | memoryview, stream: str, count: int = 1) -> bytes:
    """Encode a send of any record, sound or not."""
    whole = bytes(
        CODECS[messages.SendMessages].encode(messages.SendMessages(stream, "topic", PARTITION_0, make_batch()))
    )
    metadata_size = struct.unpack_from("<I", whole)[0]
    return whole[:metadata_size] + struct.pack("<I", count) + bytes(record)


def with_bytes(record: memoryview, position: int, data: bytes) -> bytes:
    return bytes(record[:position]) + data + bytes(record[position + len(data) :])


def with_checksum(record: bytes) -> bytes:
    """Return a record of two messages, the first "first", with the batch checksum that it should have."""
    frames = (BATCH_HEADER_SIZE, BATCH_HEADER_SIZE + FRAME_HEADER_SIZE + len(b"first"))
    checksums = b"".join(record[position : position + 8] for position in frames)
    return with_bytes(memoryview(record), 40, struct.pack("<Q", checksum_of(memoryview(record), checksums)))


def damaged_sends() -> dict[str, tuple[bytes, int, Status]]:
    """Return records, the message counts they are sent with, and the status that each deserves."""
    two = make_batch([b"first", b"second"]).record
    frame = BATCH_HEADER_SIZE
    short = bytes(two[:-1])
    second = frame + FRAME_HEADER_SIZE + len(b"first")
    gap = make_frame(b"second", offset_delta=2)
    late = make_frame(b"first", offset_delta=1) + gap
    return {
        "a wrong message checksum": (with_bytes(two, frame, b"\xff"), 2, Status.INVALID_MESSAGE_CHECKSUM),
        "a changed payload": (
            with_bytes(two, frame + FRAME_HEADER_SIZE, b"F"), 2, Status.INVALID_MESSAGE_CHECKSUM,
        ),
        "a wrong batch checksum": (with_bytes(two, 40, b"\xff"), 2, Status.INVALID_BATCH_CHECKSUM),
        "frames that end too soon": (short, 2, Status.INVALID_COMMAND),
        "frames that end too late": (bytes(two) + b"x", 2, Status.INVALID_COMMAND),
        "a size that is not the record's": (with_bytes(two, 32, b"\xff\xff"), 2, Status.INVALID_COMMAND),
        "a payload that passes the end": (with_bytes(two, frame + 36, b"\xff"), 2, Status.INVALID_COMMAND),
        "a payload size of 4 GiB": (
            with_bytes(two, frame + 36, b"\xff" * 4), 2, Status.TOO_BIG_MESSAGE_PAYLOAD,
        ),
        "user headers of 4 GiB": (with_bytes(two, frame + 32, b"\xff" * 4), 2, Status.TOO_BIG_USER_HEADERS),
        "an offset that is left out": (with_bytes(two, second, gap), 2, Status.INVALID_COMMAND),
        "offsets that begin at 1": (with_checksum(with_bytes(two, frame, late)), 2, Status.INVALID_COMMAND),
        "more messages than there are": (with_bytes(two, 48, b"\x03"), 3, Status.INVALID_COMMAND),
        "fewer messages than there are": (with_bytes(two, 48, b"\x01"), 1, Status.INVALID_COMMAND),
        "another count before the record": (bytes(two), 3, Status.INVALID_COMMAND),
        "a count of 4 billion": (with_bytes(two, 48, b"\xff" * 4), 2**32 - 1, Status.INVALID_COMMAND),
        "no messages": (with_bytes(two, 48, bytes(4)), 0, Status.INVALID_MESSAGES_COUNT),
        "reserved bytes of the batch": (with_bytes(two, 60, b"\x01"), 2, Status.INVALID_COMMAND),
        "reserved bytes of a message": (with_bytes(two, frame + 40, b"\x01"), 2, Status.INVALID_RESERVED_FIELD),
        "no record": (b"", 1, Status.INVALID_COMMAND),
        "half a batch header": (bytes(two[:100]), 2, Status.INVALID_COMMAND),
    }  # fmt: skip


DAMAGED_SENDS = damaged_sends()


@pytest.mark.parametrize("case", DAMAGED_SENDS)
async def test_a_damaged_batch_is_refused_and_not_kept(server: Server, witness: Witness, case: str) -> None:
    record, count, status = DAMAGED_SENDS[case]
    topic = f"{witness.stream} attacked"[-255:]

    def attack() -> Answer:
        with RawClient(server.port) as client:
            client.login()
            client.ask(streams.CreateStream(topic))
            frame = request_frame(
                send_body(record, witness.stream, count),
                operation=SEND_MESSAGES,
                session=client.session,
                client=client.client,
                request=2,
            )
            answer = client.exchange(frame)
            assert client.ask(system.Ping()) is None
            return answer

    before = witness.beats
    answer = await asyncio.to_thread(attack)
    assert (answer.kind, answer.status, answer.body) == (REPLY, status, b"")
    assert witness.beats >= before  # each of its sends got the next offset, so nothing came between


def text(data: bytes) -> bytes:
    return bytes([len(data)]) + data


# An operation, its body, the status.
BAD_BODIES: dict[str, tuple[int, bytes, set[Status]]] = {
    "an empty name": (CREATE_STREAM, b"\0", {Status.INVALID_FORMAT}),
    "a name that is cut off": (CREATE_STREAM, b"\xffshort", {Status.INVALID_COMMAND}),
    "a name of 256 bytes": (CREATE_STREAM, b"\xff" + b"x" * 256, {Status.INVALID_COMMAND, Status.INVALID_FORMAT}),
    "a name that is not UTF-8": (CREATE_STREAM, text(b"\xff\xfe"), {Status.INVALID_UTF8}),
    "no body": (CREATE_STREAM, b"", {Status.INVALID_COMMAND}),
    "a body of junk": (132, _noise(3), {Status.INVALID_COMMAND, Status.INVALID_FORMAT, Status.INVALID_UTF8}),
    "an empty topic name": (132, b"\x01\x04" + bytes(4) + bytes(4) + b"\0", {Status.INVALID_FORMAT}),
    "a topic name that is not UTF-8": (132, b"\x01\x04" + bytes(8) + text(b"\xc3\x28"), {Status.INVALID_UTF8}),
    "an identifier that is not UTF-8": (130, b"\x02" + text(b"\xff"), {Status.INVALID_UTF8}),
    "an empty identifier": (130, b"\x02\x00", {Status.INVALID_FORMAT}),
    "a numeric identifier of 3 bytes": (130, b"\x01\x03\x00\x00\x00", {Status.INVALID_FORMAT}),
    "an identifier of no kind": (130, b"\x09\x04" + bytes(4), {Status.INVALID_COMMAND}),
    "an option's key that is no text": (CREATE_STREAM, text(b"new") + b"\x01" + bytes(20), {Status.INVALID_FORMAT}),
    "an option of 4 GiB": (CREATE_STREAM, text(b"new") + b"\x02\xff\xff\xff\xff", {Status.INVALID_FORMAT}),
    "a send of nothing": (SEND_MESSAGES, b"", {Status.INVALID_COMMAND}),
    "metadata of 4 GiB": (SEND_MESSAGES, b"\xff" * 300, {Status.INVALID_COMMAND}),
    "permissions that are cut off": (145, b"\x01\x04" + bytes(4) + b"\x01\x0b" + bytes(9), {Status.INVALID_COMMAND}),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_a_body_that_cannot_be_read_is_refused(server: Server, witness: Witness, case: str) -> None:
    operation, body, statuses = BAD_BODIES[case]

    def attack() -> Answer:
        with RawClient(server.port) as client:
            client.login()
            frame = request_frame(body, operation=operation, session=client.session, client=client.client)
            answer = client.exchange(frame)
            assert client.ask(system.Ping()) is None
            return answer

    answer = await asyncio.to_thread(attack)
    assert (answer.kind, answer.operation) == (REPLY, operation)
    assert answer.status in statuses


# A code of a request that changes nothing, its body, the status.
BAD_REQUESTS: dict[str, tuple[int, bytes, Status]] = {
    "an unknown code": (54321, b"", Status.INVALID_COMMAND),
    "the code of a replicated command": (202, text(b"new"), Status.FEATURE_UNAVAILABLE),
    "a user that is not named": (31, b"", Status.INVALID_COMMAND),
    "a poll of nothing": (100, b"", Status.INVALID_COMMAND),
    "a poll of junk": (100, b"\xff" * 40, Status.INVALID_COMMAND),
    "a poll with no strategy": (
        100, b"\x01\x01\x04" + bytes(4) + (b"\x01\x04" + bytes(4)) * 2 + bytes(5) + b"\x09" + bytes(13),
        Status.INVALID_COMMAND,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_REQUESTS)
async def test_a_request_that_cannot_be_read_is_refused(server: Server, witness: Witness, case: str) -> None:
    code, body, status = BAD_REQUESTS[case]

    def attack() -> Answer:
        with RawClient(server.port) as client:
            client.login()
            answer = client.exchange(request_frame(body, code=code, session=client.session, client=client.client))
            assert client.ask(system.Ping()) is None
            return answer

    answer = await asyncio.to_thread(attack)
    assert (answer.kind, answer.status) == (REPLY, status)


async def test_a_poll_for_4_billion_messages_returns_what_there_is(server: Server, witness: Witness) -> None:
    everyone = Consumer(ConsumerKind.SINGLE, 0)
    first = WireStrategy(PollingKind.FIRST)

    def attack() -> int:
        with RawClient(server.port) as client:
            client.login()
            command = messages.PollMessages(everyone, witness.stream, "topic", 0, first, 2**32 - 1, False)
            return client.ask(command).messages_count

    assert 1 <= await asyncio.to_thread(attack) <= witness.beats + 1


async def test_a_body_that_is_not_what_its_checksum_says_is_refused(server: Server, witness: Witness) -> None:
    def attack() -> Answer:
        with RawClient(server.port) as client:
            client.login()
            body = text(b"a stream that must not be")
            frame = request_frame(
                body, operation=CREATE_STREAM, session=client.session, client=client.client, checksum=12345
            )
            answer = client.exchange(frame)
            assert client.ask(streams.GetStream("a stream that must not be")) is None
            return answer

    assert (await asyncio.to_thread(attack)).status == Status.INVALID_FORMAT
