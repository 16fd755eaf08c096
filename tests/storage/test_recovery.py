"""What the local engine makes of files that a crash or a bad disk has left: a table of damages."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pybroker.storage.errors import Corrupt
from pybroker.storage.local.checkpoint import Checkpoint, encode_checkpoint
from support.batches import make_batch, make_sized_batch, payloads_of
from support.damage import (
    ALL,
    CLOCK,
    HARM,
    ONE_SEGMENT,
    RECORD_SIZE,
    SMALL_SEGMENTS,
    flip,
    folder,
    open_engine,
    readable,
    segment,
    write_log,
)
from support.engines import FaultyDisk


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_torn_tail_at_every_byte_keeps_every_earlier_batch(tmp_path: Path, checkpoint: bool):
    await write_log(tmp_path / "whole", 2, checkpoint=checkpoint)
    engine = open_engine(tmp_path / "whole")
    log = engine.open_log(1, ONE_SEGMENT)
    await log.append(make_sized_batch(RECORD_SIZE))
    await engine.close()
    whole = segment(tmp_path / "whole").read_bytes()
    point = encode_checkpoint(Checkpoint(0, 2 * RECORD_SIZE, 2, 0))
    for size in range(2 * RECORD_SIZE, 3 * RECORD_SIZE):
        root = tmp_path / "torn"
        folder(root).mkdir(parents=True)
        segment(root).write_bytes(whole[:size])
        if checkpoint:
            (folder(root) / "checkpoint").write_bytes(point)
        engine = open_engine(root)
        log = engine.open_log(1, ONE_SEGMENT)
        assert (log.bounds.next, segment(root).stat().st_size) == (2, 2 * RECORD_SIZE), size
        assert await log.append(make_batch()) == 2
        assert await readable(log) == 3
        await engine.close()
        shutil.rmtree(root)


HEADER_POSITIONS = [0, 8, 16, 24, 32, 34, 39, 40, 48, 51, 52, 255]
FRAME_POSITIONS = [256, 264, 280, 284, 288, 292, 296, 304, RECORD_SIZE - 1]
# A header with another offset, or a count that can't be, may be what a killed process has left.
TORN_POSITIONS = [8, 48, 51]


@pytest.mark.parametrize("position", TORN_POSITIONS)
async def test_tail_that_can_be_half_a_record_is_cut(tmp_path: Path, position: int):
    await write_log(tmp_path, 5)
    flip(segment(tmp_path), 4 * RECORD_SIZE + position)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    assert log.damages == []
    assert log.bounds.next == await readable(log) == 4
    assert await log.append(make_batch()) == 4
    await engine.close()


@pytest.mark.parametrize("position", sorted({*HEADER_POSITIONS, *FRAME_POSITIONS} - {*TORN_POSITIONS}))
async def test_whole_last_record_that_is_damaged_is_kept_and_its_offset_not_given_again(
    tmp_path: Path, position: int, caplog: pytest.LogCaptureFixture
):
    await write_log(tmp_path, 5)
    flip(segment(tmp_path), 4 * RECORD_SIZE + position)
    damaged = segment(tmp_path).read_bytes()
    for _ in range(2):  # and again: it does not move with every start
        engine = open_engine(tmp_path)
        log = engine.open_log(1, ONE_SEGMENT)
        assert await readable(log) == 4
        with pytest.raises(Corrupt) as caught:
            await log.read(4, ALL)
        assert caught.value.path == segment(tmp_path)
        assert caught.value.position in range(4 * RECORD_SIZE, 5 * RECORD_SIZE)
        await engine.close()
    assert f"{segment(tmp_path)}: byte {4 * RECORD_SIZE}" in caplog.text
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    offset = await log.append(make_batch([b"later"]))
    assert offset > 5
    assert payloads_of(await log.read(5, ALL)) == [b"later"]
    assert log.last(1) == offset
    await engine.close()
    assert segment(tmp_path).read_bytes() == damaged


@pytest.mark.parametrize("position", HEADER_POSITIONS + FRAME_POSITIONS)
@pytest.mark.parametrize("number", [0, 2])
async def test_flipped_bit_before_valid_records_costs_only_that_record(
    tmp_path: Path, number: int, position: int, caplog: pytest.LogCaptureFixture
):
    await write_log(tmp_path, 5)
    flip(segment(tmp_path), number * RECORD_SIZE + position)
    damaged = segment(tmp_path).read_bytes()
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    assert log.bounds.next == 5
    assert await readable(log) == number
    with pytest.raises(Corrupt) as caught:
        await log.read(number, ALL)
    assert caught.value.path == segment(tmp_path)
    assert caught.value.position in range(number * RECORD_SIZE, (number + 1) * RECORD_SIZE)
    assert len(payloads_of(await log.read(number + 1, ALL))) == 4 - number
    assert await log.append(make_batch()) == 5
    assert len(payloads_of(await log.read(number + 1, ALL))) == 5 - number
    assert f"{segment(tmp_path)}: byte {number * RECORD_SIZE}" in caplog.text
    await engine.close()
    assert segment(tmp_path).read_bytes()[: len(damaged)] == damaged


async def test_damage_is_told_from_a_torn_tail_over_more_than_one_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pybroker.storage.local.recovery.CHUNK_SIZE", 1000)
    monkeypatch.setattr("pybroker.storage.local.resync.CHUNK_SIZE", 1000)
    await write_log(tmp_path, 20)
    data = bytearray(segment(tmp_path).read_bytes())
    for count in (1, 2, 3, 7, 18):
        start, end = RECORD_SIZE, (1 + count) * RECORD_SIZE
        segment(tmp_path).write_bytes(data[:start] + b"\xaa" * (end - start) + data[end:])
        engine = open_engine(tmp_path)
        log = engine.open_log(1, ONE_SEGMENT)
        assert [damage.position for damage in log.damages] == [RECORD_SIZE]
        assert log.bounds.next == 20
        assert len(payloads_of(await log.read(1 + count, ALL))) == 19 - count
        await engine.close()
        (folder(tmp_path) / "checkpoint").unlink()


@pytest.mark.parametrize("count", [1, 255, 256, 300, 65_536])
async def test_later_record_is_found_whatever_its_message_count(tmp_path: Path, count: int):
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    await log.append(make_batch())
    await log.append(make_batch([b"x"] * count))
    await engine.close()
    (folder(tmp_path) / "checkpoint").unlink()
    flip(segment(tmp_path), 300)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    assert len(log.damages) == 1
    assert len(payloads_of(await log.read(1, ALL))) == count
    await engine.close()


@pytest.mark.parametrize("tail", [b"\0" * 10, b"\0" * 5000, b"\xff" * 5000, bytes(range(256)) * 20])
async def test_bytes_that_are_no_record_behind_the_last_one_are_cut(tmp_path: Path, tail: bytes):
    await write_log(tmp_path, 3)
    with segment(tmp_path).open("ab") as file:
        file.write(tail)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    assert log.bounds.next == await readable(log) == 3
    assert segment(tmp_path).stat().st_size == 3 * RECORD_SIZE
    await engine.close()


async def test_older_record_behind_the_last_one_is_cut(tmp_path: Path):
    await write_log(tmp_path, 3)
    data = segment(tmp_path).read_bytes()
    segment(tmp_path).write_bytes(data + b"torn" + data[RECORD_SIZE : 2 * RECORD_SIZE])
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    assert log.damages == []
    assert segment(tmp_path).read_bytes() == data
    await engine.close()


async def test_what_recovery_found_is_synced_by_the_next_flush(tmp_path: Path):
    await write_log(tmp_path, 3)
    disk = FaultyDisk()
    engine = open_engine(tmp_path, disk)
    await engine.open_log(1, ONE_SEGMENT).flush()
    assert segment(tmp_path) in disk.synced
    await engine.close()


async def test_record_larger_than_a_chunk_is_recovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pybroker.storage.local.recovery.CHUNK_SIZE", 1000)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    for size in (400, 5000, 999, 1000, 1001, 400):
        await log.append(make_sized_batch(size))
    await engine.close()
    (folder(tmp_path) / "checkpoint").unlink()
    engine = open_engine(tmp_path)
    assert await readable(engine.open_log(1, ONE_SEGMENT)) == 6
    await engine.close()


@pytest.mark.parametrize("harm", HARM)
async def test_harmed_checkpoint_loses_nothing(tmp_path: Path, harm: Callable[[Path], None]):
    await write_log(tmp_path, 8, SMALL_SEGMENTS, checkpoint=True)
    harm(folder(tmp_path) / "checkpoint")
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    assert await readable(log) == 8
    assert await log.append(make_batch()) == 8
    await engine.close()


@pytest.mark.parametrize(
    "point",
    [
        Checkpoint(0, 400, 1, 0),  # of a segment that is sealed by now
        Checkpoint(6, 0, 6, 0),
        Checkpoint(6, 100, 6, 0),  # in the middle of a record
        Checkpoint(6, 400, 9, 0),  # another offset than the record there
        Checkpoint(6, 4000, 16, 0),  # behind the end of the file
        Checkpoint(2, 400, 3, 0),  # no such segment
        Checkpoint(9, 0, 9, 0),  # a segment to come
    ],
)
async def test_stale_checkpoint_loses_nothing(tmp_path: Path, point: Checkpoint):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    (folder(tmp_path) / "checkpoint").write_bytes(encode_checkpoint(point))
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    assert log.bounds.next == await readable(log) == 8
    assert await log.append(make_batch()) == 8
    await engine.close()


async def test_start_does_not_read_what_a_checkpoint_covers(tmp_path: Path):
    await write_log(tmp_path, 50, SMALL_SEGMENTS, checkpoint=True)
    disk = FaultyDisk()
    engine = open_engine(tmp_path, disk)
    disk.calls.clear()  # of looking for the keys that segments need
    log = engine.open_log(1, SMALL_SEGMENTS)
    assert log.bounds.next == 50
    assert (disk.calls["pread"], disk.calls["mmap"]) == (0, 0)
    await engine.close()


async def test_clean_close_leaves_nothing_to_verify(tmp_path: Path):
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    await log.append(make_batch())
    await log.flush()
    await log.append(make_batch())
    await engine.close()
    disk = FaultyDisk()
    engine = open_engine(tmp_path, disk)
    disk.calls.clear()  # of looking for the keys that segments need
    assert engine.open_log(1, ONE_SEGMENT).bounds.next == 2
    assert disk.calls["pread"] == 0
    await engine.close()


async def test_only_what_follows_the_checkpoint_is_verified(tmp_path: Path):
    await write_log(tmp_path, 3, checkpoint=True)
    flip(segment(tmp_path), RECORD_SIZE - 1)  # a payload that nobody looks at again
    engine = open_engine(tmp_path)
    log = engine.open_log(1, ONE_SEGMENT)
    assert log.damages == []
    assert log.bounds.next == 3
    await engine.close()


async def test_sealed_segment_that_was_not_durable_yet_is_verified(tmp_path: Path):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    (folder(tmp_path) / "checkpoint").write_bytes(encode_checkpoint(Checkpoint(3, 0, 3, 0)))
    flip(segment(tmp_path, 3), RECORD_SIZE + 300)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    (damage,) = log.damages
    assert (damage.path, damage.position) == (segment(tmp_path, 3), RECORD_SIZE)
    assert log.bounds.next == 8
    assert await readable(log) == 4
    assert len(payloads_of(await log.read(5, ALL))) == 3
    await engine.close()


@pytest.mark.parametrize("size", [RECORD_SIZE, RECORD_SIZE + 100])
async def test_torn_segment_before_an_empty_one_gives_none_of_its_offsets_again(tmp_path: Path, size: int):
    await write_log(tmp_path, 3, SMALL_SEGMENTS)
    segment(tmp_path, 3).write_bytes(b"")
    segment(tmp_path).write_bytes(segment(tmp_path).read_bytes()[:size])
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    # Nobody but a power failure does that. The name of the next segment tells which offsets were given out.
    assert (log.bounds.next, len(log.damages)) == (3, 1)
    assert await readable(log) == 1
    assert await log.append(make_batch([b"later"])) == 3
    assert payloads_of(await log.read(3, ALL)) == [b"later"]
    await engine.close()


async def test_next_offset_and_timestamp_survive_an_empty_active_segment(tmp_path: Path):
    await write_log(tmp_path, 3, SMALL_SEGMENTS, checkpoint=True)
    (folder(tmp_path) / "checkpoint").write_bytes(b"damaged")
    segment(tmp_path, 3).write_bytes(b"")
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    assert log.bounds.next == 3
    await log.trim(3)
    assert (log.bounds.first, log.bounds.next, log.bounds.size) == (3, 3, 0)
    assert await log.read(3, ALL) == []
    await engine.close()
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    assert await log.append(make_batch()) == 3
    assert await log.offset_at(CLOCK()) == 3
    await engine.close()


@pytest.mark.parametrize("position", [8, 32, 48])
async def test_damage_in_a_sealed_segment_is_met_by_who_reads_there(tmp_path: Path, position: int):
    await write_log(tmp_path, 8, SMALL_SEGMENTS, checkpoint=True)
    if position == 48:
        segment(tmp_path, 3).write_bytes(segment(tmp_path, 3).read_bytes()[: RECORD_SIZE + 100])
    else:
        flip(segment(tmp_path, 3), RECORD_SIZE + position + 1)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    assert await log.append(make_batch()) == 8
    for offset in (4, 5) if position == 48 else (4,):
        with pytest.raises(Corrupt) as caught:
            await log.read(offset, ALL)
        assert caught.value.path == segment(tmp_path, 3)
    if position != 48:
        assert len(payloads_of(await log.read(0, ALL))) == 4
        assert len(payloads_of(await log.read(5, ALL))) == 4
    assert len(payloads_of(await log.read(6, ALL))) == 3
    await engine.close()


async def test_missing_segment_in_the_middle_is_met_by_who_reads_there(tmp_path: Path):
    await write_log(tmp_path, 8, SMALL_SEGMENTS, checkpoint=True)
    segment(tmp_path, 3).unlink()
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    assert len(payloads_of(await log.read(0, ALL))) == 3
    for offset in (3, 5):
        with pytest.raises(Corrupt):
            await log.read(offset, ALL)
    assert len(payloads_of(await log.read(6, ALL))) == 2
    await engine.close()


async def test_half_dropped_log_is_removed_at_the_next_start(tmp_path: Path):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    folder(tmp_path).rename(folder(tmp_path).with_suffix(".dropped"))
    engine = open_engine(tmp_path)
    assert engine.log_ids() == []
    assert list((tmp_path / "logs").iterdir()) == []
    await engine.close()
