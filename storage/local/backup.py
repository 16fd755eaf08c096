"""Copies a data directory at file level, also under a running broker, so that the copy is one that a broker starts on.

What is copied, and in which order, makes it consistent without a word to the broker:

- The catalog and the offsets first, together, read again until nobody changed them meanwhile. A journal is read before
  its snapshot, so that an event is in one of them at least.
- Then the logs that there are, so that each holds what any copied offset speaks of. Of a log its small files come
  first, then its segments, oldest first. All but the last that has records never change: they get a second name. That
  one is copied as long as it is at one moment, and cut back to its last whole record.
- Last a look at the logs that there are now: if one of them was deleted meanwhile, all is brought up to date once
  more. That takes a moment only: what was copied before stays, and nothing but sealed segments is synced until the end.

Crash invariant: everything in the copy is durable when `run` returns.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ..errors import Corrupt
from .bounds import bounds_path
from .check import JOURNALS, LOG_NAME, HeaderCodec
from .check_log import SEGMENT_NAME
from .checkpoint import checkpoint_path, decode_checkpoint
from .disk import Disk, write_whole
from .index import decode
from .journal import parse_journal
from .resync import header_at
from .scan import Scan
from .segment import Segment

# How often things may change under a copy before it gives up.
PASSES_MAX = 100
READS_MAX = 20
LISTINGS_MAX = 1000
# What is copied at a time, synced each time: a large file that is synced as a whole holds up the broker's syncs.
CHUNK_SIZE = 16 * 1024 * 1024

_FILE_NAME = re.compile(r"\d{20}\.(log|index)|checkpoint|bounds|(catalog|offsets)\.(journal|snapshot)")

Way = Callable[[Disk, Path, Path], None]
Seen = Callable[[int], None]


class Restless(Exception):
    """The directory changed too often while it was copied; the text says what changed."""


class _Vanished(Exception):
    """A log was deleted while it was copied."""


class Copied(msgspec.Struct):
    """What a copy has come to. linked, reflinked, copied: how many segments, by the way that they were."""

    logs: int
    segments: int
    bytes: int
    linked: int
    reflinked: int
    copied: int


def link(disk: Disk, path: Path, target: Path) -> None:
    """Give a file that never changes a second name, durably."""
    disk.link(path, target)
    _sync(disk, target)


def clone(disk: Disk, path: Path, target: Path) -> None:
    """Make a file that shares the other one's blocks."""
    source_fd = disk.open_to_read(path)
    try:
        fd = disk.open(target, create=True)
        try:
            disk.clone(source_fd, fd)
            disk.fdatasync(fd)
        finally:
            disk.close(fd)
    finally:
        disk.close(source_fd)


def copy(disk: Disk, path: Path, target: Path) -> None:
    """Copy a file byte by byte, durably."""
    copy_part(disk, path, target, 0, disk.size(path), durably=True)


# From the cheapest to the one that works everywhere.
WAYS: dict[str, Way] = {"linked": link, "reflinked": clone, "copied": copy}


def place(disk: Disk, path: Path, target: Path, ways: Sequence[str]) -> str:
    """Make a file appear at `target`, the first way that the file systems allow; return which one that was.

    Raises FileNotFoundError if it is gone, OSError and Full as the last way does.
    """
    for way in ways[:-1]:
        try:
            WAYS[way](disk, path, target)
        except FileNotFoundError:
            raise
        except OSError:
            continue
        return way
    WAYS[ways[-1]](disk, path, target)
    return ways[-1]


def copy_part(disk: Disk, path: Path, target: Path, start: int, end: int, *, durably: bool) -> int:
    """Copy a file from byte `start` to `end`, or where it ends, behind what `target` has; return where that was."""
    # As fast as copy_file_range and sendfile, and there on every system.
    source_fd = disk.open_to_read(path)
    try:
        fd = disk.open(target, create=True)
        try:
            position = start
            while position < end and (data := disk.pread(source_fd, min(CHUNK_SIZE, end - position), position)):
                write_whole(disk, fd, data, position)
                position += len(data)
                if durably:
                    disk.fdatasync(fd)
            disk.truncate(fd, position)
        finally:
            disk.close(fd)
    finally:
        disk.close(source_fd)
    return position


