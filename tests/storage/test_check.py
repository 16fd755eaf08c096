"""What a check says of a log's records, and what it cuts: a table of damages, and that nothing else is touched."""

import shutil
from pathlib import Path

import pytest
from pybroker.storage.cipher import Keyring, key_id
from pybroker.storage.engine import LogPolicy
from pybroker.storage.local import bounds
from pybroker.storage.local.bounds import Kept
from pybroker.storage.local.check import Check, Finding, HeaderCodec
from pybroker.storage.local.check_log import LogCheck
from pybroker.storage.local.disk import Disk
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.local.index import decode
from support.batches import make_sized_batch
from support.datadir import (
    CLOCK,
    ONE_SEGMENT,
    RECORD_SIZE,
    SMALL_SEGMENTS,
    flip,
    folder,
    index,
    offsets_read,
    only,
    run,
    segment,
    tree,
    write_log,
    wrong,
)

KEY = bytes(range(32))


@pytest.mark.parametrize("policy", [ONE_SEGMENT, SMALL_SEGMENTS])
@pytest.mark.parametrize("killed", [False, True])
async def test_nothing_is_wrong_with_what_was_stopped_or_killed(tmp_path: Path, policy: LogPolicy, killed: bool):
    await write_log(tmp_path, 8, policy, killed=killed)
    found, held = run(tmp_path)
    assert wrong(found) == []
    segments = 1 if policy is ONE_SEGMENT else 3
    assert (held.next, held.segments, held.records, held.messages) == (8, segments, 8, 8)
    assert held.size == 8 * RECORD_SIZE
    assert [finding.what.partition(";")[0] for finding in found] == ["missing"] * (segments - 1 if killed else 0)


@pytest.mark.parametrize("repair", [False, True])
async def test_nothing_is_written_into_a_sound_directory(tmp_path: Path, repair: bool):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    before = tree(tmp_path)
    assert run(tmp_path, repair=repair)[0] == []
    assert tree(tmp_path) == before


@pytest.mark.parametrize("size", [1, 60, 255, 256, 300, RECORD_SIZE - 1])
@pytest.mark.parametrize("killed", [False, True])
async def test_torn_tail_is_told_and_cut_by_a_repair_only(tmp_path: Path, size: int, killed: bool):
    await write_log(tmp_path, 8, SMALL_SEGMENTS, killed=killed)
    path = segment(tmp_path, 6)
    path.write_bytes(path.read_bytes() + path.read_bytes()[:size])
    before = tree(tmp_path)
    finding = only(wrong(run(tmp_path)[0]))
    assert (finding.path, finding.position) == (path, 2 * RECORD_SIZE)
    assert finding.what.startswith(f"torn tail, {size} bytes, --repair cuts it")
    assert tree(tmp_path) == before
    found, held = run(tmp_path, repair=True)
    assert [each.what for each in found if each.mended and each.path == path] == [finding.what]
    assert (path.stat().st_size, held.size) == (2 * RECORD_SIZE, 8 * RECORD_SIZE)
    assert run(tmp_path)[0] == []
    assert await offsets_read(tmp_path, count=9) == list(range(8))


async def test_index_that_tells_of_a_torn_tail_is_built_anew(tmp_path: Path):
    await write_log(tmp_path, 3)
    (folder(tmp_path) / "checkpoint").unlink()
    segment(tmp_path).write_bytes(segment(tmp_path).read_bytes()[:-1])
    assert {finding.path for finding in wrong(run(tmp_path)[0])} == {segment(tmp_path), index(tmp_path)}
    assert wrong(run(tmp_path, repair=True)[0]) == []
    cover = decode(index(tmp_path).read_bytes(), 0, size_max=2 * RECORD_SIZE)
    assert (cover.size, cover.next_offset) == (2 * RECORD_SIZE, 2)
    assert await offsets_read(tmp_path, count=3) == [0, 1]


HEADER_POSITIONS = [0, 8, 16, 24, 32, 34, 39, 40, 48, 51, 52, 255]
FRAME_POSITIONS = [256, 264, 280, 284, 288, 292, 296, 304, RECORD_SIZE - 1]


