"""Sending and polling: the hot path. No wait but the log's own."""

from xxhash import xxh32_intdigest

from ...protocol.batch import Buffer, cut, span_of
from ...protocol.errors import Refused, Status
from ...protocol.model.messages import RESYNC_PARTITION, Polled, PollMessages, SendMessages, Sent
from ...protocol.primitives import Partitioning, PartitioningKind, PollingKind
from ...storage.engine import Bounds, Log, ReadLimit
from ..catalog import Stream, Topic
from ..session import Session
from ..state import State
from .consumers import Reader, poller
from .views import current_offset


async def send(state: State, _session: Session, command: SendMessages) -> Sent:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    partition = topic.partition(_choose(state, stream, topic, command.partitioning))
    batch = command.batch
    batch.partition_id = partition.id
    base_offset = await state.logs.of(partition).append(batch)
    state.counters.written_bytes += len(batch.record)
    return Sent(stream.id, topic.id, partition.id, base_offset)


def _choose(state: State, stream: Stream, topic: Topic, partitioning: Partitioning) -> int:
    """Return the partition of a send: as told, by the key's hash, or the topic's next one."""
    value = partitioning.value
    if partitioning.kind is PartitioningKind.PARTITION and isinstance(value, int):
        return value
    count = len(topic.partitions)
    if count == 0:
        raise Refused(Status.NO_PARTITIONS, f"topic {topic.name}")
    if isinstance(value, bytes):
        return xxh32_intdigest(value) % count
    sends = state.balanced.get((stream.id, topic.id), 0)
    state.balanced[stream.id, topic.id] = sends + 1
    return sends % count


async def poll(state: State, session: Session, command: PollMessages) -> Polled:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    reader = poller(state, session, stream, topic, command.consumer, command.partition_id)
    if reader is None:
        return Polled(RESYNC_PARTITION, 0, 0, [])
    log_id, log = reader.log_id, state.logs.of(reader.partition)
    bounds = log.bounds
    start = max(await _start(state, command, reader, log, bounds), bounds.first)
    chunks: list[memoryview] = []
    if command.count and start < bounds.next:
        chunks = await log.read(start, ReadLimit(command.count, state.config.pybroker.poll_size_max))
    records, offsets = select(chunks, start, command.count)
    if command.auto_commit and offsets and reader.log_id == log_id:  # a purge may have come while it was read
        persisted = topic.settings.offsets_persisted
        await state.offsets.store(reader.log_id, reader.kind, reader.id, offsets[-1], persisted=persisted)
    state.counters.read_bytes += sum(map(len, records))
    return Polled(reader.partition.id, current_offset(log.bounds), len(offsets), records)


async def _start(state: State, command: PollMessages, reader: Reader, log: Log, bounds: Bounds) -> int:
    """Return the offset that a poll asks to start at; it may lie before the first that is left."""
    match command.strategy.kind:
        case PollingKind.NEXT:
            stored = state.offsets.get(reader.log_id, reader.kind, reader.id)
            return bounds.first if stored is None else stored + 1
        case PollingKind.OFFSET:
            return command.strategy.value
        case PollingKind.FIRST:
            return bounds.first
        case PollingKind.LAST:
            return bounds.next - command.count
        case PollingKind.TIMESTAMP:
            return await log.offset_at(command.strategy.value)


def select(chunks: list[memoryview], start: int, count: int) -> tuple[list[Buffer], range]:
    """Cut what a log read down to `count` messages from offset `start`.

    chunks: consecutive whole records, the first covering `start`. Returns the records to send, of which only the
    first and the last can be parts, and the offsets they hold.
    """
    if not chunks:
        return [], range(0)
    records: list[Buffer] = []
    end = start
    for chunk in chunks:
        run_start = position = 0
        while position < len(chunk) and end < start + count:
            base, size, held = span_of(chunk, position)
            skip = max(start - base, 0)
            wanted = min(held - skip, start + count - end)
            after = position + size
            if wanted < held:
                records += [chunk[run_start:position]] if position > run_start else []
                records += cut(chunk[position:after], skip=skip, count=wanted)
                run_start = after
            end = base + skip + wanted
            position = after
        if position > run_start:
            records.append(chunk[run_start:position])
    return records, range(start, end)
