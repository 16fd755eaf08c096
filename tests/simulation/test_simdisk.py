"""The simulated disk: it does what the real one does, and loses what the real one may lose."""

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pybroker.storage.errors import Full
from pybroker.storage.local.disk import Disk, write_whole
from support.simdisk import CREATE, MKDIR, RENAME, SYNC, SYNC_DIR, TRUNCATE, WRITE, Fault, Killed, SimDisk
from support.simfiles import SECTOR_SIZE

ROOT = Path("/data")
FILE = ROOT / "file"
SEEDS = range(200)


@pytest.fixture
def disk() -> SimDisk:
    return make_disk()


def make_disk(seed: int = 1) -> SimDisk:
    """Return a disk with a durable folder `ROOT`."""
    disk = SimDisk(random.Random(seed))
    disk.mkdir(ROOT)
    disk.fsync_dir(ROOT.parent)
    return disk


def put(disk: Disk, data: bytes, *, path: Path = FILE, position: int = 0, sync: bool = False) -> None:
    fd = disk.open(path, create=True)
    assert disk.pwrite(fd, data, position) == len(data)
    if sync:
        disk.fdatasync(fd)
        disk.fsync_dir(path.parent)
    disk.close(fd)


class Script:
    """A random sequence of plain operations, and what each of them gives."""

    NAMES = ("a", "b", "c", "folder", "folder/a", "folder/inner", "missing/a", "a/b")

    def __init__(self, disk: Disk, root: Path, seed: int) -> None:
        self._disk = disk
        self._root = root
        self._rng = random.Random(seed)
        self._fds: list[int] = []

    def run(self, count: int) -> Iterator[object]:
        steps = [
            self._open, self._open, self._close, self._pwrite, self._pwrite, self._pread, self._truncate, self._sync,
            self._size, self._listdir, self._mkdir, self._rename, self._unlink, self._rmdir, self._sync_folder,
            self._mmap, self._read_file, self._write_file, self._link, self._open_to_read,
        ]  # fmt: skip
        for _ in range(count):
            step = self._rng.choice(steps)
            try:
                result = step()
            except OSError as error:
                result = (type(error), error.errno)
            yield step.__name__, result

    def _path(self) -> Path:
        return self._root / self._rng.choice(self.NAMES)

    def _fd(self) -> int:
        return self._rng.choice(self._fds) if self._fds else 1_000_000

    def _open(self) -> None:
        self._fds.append(self._disk.open(self._path(), create=self._rng.random() < 0.7))

    def _open_to_read(self) -> bytes:
        path = self._path()
        self._disk.read_file(path)  # refuses folders
        fd = self._disk.open_to_read(path)
        data = self._disk.pread(fd, 10, 0)
        self._disk.close(fd)
        return data

    def _close(self) -> None:
        fd = self._fd()
        self._disk.close(fd)
        self._fds.remove(fd)

    def _pwrite(self) -> int:
        size, position = self._rng.randrange(2000), self._rng.choice((0, 10, 1000, 5000))
        return self._disk.pwrite(self._fd(), self._rng.randbytes(size), position)

    def _pread(self) -> bytes:
        return self._disk.pread(self._fd(), self._rng.randrange(3000), self._rng.randrange(3000))

    def _truncate(self) -> None:
        self._disk.truncate(self._fd(), self._rng.choice((0, 100, 3000)))

    def _sync(self) -> None:
        self._disk.fdatasync(self._fd())

    def _size(self) -> int:
        path = self._path()
        self._disk.read_file(path)  # refuses folders, whose size means nothing
        return self._disk.size(path)

    def _listdir(self) -> list[str]:
        return sorted(self._disk.listdir(self._path()))

    def _mkdir(self) -> None:
        self._disk.mkdir(self._path())

    def _rename(self) -> None:
        path = self._path()
        self._disk.rename(path, path.parent / self._rng.choice(("a", "b", "folder", "inner")))

    def _unlink(self) -> None:
        self._disk.unlink(self._path())

    def _rmdir(self) -> None:
        self._disk.rmdir(self._path())

    def _sync_folder(self) -> None:
        self._disk.fsync_dir(self._path())

    def _mmap(self) -> bytes:
        path = self._path()
        self._disk.read_file(path)  # refuses folders in words that all file systems share
        return bytes(self._disk.mmap(path))

    def _read_file(self) -> bytes | None:
        return self._disk.read_file(self._path())

    def _write_file(self) -> None:
        self._disk.write_file(self._path(), self._rng.randbytes(50))

    def _link(self) -> None:
        self._disk.link(self._path(), self._path())


@pytest.mark.parametrize("seed", range(10))
def test_plain_operations_give_what_the_real_disk_gives(tmp_path: Path, seed: int) -> None:
    real = Script(Disk(), tmp_path, seed)
    simulated = Script(make_disk(), ROOT, seed)
    for expected, found in zip(real.run(300), simulated.run(300), strict=True):
        assert found == expected


