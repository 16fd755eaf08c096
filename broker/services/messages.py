"""Sending and polling: the hot path. No wait but the log's own."""

from contextlib import suppress

from xxhash import xxh32_intdigest

from ...protocol.batch import Batch, Buffer, cut, message_ids, span_of, without
from ...protocol.errors import Refused, Status
from ...protocol.model.messages import RESYNC_PARTITION, Polled, PollMessages, SendMessages, Sent
from ...protocol.primitives import Partitioning, PartitioningKind, PollingKind, Transport
from ...storage.engine import Bounds, Log, ReadLimit
from ...storage.errors import OffsetGone
from ..arrivals import TopicKey
from ..catalog import Stream, Topic
from ..dedup import Run, Window
from ..session import Session
from ..state import State
from .consumers import Reader, commit, deliver, poller

# What a poll may return however many answers wait to be sent.
POLL_SIZE_MIN = 64 * 1024
# Over QUIC clients take answers of 10 MB. Classic ones get headers that may make theirs 1.6 times what is read.
QUIC_POLL_SIZE_MAX = 6_000_000
# Over HTTP an answer becomes JSON while everybody else waits: 4 ms a megabyte. Still a page of Iggy's Web UI, 20
# messages of what a request may hold.
HTTP_POLL_SIZE_MAX = 32 * 1024 * 1024
# CPython 3.11 takes 0.3 us to look up an enumeration's member: where it counts, they have names of their own.
_PARTITION = PartitioningKind.PARTITION
_OFFSET, _NEXT, _LAST, _TIMESTAMP = PollingKind.OFFSET, PollingKind.NEXT, PollingKind.LAST, PollingKind.TIMESTAMP
_SIZES_MAX = {Transport.QUIC: QUIC_POLL_SIZE_MAX, Transport.HTTP: HTTP_POLL_SIZE_MAX}


async def send(state: State, _session: Session, command: SendMessages) -> Sent:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    if topic.settings.message_deduplication:
        sent = await _send_new(state, command)
    else:
        batch = command.batch
        partition = topic.partition(_choose(state, stream, topic, command.partitioning))
        batch.partition_id = partition.id
        base_offset = await state.logs.of(partition).append(batch)
        _stored(state, (stream.id, topic.id), partition.id, batch)
        sent = Sent(stream.id, topic.id, partition.id, base_offset)
    if topic.settings.persisted and not state.catalog.is_durable:
        await state.catalog.sync()  # else a power failure could take the topic with the message in it
    return sent


def _stored(state: State, topic: TopicKey, partition_id: int, batch: Batch) -> None:
    """Count a batch that can be read now, and tell those who wait for it."""
    state.counters.sent(topic, batch.count, len(batch.record))
    state.arrivals.note(topic, partition_id)


async def _send_new(state: State, command: SendMessages) -> Sent:
    """Send what the topic has not had lately. If it has had everything, answer with the place of the first message."""
    batch = command.batch
    ids = message_ids(batch.record, batch.count)
    stream, topic, window, repeats = await _look_up(state, command, ids)
    # No wait from here to the append: what is new now may not be later.
    first = repeats.get(0)
    if first is not None and len(repeats) == batch.count:
        held_by = next(partition for partition in topic.partitions if partition.log_id == first.log_id)
        return Sent(stream.id, topic.id, held_by.id, first.offset_of(ids[0]))
    partition = topic.partition(_choose(state, stream, topic, command.partitioning))
    if repeats:
        batch = without(batch, repeats)
        ids = [ident for index, ident in enumerate(ids) if index not in repeats]
    batch.partition_id = partition.id
    base_offset = await window.store(partition.log_id, state.logs.of(partition), batch, ids, state.clock())
    _stored(state, (stream.id, topic.id), partition.id, batch)
    return Sent(stream.id, topic.id, partition.id, base_offset)


async def _look_up(
    state: State, command: SendMessages, ids: list[bytes]
) -> tuple[Stream, Topic, Window, dict[int, Run | None]]:
    """Return the target of a send, its window, and which of `ids` it has had, once that is settled."""
    while True:
        # All of it anew after a wait: the topic may be another one, or gone.
        stream, topic = state.catalog.topic(command.stream, command.topic)
        now_us = state.clock()
        window = state.windows.of((stream.id, topic.id), now_us)
        if not window.is_loaded:
            await window.load(topic, state.logs, now_us)
            continue
        repeats = window.repeats(ids, topic, now_us)
        pending = next((run for run in repeats.values() if run is not None and run.base_offset is None), None)
        if pending is None:
            return stream, topic, window, repeats
        await pending.wait()


