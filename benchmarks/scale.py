"""What grows with the data: everything a user waits for, on a large store beside the same on a small one.

    python -m pybroker.benchmarks.scale [--messages N] [--batch N] [--only PAIR] [--starts N] [--rounds N] [--folder F]

Three pairs of data directories: ten million messages of 100 bytes in one partition beside ten thousand, in segments
of 1 GiB and in segments of 64 MiB, and a thousand partitions of ten messages beside ten partitions. The script sends
all of it to a real broker over TCP (about 1.5 GB a pair of the first two, removed after it) and then measures both
sides in turns, round by round, so that noise meets both. A ratio is the median of the rounds' ratios, large by small.

A store is started in three ways: once killed while it was loaded; after a clean stop, its files put out of the page
cache; and killed after one more batch, its files still there. The first poll of a place after each start is a row of
its own: it reads what an index file holds, or builds it, which takes longest with `--batch 1`. Polls take 100 messages
(10 from the partitions), over and over at one place; by timestamp, they ask for that of the place's record. Memory is
the server's, `own` without the pages of mapped files, which are page cache that the system takes back when it wants.
The load and the servers are kept on a core each. Both sides of a pair run while one is measured; the other rests.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TypeVar

import psutil
from msgspec import Struct
from msgspec.structs import replace

from ..broker.app import CURRENT_CONFIG, DEFAULT_ROOT
from ..protocol.batch import read_header
from ..protocol.model.streams import CreateStream
from ..protocol.model.topics import CreateTopic
from ..protocol.primitives import Option, Partitioning, PartitioningKind, PollingKind, PollingStrategy, ValueKind
from ..protocol.vsr.frames import HEADER_SIZE
from . import servers
from .floor import POLLED_HEAD_SIZE, SENT_SIZE
from .frames import STREAM, TOPIC, poll_command, record_size, send_command
from .load import Load, Peer

MESSAGES = 10_000_000
MESSAGES_FEW = 10_000
PARTITIONS = 1000
PARTITIONS_FEW = 10
PAYLOAD_SIZE = 100
BATCH = 1000
STARTS = 7
ROUNDS = 15
POLL_SECONDS = 0.15
# Short, so that the small store stays small.
APPEND_SECONDS = 0.01
# A ratio of more is named in the table.
FLAT_MAX = 1.25

_CORES = sorted(os.sched_getaffinity(0))

T = TypeVar("T")
Samples = dict[str, tuple[list[float], list[float]]]  # by row, of the small and of the large store


class Shape(Struct, frozen=True):
    """What a store holds. messages: in each partition; batch: in a record; segment_size: 0 is the default.

    polled: how many messages a poll takes, a part or a multiple of a batch.
    """

    name: str
    partitions: int
    messages: int
    batch: int
    polled: int
    segment_size: int = 0


class Place(Struct, frozen=True):
    """Where a poll starts: with a record, or so that it ends with one."""

    name: str
    partition: int
    offset: int


class Store(Struct):
    """A data directory. timestamps: of the records at its places, in microseconds."""

    folder: Path
    shape: Shape
    timestamps: dict[Place, int]

    @property
    def places(self) -> list[Place]:
        shape = self.shape
        if shape.partitions > 1:
            places = {"first": 0, "middle": shape.partitions // 2, "last": shape.partitions - 1}
            return [Place(f"{name} partition", partition, 0) for name, partition in places.items()]
        middle, late = (shape.messages * tenths // 10 // shape.batch * shape.batch for tenths in (5, 9))
        offsets = {"first": 0, "middle": middle, "nine tenths": late, "last": shape.messages - shape.polled}
        return [Place(f"{name} offset", 0, offset) for name, offset in offsets.items()]


class Running:
    """A broker on a store, and a connection to it. start_seconds: from its start until it listened."""

    def __init__(self, store: Store, process: subprocess.Popen[bytes], port: int, start_seconds: float) -> None:
        self.store = store
        self.start_seconds = start_seconds
        self.peer = Peer(port)
        self.peer.login(*DEFAULT_ROOT)
        self._process = process

    @property
    def memory(self) -> dict[str, float]:
        """Return megabytes by kind."""
        memory = psutil.Process(self._process.pid).memory_info()
        return {"resident": memory.rss / 1e6, "own": (memory.rss - memory.shared) / 1e6}

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def create(self) -> None:
        shape = self.store.shape
        size = Option("segment_size", ValueKind.U64, shape.segment_size.to_bytes(8, "little"))
        self.peer.ask(CreateStream(STREAM))
        self.peer.ask(CreateTopic(STREAM, shape.partitions, TOPIC, (size,) if shape.segment_size else ()))

    def send(self, count: int, partition: int = 0) -> Load:
        """Return the load that appends `count` messages to a partition."""
        command = replace(
            send_command(PAYLOAD_SIZE, count), partitioning=Partitioning(PartitioningKind.PARTITION, partition)
        )
        return Load(self.peer.frame_of(command), HEADER_SIZE + SENT_SIZE)

    def poll(self, place: Place, kind: PollingKind = PollingKind.OFFSET) -> Load:
        """Return the load that polls at a place, by its offset or its timestamp."""
        value = place.offset if kind is PollingKind.OFFSET else self.store.timestamps[place]
        shape = self.store.shape
        command = poll_command(shape.polled, consumer_id=1)
        command = replace(command, partition_id=place.partition, strategy=PollingStrategy(kind, value))
        count = min(shape.batch, shape.polled)
        size = shape.polled // count * record_size(PAYLOAD_SIZE, count)
        return Load(self.peer.frame_of(command), HEADER_SIZE + POLLED_HEAD_SIZE + size)

    def once(self, load: Load) -> float:
        """Send a load's request once; return the milliseconds until its reply was here."""
        begun = time.perf_counter()
        body = self.peer.exchange(load.frame)
        elapsed = time.perf_counter() - begun
        assert HEADER_SIZE + len(body) == load.reply_size, f"{len(body)} bytes of reply"
        return elapsed * 1e3

    def often(self, load: Load, seconds: float) -> float:
        """Send a load's request over and over; return the milliseconds each took."""
        done = self.peer.run(load, seconds=seconds)
        return done.seconds / done.requests * 1e3