@pytest.mark.parametrize("position", HEADER_POSITIONS + FRAME_POSITIONS)
@pytest.mark.parametrize("base", [0, 6])
async def test_flipped_bit_before_valid_records_is_told_with_its_stretch_and_left(
    tmp_path: Path, base: int, position: int
):
    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    path = segment(tmp_path, base)
    flip(path, RECORD_SIZE + position)
    before = path.read_bytes()
    for repair in (False, True):
        found, held = run(tmp_path, repair=repair)
        finding = only(wrong(found))
        assert (finding.path, finding.position, finding.lost) == (path, RECORD_SIZE, range(base + 1, base + 2))
        assert finding.what.startswith(f"damaged up to byte {2 * RECORD_SIZE}: ")
        assert (held.records, held.next) == (8, 9)
    assert path.read_bytes() == before
    assert await offsets_read(tmp_path, count=9) == [offset for offset in range(9) if offset != base + 1]


async def test_each_of_many_damages_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pybroker.storage.local.scan.CHUNK_SIZE", 1000)
    await write_log(tmp_path, 40)
    for number in (0, 7, 8, 20, 38):
        flip(segment(tmp_path), number * RECORD_SIZE + 300)
    found, held = run(tmp_path)
    assert [list(finding.lost) for finding in wrong(found)] == [[0], [7, 8], [20], [38]]
    assert held.records == 35


async def test_stretch_without_any_record_is_told_as_one(tmp_path: Path):
    await write_log(tmp_path, 9)
    data = segment(tmp_path).read_bytes()
    start, end = 2 * RECORD_SIZE, 5 * RECORD_SIZE
    segment(tmp_path).write_bytes(data[:start] + b"\xaa" * (end - start) + data[end:])
    finding = only(wrong(run(tmp_path)[0]))
    assert (finding.position, finding.lost) == (start, range(2, 5))
    assert f"damaged up to byte {end}: " in finding.what


@pytest.mark.parametrize("position", HEADER_POSITIONS[4:6] + FRAME_POSITIONS)
async def test_damaged_end_of_a_sealed_segment_loses_up_to_the_next_one(tmp_path: Path, position: int):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    flip(segment(tmp_path, 3), 2 * RECORD_SIZE + position)
    finding = only(run(tmp_path, repair=True)[0])
    assert (finding.path, finding.position, finding.lost) == (segment(tmp_path, 3), 2 * RECORD_SIZE, range(5, 6))
    assert await offsets_read(tmp_path, count=8) == [0, 1, 2, 3, 4, 6, 7]


async def test_short_sealed_segment_loses_up_to_the_next_one(tmp_path: Path):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    path = segment(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:RECORD_SIZE])
    found = wrong(run(tmp_path, repair=True)[0])
    assert (only(found).position, only(found).lost) == (RECORD_SIZE, range(4, 6))
    path.write_bytes(path.read_bytes()[: RECORD_SIZE - 1])
    found = wrong(run(tmp_path, repair=True)[0])
    assert (only(found).position, only(found).lost) == (0, range(3, 6))
    assert await offsets_read(tmp_path, count=8) == [0, 1, 2, 6, 7]


@pytest.mark.parametrize("killed", [False, True])
async def test_whole_record_at_the_end_is_no_torn_tail_unless_power_failed(tmp_path: Path, killed: bool):
    await write_log(tmp_path, 3, killed=killed)
    flip(segment(tmp_path), 2 * RECORD_SIZE + 300)
    before = tree(tmp_path)
    found = wrong(run(tmp_path, repair=True)[0])
    assert "damaged up to byte 1200" in only(found).what
    assert tree(tmp_path) == before
    found = wrong(run(tmp_path, repair=True, power_failed=True)[0])
    assert len(found) == (0 if killed else 1), "what a checkpoint covers was durable"
    assert segment(tmp_path).stat().st_size == (2 if killed else 3) * RECORD_SIZE