def _choose(state: State, stream: Stream, topic: Topic, partitioning: Partitioning) -> int:
    """Return the partition of a send: as told, by the key's hash, or the topic's next one."""
    value = partitioning.value
    if partitioning.kind is _PARTITION and isinstance(value, int):
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
    partition = reader.partition
    log_id, log = partition.log_id, state.logs.of(partition)
    bounds = log.bounds
    strategy = command.strategy
    if strategy.kind is _TIMESTAMP:
        start = await log.offset_at(strategy.value)
    else:
        start = _start(state, command, reader, log, bounds)
    if start < bounds.first:
        start = bounds.first
    if not command.count or start >= bounds.next:
        return Polled(partition.id, max(bounds.next, 1) - 1, 0, [])
    fixed_max = _SIZES_MAX.get(session.transport)
    limit = ReadLimit(command.count, _poll_size_max(state, fixed_max))
    try:
        chunks = await log.read(start, limit)
    except OffsetGone:
        start, chunks = await _read_what_is_left(log, start, limit)
    records, offsets = select(chunks, start, command.count)
    if fixed_max:
        records, offsets = _fitting(chunks, records, offsets, fixed_max)
    if offsets and (command.auto_commit or reader.member is not None):
        if not reader.may_read:  # the disk was slow, and the group changed
            return Polled(RESYNC_PARTITION, 0, 0, [])
        is_held = partition.log_id == log_id and state.logs.holds(log_id)  # it may have been emptied or deleted
        if is_held and command.auto_commit:
            await commit(state, stream, topic, reader, offsets[-1])
        elif is_held and reader.member is not None:
            deliver(state, reader, reader.member, offsets[-1])
    size = len(records[0]) if len(records) == 1 else sum(map(len, records))
    state.counters.polled((stream.id, topic.id), len(offsets), size)
    return Polled(partition.id, max(bounds.next, offsets.stop) - 1, len(offsets), records)


def _poll_size_max(state: State, fixed_max: int | None) -> int:
    """Return how much a poll may return: less, the more answers wait for peers that read slowly.

    fixed_max: what its transport carries at most, where that is less than any.
    """
    limits = state.config.pybroker
    size_max = limits.poll_size_max
    if fixed_max and fixed_max < size_max:
        size_max = fixed_max
    room = (limits.unsent_size_max - state.counters.unsent_bytes) // 4
    if room < size_max:
        size_max = room
    return size_max if size_max > POLL_SIZE_MIN else POLL_SIZE_MIN


def _fitting(
    chunks: list[memoryview], records: list[Buffer], offsets: range, size_max: int
) -> tuple[list[Buffer], range]:
    """Return less of what `select` did, down to one message: a record may be larger than an answer."""
    while len(offsets) > 1 and sum(map(len, records)) > size_max:
        records, offsets = select(chunks, offsets.start, len(offsets) // 2)
    return records, offsets


async def _read_what_is_left(log: Log, start: int, limit: ReadLimit) -> tuple[int, list[memoryview]]:
    """Read from the first offset that is left, where retention was faster than who reads; return where that was."""
    while log.bounds.first > start:
        start = log.bounds.first
        with suppress(OffsetGone):
            return start, await log.read(start, limit)
    raise OffsetGone(f"offset {start}")


def _start(state: State, command: PollMessages, reader: Reader, log: Log, bounds: Bounds) -> int:
    """Return the offset that a poll asks to start at, but for one by time; it may lie before the first that is left."""
    kind = command.strategy.kind
    if kind is _OFFSET:
        return command.strategy.value
    if kind is _NEXT:
        stored = state.offsets.get(reader.log_id, reader.kind, reader.id)
        return bounds.first if stored is None else stored + 1
    return log.last(command.count) if kind is _LAST else bounds.first


def select(chunks: list[memoryview], start: int, count: int) -> tuple[list[Buffer], range]:
    """Cut what a log read down to `count` messages from offset `start`.

    chunks: consecutive whole records, the first covering `start`. Returns the records to send, of which only the
    first and the last can be parts, and the offsets they hold.
    """
    if not chunks:
        return [], range(0)
    base, size, held = span_of(chunks[0])
    if len(chunks) == 1 and size == len(chunks[0]) and base >= start and held <= count:
        return [chunks[0]], range(base, base + held)  # most polls: one record, all of it
    start = max(start, base)  # offsets may have been skipped
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