@contextmanager
def serve(store: Store) -> Generator[Running]:
    """Start a broker on a store; stop it on leaving, unless it was killed."""
    (store.folder / CURRENT_CONFIG).unlink(missing_ok=True)
    begun = time.perf_counter()
    with servers.broker_process(store.folder) as process:
        os.sched_setaffinity(process.pid, _CORES[-1:])
        port = servers.port_of(process, store.folder)
        running = Running(store, process, port, time.perf_counter() - begun)
        try:
            yield running
        finally:
            running.peer.close()


def build(folder: Path, shape: Shape) -> Store:
    """Fill a data directory through a broker, which is killed at the end."""
    folder.mkdir()
    store = Store(folder, shape, {})
    with serve(store) as running:
        running.create()
        for partition in range(shape.partitions):
            load = running.send(shape.batch, partition)
            for _ in range(shape.messages // shape.batch):
                running.peer.exchange(load.frame)
        for place in store.places:
            body = running.peer.exchange(running.poll(place).frame)
            store.timestamps[place] = read_header(memoryview(body)[POLLED_HEAD_SIZE:]).base_timestamp_us
        running.kill()
    return store


def measure(pair: tuple[Shape, Shape], folder: Path, *, starts: int, rounds: int) -> Samples:
    """Build a small and a large store in `folder` and measure both."""
    samples: Samples = {}
    stores = [build(folder / str(number), shape) for number, shape in enumerate(pair)]
    for side, store in enumerate(stores):
        with serve(store) as running:
            _first_touches(running, "killed loading, once", side, samples)
    for number in range(starts):
        for side, store in _in_turns(stores, number):
            _evict(store.folder)
            with serve(store) as running:
                _first_touches(running, "stopped, cold", side, samples)
                running.once(running.send(store.shape.batch))
                running.kill()
            with serve(store) as running:
                _first_touches(running, "killed", side, samples)
    with ExitStack() as stack:
        _repeat([stack.enter_context(serve(store)) for store in stores], rounds, samples)
    return samples


def _first_touches(running: Running, how: str, side: int, samples: Samples) -> None:
    """Sample a start, and the first polls after it. Where one segment or index serves two places, the first pays."""
    _add(samples, f"{how}: start until it listens, ms", side, running.start_seconds * 1e3)
    for kind, megabytes in running.memory.items():
        _add(samples, f"{how}: {kind} memory after the start, MB", side, megabytes)
    places = running.store.places
    for place in (*places[1:], places[0]):
        _add(samples, f"{how}: first poll, {place.name}, ms", side, running.once(running.poll(place)))
    place = places[1]
    milliseconds = running.once(running.poll(place, PollingKind.TIMESTAMP))
    _add(samples, f"{how}: first poll by timestamp, ms", side, milliseconds)


def _repeat(pair: list[Running], rounds: int, samples: Samples) -> None:
    """Sample polls and appends, over and over. Appends come last: they make the small store larger."""
    places = [running.store.places for running in pair]
    for kind, what in ((PollingKind.OFFSET, "offset"), (PollingKind.TIMESTAMP, "timestamp")):
        for number, place in enumerate(places[0]):
            name = f"poll by {what}, {place.name.removesuffix(' offset')}, ms"
            loads = [each.poll(places[side][number], kind) for side, each in enumerate(pair)]
            _interleave(name, pair, loads, POLL_SECONDS, rounds, samples)
    for side, running in enumerate(pair):
        for kind, megabytes in running.memory.items():
            _add(samples, f"{kind} memory after the polls, MB", side, megabytes)
    for count in (1, pair[0].store.shape.batch):
        loads = [each.send(count, places[side][-1].partition) for side, each in enumerate(pair)]
        _interleave(f"append of {count:,}, ms", pair, loads, APPEND_SECONDS, rounds, samples)


def _interleave(
    name: str, pair: list[Running], loads: list[Load], seconds: float, rounds: int, samples: Samples
) -> None:
    for number in range(rounds):
        for side, running in _in_turns(pair, number):
            _add(samples, name, side, running.often(loads[side], seconds))


def _in_turns(pair: list[T], number: int) -> list[tuple[int, T]]:
    """Return the small and the large one with their sides, in every other round the large one first."""
    return list(enumerate(pair))[:: -1 if number % 2 else 1]


def _add(samples: Samples, name: str, side: int, value: float) -> None:
    samples.setdefault(name, ([], []))[side].append(value)


def _evict(folder: Path) -> None:
    """Put files out of the page cache, as far as they are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def table(pair: tuple[Shape, Shape], samples: Samples) -> str:
    """Return a pair's medians as a person reads them."""
    small, large = (f"{shape.partitions * shape.messages:,}" for shape in pair)
    width = max(map(len, samples)) + 1
    lines = [f"{pair[0].name:{width}}{small:>12}{large:>12}{'ratio':>8}"]
    for name, sides in samples.items():
        ratio = median(after / before for before, after in zip(*sides, strict=True))
        cells = "".join(f"{median(side):12,.3f}" for side in sides)
        lines.append(f"{name:{width}}{cells}{ratio:8.2f}{'' if ratio <= FLAT_MAX else '  not flat'}")
    return "\n".join(lines)


def _pairs(messages: int, batch: int, only: str | None) -> Iterator[tuple[Shape, Shape]]:
    one = Shape("one partition, segments of 1 GiB", partitions=1, messages=MESSAGES_FEW, batch=batch, polled=100)
    small = replace(one, name="one partition, segments of 64 MiB", segment_size=64 * 1024 * 1024)
    many = Shape("partitions of 10 messages", partitions=PARTITIONS_FEW, messages=10, batch=10, polled=10)
    if only in (None, "1GiB"):
        yield one, replace(one, messages=messages)
    if only in (None, "64MiB"):
        yield small, replace(small, messages=messages)
    if only in (None, "partitions"):
        yield many, replace(many, partitions=PARTITIONS)


def main() -> None:
    parser = argparse.ArgumentParser("pybroker.benchmarks.scale", description="Measure large stores beside small ones.")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="in the large partition (default: %(default)s)")
    parser.add_argument(
        "--batch",
        type=int,
        choices=(1, 10, 100, 1000),
        default=BATCH,
        help="messages in a record (default: %(default)s)",
    )
    parser.add_argument("--only", choices=("1GiB", "64MiB", "partitions"), help="one pair (default: all three)")
    parser.add_argument("--starts", type=int, default=STARTS, help="of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each poll and append (default: %(default)s)")
    parser.add_argument("--folder", help="where the stores are built, 1.5 GB at a time (default: the system's own)")
    options = parser.parse_args()
    os.sched_setaffinity(0, _CORES[:1])
    messages = options.messages // options.batch * options.batch
    for pair in _pairs(messages, options.batch, options.only):
        with tempfile.TemporaryDirectory(prefix="pybroker-scale-", dir=options.folder) as folder:
            print(table(pair, measure(pair, Path(folder), starts=options.starts, rounds=options.rounds)), end="\n\n")


if __name__ == "__main__":
    main()
