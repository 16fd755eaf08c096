"""A whole broker on the memory engine, without sockets: commands in, replies or statuses out."""

from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from typing import Any

import msgspec
from argon2 import PasswordHasher
from msgspec.structs import replace
from pybroker.broker import events
from pybroker.broker.catalog import Catalog
from pybroker.broker.config import Config
from pybroker.broker.dedup import Windows
from pybroker.broker.dispatch import Dispatch
from pybroker.broker.groups import Groups
from pybroker.broker.logs import Logs
from pybroker.broker.offsets import Offsets
from pybroker.broker.passwords import Cost, Passwords
from pybroker.broker.session import Clients, Session
from pybroker.broker.state import State
from pybroker.broker.throttle import Throttle
from pybroker.protocol.batch import HEADER_SIZE, Buffer, read_header
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.model.groups import CreateConsumerGroup, GroupAssignment, JoinConsumerGroup, SyncConsumerGroup
from pybroker.protocol.model.messages import Polled, PollMessages, SendMessages, Sent
from pybroker.protocol.model.streams import CreateStream
from pybroker.protocol.model.topics import CreateTopic
from pybroker.protocol.primitives import (
    U64_MAX,
    Consumer,
    ConsumerKind,
    Identifier,
    Option,
    Partitioning,
    PartitioningKind,
    PollingKind,
    PollingStrategy,
    Transport,
    ValueKind,
)
from pybroker.storage.engine import Engine, Log, ReadLimit
from pybroker.storage.memory import MemoryEngine
from support.batches import make_batch, offsets_of, payloads_of
from support.engines import FakeClock, Stage

BALANCED = Partitioning(PartitioningKind.BALANCED)
READER = Consumer(ConsumerKind.SINGLE, 1)
GROUP = Consumer(ConsumerKind.GROUP, "g")
FIRST = PollingStrategy(PollingKind.FIRST)
NEXT = PollingStrategy(PollingKind.NEXT)
# Every append begins a segment: such a small size can't be asked for, only configured past the checks.
TINY_SEGMENTS = 1
CHEAP = Cost(passes=1, memory_kib=8)


@cache
def hashed(password: str) -> str:
    return PasswordHasher(time_cost=CHEAP.passes, memory_cost=CHEAP.memory_kib, parallelism=1).hash(password)


class Waits(list[float]):
    """How long somebody would have slept, in seconds."""

    async def sleep(self, duration_s: float) -> None:
        self.append(duration_s)


