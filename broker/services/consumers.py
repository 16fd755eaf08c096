"""Consumer offsets, and who may read which partition under which name."""

import msgspec

from ...protocol.errors import Refused, Status
from ...protocol.model import offsets as model
from ...protocol.primitives import Consumer, ConsumerKind
from ..catalog import Partition, Stream, Topic
from ..groups import GroupKey
from ..offsets import consumer_id
from ..session import Session
from ..state import State
from .views import current_offset


class Reader(msgspec.Struct):
    """One consumer at one partition: what its offset is kept under."""

    kind: ConsumerKind
    id: int
    partition: Partition

    @property
    def log_id(self) -> int:
        return self.partition.log_id


def reader_of(
    state: State,
    session: Session,
    stream: Stream,
    topic: Topic,
    consumer: Consumer,
    partition_id: int | None,
    *,
    polls: bool = True,
) -> Reader | None:
    """Return who reads what; None for a group member that asked for a partition it does not own (any more).

    Without a partition a single consumer gets the first, a group's member its own in turn. Raises Refused for what
    does not exist and for a connection that has not joined the group.
    """
    if consumer.kind is ConsumerKind.SINGLE:
        return Reader(consumer.kind, consumer_id(consumer.id), topic.partition(partition_id or 0))
    group = topic.group(consumer.id)
    member = state.groups.member(GroupKey(stream.id, topic.id, group.id), session.client_id)
    if member is None:
        raise Refused(Status.CONSUMER_GROUP_MEMBER_NOT_FOUND, f"group {group.name}")
    if partition_id is not None:
        chosen = topic.partition(partition_id).id
    else:
        chosen = member.next_partition() if polls else member.current_partition()
    if chosen not in member.partitions:
        return None
    return Reader(consumer.kind, group.id, topic.partitions[chosen])


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


async def store(state: State, session: Session, command: model.StoreConsumerOffset) -> None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    reader = _owner(state, session, stream, topic, command)
    if command.offset >= state.logs.of(reader.partition).bounds.next:
        raise Refused(Status.INVALID_OFFSET, f"{command.offset} was never given out")
    persisted = topic.settings.offsets_persisted
    await state.offsets.store(reader.log_id, reader.kind, reader.id, command.offset, persisted=persisted)


async def delete(state: State, session: Session, command: model.DeleteConsumerOffset) -> None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    reader = _owner(state, session, stream, topic, command)
    persisted = topic.settings.offsets_persisted
    if not await state.offsets.delete(reader.log_id, reader.kind, reader.id, persisted=persisted):
        raise Refused(Status.CONSUMER_OFFSET_NOT_FOUND, f"partition {reader.partition.id}")


def _owner(
    state: State,
    session: Session,
    stream: Stream,
    topic: Topic,
    command: model.StoreConsumerOffset | model.DeleteConsumerOffset,
) -> Reader:
    """Return the reader that changes its offset: of a group, only the member that owns the partition."""
    reader = reader_of(state, session, stream, topic, command.consumer, command.partition_id, polls=False)
    if reader is None:
        raise Refused(Status.CONSUMER_GROUP_PARTITION_NOT_OWNED, f"partition {command.partition_id}")
    return reader


def _known_id(topic: Topic, consumer: Consumer) -> int | None:
    if consumer.kind is ConsumerKind.SINGLE:
        return consumer_id(consumer.id)
    group = topic.groups.find(consumer.id)
    return group.id if group else None
