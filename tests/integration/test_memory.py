"""Memory stays bounded: by what one poll of each connection may hold, not by what is sent, stored or asked for.

What is counted is the server's own memory. Sealed segments are mapped, and their pages count as resident and even as
unique to the process, but they are page cache: the system takes them back when it needs room.
"""

import logging
import struct
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
from pybroker.protocol.model.messages import PollMessages, SendMessages
from pybroker.protocol.model.streams import CreateStream
from pybroker.protocol.model.topics import CreateTopic
from pybroker.protocol.primitives import (
    U32_MAX,
    Consumer,
    ConsumerKind,
    Option,
    Partitioning,
    PartitioningKind,
    PollingKind,
    PollingStrategy,
    ValueKind,
)
from support.batches import make_batch
from support.raw import HEADER_SIZE, RawClient
from support.server import Server

MEBIBYTE = 1024 * 1024
# One file that is appended to and read with pread, and many files of which all but the last are mapped.
SEGMENT_SIZES = {"growing": 1024 * MEBIBYTE, "sealed": 64 * MEBIBYTE}
BATCH_MESSAGES = 1000
BATCHES = 500  # of a megabyte, in each topic
# The default of poll_size_max: what one answer may hold.
POLL_SIZE_MAX = 63 * MEBIBYTE
# What else a busy server holds: buffers of the connections, indexes, the allocator's spare.
MARGIN = 32 * MEBIBYTE
# A mapped file is handed to the socket as it is. What is read is one buffer: a poll's.
HELD_MAX = {"growing": POLL_SIZE_MAX + MARGIN, "sealed": MARGIN}
SAMPLE_INTERVAL_S = 0.005
TIMEOUT_S = 30.0
UNREAD_POLLS = 50
ROUNDS = 200
SIP_SIZE = 64 * 1024
PASSES = 2

log = logging.getLogger(__name__)

_SIZE = struct.Struct("<48xI")
_POLLED = struct.Struct("<4xQI")  # behind the partition id: the current offset, the count


class Memory:
    """A process's own memory while the block lasts, in bytes."""

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self.peak = self.now

    @property
    def now(self) -> int:
        memory = self._process.memory_info()
        return memory.rss - memory.shared

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_INTERVAL_S):
            self.peak = max(self.peak, self.now)

    def __enter__(self) -> "Memory":
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._sampler.join()


class Filled(msgspec.Struct, frozen=True):
    """A server with half a gigabyte in each topic. Own memory in bytes: idle before it, and the most meanwhile."""

    server: Server
    idle: int
    peak: int


@pytest.fixture(scope="module")
def filled() -> Iterator[Filled]:
    # Not pytest's folder, which keeps what is in it.
    with tempfile.TemporaryDirectory(prefix="pybroker-memory-") as folder, Server(Path(folder) / "data") as server:
        with RawClient(server.port, TIMEOUT_S) as client:
            client.login()
            client.ask(CreateStream("memory"))
            for topic, size in SEGMENT_SIZES.items():
                option = Option("segment_size", ValueKind.U64, size.to_bytes(8, "little"))
                client.ask(CreateTopic("memory", 1, topic, (option,)))
            with Memory(server.process_id) as memory:
                idle = memory.now
                for topic in SEGMENT_SIZES:
                    _send_ahead(client, topic, BATCHES)
        yield Filled(server, idle, memory.peak)


@contextmanager
def measured(filled: Filled, limit: int) -> Generator[None]:
    """Assert that the server's own memory stays below `limit` bytes above that of the idle one."""
    with Memory(filled.server.process_id) as memory:
        yield
    check(memory.peak - filled.idle, limit)


def check(growth: int, limit: int) -> None:
    log.info("own memory grew by %.1f MB", growth / 1e6)  # see it with --log-cli-level info
    assert growth < limit


def signed_in(filled: Filled) -> RawClient:
    client = RawClient(filled.server.port, TIMEOUT_S)
    client.login()
    return client


