"""What a check says of the files beside the records, index, checkpoint, journals, and what it builds anew."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pybroker.storage.local.check import Check, Finding, HeaderCodec, check_journal, check_root, hold
from pybroker.storage.local.checkpoint import Checkpoint, encode_checkpoint
from pybroker.storage.local.disk import Disk
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.local.index import Cover, Index, decode, encode
from pybroker.storage.local.running import has_power_failed
from support.datadir import (
    CLOCK,
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


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-24])


def flip_last(path: Path) -> None:
    flip(path, -1)


def lead_astray(path: Path) -> None:
    astray = Index()
    astray.add(3, CLOCK(), 0)
    astray.add(4, CLOCK(), 800)
    path.write_bytes(encode(Cover(astray, 3 * RECORD_SIZE, 6)))


def end_astray(path: Path) -> None:
    astray = Index()
    astray.add(3, CLOCK(), 0)
    path.write_bytes(encode(Cover(astray, 3 * RECORD_SIZE, 7)))


def cover_less(path: Path) -> None:
    less = Index()
    less.add(3, CLOCK(), 0)
    path.write_bytes(encode(Cover(less, RECORD_SIZE, 4)))


def of_another(path: Path) -> None:
    shutil.copy(path.with_name(f"{0:020}.index"), path)


HARM = [delete, empty, shorten, flip_last, lead_astray, end_astray, cover_less, of_another]


@pytest.mark.parametrize("harm", HARM)
async def test_harmed_index_is_told_and_built_anew_by_a_repair(tmp_path: Path, harm: Callable[[Path], None]):
    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    good = index(tmp_path, 3).read_bytes()
    harm(index(tmp_path, 3))
    before = tree(tmp_path)
    finding = only(run(tmp_path)[0])
    assert finding.path == index(tmp_path, 3)
    assert finding.what.endswith("--repair builds it")
    assert finding.harmless == (harm in (delete, cover_less)), "who needs it completes it"
    assert tree(tmp_path) == before
    assert only(run(tmp_path, repair=True)[0]).mended
    assert index(tmp_path, 3).read_bytes() == good
    assert run(tmp_path)[0] == []
    assert await offsets_read(tmp_path, count=9) == list(range(9))


async def test_index_built_over_damage_leads_behind_it(tmp_path: Path):
    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    flip(segment(tmp_path, 3), RECORD_SIZE + 300)
    index(tmp_path, 3).unlink()
    assert {finding.mended for finding in run(tmp_path, repair=True)[0]} == {True, False}
    cover = decode(index(tmp_path, 3).read_bytes(), 3, size_max=3 * RECORD_SIZE)
    assert list(cover.index.offsets) == [3, 5]
    assert await offsets_read(tmp_path, count=9) == [0, 1, 2, 3, 5, 6, 7, 8]


async def test_repair_that_the_disk_refuses_is_told(tmp_path: Path):
    class ReadOnly(Disk):
        def open(self, path: Path, *, create: bool = False) -> int:
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    empty(index(tmp_path, 3))
    with segment(tmp_path, 6).open("ab") as file:
        file.write(b"torn")
    found, _ = run(tmp_path, repair=True, disk=ReadOnly())
    assert [finding.mended for finding in found] == [False, False]
    assert all("that failed: [Errno 30] Read-only file system" in finding.what for finding in found)
    assert len(wrong(run(tmp_path, disk=ReadOnly())[0])) == 2


@pytest.mark.parametrize(
    ("point", "what"),
    [
        (None, "damaged; the next start goes without it and writes another"),
        (Checkpoint(6, 100, 6, 0), f"offset 6 does not begin at byte 100 of {6:020}.log"),
        (Checkpoint(6, 400, 9, 0), f"offset 9 does not begin at byte 400 of {6:020}.log"),
        (Checkpoint(9, 0, 9, 0), f"tells of a segment that is not there, {9:020}.log"),
        (Checkpoint(0, 1200, 3, 0), None),
        (Checkpoint(2, 400, 3, 0), None),  # its segment may have been trimmed
        (Checkpoint(6, 400, 7, 0), None),
        (Checkpoint(6, 800, 8, 0), None),
    ],
)
async def test_checkpoint_that_does_not_fit_is_told(tmp_path: Path, point: Checkpoint | None, what: str | None):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    data = b"damaged" if point is None else encode_checkpoint(point)
    (folder(tmp_path) / "checkpoint").write_bytes(data)
    found, _ = run(tmp_path, repair=True)
    assert [finding.what for finding in found] == ([] if what is None else [what])
    assert await offsets_read(tmp_path, count=8) == list(range(8))


async def test_newest_segment_that_is_gone_is_told_by_the_checkpoint(tmp_path: Path):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    segment(tmp_path, 6).unlink()
    index(tmp_path, 6).unlink()
    assert only(run(tmp_path)[0]).lost == range(6, 8)


async def test_other_files_are_mentioned_and_stay(tmp_path: Path):
    await write_log(tmp_path, 3)
    names = ["bounds.fresh", f"{7:020}.index", "notes.txt"]
    for name in names:
        (folder(tmp_path) / name).write_bytes(b"x")
    (folder(tmp_path).with_suffix(".dropped")).mkdir()
    (tmp_path / "catalog.fresh").write_bytes(b"x")
    found, _ = run(tmp_path, repair=True)
    assert sorted(finding.path.name for finding in found) == sorted(names)
    more: list[Finding] = []
    check_root(Check(Disk(), HeaderCodec(), more.append, lambda _: None), tmp_path)
    assert [finding.path.name for finding in more] == ["catalog.fresh", f"{1:020}.dropped"]
    assert all(finding.harmless for finding in [*found, *more])
    assert (folder(tmp_path) / "notes.txt").exists()


async def test_file_that_can_not_be_read_is_told_and_the_others_are_checked(tmp_path: Path):
    class Failing(Disk):
        def pread(self, fd: int, size: int, position: int) -> bytes:
            if os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == segment(tmp_path, 3).name:
                raise OSError(errno.EIO, "Input/output error")
            return super().pread(fd, size, position)

    await write_log(tmp_path, 9, SMALL_SEGMENTS)
    found, held = run(tmp_path, disk=Failing())
    assert "Input/output error" in only(found).what
    assert held.records == 6


async def write_journal(root: Path, *, snapshot_after: int | None = None) -> Path:
    engine = LocalEngine.open(root, CLOCK, sync_interval_s=3600)
    journal = engine.journal
    journal.load()
    for number in range(4):
        if number == snapshot_after:
            journal.snapshot(b"state")
        journal.append(b"event %d" % number)
    await engine.close()
    return root / "catalog"


def journal_findings(path: Path, *, repair: bool = False) -> list[Finding]:
    found: list[Finding] = []
    check_journal(Check(Disk(), HeaderCodec(), found.append, lambda _: None, repair), path)
    return found


async def test_journal_with_a_torn_tail_is_told_and_cut_by_a_repair_only(tmp_path: Path):
    path = await write_journal(tmp_path, snapshot_after=2)
    journal = path.with_suffix(".journal")
    journal.write_bytes(journal.read_bytes()[:-3])
    finding = only(journal_findings(path))
    assert (finding.position, finding.what) == (27, "torn tail, 24 bytes, --repair cuts it")
    assert journal.stat().st_size == 51
    assert only(journal_findings(path, repair=True)).mended
    assert journal.stat().st_size == 27
    assert journal_findings(path) == []


@pytest.mark.parametrize("position", range(27))
async def test_damaged_event_before_valid_ones_is_told_and_left(tmp_path: Path, position: int):
    path = await write_journal(tmp_path)
    journal = path.with_suffix(".journal")
    flip(journal, 27 + position)
    before = journal.read_bytes()
    finding = only(journal_findings(path, repair=True))
    assert (finding.path, finding.position) == (journal, 27)
    assert finding.what == "an event is damaged, later ones are not"
    assert journal.read_bytes() == before


async def test_damaged_or_missing_snapshot_is_told(tmp_path: Path):
    path = await write_journal(tmp_path, snapshot_after=2)
    snapshot = path.with_suffix(".snapshot")
    flip(snapshot, 22)
    assert only(journal_findings(path)).path == snapshot
    snapshot.unlink()
    assert only(journal_findings(path)).what == "starts with event 3, should be at most 1"


async def test_directory_is_held_without_a_trace(tmp_path: Path):
    await write_log(tmp_path, 3)
    disk = Disk()
    before = (tmp_path / "lock").read_bytes()
    first, second = hold(disk, tmp_path, alone=False), hold(disk, tmp_path, alone=False)
    with pytest.raises(Exception, match="is in use by process"):
        LocalEngine.open(tmp_path, CLOCK)
    with pytest.raises(Exception, match="is in use by process"):
        hold(disk, tmp_path, alone=True)
    disk.close(first)
    disk.close(second)
    assert (tmp_path / "lock").read_bytes() == before
    (tmp_path / "lock").unlink()
    assert hold(disk, tmp_path, alone=False) == -1
    assert not (tmp_path / "lock").exists()
    disk.close(hold(disk, tmp_path, alone=True))
    assert (tmp_path / "lock").read_bytes() == b""


@pytest.mark.parametrize(
    ("noted", "failed"),
    [(None, False), (Disk().boot_id(), False), (b"another boot", True), (b"lost\n", True), (b"", True)],
)
def test_power_failure_is_known_by_the_boot_id(tmp_path: Path, noted: bytes | None, failed: bool):
    if noted is not None:
        (tmp_path / "running").write_bytes(noted)
    assert has_power_failed(Disk(), tmp_path) is failed
