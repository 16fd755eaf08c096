"""What a read of the local engine costs: system calls, maps and memory, counted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pybroker.protocol.batch import span_of
from pybroker.storage.engine import Log, LogPolicy, ReadLimit
from pybroker.storage.local.disk import Disk
from pybroker.storage.local.log import LocalLog
from pybroker.storage.local.reader import AHEAD_SIZE, HINTS_MAX
from pybroker.storage.local.segment import Maps, Segment
from support.batches import make_batch, make_sized_batch, payloads_of
from support.engines import Stage

ONE_SEGMENT = LogPolicy(segment_size=1 << 30)
SMALL_SEGMENTS = LogPolicy(segment_size=1000)


async def poll_all(log: Log, messages: int) -> AsyncIterator[list[memoryview]]:
    for offset in range(0, log.bounds.next, messages):
        yield await log.read(offset, ReadLimit(messages, 1 << 30))


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [([400], 50), ([5000], 7), ([20_000], 1), ([305, 900, 305, 305], 20), ([100_000], 3)],
)
async def test_polling_the_active_segment_is_one_read_a_poll(local: Stage, sizes: list[int], messages: int):
    log = local.engine.open_log(1, ONE_SEGMENT)
    for number in range(200):
        await log.append(make_sized_batch(sizes[number % len(sizes)]))
    buffers = [len(found) async for found in poll_all(log, messages)]
    assert set(buffers) == {1}
    assert local.disk.calls["pread"] == len(buffers)


async def test_polls_of_single_messages_share_their_reads(local: Stage):
    log = local.engine.open_log(1, ONE_SEGMENT)
    for _ in range(200):
        await log.append(make_sized_batch(400))
    found = [bytes(buffer) async for (buffer,) in poll_all(log, 1)]
    assert local.disk.calls["pread"] <= len(found) / 8
    (whole,) = await log.read(0, ReadLimit(200, 1 << 30))
    assert b"".join(found) == whole


async def test_no_more_than_what_is_read_ahead_is_kept_of_what_was_read(local: Stage):
    log = local.engine.open_log(1, ONE_SEGMENT)
    assert isinstance(log, LocalLog)
    for _ in range(100):
        await log.append(make_sized_batch(400))
    for offset, count in ((0, 1), (1, 1), (2, 98)):
        (records,) = await log.read(offset, ReadLimit(count, 1 << 30))
        assert len(records) == count * 400
        kept = log._reader._recent[2].obj
        assert isinstance(kept, bytes) and len(kept) <= AHEAD_SIZE


async def test_what_is_appended_behind_a_read_is_found_by_the_next(local: Stage):
    log = local.engine.open_log(1, ONE_SEGMENT)
    for number in range(50):
        await log.append(make_sized_batch(400))
        (buffer,) = await log.read(number, ReadLimit(1, 1 << 30))
        assert (len(buffer), span_of(buffer)) == (400, (number, 400, 1))


async def test_polling_parts_of_large_records_is_one_read_a_poll(local: Stage):
    log = local.engine.open_log(1, ONE_SEGMENT)
    for _ in range(5):
        await log.append(make_batch([b"x" * 100] * 1000))
    buffers = [len(found) async for found in poll_all(log, 100)]
    assert set(buffers) == {1}
    assert local.disk.calls["pread"] == len(buffers) == 50


async def test_read_of_an_unusually_large_record_takes_a_second_one(local: Stage):
    log = local.engine.open_log(1, ONE_SEGMENT)
    for size in (*[400] * 100, 1_000_000, *[400] * 100):
        await log.append(make_sized_batch(size))
    (buffer,) = await log.read(100, ReadLimit(1, 1))
    assert len(buffer) == 1_000_000
    assert local.disk.calls["pread"] == 2


async def test_read_at_the_end_costs_no_system_call(local: Stage):
    log = local.engine.open_log(1, ONE_SEGMENT)
    await log.append(make_batch())
    before = local.disk.calls.copy()
    assert await log.read(1, ReadLimit(100, 1 << 20)) == []
    assert local.disk.calls == before


async def test_sealed_segments_are_mapped_once_and_the_active_one_never(local: Stage):
    log = local.engine.open_log(1, SMALL_SEGMENTS)
    for _ in range(10):
        await log.append(make_sized_batch(400))
    for _ in range(3):
        assert [len(found) async for found in poll_all(log, 1)] == [1] * 10
    assert local.disk.calls["mmap"] == log.bounds.segments - 1


async def test_places_to_go_on_reading_are_limited(local: Stage):
    log = local.engine.open_log(1, ONE_SEGMENT)
    assert isinstance(log, LocalLog)
    for _ in range(3 * HINTS_MAX):
        await log.append(make_batch())
    async for _ in poll_all(log, 1):
        pass
    assert len(log._reader._hints) == HINTS_MAX


def test_maps_are_limited_and_their_views_outlive_them(tmp_path: Path):
    segments = [Segment(tmp_path, base, size=10) for base in range(5)]
    maps = Maps(Disk(), count_max=2)
    views: list[memoryview] = []
    for number, segment in enumerate(segments):
        segment.path.write_bytes(b"%d" % number * 10)
        segment.note(segment.base, 0, 0)
        views.append(maps.window(segment).data)
    assert len(maps._views) == 2
    assert [len(segment.index.offsets) for segment in segments] == [0, 0, 0, 1, 1]
    assert [bytes(view[:2]) for view in views] == [b"00", b"11", b"22", b"33", b"44"]


async def test_maps_pushed_out_come_back(local: Stage, monkeypatch: pytest.MonkeyPatch):
    log = local.engine.open_log(1, SMALL_SEGMENTS)
    assert isinstance(log, LocalLog)
    monkeypatch.setattr(log._reader._maps, "_count_max", 2)
    for number in range(30):
        await log.append(make_batch([b"%d" % number + b"x" * 100] * 2))
    for messages in (1, 5, 60):
        offset = 0
        async for found in poll_all(log, messages):
            numbers = [payload.rstrip(b"x") for payload in payloads_of(found)]
            assert numbers[0] == b"%d" % (offset // 2)
            offset += messages
    assert await log.offset_at(local.clock()) == 0
