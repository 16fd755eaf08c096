"""Consumer offsets, and who may read which partition under which name."""

from types import CoroutineType
from typing import Any

import msgspec

from ...protocol.errors import Refused, Status
from ...protocol.model import offsets as model
from ...protocol.primitives import Consumer, ConsumerKind
from ..catalog import Group, Partition, Stream, Topic
from ..groups import GroupKey, Member
from ..offsets import consumer_id
from ..session import Session
from ..state import State
from .views import current_offset

_SINGLE, _GROUP = ConsumerKind.SINGLE, ConsumerKind.GROUP  # see messages


class Reader(msgspec.Struct, gc=False):
    """One consumer at one partition: what its offset is kept under. member: who of the group it is."""

    kind: ConsumerKind
    id: int
    partition: Partition
    member: Member | None = None

    @property
    def may_read(self) -> bool:
        """Whether nobody else got the partition meanwhile."""
        return self.member is None or self.member.owns(self.partition.id)

    @property
    def log_id(self) -> int:
        return self.partition.log_id


def poller(
    state: State, session: Session, stream: Stream, topic: Topic, consumer: Consumer, partition_id: int | None
) -> Reader | None:
    """Return who polls what; None for a group member that has to ask for its partitions anew.

    That is one that names a partition it does not own, or polls for the first time since those it has changed.
    Without a partition a single consumer gets the first, a group's member its own in turn. Raises Refused for what
    does not exist and for a connection that has not joined the group.
    """
    if consumer.kind is _SINGLE:
        return Reader(consumer.kind, consumer_id(consumer.id), topic.partition(partition_id or 0))
    group, member = _membership(state, session, stream, topic, consumer)
    if partition_id is None:
        partition_id = member.next_partition()
    elif member.stale:
        member.stale = False  # told once: a client that never asks is not kept waiting
        return None
    return _owned(topic, group, member, partition_id)


def owner(
    state: State, session: Session, stream: Stream, topic: Topic, consumer: Consumer, partition_id: int | None
) -> Reader:
    """Return who changes its offset: of a group, only the member that owns the partition; without one, its last polled.

    Raises Refused as `poller` does, and for a member that does not own the partition.
    """
    if consumer.kind is _SINGLE:
        return Reader(consumer.kind, consumer_id(consumer.id), topic.partition(partition_id or 0))
    group, member = _membership(state, session, stream, topic, consumer)
    chosen = member.current_partition() if partition_id is None else partition_id
    if reader := _owned(topic, group, member, chosen):
        return reader
    raise Refused(Status.CONSUMER_GROUP_PARTITION_NOT_OWNED, f"partition {partition_id}")


def _membership(
    state: State, session: Session, stream: Stream, topic: Topic, consumer: Consumer
) -> tuple[Group, Member]:
    group = topic.group(consumer.id)
    member = state.groups.member(GroupKey(stream.id, topic.id, group.id), session.member_id)
    if member is None:
        raise Refused(Status.CONSUMER_GROUP_MEMBER_NOT_FOUND, f"group {group.name}")
    return group, member


def _owned(topic: Topic, group: Group, member: Member, partition_id: int | None) -> Reader | None:
    """Return the member's reader of a partition, None for one that it does not own."""
    partition = None if partition_id is None else topic.partition(partition_id)
    if partition is None or not member.owns(partition.id):
        return None
    return Reader(_GROUP, group.id, partition, member)


def deliver(state: State, reader: Reader, member: Member, offset: int) -> None:
    """Take note that messages up to `offset` go to a group's member, which has to commit them."""
    stored = state.offsets.get(reader.log_id, reader.kind, reader.id)
    if stored is None or stored < offset:
        member.polled(reader.partition.id, offset)


def commit(
    state: State, stream: Stream, topic: Topic, reader: Reader, offset: int
) -> "CoroutineType[Any, Any, None] | None":
    """Store a reader's offset. What there is to wait for, where it has to be durable, is returned."""
    state.offsets.store(reader.log_id, reader.kind, reader.id, offset)
    if topic.settings.offsets_persisted:
        return _commit_durably(state, stream, topic, reader, offset)
    _committed(state, stream, topic, reader, offset)
    return None


async def _commit_durably(state: State, stream: Stream, topic: Topic, reader: Reader, offset: int) -> None:
    await state.offsets.sync()
    _committed(state, stream, topic, reader, offset)


def _committed(state: State, stream: Stream, topic: Topic, reader: Reader, offset: int) -> None:
    """Give a partition that another member of the reader's group waits for to that one, if it may have it now."""
    member, partition_id = reader.member, reader.partition.id
    if member is not None and member.committed(partition_id, offset):
        state.groups.hand_over(GroupKey(stream.id, topic.id, reader.id), member, partition_id)


async def get(state: State, _session: Session, command: model.GetConsumerOffset) -> model.ConsumerOffset | None:
    """Look an offset up: anyone may, also a group's without being its member. None when anything is missing."""
    stream = state.catalog.streams.find(command.stream)
    topic = stream.topics.find(command.topic) if stream else None
    partition_id = command.partition_id or 0
    if topic is None or partition_id >= len(topic.partitions):
        return None
    kind = command.consumer.kind
    consumer = _known_id(topic, command.consumer)
    partition = topic.partitions[partition_id]
    stored = None if consumer is None else state.offsets.get(partition.log_id, kind, consumer)
    if stored is None:
        return None
    return model.ConsumerOffset(partition.id, current_offset(state.logs.of(partition).bounds), stored)


def store(state: State, session: Session, command: model.StoreConsumerOffset) -> "CoroutineType[Any, Any, None] | None":
    stream, topic = state.catalog.topic(command.stream, command.topic)
    reader = owner(state, session, stream, topic, command.consumer, command.partition_id)
    if command.offset >= state.logs.of(reader.partition).next:
        raise Refused(Status.INVALID_OFFSET, f"{command.offset} was never given out")
    return commit(state, stream, topic, reader, command.offset)


async def delete(state: State, session: Session, command: model.DeleteConsumerOffset) -> None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    reader = owner(state, session, stream, topic, command.consumer, command.partition_id)
    if not state.offsets.delete(reader.log_id, reader.kind, reader.id):
        raise Refused(Status.CONSUMER_OFFSET_NOT_FOUND, f"partition {reader.partition.id}")
    if topic.settings.offsets_persisted:
        await state.offsets.sync()


def _known_id(topic: Topic, consumer: Consumer) -> int | None:
    if consumer.kind is _SINGLE:
        return consumer_id(consumer.id)
    group = topic.groups.find(consumer.id)
    return group.id if group else None