class Broker:
    """Users: iggy (root) and bob. `waits`: what logins waited. `restart` begins anew on what the engine has kept."""

    def __init__(
        self, *, segment_size: int | None = None, config: Config | None = None, stage: Stage | None = None
    ) -> None:
        """stage: an engine, with its clock, in place of one in memory."""
        self.clock = FakeClock() if stage is None else stage.clock
        self.engine: Engine = MemoryEngine(self.clock) if stage is None else stage.engine
        self.config = config or Config()
        if segment_size is not None:
            system = self.config.system
            self.config = replace(
                self.config, system=replace(system, segment=replace(system.segment, size=segment_size))
            )
        self.waits = Waits()
        self.state = self._begin()
        for number, name in enumerate(("iggy", "bob")):
            self.state.catalog.record(events.UserCreated(number, name, hashed(name), self.clock()))
        self.dispatch = Dispatch(self.state)
        self.root = self.connect()

    def _begin(self) -> State:
        offsets = Offsets(self.engine.offsets)
        return State(
            config=self.config,
            clock=self.clock,
            catalog=Catalog(self.engine.journal),
            logs=Logs(self.engine, offsets),
            offsets=offsets,
            windows=Windows(self.config.system.message_deduplication),
            groups=Groups(),
            clients=Clients(),
            throttle=Throttle(self.clock, self.waits.sleep),
            passwords=Passwords(CHEAP),
            started_at_us=self.clock(),
        )

    async def restart(self) -> None:
        """Lose what is in memory only: sessions, memberships, counters."""
        self.state = self._begin()
        self.dispatch = Dispatch(self.state)
        await self.state.logs.reconcile(self.state.catalog)
        self.root = self.connect()

    def connect(self, user: str | None = "iggy") -> Session:
        """Return a new session, signed in unless `user` is None."""
        session = self.state.clients.connect(Transport.TCP, f"127.0.0.1:{10_000 + len(self.state.clients)}")
        if user is not None:
            found = self.state.catalog.users.find(user)
            assert found is not None
            self.state.clients.sign_in(session, found.id)
        return session

    async def ask(self, command: msgspec.Struct, session: Session | None = None) -> Any:
        """Return the reply; as root unless told otherwise."""
        return await self.dispatch(session or self.root, command)

    async def status(self, command: msgspec.Struct, session: Session | None = None) -> Status:
        """Return how a command ends."""
        try:
            await self.ask(command, session)
        except Refused as refused:
            return refused.status
        return Status.OK

    async def create_topic(self, partitions_count: int = 1, *options: Option, name: str = "t") -> None:
        """Create topic "t" of stream "s", and the stream where there is none."""
        if self.state.catalog.streams.find("s") is None:
            await self.ask(CreateStream("s"))
        await self.ask(CreateTopic("s", partitions_count, name, options))

    async def create_group(self, *members: Session, name: str = "g", topic: Identifier = "t") -> None:
        await self.ask(CreateConsumerGroup("s", topic, name))
        for member in members:
            await self.ask(JoinConsumerGroup("s", topic, name), member)

    async def sync_group(self, member: Session, *, name: str = "g", topic: Identifier = "t") -> GroupAssignment | None:
        return await self.ask(SyncConsumerGroup("s", topic, name), member)

    async def send(self, *payloads: bytes, partition_id: int | None = 0, topic: Identifier = "t") -> Sent:
        """Send one batch, balanced where no partition is named."""
        kind = PartitioningKind.PARTITION
        partitioning = BALANCED if partition_id is None else Partitioning(kind, partition_id)
        return await self.ask(SendMessages("s", topic, partitioning, make_batch(payloads or (b"payload",))))

    async def poll(
        self,
        strategy: PollingStrategy = FIRST,
        count: int = 1000,
        *,
        consumer: Consumer = READER,
        partition_id: int | None = 0,
        auto_commit: bool = False,
        session: Session | None = None,
    ) -> Polled:
        command = PollMessages(consumer, "s", "t", partition_id, strategy, count, auto_commit)
        polled = await self.ask(command, session)
        assert isinstance(polled, Polled)
        return polled

    def log_ids(self, topic: Identifier = "t") -> list[int]:
        return [partition.log_id for partition in self.state.catalog.topic("s", topic)[1].partitions]


def read_with(log: Log, read: Callable[[int, ReadLimit], Coroutine[Any, Any, list[memoryview]]]) -> Callable[[], None]:
    """Have a log read by what may wait, and by nothing else, until what is returned is called."""

    def read_nowait(_offset: int, _limit: ReadLimit) -> None:
        return None

    def undo() -> None:
        del vars(log)["read"], vars(log)["read_nowait"]

    vars(log).update(read=read, read_nowait=read_nowait)
    return undo


def polled_offsets(polled: Polled) -> list[int]:
    """Return the offsets of what was polled; every record is verified and the count compared."""
    data = memoryview(b"".join(polled.records))
    offsets: list[int] = []
    position = 0
    while position < len(data):
        header = read_header(data, position)
        assert header.size >= HEADER_SIZE
        offsets += offsets_of(data, header, position)
        position += header.size
    assert len(payloads_of([data])) == len(offsets) == polled.messages_count
    return offsets


def polled_payloads(polled: Polled) -> list[bytes]:
    return payloads_of([memoryview(bytes(join(polled.records)))])


def join(buffers: Sequence[Buffer]) -> bytes:
    return b"".join(buffers)


def text_option(key: str, value: str) -> Option:
    return Option(key, ValueKind.STRING, value.encode())


def number_option(key: str, value: int, kind: ValueKind = ValueKind.U64) -> Option:
    sizes = {ValueKind.BOOL: 1, ValueKind.U8: 1, ValueKind.U16: 2, ValueKind.U32: 4, ValueKind.U64: 8}
    return Option(key, kind, (value & U64_MAX).to_bytes(sizes[kind], "little"))
