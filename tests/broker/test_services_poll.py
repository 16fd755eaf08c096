"""Polling: where each strategy starts, how many it gives, and what auto-commit stores."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.broker.services.messages import POLL_SIZE_MIN, select
from pybroker.protocol.batch import read_header, stamp
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import JoinConsumerGroup
from pybroker.protocol.model.messages import RESYNC_PARTITION, Polled, PollMessages
from pybroker.protocol.model.offsets import GetConsumerOffset, StoreConsumerOffset
from pybroker.protocol.model.partitions import DeleteSegments
from pybroker.protocol.model.topics import PurgeTopic
from pybroker.protocol.primitives import U32_MAX, U64_MAX, Consumer, ConsumerKind, PollingKind, PollingStrategy
from pybroker.storage.engine import ReadLimit
from support.batches import make_batch, payloads_of
from support.broker import (
    FIRST,
    GROUP,
    NEXT,
    READER,
    TINY_SEGMENTS,
    Broker,
    join,
    polled_offsets,
    polled_payloads,
    read_with,
)

LAST = PollingStrategy(PollingKind.LAST)


def from_offset(offset: int) -> PollingStrategy:
    return PollingStrategy(PollingKind.OFFSET, offset)


def from_time(timestamp_us: int) -> PollingStrategy:
    return PollingStrategy(PollingKind.TIMESTAMP, timestamp_us)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    """Ten messages "0" to "9" in records of 3, 1, 4 and 2, stamped at 100, 200, 200 and 300 us."""
    broker = Broker()
    await broker.create_topic(2)
    numbers = iter(b"0123456789")
    for count, now_us in ((3, 100), (1, 200), (4, 200), (2, 300)):
        broker.clock.now_us = now_us
        await broker.send(*[bytes([next(numbers)]) for _ in range(count)])
    yield broker


class Case(NamedTuple):
    strategy: PollingStrategy
    messages: int
    offsets: range


CASES = [
    Case(FIRST, 1000, range(10)),
    Case(FIRST, 1, range(1)),
    Case(FIRST, 3, range(3)),
    Case(FIRST, 4, range(4)),
    Case(FIRST, 6, range(6)),
    Case(FIRST, 0, range(0)),
    Case(FIRST, U32_MAX, range(10)),
    Case(LAST, 1, range(9, 10)),
    Case(LAST, 2, range(8, 10)),
    Case(LAST, 3, range(7, 10)),
    Case(LAST, 10, range(10)),
    Case(LAST, 11, range(10)),
    Case(LAST, U32_MAX, range(10)),
    Case(LAST, 0, range(0)),
    Case(NEXT, 5, range(5)),
    Case(NEXT, 0, range(0)),
    Case(from_offset(0), 10, range(10)),
    Case(from_offset(1), 1, range(1, 2)),
    Case(from_offset(1), 2, range(1, 3)),
    Case(from_offset(2), 4, range(2, 6)),
    Case(from_offset(5), 2, range(5, 7)),
    Case(from_offset(5), U32_MAX, range(5, 10)),
    Case(from_offset(9), 5, range(9, 10)),
    Case(from_offset(10), 5, range(0)),
    Case(from_offset(11), 5, range(0)),
    Case(from_offset(U64_MAX), U32_MAX, range(0)),
    Case(from_offset(3), 0, range(0)),
    Case(from_time(0), 4, range(4)),
    Case(from_time(100), 10, range(10)),
    Case(from_time(101), 10, range(3, 10)),
    Case(from_time(200), 2, range(3, 5)),
    Case(from_time(201), 10, range(8, 10)),
    Case(from_time(300), 1, range(8, 9)),
    Case(from_time(301), 10, range(0)),
    Case(from_time(U64_MAX), 10, range(0)),
    Case(from_time(200), 0, range(0)),
]


@pytest.mark.parametrize("case", CASES)
async def test_poll_gives_what_its_strategy_says(broker: Broker, case: Case) -> None:
    polled = await broker.poll(case.strategy, case.messages)
    assert polled_offsets(polled) == list(case.offsets)
    assert (polled.partition_id, polled.current_offset) == (0, 9)
    assert polled_payloads(polled) == [str(offset).encode() for offset in case.offsets]


@pytest.mark.parametrize("strategy", [FIRST, LAST, NEXT, from_offset(0), from_offset(7), from_time(0), from_time(9)])
async def test_empty_partition_gives_nothing_under_its_own_id(broker: Broker, strategy: PollingStrategy) -> None:
    assert await broker.poll(strategy, 10, partition_id=1, auto_commit=True) == Polled(1, 0, 0, [])
    assert broker.engine.offsets.keys() == []


@given(strategy=st.sampled_from([FIRST, LAST, NEXT]), count=st.integers(0, 12), start=st.integers(0, 12))
async def test_polls_agree_with_a_plain_list(strategy: PollingStrategy, count: int, start: int) -> None:
    broker = Broker()
    await broker.create_topic()
    for size in (2, 1, 3):
        await broker.send(*[b"x"] * size)
    plain = list(range(6))
    expected = plain[:count] if strategy is not LAST else plain[max(6 - count, 0) :]
    assert polled_offsets(await broker.poll(strategy, count)) == expected
    assert polled_offsets(await broker.poll(from_offset(start), count)) == plain[start : start + count]


@pytest.mark.parametrize("start", range(10))
@pytest.mark.parametrize("count", range(1, 11))
async def test_every_slice_keeps_base_fields_and_verifies(broker: Broker, start: int, count: int) -> None:
    polled = await broker.poll(from_offset(start), count)
    for record in records_of(polled):
        header = read_header(record)
        assert header.base_offset in (0, 3, 4, 8)
        assert header.base_timestamp_us in (100, 200, 300)
    assert polled_offsets(polled) == list(range(start, min(start + count, 10)))


def records_of(polled: Polled) -> list[memoryview]:
    data, position = memoryview(join(polled.records)), 0
    records: list[memoryview] = []
    while position < len(data):
        size = read_header(data, position).size
        records.append(data[position : position + size])
        position += size
    return records


@pytest.mark.parametrize("strategy", [FIRST, LAST, NEXT, from_offset(2), from_offset(0), from_time(150)])
async def test_auto_commit_stores_the_last_offset_that_was_given(broker: Broker, strategy: PollingStrategy) -> None:
    polled = await broker.poll(strategy, 2, auto_commit=True)
    stored = await broker.ask(GetConsumerOffset(READER, "s", "t", 0))
    assert (stored.partition_id, stored.current_offset, stored.stored_offset) == (0, 9, polled_offsets(polled)[-1])


async def test_auto_commit_goes_backwards_too(broker: Broker) -> None:
    await broker.poll(LAST, 1, auto_commit=True)
    await broker.poll(FIRST, 2, auto_commit=True)
    assert polled_offsets(await broker.poll(NEXT, 2)) == [2, 3]


@pytest.mark.parametrize(("strategy", "count"), [(from_offset(10), 5), (from_time(999), 5), (FIRST, 0)])
async def test_auto_commit_of_nothing_stores_nothing(broker: Broker, strategy: PollingStrategy, count: int) -> None:
    await broker.poll(strategy, count, auto_commit=True)
    assert await broker.ask(GetConsumerOffset(READER, "s", "t", 0)) is None


async def test_next_walks_through_the_partition_with_auto_commit(broker: Broker) -> None:
    seen = [polled_offsets(await broker.poll(NEXT, 4, auto_commit=True)) for _ in range(4)]
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]


async def test_next_without_commit_gives_the_same_again(broker: Broker) -> None:
    assert polled_offsets(await broker.poll(NEXT, 2)) == polled_offsets(await broker.poll(NEXT, 2)) == [0, 1]


@pytest.mark.parametrize("other", [Consumer(ConsumerKind.SINGLE, 2), Consumer(ConsumerKind.SINGLE, "name")])
async def test_consumers_walk_alone(broker: Broker, other: Consumer) -> None:
    await broker.poll(NEXT, 4, auto_commit=True)
    assert polled_offsets(await broker.poll(NEXT, 1, consumer=other)) == [0]


async def test_poll_without_a_partition_reads_the_first(broker: Broker) -> None:
    polled = await broker.poll(FIRST, 1, partition_id=None)
    assert (polled.partition_id, polled_offsets(polled)) == (0, [0])


async def test_polls_start_at_the_first_message_that_is_left() -> None:
    broker = Broker(segment_size=TINY_SEGMENTS)
    await broker.create_topic()
    for number in range(5):
        broker.clock.now_us = 100 * number
        await broker.send(b"x")
    await broker.ask(StoreConsumerOffset(READER, "s", "t", 0, 2))
    await broker.ask(DeleteSegments("s", "t", 0, 3))
    await broker.ask(StoreConsumerOffset(READER, "s", "t", 0, 0))
    for strategy in (FIRST, from_offset(0), from_offset(2), NEXT, from_time(0), LAST):
        assert polled_offsets(await broker.poll(strategy, 10)) == [3, 4]
    assert polled_offsets(await broker.poll(FIRST, 1)) == [3]


async def test_poll_stays_within_the_reply_size(broker: Broker) -> None:
    limit = broker.config.pybroker.poll_size_max
    asked: list[ReadLimit] = []
    log = broker.state.logs.of(broker.state.catalog.topic("s", "t")[1].partitions[0])
    read = log.read

    async def noting(offset: int, limit: ReadLimit) -> list[memoryview]:
        asked.append(limit)
        return await read(offset, ReadLimit(limit.messages, 403 + 305))  # the first two records

    read_with(log, noting)
    polled = await broker.poll(from_offset(1), 1000)
    assert asked == [ReadLimit(1000, limit)]
    assert polled_offsets(polled) == [1, 2, 3]
    assert broker.state.counters.read_bytes == len(join(polled.records))
    asked.clear()
    # The more answers wait for slow readers, the less a poll returns.
    room = broker.config.pybroker.unsent_size_max
    for unsent in (0, room // 2, room - 4_000_000, room, 9 * room):
        broker.dispatch.sending(unsent)
        await broker.poll(from_offset(1), 1000)
        broker.dispatch.sending(-unsent)
    assert [each.bytes for each in asked] == [limit, room // 8, 1_000_000, POLL_SIZE_MIN, POLL_SIZE_MIN]


REFUSED = [
    ("x", "t", READER, 0, Status.STREAM_ID_NOT_FOUND),
    ("s", "x", READER, 0, Status.TOPIC_ID_NOT_FOUND),
    ("s", "t", READER, 2, Status.PARTITION_NOT_FOUND),
    ("s", "t", Consumer(ConsumerKind.GROUP, "nobody"), 0, Status.CONSUMER_GROUP_ID_NOT_FOUND),
    ("s", "t", GROUP, 0, Status.CONSUMER_GROUP_MEMBER_NOT_FOUND),
]


@pytest.mark.parametrize(("stream", "topic", "consumer", "partition_id", "status"), REFUSED)
async def test_poll_of_what_does_not_exist_is_refused(
    broker: Broker, stream: str, topic: str, consumer: Consumer, partition_id: int, status: Status
) -> None:
    await broker.create_group()
    assert await broker.status(PollMessages(consumer, stream, topic, partition_id, FIRST, 1, False)) is status


async def test_group_members_poll_their_partitions_in_turn(broker: Broker) -> None:
    member = broker.connect()
    await broker.create_group(member)
    polled = [await broker.poll(FIRST, 1, consumer=GROUP, partition_id=None, session=member) for _ in range(3)]
    assert [poll.partition_id for poll in polled] == [0, 1, 0]


async def test_member_that_polls_anothers_partition_is_told_to_resync(broker: Broker) -> None:
    members = [broker.connect(), broker.connect()]
    await broker.create_group(*members)
    for owner, session in enumerate(members):
        await broker.sync_group(session)
        for partition_id in (0, 1):
            polled = await broker.poll(FIRST, 1, consumer=GROUP, partition_id=partition_id, session=session)
            if partition_id == owner:
                assert polled.partition_id == partition_id
            else:
                assert polled == Polled(RESYNC_PARTITION, 0, 0, [])


async def test_first_poll_after_partitions_were_dealt_anew_is_told_to_resync(broker: Broker) -> None:
    first, second = broker.connect(), broker.connect()
    await broker.create_group(first, second)
    partitions: list[int] = []
    for _ in range(2):
        polled = await broker.poll(FIRST, 1, consumer=GROUP, partition_id=0, session=first)
        partitions.append(polled.partition_id)
    assert partitions == [RESYNC_PARTITION, 0], "once: a client that never asks is not kept waiting"
    broker.dispatch.disconnected(second)
    await broker.sync_group(first)
    assert (await broker.poll(FIRST, 1, consumer=GROUP, partition_id=1, session=first)).partition_id == 1


async def test_member_without_partitions_is_told_to_resync(broker: Broker) -> None:
    members = [broker.connect() for _ in range(3)]
    await broker.create_group(*members)
    for partition_id in (None, 0):
        polled = await broker.poll(FIRST, 1, consumer=GROUP, partition_id=partition_id, session=members[2])
        assert polled == Polled(RESYNC_PARTITION, 0, 0, [])


async def test_members_go_on_where_the_group_is(broker: Broker) -> None:
    first, second = broker.connect(), broker.connect()
    await broker.create_group(first)
    await broker.poll(NEXT, 4, consumer=GROUP, auto_commit=True, session=first)
    broker.dispatch.disconnected(first)
    await broker.ask(JoinConsumerGroup("s", "t", "g"), second)
    assert polled_offsets(await broker.poll(NEXT, 2, consumer=GROUP, session=second)) == [4, 5]


async def test_purge_during_a_poll_leaves_no_offset_in_the_new_log(broker: Broker) -> None:
    """The read may wait for the disk; what it commits then belongs to the log that it read."""
    log = broker.state.logs.of(broker.state.catalog.topic("s", "t")[1].partitions[0])
    read = log.read

    async def slow(offset: int, limit: ReadLimit) -> list[memoryview]:
        chunks = await read(offset, limit)
        await broker.ask(PurgeTopic("s", "t"))
        return chunks

    read_with(log, slow)
    await broker.poll(NEXT, 4, auto_commit=True)
    assert broker.engine.offsets.keys() == []
    await broker.send(b"new")
    assert polled_offsets(await broker.poll(NEXT, 10)) == [0]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    joints=st.sets(st.integers(1, 5)),
    data=st.data(),
)
def test_select_cuts_chunks_of_any_size_to_the_asked_messages(
    sizes: list[int], joints: set[int], data: st.DataObject
) -> None:
    """chunks: records back to back, as a log reads them, joined anywhere."""
    records: list[bytes] = []
    total = 0
    for size in sizes:
        batch = make_batch([str(total + number).encode() for number in range(size)])
        stamp(batch, base_offset=total, base_timestamp_us=1)
        records.append(bytes(batch.record))
        total += size
    chunks: list[memoryview] = []
    for number, record in enumerate(records):
        if number in joints and chunks:
            chunks[-1] = memoryview(bytes(chunks[-1]) + record)
        else:
            chunks.append(memoryview(record))
    start = data.draw(st.integers(0, sizes[0] - 1))
    count = data.draw(st.integers(1, total + 2))
    selected, first, end = select(chunks, start, count)
    assert (first, end) == (start, min(start + count, total))
    assert payloads_of([memoryview(join(selected))]) == [str(offset).encode() for offset in range(first, end)]


def test_select_of_nothing_is_nothing() -> None:
    assert select([], 5, 10) == ([], 5, 5)


def test_select_starts_behind_offsets_that_were_skipped() -> None:
    batch = make_batch([b"a", b"b", b"c"])
    stamp(batch, base_offset=1000, base_timestamp_us=1)
    selected, *offsets = select([batch.record], 5, 2)
    assert offsets == [1000, 1002]
    assert payloads_of([memoryview(join(selected))]) == [b"a", b"b"]
