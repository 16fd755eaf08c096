"""Sending and polling: the hot path.

What needs no wait is done in plain functions: coroutines cost a microsecond of ten for a message sent by itself.
"""

from collections.abc import Sequence
from contextlib import suppress
from types import CoroutineType
from typing import Any

from xxhash import xxh32_intdigest

from ...protocol.batch import Batch, Buffer, cut, hop, message_ids, span_of, without
from ...protocol.errors import Refused, Status
from ...protocol.model.messages import RESYNC_PARTITION, Polled, PollMessages, SendMessages, Sent
from ...protocol.primitives import Partitioning, PartitioningKind, PollingKind, Transport
from ...storage.engine import Log, ReadLimit
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


def send(state: State, _session: Session, command: SendMessages) -> "Sent | CoroutineType[Any, Any, Sent]":
    """Store a batch. What takes a wait is left to the coroutine that is returned then."""
    stream, topic = state.catalog.topic(command.stream, command.topic)
    if topic.settings.message_deduplication:
        return _send_new(state, command)
    batch = command.batch
    partition = topic.partition(_choose(state, stream, topic, command.partitioning))
    batch.partition_id = partition.id
    key, log = (stream.id, topic.id), state.logs.of(partition)
    base_offset = None if topic.settings.persisted else log.append_nowait(batch)
    if base_offset is None:
        return _send_waiting(state, key, topic, log, batch)
    _stored(state, key, batch)
    return Sent(stream.id, topic.id, partition.id, base_offset)


async def _send_waiting(state: State, key: TopicKey, topic: Topic, log: Log, batch: Batch) -> Sent:
    base_offset = await log.append(batch)
    _stored(state, key, batch)
    await _make_durable(state, topic)
    return Sent(*key, batch.partition_id, base_offset)


async def _make_durable(state: State, topic: Topic) -> None:
    """Make a topic durable if its messages are: else a power failure could take the topic with the message in it."""
    if topic.settings.persisted and not state.catalog.is_durable:
        await state.catalog.sync()


def _stored(state: State, topic: TopicKey, batch: Batch) -> None:
    """Count a batch that can be read now, and tell those who wait for it."""
    state.counters.sent(topic, batch.count, len(batch.record))
    state.arrivals.note(topic, batch.partition_id)


async def _send_new(state: State, command: SendMessages) -> Sent:
    """Send what the topic has not had lately. If it has had everything, answer with the place of the first message."""
    batch = command.batch
    ids = message_ids(batch.record, batch.count)
    stream, topic, window, repeats = await _look_up(state, command, ids)
    # No wait from here to the append: what is new now may not be later.
    first = repeats.get(0)
    if first is not None and len(repeats) == batch.count:
        held_by = next(partition for partition in topic.partitions if partition.log_id == first.log_id)
        await _make_durable(state, topic)
        return Sent(stream.id, topic.id, held_by.id, first.offset_of(ids[0]))
    partition = topic.partition(_choose(state, stream, topic, command.partitioning))
    if repeats:
        batch = without(batch, repeats)
        ids = [ident for index, ident in enumerate(ids) if index not in repeats]
    batch.partition_id = partition.id
    base_offset = await window.store(partition.log_id, state.logs.of(partition), batch, ids, state.clock())
    _stored(state, (stream.id, topic.id), batch)
    await _make_durable(state, topic)
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


def poll(state: State, session: Session, command: PollMessages) -> "Polled | CoroutineType[Any, Any, Polled]":
    """Read messages. What takes a wait is left to the coroutine that is returned then."""
    stream, topic = state.catalog.topic(command.stream, command.topic)
    reader = poller(state, session, stream, topic, command.consumer, command.partition_id)
    if reader is None:
        return Polled(RESYNC_PARTITION, 0, 0, [])
    log, size_max = state.logs.of(reader.partition), _SIZES_MAX.get(session.transport)
    if command.strategy.kind is _TIMESTAMP:
        return _poll_waiting(state, stream, topic, reader, log, command, size_max)
    start, wanted = _start(state, command, reader, log), command.count
    if start >= log.next or not wanted:
        return _nothing(reader, log)
    found = log.read_nowait(start, ReadLimit(wanted, _poll_size_max(state, size_max)))
    if found is None:
        return _poll_waiting(state, stream, topic, reader, log, command, size_max)
    records, first, end = found
    if first < start or end > first + wanted or size_max is not None:
        records, first, end = _cut(records, start, wanted, size_max)
    polled = _polled(state, stream, topic, reader, log, records, first, end)
    if command.auto_commit or reader.member is not None:
        waiting = _settle(state, stream, topic, reader, command, first, end)
        if waiting is not None:
            return _after(waiting, polled)
    return polled