class Backup:
    """One backup of the data directory `source` to the folder `target`, which holds nothing of it yet."""

    def __init__(self, disk: Disk, source: Path, target: Path, *, share: bool, seen: Seen) -> None:
        """share: let sealed segments be the same file, or the same blocks, as the original ones.

        seen: is told how many bytes are done, again and again.
        """
        self._disk = disk
        self._source = source
        self._target = target
        self._ways = tuple(WAYS) if share else ("copied",)
        self._seen = seen
        self._sealed: dict[Path, str] = {}  # by what way the sealed segments came
        self._sizes: dict[Path, int] = {}  # of all segments in the copy
        self._ends: dict[Path, int] = {}  # the next offset of the others

    def run(self) -> Copied:
        """Raises Restless, Corrupt for journals that can't be read whole, OSError, Full."""
        for _ in range(PASSES_MAX):
            try:
                self._bring_up_to_date()
            except _Vanished:
                continue
            self._make_durable()
            return self._count()
        raise Restless(f"in each of {PASSES_MAX} tries a topic was deleted or purged; try again when that is over")

    def _count(self) -> Copied:
        ways = Counter(self._sealed.values())
        copied = len(self._sizes) - ways["linked"] - ways["reflinked"]
        logs = len({path.parent for path in self._sizes})
        return Copied(logs, len(self._sizes), sum(self._sizes.values()), ways["linked"], ways["reflinked"], copied)

    def _bring_up_to_date(self) -> None:
        """Copy what the target lacks or has in an older state. Raises _Vanished where all has to begin again."""
        disk, logs = self._disk, self._target / "logs"
        disk.mkdir(logs)
        known = self._copy_journals() | self._list_logs()
        for name in filter(LOG_NAME.fullmatch, disk.listdir(logs)):
            if name not in known:
                self._forget_log(name)
        for name in sorted(known):
            self._copy_log(name)
        if not known <= self._list_logs():
            raise _Vanished

    def _make_durable(self) -> None:
        """Sync what was not synced as it came: all but sealed segments, and the names."""
        disk, logs = self._disk, self._target / "logs"
        for folder in [self._target, *(logs / name for name in disk.listdir(logs))]:
            for name in filter(_FILE_NAME.fullmatch, disk.listdir(folder)):
                if folder / name not in self._sealed:
                    _sync(disk, folder / name)
            disk.fsync_dir(folder)
        disk.fsync_dir(logs)

    def _list_logs(self) -> set[str]:
        return set(filter(LOG_NAME.fullmatch, self._disk.listdir(self._source / "logs")))

    def _copy_journals(self) -> set[str]:
        """Copy the offsets and the catalog as they were at one moment; return the names of the logs there were."""
        for _ in range(READS_MAX):
            before = self._read_journal("catalog")
            offsets = self._read_journal("offsets")
            # A log that has an offset and is not listed was deleted, and the catalog already says so.
            names = self._list_logs()
            catalog = self._read_journal("catalog")
            if catalog == before:
                break
        else:
            raise Restless(f"the catalog changed in each of {READS_MAX} readings; try again when that is over")
        for name, files in zip(JOURNALS, (catalog, offsets), strict=True):
            for kind, data in zip(("snapshot", "journal"), files, strict=True):
                self._write(self._target / f"{name}.{kind}", data)
        return names

    def _read_journal(self, name: str) -> tuple[bytes | None, bytes | None]:
        """Return a snapshot and a journal that fit, less what is half written; None for none. Raises Corrupt."""
        path = self._source / name
        fault: Corrupt | None = None
        for _ in range(READS_MAX):
            journal = self._disk.read_file(path.with_suffix(".journal"))
            snapshot = self._disk.read_file(path.with_suffix(".snapshot"))
            contents = parse_journal(path, journal or b"", snapshot)
            if not contents.faults:
                return snapshot, None if journal is None else journal[: contents.end]
            fault = contents.faults[0]  # Most likely the journal was cut while it was read.
        assert fault is not None
        raise fault

    def _copy_log(self, name: str) -> None:
        """Copy a log; begin with it again when retention removes a segment under the copy."""
        for _ in range(LISTINGS_MAX):
            with suppress(FileNotFoundError):
                self._copy_segments(self._source / "logs" / name, self._target / "logs" / name)
                return
            if name not in self._list_logs():
                raise _Vanished
        raise Restless(f"segments of log {name} were removed in each of {LISTINGS_MAX} readings")

    def _copy_segments(self, source: Path, target: Path) -> None:
        """Bring the copy of a log up to date. Raises FileNotFoundError when a segment goes away."""
        disk = self._disk
        names = sorted(filter(SEGMENT_NAME.fullmatch, disk.listdir(source)))
        self._forget_others(target, names)
        if not names:
            return
        disk.mkdir(target)
        self._write(bounds_path(target), disk.read_file(bounds_path(source)))
        point = disk.read_file(checkpoint_path(source))
        # One that is being rewritten says nothing; without it the next start verifies more.
        self._write(checkpoint_path(target), point if point and decode_checkpoint(point) else None)
        filled = [name for name in names if disk.size(source / name)]
        for name in names:
            # Recovery cuts, and goes on with, a segment that only empty ones follow.
            if filled and name < filled[-1]:
                self._copy_sealed(source / name, target / name)
            else:
                self._copy_newest(source / name, target / name)

    def _copy_sealed(self, path: Path, target: Path) -> None:
        if target not in self._sealed:
            self._unlink(target)
            self._ends.pop(target, None)
            self._sealed[target] = place(self._disk, path, target, self._ways)
            self._sizes[target] = self._disk.size(target)
            self._seen(self._sizes[target])
        self._copy_index(path, target)

    def _copy_newest(self, path: Path, target: Path) -> None:
        """Copy a segment that may be appended to, up to its last whole record."""
        start = self._sizes.get(target, 0)
        # Whole records stay what they are, so the last copy is gone on with.
        size = copy_part(self._disk, path, target, start, self._disk.size(path), durably=False)
        self._seen(size - start)
        self._cut_back(path, target, size)
        self._copy_index(path, target)

    def _cut_back(self, path: Path, target: Path, size: int) -> None:
        """Cut off what is half written, and note what is left. Bytes that valid ones follow stay."""
        disk = self._disk
        segment = Segment(target.parent, int(target.stem), size=size)
        segment.fd = disk.open(target)
        try:
            scan = Scan(disk, segment, HeaderCodec(), start=self._start_of_tail(path, segment))
            for damage in scan.damages():
                if damage.end == size > damage.start:
                    disk.truncate(segment.fd, damage.start)
                    segment.size = damage.start
        finally:
            disk.close(segment.fd)
        self._sizes[target], self._ends[target] = segment.size, scan.offset

    def _start_of_tail(self, path: Path, segment: Segment) -> tuple[int, int]:
        """Return position and offset of a record near the end: where the last copy, index or checkpoint ends."""
        point = decode_checkpoint(self._disk.read_file(checkpoint_path(segment.path.parent)) or b"")
        cover = decode(self._disk.read_file(path.with_suffix(".index")), segment.base, size_max=segment.size)
        places = [(cover.size, cover.next_offset)]
        if segment.path in self._ends:
            places.append((self._sizes[segment.path], self._ends[segment.path]))
        if point is not None and point.base == segment.base:
            places.append((point.position, point.next_offset))
        for position, offset in sorted(places, reverse=True):
            if position == segment.size:
                return position, offset
            if position < segment.size and header_at(self._disk, segment, segment.fd, position, offset):
                return position, offset
        return 0, segment.base

    def _copy_index(self, path: Path, target: Path) -> None:
        """Copy the index of a segment, which is rewritten in place, if it is whole."""
        data = self._disk.read_file(path.with_suffix(".index"))
        cover = decode(data, int(path.stem), size_max=self._sizes[target])
        self._write(target.with_suffix(".index"), data if cover.size else None)

    def _forget_log(self, name: str) -> None:
        """Remove from the copy a log that is gone."""
        folder = self._target / "logs" / name
        self._forget_others(folder, [])
        for other in self._disk.listdir(folder):
            self._disk.unlink(folder / other)
        self._disk.rmdir(folder)

    def _forget_others(self, folder: Path, names: list[str]) -> None:
        """Remove from the copy of a log the segments that it no longer has."""
        for name in set(filter(SEGMENT_NAME.fullmatch, self._disk.listdir(folder))) - set(names):
            path = folder / name
            for known in (self._sealed, self._sizes, self._ends):
                known.pop(path, None)
            self._unlink(path.with_suffix(".index"))
            self._unlink(path)

    def _unlink(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            self._disk.unlink(path)

    def _write(self, path: Path, data: bytes | None) -> None:
        """Write a small file; None: see to it that there is none."""
        if data is None:
            self._unlink(path)
            return
        fd = self._disk.open(path, create=True)
        try:
            write_whole(self._disk, fd, data, 0)
            self._disk.truncate(fd, len(data))
        finally:
            self._disk.close(fd)


def restore(disk: Disk, source: Path, target: Path, *, seen: Seen) -> Copied:
    """Copy a backup, or any directory that no broker uses, to a folder that holds nothing of it. Raises OSError, Full.

    The catalog comes last: a broker refuses to start on logs without it, so none starts on a part of them.
    """
    ways, sizes = Counter[str](), list[int]()
    folders = sorted(filter(LOG_NAME.fullmatch, disk.listdir(source / "logs")))
    for folder in folders:
        disk.mkdir(target / "logs" / folder)
        for name in sorted(filter(_FILE_NAME.fullmatch, disk.listdir(source / "logs" / folder))):
            path = target / "logs" / folder / name
            way = place(disk, source / "logs" / folder / name, path, ("reflinked", "copied"))
            if SEGMENT_NAME.fullmatch(name):
                ways[way] += 1
                sizes.append(disk.size(path))
                seen(sizes[-1])
        disk.fsync_dir(target / "logs" / folder)
    disk.mkdir(target / "logs")
    disk.fsync_dir(target / "logs")
    present = disk.listdir(source)
    for name in [f"{journal}.{kind}" for journal in reversed(JOURNALS) for kind in ("snapshot", "journal")]:
        if name in present:
            place(disk, source / name, target / name, ("copied",))
    disk.fsync_dir(target)
    disk.fsync_dir(target.parent)
    return Copied(len(folders), len(sizes), sum(sizes), 0, ways["reflinked"], ways["copied"])


def _sync(disk: Disk, path: Path) -> None:
    fd = disk.open_to_read(path)
    try:
        disk.fdatasync(fd)
    finally:
        disk.close(fd)