def test_process_death_keeps_what_was_written_and_frees_the_lock(disk: SimDisk) -> None:
    disk.lock(ROOT / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock(ROOT / "lock")
    put(disk, b"written")
    before = disk.boot_id()
    disk.crash(power=False)
    assert disk.read_file(FILE) == b"written"
    assert disk.boot_id() == before
    disk.lock(ROOT / "lock")


def test_lock_is_shared_by_those_who_do_not_want_it_alone(disk: SimDisk) -> None:
    put(disk, b"")
    first = disk.hold(FILE, alone=False)
    second = disk.hold(FILE, alone=False)
    with pytest.raises(BlockingIOError):
        disk.hold(FILE, alone=True)
    disk.close(first)
    disk.close(second)
    disk.hold(FILE, alone=True)


def test_power_failure_keeps_what_was_synced() -> None:
    for seed in SEEDS:
        disk = make_disk(seed)
        put(disk, b"synced", sync=True)
        before = disk.boot_id()
        disk.crash(power=True)
        assert disk.read_file(FILE) == b"synced"
        assert disk.boot_id() != before


def outcomes(prepare: Callable[[SimDisk], None], *, path: Path = FILE) -> set[bytes | None]:
    """Return what a file may hold after a power failure, over many seeds."""
    found: set[bytes | None] = set()
    for seed in SEEDS:
        disk = make_disk(seed)
        prepare(disk)
        disk.crash(power=True)
        found.add(disk.read_file(path))
    return found


def test_unsynced_write_is_kept_lost_torn_or_zeros() -> None:
    old, new = b"o" * 2 * SECTOR_SIZE, b"n" * 3 * SECTOR_SIZE

    def overwrite(disk: SimDisk) -> None:
        put(disk, old, sync=True)
        put(disk, new)

    found = outcomes(overwrite)
    assert {old, new, old + bytes(SECTOR_SIZE)} <= found
    sectors = {bytes(image[start : start + 1]) for image in found if image for start in range(0, 1536, SECTOR_SIZE)}
    assert sectors == {b"o", b"n", b"\0", b""}
    assert old[:SECTOR_SIZE] + new[SECTOR_SIZE:] in found


def test_unsynced_writes_are_lost_in_any_order() -> None:
    first, later = b"f" * SECTOR_SIZE, b"l" * SECTOR_SIZE

    def append_two(disk: SimDisk) -> None:
        put(disk, b"", sync=True)
        put(disk, first)
        put(disk, later, position=SECTOR_SIZE)

    assert {b"", first, first + later, bytes(SECTOR_SIZE) + later} <= outcomes(append_two)


def test_sector_that_was_written_holds_what_was_written_there_before() -> None:
    def append_two(disk: SimDisk) -> None:
        put(disk, b"", sync=True)
        put(disk, b"first")
        put(disk, b"later", position=5)

    assert outcomes(append_two) == {b"", b"first", bytes(5), bytes(10), b"first" + bytes(5), b"firstlater"}


def test_name_is_lost_unless_its_folder_was_synced() -> None:
    def write_only(disk: SimDisk) -> None:
        fd = disk.open(FILE, create=True)
        disk.pwrite(fd, b"data", 0)
        disk.fdatasync(fd)

    assert outcomes(write_only) == {None, b"data"}


def test_rename_is_atomic() -> None:
    fresh = ROOT / "fresh"

    def replace(disk: SimDisk) -> None:
        put(disk, b"old", sync=True)
        put(disk, b"new", path=fresh, sync=True)
        disk.rename(fresh, FILE)

    assert outcomes(replace) == {b"old", b"new"}
    assert outcomes(replace, path=fresh) == {None, b"new"}


def test_changes_of_one_name_stay_in_order() -> None:
    def come_and_go(disk: SimDisk) -> None:
        put(disk, b"data")
        disk.unlink(FILE)
        disk.fsync_dir(ROOT)
        put(disk, b"", sync=True)
        disk.rename(FILE, ROOT / "other")
        disk.rename(ROOT / "other", ROOT / "last")

    for seed in SEEDS:
        disk = make_disk(seed)
        come_and_go(disk)
        disk.crash(power=True)
        assert disk.listdir(ROOT) in (["file"], ["other"], ["last"])


def test_folder_that_was_never_durable_goes_with_all_in_it() -> None:
    def write_below(disk: SimDisk) -> None:
        disk.mkdir(ROOT / "folder")
        put(disk, b"data", path=ROOT / "folder" / "file", sync=True)

    assert outcomes(write_below, path=ROOT / "folder" / "file") == {None, b"data"}


def make_folder(disk: SimDisk) -> None:
    disk.mkdir(ROOT / "folder")


def rename_file(disk: SimDisk) -> None:
    disk.rename(FILE, ROOT / "new")


def empty_file(disk: SimDisk) -> None:
    disk.truncate(disk.open(FILE), 0)


def sync_file(disk: SimDisk) -> None:
    disk.fdatasync(disk.open(FILE))


def sync_folder(disk: SimDisk) -> None:
    disk.fsync_dir(ROOT)


def write_file(disk: SimDisk) -> None:
    put(disk, b"x")


def create_file(disk: SimDisk) -> None:
    put(disk, b"x", path=ROOT / "new")


@pytest.mark.parametrize(
    ("fault", "call"),
    [
        (Fault(WRITE, errno.EIO), write_file),
        (Fault(WRITE, errno.ENOSPC), write_file),
        (Fault(CREATE, errno.ENOSPC), create_file),
        (Fault(MKDIR, errno.EIO), make_folder),
        (Fault(RENAME, errno.EIO), rename_file),
        (Fault(TRUNCATE, errno.EIO), empty_file),
        (Fault(SYNC, errno.EIO), sync_file),
        (Fault(SYNC_DIR, errno.EIO), sync_folder),
    ],
)
def test_fault_strikes_once_and_is_counted(disk: SimDisk, fault: Fault, call: Callable[[SimDisk], None]) -> None:
    put(disk, b"data", sync=True)
    disk.arm(fault)
    with pytest.raises(OSError) as caught:
        call(disk)
    assert caught.value.errno == fault.number
    assert disk.read_file(FILE) == b"data"
    assert disk.counts == {str(fault): 1}
    assert not disk.strikes[0].lost
    call(disk)


def test_short_write_writes_less_than_it_was_given(disk: SimDisk) -> None:
    disk.arm(Fault(WRITE))
    fd = disk.open(FILE, create=True)
    written = disk.pwrite(fd, b"x" * 1000, 0)
    assert written < 1000
    assert disk.size(FILE) == written


def test_full_disk_takes_writes_again_when_room_is_given_back(disk: SimDisk) -> None:
    put(disk, b"x" * 100, path=ROOT / "other")
    fd = disk.open(FILE, create=True)
    disk.room = 50
    with pytest.raises(Full):
        write_whole(disk, fd, b"x" * 60, 0)
    assert disk.size(FILE) == 0
    write_whole(disk, fd, b"x" * 50, 0)
    write_whole(disk, fd, b"y" * 50, 0)  # takes no more than there is
    with pytest.raises(Full):
        write_whole(disk, fd, b"x", 50)
    with pytest.raises(OSError) as caught:
        disk.open(ROOT / "new", create=True)
    assert caught.value.errno == errno.ENOSPC
    disk.unlink(ROOT / "other")
    write_whole(disk, fd, b"x" * 100, 50)
    assert disk.counts["no room left"] == 3


def test_failed_sync_loses_pages_at_once_or_at_the_next_power_failure() -> None:
    found: set[tuple[bytes | None, bytes | None]] = set()
    for seed in SEEDS:
        disk = make_disk(seed)
        put(disk, b"old", sync=True)
        fd = disk.open(FILE)
        disk.pwrite(fd, b"new", 0)
        disk.arm(Fault(SYNC, errno.EIO))
        with pytest.raises(OSError):
            disk.fdatasync(fd)
        disk.fdatasync(fd)  # the kernel says it is all right
        seen = disk.read_file(FILE)
        disk.crash(power=True)
        kept = disk.read_file(FILE)
        assert disk.strikes[0].lost == (kept == b"old")
        found.add((seen, kept))
    assert found == {(b"old", b"old"), (b"new", b"old"), (b"new", b"new")}


def test_flipped_byte_is_there_after_a_power_failure_and_can_be_put_back(disk: SimDisk) -> None:
    put(disk, b"data", sync=True)
    disk.flip(FILE, 1)
    disk.crash(power=True)
    assert disk.read_file(FILE) == b"dqta"
    disk.flip(FILE, 1)
    assert disk.read_file(FILE) == b"data"


def test_process_dies_in_the_call_it_is_told_to(disk: SimDisk) -> None:
    put(disk, b"")
    fd = disk.open(FILE)
    disk.die_in(1)
    disk.pwrite(fd, b"whole", 0)
    with pytest.raises(Killed):
        disk.pwrite(fd, b"in part", 5)
    for call in (lambda: disk.read_file(FILE), lambda: disk.fdatasync(fd), lambda: disk.mkdir(ROOT)):
        with pytest.raises(Killed):
            call()
    disk.close(fd)  # as a `finally` does on the way out
    disk.crash(power=False)
    assert (disk.read_file(FILE) or b"").startswith(b"whole")
    assert len(disk.read_file(FILE) or b"") < 12


def test_same_seed_does_the_same() -> None:
    images: list[bytes | None] = []
    for _ in range(2):
        disk = make_disk(7)
        put(disk, b"", sync=True)
        for position in range(0, 50_000, 700):
            put(disk, bytes([position % 251]) * 700, position=position)
        disk.crash(power=True)
        images.append(disk.read_file(FILE))
    assert images[0] == images[1]