async def test_what_was_durable_is_no_torn_tail(tmp_path: Path):
    await write_log(tmp_path, 3)
    segment(tmp_path).write_bytes(segment(tmp_path).read_bytes()[:-10])
    before = tree(tmp_path)
    found = wrong(run(tmp_path, repair=True, power_failed=True)[0])
    assert {finding.what.partition(":")[0] for finding in found if finding.path == segment(tmp_path)} == {
        "damaged up to byte 1190",
        "the file ends here, 1200 bytes of it were durable",
    }
    assert range(2, 3) in [finding.lost for finding in found]
    assert tree(tmp_path).keys() == before.keys()
    assert segment(tmp_path).stat().st_size == 1190


async def test_missing_segment_is_told_by_its_offsets(tmp_path: Path):
    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    segment(tmp_path, 3).unlink()
    found, _ = run(tmp_path, repair=True)
    assert [finding.what for finding in found if finding.harmless] == [
        "the index of a segment that is gone; nothing reads it"
    ]
    finding = only(wrong(found))
    assert (finding.path, finding.position, finding.lost) == (segment(tmp_path), 1200, range(3, 6))
    assert finding.what == "the log goes on with offset 6"
    assert await offsets_read(tmp_path, count=9) == [0, 1, 2, 6, 7, 8]


async def test_offsets_that_were_skipped_are_not_missed(tmp_path: Path):
    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    segment(tmp_path, 3).unlink()
    index(tmp_path, 3).unlink()
    (folder(tmp_path) / "bounds").write_bytes(bounds.encode(Kept(0, [(3, 6), (9, 1000)])))
    found, held = run(tmp_path)
    assert found == []
    assert (held.next, held.messages) == (1000, 6)


async def test_damage_that_a_power_failure_explained_is_mentioned_only(tmp_path: Path):
    await write_log(tmp_path, 9)
    flip(segment(tmp_path), 3 * RECORD_SIZE + 300)
    (folder(tmp_path) / "bounds").write_bytes(bounds.encode(Kept(0, [(3, 4)])))
    found, _ = run(tmp_path)
    assert wrong(found) == []
    assert found[0].what.endswith("known since a power failure")


async def test_log_without_a_segment_holds_nothing(tmp_path: Path):
    folder(tmp_path).mkdir(parents=True)
    found, held = run(tmp_path)
    assert (found, held.next, held.segments) == ([], 0, 0)


async def test_segments_that_were_trimmed_are_mentioned_only(tmp_path: Path):
    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    flip(segment(tmp_path), 300)
    (folder(tmp_path) / "bounds").write_bytes(bounds.encode(Kept(3)))
    found, held = run(tmp_path)
    assert (only(found).harmless, only(found).path) == (True, segment(tmp_path))
    assert held.messages == 6


async def test_damaged_bounds_are_told(tmp_path: Path):
    await write_log(tmp_path, 9)
    (folder(tmp_path) / "bounds").write_bytes(b"damaged")
    assert only(run(tmp_path)[0]).path == folder(tmp_path) / "bounds"


async def test_torn_segment_before_an_empty_one_is_cut_and_what_it_lost_is_told(tmp_path: Path):
    await write_log(tmp_path, 3, SMALL_SEGMENTS, killed=True)
    segment(tmp_path, 3).write_bytes(b"")
    segment(tmp_path).write_bytes(segment(tmp_path).read_bytes()[: RECORD_SIZE + 100])
    found, held = run(tmp_path, repair=True)
    assert [(finding.position, finding.mended) for finding in found] == [
        (RECORD_SIZE + 100, False),
        (RECORD_SIZE, True),
    ]
    assert found[0].lost == range(1, 3)
    assert (held.next, segment(tmp_path).stat().st_size) == (3, RECORD_SIZE)
    assert await offsets_read(tmp_path, count=3) == [0]


