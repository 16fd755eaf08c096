"""What every engine does, whatever it keeps its logs in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pybroker.protocol.batch import read_header, verify
from pybroker.storage.engine import Bounds, Engine, Log, LogPolicy, ReadLimit
from pybroker.storage.errors import OffsetGone, Poisoned
from pybroker.storage.memory import MemoryEngine
from support.batches import make_batch, make_sized_batch, payloads_of, split_records
from support.engines import Stage

POLICY = LogPolicy(segment_size=1000)
ALL = ReadLimit(messages=1_000_000, bytes=1 << 30)


@pytest.fixture(params=["memory", "local"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(str(request.param), tmp_path)
    yield stage
    await stage.engine.close()


@pytest.fixture
def engine(stage: Stage) -> Engine:
    return stage.engine


@pytest.fixture
def log(engine: Engine) -> Log:
    return engine.open_log(1, POLICY)


async def fill(log: Log, count: int, *, size: int = 400) -> None:
    """Append that many batches of one message. Three of 400 bytes make a segment."""
    for _ in range(count):
        await log.append(make_sized_batch(size))


def bases(buffers: list[memoryview]) -> list[int]:
    return [read_header(record).base_offset for record in split_records(buffers)]


async def test_new_log_is_empty(engine: Engine, log: Log):
    assert log.bounds == Bounds(0, 0, 0, 0, 0)
    assert log.cuts() == [0]
    assert await log.read(0, ALL) == []
    assert await log.offset_at(0) == 0
    await log.trim(10)
    await log.flush()
    assert engine.log_ids() == []


async def test_append_returns_ascending_base_offsets(log: Log):
    offsets = [await log.append(make_batch([b"a"] * count)) for count in (1, 3, 2)]
    assert offsets == [0, 1, 4]
    assert log.bounds.next == 6


async def test_append_stamps_the_record_and_keeps_the_rest(stage: Stage, log: Log):
    stage.clock.now_us = 77
    await log.append(make_batch([b"a"]))
    await log.append(make_batch([b"b", b"c"], partition_id=5, origin_timestamp_us=3))
    (record,) = split_records(await log.read(1, ALL))
    header = read_header(record)
    assert (header.partition_id, header.base_offset, header.base_timestamp_us) == (5, 1, 77)
    assert header.origin_timestamp_us == 3
    assert verify(record).count == 2


async def test_record_may_be_reused_after_append(log: Log):
    batch = make_batch([b"a"])
    await log.append(batch)
    batch.record[300:] = bytes(len(batch.record) - 300)
    assert payloads_of(await log.read(0, ALL)) == [b"a"]


async def test_timestamps_never_go_back(stage: Stage, log: Log):
    for now_us in (50, 40, 60):
        stage.clock.now_us = now_us
        await log.append(make_batch())
    records = split_records(await log.read(0, ALL))
    assert [read_header(record).base_timestamp_us for record in records] == [50, 50, 60]


async def test_read_crosses_segments(log: Log):
    await fill(log, 10)
    assert log.bounds.segments == 4
    assert bases(await log.read(0, ALL)) == list(range(10))
    assert bases(await log.read(4, ALL)) == list(range(4, 10))


async def test_read_starts_with_the_record_that_covers_the_offset(log: Log):
    for _ in range(3):
        await log.append(make_batch([b"a", b"b", b"c"]))
    assert bases(await log.read(4, ReadLimit(1, 1 << 20))) == [3]
    assert bases(await log.read(5, ReadLimit(2, 1 << 20))) == [3, 6]


@pytest.mark.parametrize(
    ("offset", "messages", "expected"),
    [(0, 1, [0]), (0, 3, [0]), (0, 4, [0, 3]), (2, 1, [0]), (2, 2, [0, 3]), (3, 6, [3, 6]), (0, 0, [])],
)
async def test_read_stops_with_the_record_that_reaches_the_message_limit(
    log: Log, offset: int, messages: int, expected: list[int]
):
    for _ in range(3):
        await log.append(make_batch([b"a", b"b", b"c"]))
    assert bases(await log.read(offset, ReadLimit(messages, 1 << 20))) == expected


@pytest.mark.parametrize(("size", "count"), [(1, 1), (799, 1), (800, 2), (1199, 2), (1200, 3), (1600, 4), (9999, 7)])
async def test_read_stops_before_the_record_that_passes_the_byte_limit(log: Log, size: int, count: int):
    await fill(log, 7)
    assert bases(await log.read(0, ReadLimit(100, size))) == list(range(count))


@pytest.mark.parametrize("limit", [ReadLimit(1, 1), ReadLimit(4, 1 << 20), ReadLimit(100, 1200), ReadLimit(0, 1), ALL])
async def test_read_that_takes_no_wait_finds_what_any_read_does(log: Log, limit: ReadLimit):
    for _ in range(6):
        await log.append(make_batch([b"a", b"b", b"c"]))
    await log.trim(9)
    first = log.bounds.first
    assert log.next == log.bounds.next == 18
    assert first > 0
    assert limit.messages == 0 or log.read_nowait(first - 1, limit) is None
    for offset in [*range(first, 20), *reversed(range(first, 20))]:
        found = log.read_nowait(offset, limit)
        assert found is not None, "this engine has written all of it"
        records = split_records(found[0])
        assert records == split_records(await log.read(offset, limit))
        if records:
            assert found[1:] == (read_header(records[0]).base_offset, read_header(records[-1]).base_offset + 3)
        else:
            assert found[1:] == (offset, offset)


async def test_append_is_done_without_a_wait_or_not_at_all(log: Log):
    payloads: list[bytes] = []
    for number in range(5):
        payload = bytes([number]) * 400
        offset = log.append_nowait(make_batch([payload]))
        if offset is None:
            assert payloads_of(await log.read(0, ALL)) == payloads
            offset = await log.append(make_batch([payload]))
        payloads.append(payload)
        assert (offset, log.next) == (number, number + 1)
    assert payloads_of(await log.read(0, ALL)) == payloads
    assert log.append_nowait(make_batch()) == 5, "nothing has to be made any more"


async def test_what_has_to_be_durable_is_not_seen_before(engine: Engine):
    log = engine.open_log(1, LogPolicy(segment_size=1 << 20, persisted=True))
    await log.append(make_batch([b"a"]))
    offset = log.append_nowait(make_batch([b"b"]))
    assert offset is None or isinstance(engine, MemoryEngine)


async def test_read_returns_a_record_larger_than_the_byte_limit(log: Log):
    await fill(log, 1, size=100_000)
    await fill(log, 1)
    assert bases(await log.read(0, ReadLimit(10, 10))) == [0]


async def test_read_at_the_end_is_empty_until_something_is_appended(log: Log):
    await fill(log, 1)
    assert await log.read(1, ALL) == []
    assert await log.read(9, ALL) == []
    await fill(log, 1)
    assert bases(await log.read(1, ALL)) == [1]


@pytest.mark.parametrize("messages", [1, 2, 5, 7, 1000])
async def test_polling_in_order_sees_every_record_once(log: Log, messages: int):
    for number in range(40):
        await log.append(make_batch([b"%d" % number] * 5))
    seen: set[int] = set()
    for offset in range(0, 200, messages):
        found = bases(await log.read(offset, ReadLimit(messages, 1 << 30)))
        assert found[0] == offset - offset % 5
        seen.update(found)
    assert sorted(seen) == list(range(0, 200, 5))


async def test_records_of_all_sizes_come_back(log: Log):
    sizes = [305, 20_000, 400, 16_384, 16_385, 305, 3_000_000, 305, 50_000]
    for size in sizes:
        await log.append(make_sized_batch(size))
    for first in range(len(sizes)):
        assert [len(record) for record in split_records(await log.read(first, ALL))] == sizes[first:]


async def test_offset_at_finds_the_first_record_not_earlier(stage: Stage, log: Log):
    for number in range(12):
        stage.clock.now_us = 100 + 10 * (number // 2)
        await log.append(make_batch([b"x" * 100] * 2))
    table = {0: 0, 100: 0, 101: 4, 110: 4, 120: 8, 149: 20, 150: 20, 151: 24}
    assert {time: await log.offset_at(time) for time in table} == table


async def test_cuts_are_the_first_offsets_of_segments(log: Log):
    await fill(log, 7)
    assert log.cuts() == [0, 3, 6]


@pytest.mark.parametrize(("before", "first"), [(0, 0), (2, 0), (3, 3), (5, 3), (6, 6), (7, 6), (1000, 6)])
async def test_trim_forgets_whole_segments_only(log: Log, before: int, first: int):
    await fill(log, 7)
    await log.trim(before)
    assert log.bounds == Bounds(first, 7, (7 - first) * 400, log.bounds.segments, 7 - first)
    assert log.cuts()[0] == first
    assert bases(await log.read(first, ALL)) == list(range(first, 7))
    assert await log.offset_at(0) == first


async def test_read_before_the_first_offset_raises(log: Log):
    await fill(log, 7)
    for offset in range(7):
        assert bases(await log.read(offset, ReadLimit(1, 1))) == [offset]
    await log.trim(6)
    for offset in range(6):
        with pytest.raises(OffsetGone):
            await log.read(offset, ALL)


async def test_buffers_outlive_trim_and_drop(engine: Engine, log: Log):
    await fill(log, 7)
    buffers = await log.read(0, ALL)
    kept = [bytes(buffer) for buffer in buffers]
    await log.trim(6)
    await engine.drop_log(1)
    assert [bytes(buffer) for buffer in buffers] == kept


async def test_policy_of_an_open_log_can_change(engine: Engine, log: Log):
    await fill(log, 1)
    again = engine.open_log(1, LogPolicy(segment_size=1, persisted=True))
    await fill(again, 2)
    assert log.cuts() == [0, 1, 2]


async def test_dropped_log_takes_nothing_and_its_id_is_gone(engine: Engine, log: Log):
    await fill(log, 4)
    assert engine.log_ids() == [1]
    await engine.drop_log(1)
    assert engine.log_ids() == []
    assert await log.read(9, ALL) == []
    for offset in range(4):
        assert log.read_nowait(offset, ALL) is None
        with pytest.raises(OffsetGone):
            await log.read(offset, ALL)
    with pytest.raises(Poisoned):
        log.append_nowait(make_batch())
    with pytest.raises(Poisoned):
        await log.append(make_batch())


async def test_dropping_a_log_that_does_not_exist_is_fine(engine: Engine):
    await engine.drop_log(99)


async def test_logs_do_not_mix(engine: Engine):
    for log_id in (3, 1, 2):
        await engine.open_log(log_id, POLICY).append(make_batch([b"%d" % log_id]))
    assert engine.log_ids() == [1, 2, 3]
    assert payloads_of(await engine.open_log(2, POLICY).read(0, ALL)) == [b"2"]


async def test_everything_is_there_after_a_reopen(stage: Stage, log: Log):
    await fill(log, 7)
    await log.trim(3)
    log = (await stage.reopen()).open_log(1, POLICY)
    assert log.bounds == Bounds(3, 7, 1600, 2, 4)
    assert bases(await log.read(3, ALL)) == [3, 4, 5, 6]
    assert await log.append(make_batch()) == 7
    assert bases(await log.read(5, ALL)) == [5, 6, 7]


async def test_timestamps_do_not_go_back_after_a_reopen(stage: Stage, log: Log):
    stage.clock.now_us = 500
    await log.append(make_batch())
    log = (await stage.reopen()).open_log(1, POLICY)
    stage.clock.now_us = 400
    await log.append(make_batch())
    assert await log.offset_at(500) == 0
    assert await log.offset_at(501) == 2


async def test_journal_gives_back_its_events_in_order(stage: Stage, engine: Engine):
    assert engine.journal.load() == (None, [])
    for event in (b"a", b"", b"c" * 1000):
        engine.journal.append(event)
    await engine.journal.sync()
    assert engine.journal.event_count == 3
    assert (await stage.reopen()).journal.load() == (None, [b"a", b"", b"c" * 1000])


async def test_snapshot_replaces_what_was_before(stage: Stage, engine: Engine):
    engine.journal.load()
    engine.journal.append(b"a")
    engine.journal.snapshot(b"state")
    assert engine.journal.event_count == 0
    engine.journal.append(b"b")
    assert engine.journal.load() == (b"state", [b"b"])
    journal = (await stage.reopen()).journal
    assert journal.load() == (b"state", [b"b"])
    journal.snapshot(b"newer")
    assert (await stage.reopen()).journal.load() == (b"newer", [])


async def test_table_keeps_puts_and_deletes(stage: Stage, engine: Engine):
    table = engine.offsets
    assert table.get(b"a") is None
    for key, value in [(b"a", 1), (b"b", 2), (b"c", (1 << 64) - 1), (b"a", 3), (b"k" * 64, 5)]:
        table.put(key, value)
    table.delete([b"b", b"not there", b"b"])
    await table.sync()
    table = (await stage.reopen()).offsets
    keys = table.keys()
    assert {key: table.get(key) for key in keys} == {b"a": 3, b"c": (1 << 64) - 1, b"k" * 64: 5}


async def test_last_messages_are_counted_from_the_end(log: Log):
    assert log.last(3) == 0
    for _ in range(3):
        await log.append(make_batch([b"x"] * 2))
    assert [log.last(count) for count in (0, 1, 3, 6, 7)] == [6, 5, 3, 0, 0]


async def test_log_starts_when_its_oldest_message_came(stage: Stage, engine: Engine, log: Log):
    assert await log.started_at() is None
    log = engine.open_log(1, LogPolicy(segment_size=1))
    for now in (5_000_000, 6_000_000):
        stage.clock.now_us = now
        await log.append(make_batch())
    assert await log.started_at() == 5_000_000
    await log.trim(1)
    assert await log.started_at() == 6_000_000


async def test_sealed_segment_is_handed_out_as_it_is_stored(engine: Engine):
    log = engine.open_log(1, LogPolicy(segment_size=1))
    for payload in (b"a", b"b", b"c"):
        await log.append(make_batch([payload]))
    await log.flush()
    assert [payloads_of([log.stored(base)]) for base in log.cuts()[:-1]] == [[b"a"], [b"b"]]
    for base in (2, 3):
        with pytest.raises(OffsetGone):
            log.stored(base)
