"""Copies of a directory that changes under them: what each holds, and what of it is shared with the original."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pybroker.protocol.batch import Buffer
from pybroker.storage.cipher import Keyring
from pybroker.storage.errors import Corrupt, Full
from pybroker.storage.local.backup import PASSES_MAX, READS_MAX, Backup, Copied, Restless, restore
from pybroker.storage.local.disk import Disk
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.local.journal import LocalJournal, read_journal
from pybroker.storage.local.syncer import Syncer
from support.batches import make_batch
from support.datadir import (
    CLOCK,
    ONE_SEGMENT,
    RECORD_SIZE,
    SMALL_SEGMENTS,
    flip,
    folder,
    index,
    offsets_read,
    run,
    segment,
    tree,
    write_log,
)

KEY = bytes(range(32))

Acts = dict[tuple[str, str], list[Callable[[], None]]]  # what to do at a method's call for a path with that end


class BusyDisk(Disk):
    """A disk that does something before or after calls for a path: what a broker does meanwhile."""

    def __init__(self) -> None:
        self.before: Acts = {}
        self.after: Acts = {}
        self.calls: list[tuple[str, Path]] = []

    def _act(self, acts: Acts, method: str, path: Path) -> None:
        for (name, end), queue in acts.items():
            if name == method and str(path).endswith(end) and queue:
                queue.pop(0)()

    def _note(self, method: str, path: Path) -> None:
        self.calls.append((method, path))
        self._act(self.before, method, path)

    def listdir(self, path: Path) -> list[str]:
        self._note("listdir", path)
        names = super().listdir(path)
        self._act(self.after, "listdir", path)
        return names

    def read_file(self, path: Path) -> bytes | None:
        self._note("read_file", path)
        data = super().read_file(path)
        self._act(self.after, "read_file", path)
        return data

    def link(self, path: Path, target: Path) -> None:
        self._note("link", path)
        super().link(path, target)

    def open_to_read(self, path: Path) -> int:
        self._note("open_to_read", path)
        return super().open_to_read(path)


class Copier:
    """Backups of `source`, each to a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        self.target = root / "target"
        self.disk = BusyDisk()

    def back_up(self, *, share: bool = True, disk: Disk | None = None) -> Copied:
        self.target.mkdir()
        return Backup(disk or self.disk, self.source, self.target, share=share, seen=lambda _: None).run()


@pytest.fixture
def copier(tmp_path: Path) -> Copier:
    return Copier(tmp_path)


def same_file(first: Path, second: Path) -> bool:
    return first.stat().st_ino == second.stat().st_ino


def logs_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted((root / "logs").rglob("*.log"))}


async def test_sealed_segments_are_the_same_files_and_the_newest_is_not(copier: Copier):
    await write_log(copier.source, 8, SMALL_SEGMENTS)
    copied = copier.back_up()
    assert copied == Copied(logs=1, segments=3, bytes=8 * RECORD_SIZE, linked=2, reflinked=0, copied=1)
    shared = [same_file(segment(copier.source, base), segment(copier.target, base)) for base in (0, 3, 6)]
    assert shared == [True, True, False]
    # Indexes are rewritten in place.
    assert not any(same_file(index(copier.source, base), index(copier.target, base)) for base in (0, 3, 6))
    kept = tree(copier.source)
    assert tree(copier.target) == {name: kept[name] for name in tree(copier.target)}
    assert run(copier.target)[0] == []


async def test_nothing_is_shared_where_that_is_not_wanted(copier: Copier):
    await write_log(copier.source, 8, SMALL_SEGMENTS)
    assert copier.back_up(share=False).copied == 3
    assert not any(same_file(segment(copier.source, base), segment(copier.target, base)) for base in (0, 3, 6))
    assert logs_of(copier.target) == logs_of(copier.source)