def _send_ahead(client: RawClient, topic: str, batches: int) -> None:
    """Send as fast as the server takes it: one request is on its way while another one's answer is awaited."""
    frame = _send_frame(client, topic, BATCH_MESSAGES)
    client.socket.sendall(frame)
    for number in range(batches):
        if number < batches - 1:
            client.socket.sendall(frame)
        assert client.receive().status == 0


def _send_frame(client: RawClient, topic: str, count: int) -> bytes:
    batch = make_batch([b"x" * 1000] * count)
    return client.frame_of(SendMessages("memory", topic, Partitioning(PartitioningKind.PARTITION, 0), batch))


def _poll_frame(client: RawClient, topic: str, offset: int, count: int = U32_MAX) -> bytes:
    strategy = PollingStrategy(PollingKind.OFFSET, offset)
    return client.frame_of(PollMessages(Consumer(ConsumerKind.SINGLE, 1), "memory", topic, 0, strategy, count, False))


def _poll_everything(client: RawClient, topic: str) -> int:
    """Poll from the first message to the last, as much as one poll gives; return how many polls gave something."""
    offset = polls = 0
    scratch = bytearray(MEBIBYTE)
    while True:
        client.socket.sendall(_poll_frame(client, topic, offset))
        head = client._exactly(HEADER_SIZE + _POLLED.size)
        rest = _SIZE.unpack_from(head)[0] - len(head)
        while rest:
            rest -= client.socket.recv_into(scratch, min(rest, len(scratch)))
        count = _POLLED.unpack_from(head, HEADER_SIZE)[1]
        if not count:
            return polls
        offset += count
        polls += 1


def test_a_fast_producer_is_not_buffered(filled: Filled) -> None:
    check(filled.peak - filled.idle, MARGIN)


@pytest.mark.parametrize("topic", SEGMENT_SIZES)
@pytest.mark.parametrize("sip_size", [0, SIP_SIZE], ids=["never", "slowly"])
def test_a_consumer_that_reads_too_little_holds_one_poll(filled: Filled, topic: str, sip_size: int) -> None:
    with signed_in(filled) as slow, signed_in(filled) as other, measured(filled, HELD_MAX[topic]):
        slow.socket.sendall(_poll_frame(slow, topic, 0) * UNREAD_POLLS)
        slow._exactly(HEADER_SIZE)  # the first answer is on its way
        for _ in range(ROUNDS):
            assert other.exchange(_send_frame(other, topic, 10)).status == 0
            assert other.exchange(_poll_frame(other, topic, BATCH_MESSAGES, count=100)).body
            slow._exactly(sip_size)


@pytest.mark.parametrize("topic", SEGMENT_SIZES)
@pytest.mark.parametrize("consumers", [1, 4])
def test_consumers_of_the_whole_log_hold_a_poll_each(filled: Filled, topic: str, consumers: int) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(signed_in(filled)) for _ in range(consumers)]
        pool = stack.enter_context(ThreadPoolExecutor(consumers))
        # One more is being read while all the others are on their way.
        with measured(filled, (consumers + 1) * POLL_SIZE_MAX + MARGIN):
            for _ in range(PASSES):
                for polls in pool.map(_poll_everything, clients, [topic] * consumers):
                    assert polls >= BATCHES * BATCH_MESSAGES * 1000 // POLL_SIZE_MAX


def test_a_consumer_that_rests_holds_nothing(filled: Filled) -> None:
    with ExitStack() as stack, Memory(filled.server.process_id) as memory:
        before = memory.now  # the allocator may keep up to 64 MiB of what earlier tests needed
        for client in [stack.enter_context(signed_in(filled)) for _ in range(4)]:
            assert client.exchange(_poll_frame(client, "growing", 0)).body
        deadline = time.monotonic() + TIMEOUT_S  # until the server knows that all is sent
        while memory.now - before >= MARGIN and time.monotonic() < deadline:
            time.sleep(0.01)
        check(memory.now - before, MARGIN)
