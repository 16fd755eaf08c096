"""Partitions and their segments."""

from ...protocol.errors import Refused, Status
from ...protocol.model import partitions as model
from ...protocol.model.messages import FlushUnsavedBuffer
from .. import events
from ..session import Session
from ..state import State
from .topics import PARTITIONS_COUNT_MAX


async def create(state: State, _session: Session, command: model.CreatePartitions) -> None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    _check_count(command.count)
    state.catalog.record(events.PartitionsCreated(stream.id, topic.id, command.count, state.clock()))
    state.logs.open(topic)
    state.groups.resize(stream.id, topic.id, len(topic.partitions))
    await state.catalog.sync()


async def delete(state: State, _session: Session, command: model.DeletePartitions) -> None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    _check_count(command.count)
    kept = len(topic.partitions) - command.count
    if kept < 0:
        raise Refused(Status.INVALID_PARTITIONS_COUNT, f"{command.count} of {len(topic.partitions)}")
    gone = [partition.log_id for partition in topic.partitions[kept:]]
    state.catalog.record(events.PartitionsDeleted(stream.id, topic.id, command.count))
    state.groups.resize(stream.id, topic.id, kept)
    state.arrivals.wake((stream.id, topic.id))
    await state.catalog.sync()
    await state.logs.drop(gone)


async def delete_segments(state: State, _session: Session, command: model.DeleteSegments) -> None:
    """Delete the oldest sealed segments, but none that a consumer with a stored offset has not read."""
    _, topic = state.catalog.topic(command.stream, command.topic)
    partition = topic.partition(command.partition_id)
    log = state.logs.of(partition)
    cuts = log.cuts()
    before = cuts[min(command.count, len(cuts) - 1)]
    slowest = state.offsets.slowest(partition.log_id)
    try:
        await log.trim(before if slowest is None else min(before, slowest + 1))
    except FileNotFoundError:
        if log.bounds.segments:
            raise  # else the log went meanwhile, and its files with it


async def flush(state: State, _session: Session, command: FlushUnsavedBuffer) -> None:
    """Make a partition's messages durable, also without `fsync`: they are written already, less would be nothing."""
    _, topic = state.catalog.topic(command.stream, command.topic)
    await state.logs.of(topic.partition(command.partition_id)).flush()
    if not state.catalog.is_durable:
        await state.catalog.sync()  # else a power failure could take the topic with the messages in it


def _check_count(count: int) -> None:
    if not 1 <= count <= PARTITIONS_COUNT_MAX:
        raise Refused(Status.TOO_MANY_PARTITIONS, f"{count}, expected 1 to {PARTITIONS_COUNT_MAX}")
