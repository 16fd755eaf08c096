"""An index only saves time: whatever its file holds, the log decides."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pybroker.protocol.batch import read_header
from pybroker.storage.engine import LogPolicy, ReadLimit
from pybroker.storage.errors import Corrupt
from pybroker.storage.local.index import Cover, Index, decode, encode
from support.batches import make_sized_batch
from support.damage import CLOCK, HARM, RECORD_SIZE, SMALL_SEGMENTS, flip, open_engine, readable, segment, write_log


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("base", [0, 3, 6])
async def test_harmed_index_changes_nothing(tmp_path: Path, harm: Callable[[Path], None], base: int):
    await write_log(tmp_path, 8, SMALL_SEGMENTS, checkpoint=True)
    harm(segment(tmp_path, base).with_suffix(".index"))
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    assert [len(await log.read(offset, ReadLimit(1, 1))) for offset in range(9)] == [1] * 8 + [0]
    assert await log.offset_at(0) == 0
    assert await readable(log) == 8
    await engine.close()


async def test_any_flipped_byte_of_an_index_changes_nothing(tmp_path: Path):
    policy = LogPolicy(segment_size=60_000)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, policy)
    for _ in range(6):
        await log.append(make_sized_batch(20_000))
    await engine.close()
    path = segment(tmp_path).with_suffix(".index")
    good = path.read_bytes()
    assert len(good) == 4 * 24
    for position in range(len(good)):
        path.write_bytes(good)
        flip(path, position)
        engine = open_engine(tmp_path)
        log = engine.open_log(1, policy)
        assert [await log.offset_at(time) for time in (0, CLOCK() + 1)] == [0, 6]
        for offset in (0, 1, 2):
            (buffer,) = await log.read(offset, ReadLimit(1, 1))
            assert read_header(buffer).base_offset == offset
        await engine.close()
        assert path.read_bytes() == good


@pytest.mark.parametrize("entry", [(1, 300), (1, 800), (2, 400)])
async def test_index_that_leads_astray_is_thrown_away(tmp_path: Path, entry: tuple[int, int]):
    await write_log(tmp_path, 8, SMALL_SEGMENTS, checkpoint=True)
    index = Index()
    index.add(0, CLOCK(), 0)
    index.add(entry[0], CLOCK(), entry[1])
    segment(tmp_path).with_suffix(".index").write_bytes(encode(Cover(index, 3 * RECORD_SIZE, 3)))
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    for offset in (2, 1, 0):
        (buffer,) = await log.read(offset, ReadLimit(1, 1))
        assert read_header(buffer).base_offset == offset
    await engine.close()


@pytest.mark.parametrize("position", [8, 32, 33])
@pytest.mark.parametrize("base", [0, 6])
async def test_damaged_header_costs_only_its_own_record(tmp_path: Path, base: int, position: int):
    """Also when the size in it is one that leads into the next record, and in the segment that is appended to."""
    await write_log(tmp_path, 9, SMALL_SEGMENTS, checkpoint=True)
    flip(segment(tmp_path, base), RECORD_SIZE + position)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, SMALL_SEGMENTS)
    for offset in [each for each in range(9) if each != base + 1]:
        (buffer, *_) = await log.read(offset, ReadLimit(1, 1))
        assert read_header(buffer).base_offset == offset
    with pytest.raises(Corrupt):
        await log.read(base + 1, ReadLimit(1, 1))
    assert await log.append(make_sized_batch(RECORD_SIZE)) == 9
    assert read_header((await log.read(9, ReadLimit(1, 1)))[0]).base_offset == 9
    await engine.close()


async def test_index_of_the_newest_segment_is_kept_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that a start after a crash does not walk all of it for the first poll."""
    monkeypatch.setattr("pybroker.storage.local.log.CHECKPOINT_GAP_SIZE", 20_000)
    monkeypatch.setattr("pybroker.storage.local.log.INDEXED_GAP_SIZE", 60_000)
    engine = open_engine(tmp_path)
    log = engine.open_log(1, LogPolicy(segment_size=1 << 30))
    covered: list[int] = []
    for _ in range(10):
        await log.append(make_sized_batch(20_000))
        await log.flush()
        data = segment(tmp_path).with_suffix(".index")
        covered.append(decode(data.read_bytes(), 0, size_max=1 << 30).size if data.exists() else 0)
    assert covered == [0, 0, *[60_000] * 3, *[120_000] * 3, *[180_000] * 2]
    await engine.close()