async def _poll_waiting(
    state: State,
    stream: Stream,
    topic: Topic,
    reader: Reader,
    log: Log,
    command: PollMessages,
    size_max: int | None,
) -> Polled:
    is_by_time = command.strategy.kind is _TIMESTAMP
    start = await log.offset_at(command.strategy.value) if is_by_time else _start(state, command, reader, log)
    start = max(start, log.bounds.first)
    if start >= log.next or not command.count:
        return _nothing(reader, log)
    limit = ReadLimit(command.count, _poll_size_max(state, size_max))
    try:
        chunks = await log.read(start, limit)
    except OffsetGone:
        start, chunks = await _read_what_is_left(log, start, limit)
    records, start, end = _cut(chunks, start, command.count, size_max)
    if start < end and not reader.may_read:  # the disk was slow, and the group changed
        return Polled(RESYNC_PARTITION, 0, 0, [])
    if state.logs.holds(reader.partition, log):  # it may have been emptied or deleted
        waiting = _settle(state, stream, topic, reader, command, start, end)
        if waiting is not None:
            await waiting
    return _polled(state, stream, topic, reader, log, records, start, end)


async def _after(waiting: "CoroutineType[Any, Any, None]", polled: Polled) -> Polled:
    await waiting
    return polled


def _settle(
    state: State, stream: Stream, topic: Topic, reader: Reader, command: PollMessages, start: int, end: int
) -> "CoroutineType[Any, Any, None] | None":
    """Commit what is polled where that is asked for, else take note of what a group's member has to commit."""
    if start < end:
        if command.auto_commit:
            return commit(state, stream, topic, reader, end - 1)
        if reader.member is not None:
            deliver(state, reader, reader.member, end - 1)
    return None


def _nothing(reader: Reader, log: Log) -> Polled:
    return Polled(reader.partition.id, max(log.next, 1) - 1, 0, [])


def _polled(
    state: State,
    stream: Stream,
    topic: Topic,
    reader: Reader,
    log: Log,
    records: Sequence[Buffer],
    start: int,
    end: int,
) -> Polled:
    """Return the answer that holds the offsets from `start` up to but not including `end`, and count it."""
    size = len(records[0]) if len(records) == 1 else sum(map(len, records))
    state.counters.polled((stream.id, topic.id), end - start, size)
    after = log.next
    return Polled(reader.partition.id, (after if after > end else end) - 1, end - start, records)


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


def _cut(chunks: list[memoryview], start: int, count: int, size_max: int | None) -> tuple[list[Buffer], int, int]:
    """Do what `select` does, and go down to one message where there is more than `size_max`: a record may be larger."""
    records, start, end = select(chunks, start, count)
    if size_max:
        while end - start > 1 and sum(map(len, records)) > size_max:
            records, start, end = select(chunks, start, (end - start) // 2)
    return records, start, end


async def _read_what_is_left(log: Log, start: int, limit: ReadLimit) -> tuple[int, list[memoryview]]:
    """Read from the first offset that is left, where retention was faster than who reads; return where that was."""
    while log.bounds.first > start:
        start = log.bounds.first
        with suppress(OffsetGone):
            return start, await log.read(start, limit)
    raise OffsetGone(f"offset {start}")


def _start(state: State, command: PollMessages, reader: Reader, log: Log) -> int:
    """Return the offset that a poll asks to start at, but for one by time; it may lie before the first that is left."""
    kind = command.strategy.kind
    if kind is _OFFSET:
        return command.strategy.value
    if kind is _NEXT:
        stored = state.offsets.get(reader.log_id, reader.kind, reader.id)
        return log.bounds.first if stored is None else stored + 1
    return log.last(command.count) if kind is _LAST else log.bounds.first


def select(chunks: list[memoryview], start: int, count: int) -> tuple[list[Buffer], int, int]:
    """Cut what a log read down to `count` messages from offset `start`.

    chunks: consecutive whole records, the first covering `start`. Returns the records to send, of which only the
    first and the last can be parts, their first offset and the one after their last.
    """
    if not chunks:
        return [], start, start
    first = chunks[0]
    base, size, held = span_of(first)
    if base >= start and held <= count and size == len(first) and len(chunks) == 1:
        return [first], base, base + held  # most polls: one record, all of it
    start = max(start, base)  # offsets may have been skipped
    records: list[Buffer] = []
    end, stop = start, start + count
    for chunk in chunks:
        base, position, held = span_of(chunk)
        if base < end:
            wanted = min(base + held, stop) - end
            records += cut(chunk[:position], skip=end - base, count=wanted)
            end += wanted
        else:
            position = 0
        if end >= stop:
            break
        after, next_offset, last, base = hop(chunk, position, end, stop, len(chunk))
        if whole := chunk[position : after if next_offset <= stop else last]:
            records.append(whole)
        if next_offset > stop:
            records += cut(chunk[last:after], skip=0, count=stop - base)
        end = min(next_offset, stop)
    return records, start, end