class OtherFileSystem(Disk):
    """Where the target is on a file system that can't link to the source's."""

    def link(self, path: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link", str(path))


class Reflinking(OtherFileSystem):
    """And one that shares blocks; here it copies them."""

    def clone(self, source_fd: int, fd: int) -> None:
        self.pwrite(fd, self.pread(source_fd, 1 << 20, 0), 0)


@pytest.mark.parametrize(("disk", "ways"), [(OtherFileSystem(), (0, 0, 3)), (Reflinking(), (0, 2, 1))])
async def test_the_cheapest_way_that_works_is_taken(copier: Copier, disk: Disk, ways: tuple[int, int, int]):
    await write_log(copier.source, 8, SMALL_SEGMENTS)
    copied = copier.back_up(disk=disk)
    assert (copied.linked, copied.reflinked, copied.copied) == ways
    assert logs_of(copier.target) == logs_of(copier.source)


@pytest.mark.parametrize("keys", [None, Keyring([KEY])])
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("size", [1, 100, 255, 256, 300, RECORD_SIZE - 1])
async def test_half_written_record_is_not_in_the_copy(copier: Copier, size: int, killed: bool, keys: Keyring | None):
    await write_log(copier.source, 8, SMALL_SEGMENTS, killed=killed, keys=keys)
    newest = segment(copier.source, 6)
    newest.write_bytes(newest.read_bytes() + newest.read_bytes()[:size])
    before = tree(copier.source)
    assert copier.back_up().bytes == 8 * RECORD_SIZE
    assert tree(copier.source) == before
    found, held = run(copier.target, keys=keys)
    assert [finding for finding in found if not finding.harmless] == []
    assert held.messages == 8


async def test_index_of_what_was_cut_off_is_left_out(copier: Copier):
    await write_log(copier.source, 2)
    newest = segment(copier.source)
    newest.write_bytes(newest.read_bytes()[:-1])
    (folder(copier.source) / "checkpoint").unlink()
    copier.back_up()
    assert not index(copier.target).exists()
    assert run(copier.target)[0] == []


async def test_damage_in_the_newest_segment_does_not_cut_what_follows(copier: Copier):
    await write_log(copier.source, 8)
    (folder(copier.source) / "checkpoint").unlink()
    index(copier.source).unlink()
    flip(segment(copier.source), 300)
    copier.back_up()
    assert logs_of(copier.target) == logs_of(copier.source)


async def test_segment_that_only_empty_ones_follow_is_a_file_of_its_own(copier: Copier):
    # The next start may cut it and append to it.
    await write_log(copier.source, 8, SMALL_SEGMENTS)
    segment(copier.source, 6).write_bytes(b"")
    assert copier.back_up().linked == 1
    assert not same_file(segment(copier.source, 3), segment(copier.target, 3))


async def test_what_is_being_rewritten_is_left_out(copier: Copier):
    await write_log(copier.source, 8, SMALL_SEGMENTS)
    for path in (index(copier.source, 3), folder(copier.source) / "checkpoint"):
        path.write_bytes(path.read_bytes()[:20])
    copier.back_up()
    assert not index(copier.target, 3).exists()
    assert not (folder(copier.target) / "checkpoint").exists()
    assert await offsets_read(copier.target, count=8) == list(range(8))


async def test_segment_that_grows_is_copied_as_it_was_at_one_moment(copier: Copier):
    engine = LocalEngine.open(copier.source, CLOCK, sync_interval_s=3600)
    log = engine.open_log(1, SMALL_SEGMENTS)
    for _ in range(2):
        await log.append(make_batch())
    path = segment(copier.source)
    record = path.read_bytes()[: path.stat().st_size // 2]

    def append() -> None:
        with path.open("ab") as file:
            file.write(record)

    copier.disk.before = {("open_to_read", path.name): [append]}
    assert copier.back_up().bytes == 2 * len(record)
    await engine.close()


async def test_log_that_is_trimmed_under_the_copy_is_listed_again(copier: Copier):
    await write_log(copier.source, 11, SMALL_SEGMENTS)

    def trim(*bases: int) -> None:
        for base in bases:
            index(copier.source, base).unlink()
            segment(copier.source, base).unlink()

    copier.disk.before = {("link", segment(copier.source, 3).name): [lambda: trim(0, 3)]}
    copied = copier.back_up()
    assert list(logs_of(copier.target)) == list(logs_of(copier.source))
    assert (copied.segments, copied.bytes) == (2, 5 * RECORD_SIZE)
    assert [path for method, path in copier.disk.calls if method == "link"].count(segment(copier.source, 6)) == 1
    assert run(copier.target)[0] == []


async def test_newest_segment_that_was_sealed_meanwhile_is_copied_again_whole(copier: Copier):
    await write_log(copier.source / "later", 8, SMALL_SEGMENTS)
    await write_log(copier.source, 5, SMALL_SEGMENTS)
    other = folder(copier.source, 2)
    shutil.copytree(folder(copier.source), other)

    def go_on() -> None:
        shutil.rmtree(other)
        shutil.copytree(folder(copier.source / "later"), folder(copier.source), dirs_exist_ok=True)

    # Log 2 goes away when log 1 was copied, so all is brought up to date.
    copier.disk.before = {("link", f"{2:020}/{0:020}.log"): [go_on]}
    copied = copier.back_up()
    assert (copied.logs, copied.segments, copied.linked) == (1, 3, 2)
    assert same_file(segment(copier.source, 3), segment(copier.target, 3))
    assert not folder(copier.target, 2).exists()
    assert run(copier.target)[1].messages == 8


@pytest.mark.parametrize("when", ["listdir", "link"])
async def test_log_that_is_dropped_under_the_copy_is_not_in_it(copier: Copier, when: str):
    await write_log(copier.source, 8, SMALL_SEGMENTS)
    other = folder(copier.source, 2)
    shutil.copytree(folder(copier.source), other)

    def drop() -> None:
        other.rename(other.with_suffix(".dropped"))

    end = {"listdir": other.name, "link": f"{2:020}/{3:020}.log"}[when]
    copier.disk.before = {(when, end): [drop]}
    assert copier.back_up().logs == 1
    assert list((copier.target / "logs").iterdir()) == [folder(copier.target)]
    catalogs = [path for method, path in copier.disk.calls if method == "read_file" and path.name == "catalog.journal"]
    assert len(catalogs) == 4, "the catalog is read again, for it says that the log is gone"


async def test_directory_that_never_rests_is_given_up(copier: Copier):
    await write_log(copier.source, 2)
    number = 1

    def purge() -> None:
        nonlocal number
        folder(copier.source, number).rename(folder(copier.source, number + 1))
        number += 1

    copier.disk.after = {("listdir", "source/logs"): [purge] * 3 * PASSES_MAX}
    with pytest.raises(Restless):
        copier.back_up()


async def write_journal(root: Path, *, events: int) -> None:
    engine = LocalEngine.open(root, CLOCK, sync_interval_s=3600)
    engine.journal.load()
    for number in range(events):
        engine.journal.append(b"event %d" % number)
    engine.offsets.put(b"key", events)
    await engine.close()


class Writer:
    """What writes a catalog while it is copied."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.appended = 0

    def append(self) -> None:
        self._write(snapshot=False)

    def replace(self) -> None:
        self._write(snapshot=True)

    def _write(self, *, snapshot: bool) -> None:
        scratch = self._root.parent / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for path in self._root.glob("catalog.*"):
            shutil.copy(path, scratch)
        syncer = Syncer(3600)
        journal = LocalJournal(Disk(), syncer, scratch / "catalog")
        state, events = journal.load()
        if snapshot:
            journal.snapshot((state or b"") + b"".join(events))
        journal.append(b"new %d" % self.appended)
        self.appended += 1
        for path in scratch.glob("catalog.*"):
            shutil.copy(path, self._root)


def catalog_of(root: Path) -> bytes:
    contents = read_journal(Disk(), root / "catalog")
    assert contents.faults == []
    return (contents.state or b"") + b"".join(event.payload for event in contents.later)


@pytest.mark.parametrize("name", ["catalog.journal", "catalog.snapshot", "offsets.journal"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["append", "replace"])
async def test_catalog_that_changes_under_the_copy_is_read_again(copier: Copier, name: str, when: str, how: str):
    await write_journal(copier.source, events=3)
    writer = Writer(copier.source)
    getattr(copier.disk, when)["read_file", name] = [getattr(writer, how)] * 2
    copier.back_up()
    assert writer.appended == 2
    # Nothing that was there at the beginning is lost, nothing is there twice.
    assert catalog_of(copier.target) == catalog_of(copier.source) == b"event 0event 1event 2new 0new 1"


async def test_event_that_is_half_written_is_not_in_the_copy(copier: Copier):
    await write_journal(copier.source, events=3)
    journal = copier.source / "catalog.journal"
    journal.write_bytes(journal.read_bytes() + b"half")
    copier.back_up()
    assert (copier.target / "catalog.journal").stat().st_size == journal.stat().st_size - 4


async def test_catalog_that_never_rests_is_given_up(copier: Copier):
    await write_journal(copier.source, events=1)
    writer = Writer(copier.source)
    copier.disk.after = {("read_file", "offsets.journal"): [writer.append] * READS_MAX}
    with pytest.raises(Restless):
        copier.back_up()


async def test_damaged_journal_is_not_copied(copier: Copier):
    await write_journal(copier.source, events=3)
    flip(copier.source / "catalog.journal", 25)
    with pytest.raises(Corrupt):
        copier.back_up()


async def test_full_disk_is_told(copier: Copier):
    class FullDisk(Disk):
        def pwrite(self, fd: int, data: Buffer, position: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    await write_log(copier.source, 8, SMALL_SEGMENTS)
    with pytest.raises(Full):
        copier.back_up(disk=FullDisk())


async def test_all_of_the_copy_is_durable(copier: Copier):
    class Syncing(Disk):
        def __init__(self) -> None:
            self.synced: set[int] = set()

        def fdatasync(self, fd: int) -> None:
            super().fdatasync(fd)
            self.synced.add(Path(f"/proc/self/fd/{fd}").stat().st_ino)

        def fsync_dir(self, path: Path) -> None:
            super().fsync_dir(path)
            self.synced.add(path.stat().st_ino)

    await write_log(copier.source, 8, SMALL_SEGMENTS)
    disk = Syncing()
    copier.back_up(disk=disk)
    paths = [copier.target, *copier.target.rglob("*")]
    assert [path for path in paths if path.stat().st_ino not in disk.synced] == []


async def test_restored_directory_shares_nothing_with_the_backup(copier: Copier, tmp_path: Path):
    await write_log(copier.source, 8, SMALL_SEGMENTS)
    copier.back_up()
    before = tree(copier.target)
    restored = tmp_path / "restored"
    restored.mkdir()
    copied = restore(Disk(), copier.target, restored, seen=lambda _: None)
    assert (copied.logs, copied.segments, copied.bytes, copied.linked) == (1, 3, 8 * RECORD_SIZE, 0)
    assert tree(restored) == {name: digest for name, digest in before.items() if name != "lock"}
    assert await offsets_read(restored, count=8) == list(range(8))
    assert tree(copier.target) == before


async def test_log_without_segments_is_no_trouble(copier: Copier):
    await write_log(copier.source, 1, ONE_SEGMENT)
    folder(copier.source, 5).mkdir()
    assert copier.back_up().logs == 1


@pytest.mark.skipif(
    not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == Path("/tmp").stat().st_dev,
    reason="there is no second file system",
)
async def test_target_on_another_file_system_holds_copies(tmp_path: Path):
    await write_log(tmp_path, 8, SMALL_SEGMENTS)
    target = Path("/dev/shm") / f"pybroker-{tmp_path.name}"
    target.mkdir()
    try:
        copied = Backup(Disk(), tmp_path, target, share=True, seen=lambda _: None).run()
        assert copied.copied == 3
        assert logs_of(target) == logs_of(tmp_path)
    finally:
        shutil.rmtree(target)
