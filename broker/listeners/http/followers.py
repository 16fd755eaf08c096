"""Readers that go on through a topic, told by a waiter where to look: from positions of their own, or for a group.

They poll as any client does, so rights, counters and groups are those of every client. What is read is named by its
log, which a purge or a deletion never gives out again: an old position can't be mistaken for one of other messages.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from ....protocol.errors import Refused, Status
from ....protocol.model.groups import GroupAssignment, JoinConsumerGroup, SyncConsumerGroup
from ....protocol.model.messages import RESYNC_PARTITION, Polled, PollMessages
from ....protocol.model.offsets import ConsumerOffset, GetConsumerOffset, StoreConsumerOffset
from ....protocol.primitives import U64_MAX, ConsumerKind, PollingKind, PollingStrategy
from ...catalog import Partition
from ...dispatch import Dispatch
from ...groups import GroupKey
from ...session import Session
from ...state import State
from . import encode, shapes
from .errors import Malformed
from .own import Follow

_NEXT = PollingStrategy(PollingKind.NEXT)
_DIGITS_MAX = 20


class Batch(NamedTuple):
    """Messages of a partition, at least one. mark: the ids of their events, {} for the offset after the message's.

    size: of their records, in bytes.
    """

    partition_id: int
    log_id: int
    messages: list[shapes.Message]
    mark: str
    size: int


class Follower(ABC):
    """Reads as a session, from `open` to `close`. waiter: tells when to take more. Everything raises Refused."""

    def __init__(self, state: State, dispatch: Dispatch, session: Session, asked: Follow) -> None:
        """Find the topic; a later one of its name is another."""
        self._state = state
        self._dispatch = dispatch
        self._session = session
        self._asked = asked
        self._stream, self._topic = state.catalog.topic(asked.stream, asked.topic)
        self.waiter = state.arrivals.join((self._stream.id, self._topic.id))

    def close(self) -> None:
        self._state.arrivals.leave(self.waiter)

    @abstractmethod
    async def open(self) -> str:
        """Find where to begin; return the id of an event that came just before that, nothing where there is none."""

    @abstractmethod
    async def _look(self) -> None:
        """See what has become of the topic, and let the waiter know what to read."""

    @abstractmethod
    def _has(self, partition_id: int) -> bool: ...

    @abstractmethod
    def _strategy(self, log_id: int) -> PollingStrategy:
        """Say where to read on."""

    @abstractmethod
    def _mark(self, log_id: int, end: int) -> str:
        """Take note that messages up to `end` were read; return the mark of their batch."""

    async def take(self) -> Batch | None:
        """Read the next batch; None when there is none for now."""
        while True:
            if self.waiter.is_changed:
                self.waiter.is_changed = False
                self._check()
                await self._look()
            partition_id = self.waiter.take()
            if partition_id is None:
                return None
            if self._has(partition_id) and (batch := await self._read(partition_id)):
                return batch

    async def delivered(self, batch: Batch) -> None:
        """Store that a batch has gone out, where that is asked for."""
        self._check()
        partitions = self._topic.partitions
        is_there = batch.partition_id < len(partitions) and partitions[batch.partition_id].log_id == batch.log_id
        if not (is_there and self._asked.auto_commit):
            return
        offset = batch.messages[-1].header.offset
        target = self._asked.consumer, self._stream.id, self._topic.id, batch.partition_id
        try:
            await self._dispatch(self._session, StoreConsumerOffset(*target, offset))
        except Refused as error:
            if error.status is not Status.CONSUMER_GROUP_PARTITION_NOT_OWNED:
                raise
            self.waiter.wake()  # another member has it now, and reads the batch again

    def _check(self) -> None:
        """Raise Refused when the topic is gone; its ids may be those of another by now."""
        is_there = self._state.catalog.streams.items.get(self._stream.id) is self._stream
        if not is_there or self._stream.topics.items.get(self._topic.id) is not self._topic:
            raise Refused(Status.TOPIC_ID_NOT_FOUND, f"topic {self._topic.name} of stream {self._stream.name} is gone")

    async def _read(self, partition_id: int) -> Batch | None:
        self._check()
        # No wait between this and the poll's own look at the partition.
        log_id = self._topic.partition(partition_id).log_id
        polled = await self._poll(partition_id, self._strategy(log_id), self._asked.count)
        if polled.partition_id == RESYNC_PARTITION:
            self.waiter.wake()
            return None
        shown = encode.polled(polled)
        if not shown.messages:
            return None
        end = shown.messages[-1].header.offset + 1
        if end <= polled.current_offset:
            self.waiter.note(partition_id)
        return Batch(partition_id, log_id, shown.messages, self._mark(log_id, end), sum(map(len, polled.records)))

    async def _poll(self, partition_id: int, strategy: PollingStrategy, count: int) -> Polled:
        target = self._asked.consumer, self._stream.id, self._topic.id, partition_id
        polled = await self._dispatch(self._session, PollMessages(*target, strategy, count, auto_commit=False))
        assert isinstance(polled, Polled)
        return polled


class PositionFollower(Follower):
    """Reads one partition or all, each from a position: the offset that comes next, by log id."""

    _positions: dict[int, int]

    async def open(self) -> str:
        self._positions = {}
        first = 0 if self._asked.partition_id is None else self._asked.partition_id
        await self._poll(first, PollingStrategy(PollingKind.FIRST), 0)  # refused now, not later
        given = positions_of(self._asked.last_event_id)
        for partition in self._followed():
            self._positions[partition.log_id] = (
                given.get(partition.log_id, 0) if given else await self._start(partition)
            )
            self.waiter.note(partition.id)
        return self._id()

    async def _look(self) -> None:
        """A poll of one partition tells whether the session still may. Positions in logs that are gone are dropped."""
        followed = self._followed()
        self._positions = {partition.log_id: self._positions.get(partition.log_id, 0) for partition in followed}
        if followed:
            self.waiter.note(followed[0].id)

    def _has(self, partition_id: int) -> bool:
        return self._asked.partition_id in (None, partition_id) and partition_id < len(self._topic.partitions)

    def _strategy(self, log_id: int) -> PollingStrategy:
        return PollingStrategy(PollingKind.OFFSET, self._positions.get(log_id, 0))

    def _mark(self, log_id: int, end: int) -> str:
        self._positions[log_id] = end
        return self._id(log_id)

    def _followed(self) -> list[Partition]:
        """Raises Refused for a partition that is not there."""
        partition_id = self._asked.partition_id
        return self._topic.partitions if partition_id is None else [self._topic.partition(partition_id)]

    def _id(self, left_out: int = -1) -> str:
        """Return all positions, the one in the log `left_out` as {}."""
        return ",".join(
            f"{log_id}:{'{}' if log_id == left_out else self._positions.get(log_id, 0)}"
            for log_id in (partition.log_id for partition in self._followed())
        )

    async def _start(self, partition: Partition) -> int:
        """Return the position that was asked for; it may lie before the first message that is left."""
        log, count = self._state.logs.of(partition), self._asked.count
        match self._asked.start:
            case "offset":
                return self._asked.value
            case "timestamp":
                return await self._at(partition.id, PollingStrategy(PollingKind.TIMESTAMP, self._asked.value))
            case "next":
                return await self._stored(partition.id)
            case "last":
                return log.last(count)
            case "new":
                return log.bounds.next
            case _:
                return 0

    async def _at(self, partition_id: int, strategy: PollingStrategy) -> int:
        """Return the offset of the first message that a poll finds, or the next one if it finds none."""
        end = self._state.logs.of(self._topic.partition(partition_id)).bounds.next
        found = encode.polled(await self._poll(partition_id, strategy, 1))
        return found.messages[0].header.offset if found.messages else end

    async def _stored(self, partition_id: int) -> int:
        """Return the offset after the one that the consumer has stored, 0 if none."""
        command = GetConsumerOffset(self._asked.consumer, self._stream.id, self._topic.id, partition_id)
        found = await self._dispatch(self._session, command)
        return found.stored_offset + 1 if isinstance(found, ConsumerOffset) else 0


class GroupFollower(Follower):
    """Reads what is its own as a member of a group, after the group's offsets; they are stored before it reads on."""

    _owned: frozenset[int] = frozenset()

    async def open(self) -> str:
        group = self._topic.group(self._asked.consumer.id)
        await self._dispatch(self._session, JoinConsumerGroup(self._stream.id, self._topic.id, group.id))
        key = GroupKey(self._stream.id, self._topic.id, group.id)
        member = self._state.groups.member(key, self._session.member_id)
        assert member is not None
        member.told = self.waiter.wake
        await self._look()
        if self._owned:
            await self._poll(min(self._owned), _NEXT, 0)  # refused now, not later
        return ""

    async def _look(self) -> None:
        command = SyncConsumerGroup(self._stream.id, self._topic.id, self._asked.consumer.id)
        assignment = await self._dispatch(self._session, command)
        if not isinstance(assignment, GroupAssignment):
            raise Refused(Status.CONSUMER_GROUP_MEMBER_NOT_FOUND, f"group {self._asked.consumer.id}")
        self._owned = frozenset(assignment.partitions)
        for partition_id in assignment.partitions:
            self.waiter.note(partition_id)

    def _has(self, partition_id: int) -> bool:
        return partition_id in self._owned

    def _strategy(self, log_id: int) -> PollingStrategy:
        return _NEXT

    def _mark(self, log_id: int, end: int) -> str:
        return f"{log_id}:{{}}"


def follower_of(state: State, dispatch: Dispatch, session: Session, asked: Follow) -> Follower:
    kind = GroupFollower if asked.consumer.kind is ConsumerKind.GROUP else PositionFollower
    return kind(state, dispatch, session, asked)


def positions_of(ident: str) -> dict[int, int]:
    """Return the offset that comes next by log id, as an event's id has it: "12:16,13:4". Raises Malformed."""
    try:
        pairs = [entry.split(":") for entry in ident.split(",")] if ident else []
        return {_number(log_id): _number(position) for log_id, position in pairs}
    except ValueError:
        raise Malformed(400, "the id of the last event is none of this API's: leave it out") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and int(text) <= U64_MAX):
        raise ValueError(text)
    return int(text)