async def test_older_records_in_the_middle_hide_none(tmp_path: Path):
    await write_log(tmp_path, 6)
    data = segment(tmp_path).read_bytes()
    records = [data[start : start + RECORD_SIZE] for start in range(0, len(data), RECORD_SIZE)]
    index(tmp_path).unlink()
    (folder(tmp_path) / "checkpoint").unlink()
    segment(tmp_path).write_bytes(b"".join([*records[:3], records[1], records[2], *records[3:]]))
    found, held = run(tmp_path)
    assert [(finding.position, list(finding.lost)) for finding in wrong(found)] == [(3 * RECORD_SIZE, [])]
    assert found[0].what == "damaged up to byte 2000: base offset 1, should be 3"
    assert (held.records, held.next) == (6, 6)


async def test_records_that_are_missing_without_a_trace_are_told(tmp_path: Path):
    await write_log(tmp_path, 6)
    data = segment(tmp_path).read_bytes()
    index(tmp_path).unlink()
    (folder(tmp_path) / "checkpoint").unlink()
    segment(tmp_path).write_bytes(data[: 2 * RECORD_SIZE] + data[4 * RECORD_SIZE :])
    finding = only(wrong(run(tmp_path)[0]))
    assert (finding.position, finding.lost) == (2 * RECORD_SIZE, range(2, 4))


async def test_records_of_another_log_are_not_taken_for_its_own(tmp_path: Path):
    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    shutil.copy(segment(tmp_path, 6), segment(tmp_path, 3))
    finding = wrong(run(tmp_path)[0])[0]
    assert (finding.position, finding.lost) == (0, range(3, 6))
    assert finding.what == "damaged up to byte 1200: base offset 6, should be 3"


async def test_time_that_goes_back_is_told(tmp_path: Path):
    await write_log(tmp_path / "early", 6)
    CLOCK.now_us += 1000
    await write_log(tmp_path / "late", 6)
    CLOCK.now_us -= 1000
    late, early = segment(tmp_path / "late").read_bytes(), segment(tmp_path / "early").read_bytes()
    segment(tmp_path / "early").write_bytes(late[: 3 * RECORD_SIZE] + early[3 * RECORD_SIZE :])
    index(tmp_path / "early").unlink()
    finding = only(run(tmp_path / "early")[0])
    assert (finding.what, finding.position) == ("the time goes back", 3 * RECORD_SIZE)


@pytest.mark.parametrize("sizes", [(400, 5000, 999, 1000, 1001, 400), (1000, 1000), (305, 40_000, 305)])
async def test_records_are_found_wherever_chunks_end(
    tmp_path: Path, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pybroker.storage.local.scan.CHUNK_SIZE", 1000)
    engine = LocalEngine.open(tmp_path, CLOCK, sync_interval_s=3600)
    log = engine.open_log(1, ONE_SEGMENT)
    for size in sizes:
        await log.append(make_sized_batch(size))
    await engine.close()
    found, held = run(tmp_path)
    assert found == []
    assert (held.records, held.size) == (len(sizes), sum(sizes))


async def test_encrypted_records_are_proven_with_their_key(tmp_path: Path):
    keys = Keyring([KEY])
    await write_log(tmp_path, 9, SMALL_SEGMENTS, keys=keys)
    assert run(tmp_path, keys=keys)[0] == []
    flip(segment(tmp_path, 3), RECORD_SIZE + 300)
    finding = only(wrong(run(tmp_path, keys=keys)[0]))
    assert (finding.position, finding.lost) == (RECORD_SIZE, range(4, 5))


async def test_encrypted_records_are_counted_where_the_key_is_not_given(tmp_path: Path):
    await write_log(tmp_path, 9, SMALL_SEGMENTS, keys=Keyring([KEY]))
    codec = HeaderCodec()
    found: list[Finding] = []
    held = LogCheck(Check(Disk(), codec, found.append, lambda _: None), folder(tmp_path)).run()
    assert (found, held.records) == ([], 9)
    assert codec.unopened == {key_id(KEY): 9}
    flip(segment(tmp_path, 3), RECORD_SIZE + 33)  # the size, which can be read without a key
    assert only(wrong(run(tmp_path)[0])).position == RECORD_SIZE
