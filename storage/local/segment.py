"""One file of a log: records back to back, and the walk from header to header.

A segment is appended to, then sealed, then only read. While it grows it is read with `pread`; sealed it is mapped
on the first read and stays mapped until others push it out of `Maps` or it is unlinked. The views that were
handed out keep their map alive, so nobody closes one.

Crash invariant: a file that is mapped is never truncated or written.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct

import msgspec

from ...protocol.batch import HEADER_SIZE, RECORD_SIZE_MIN
from ..errors import Corrupt
from .disk import Disk
from .index import INDEX_GAP_SIZE, Cover, Index

# Maps cost address space and a descriptor each; 256 leave most of the usual limit of 1024 to connections.
MAPS_MAX = 256
# What a walk in a file that is not mapped reads at a time. The next record the index names lies within.
WINDOW_SIZE = INDEX_GAP_SIZE + HEADER_SIZE

_NAME = re.compile(r"\d{20}\.log")
_LOOK = Struct("<8xQQ8xQ8xI")  # what the walk looks at: base offset, base timestamp, size, count


class Segment:
    """A segment's file and what is known of it.

    base, end: the first offset it holds and the one after its last. size: its bytes.
    records: how many were seen since the start, for the average size.
    known_from: the offset and the position from which on `index` is complete.
    proven_from: what this process verified at its start, or wrote, begins here, as long as the segment is appended to.
    """

    __slots__ = (
        "base", "end", "fd", "first_timestamp", "index", "index_due", "index_tried", "known_from",
        "path", "proven_from", "records", "records_size", "size",
    )  # fmt: skip

    def __init__(self, folder: Path, base: int, *, size: int = 0) -> None:
        self.base = base
        self.end = base
        self.path = folder / f"{base:020}.log"
        self.size = size
        self.fd = -1
        self.records = 0
        self.records_size = 0
        self.first_timestamp: int | None = None
        self.index = Index()
        self.index_due = 0
        self.index_tried = False
        self.known_from = (base, 0)
        self.proven_from = 0

    @property
    def index_path(self) -> Path:
        return self.path.with_suffix(".index")

    def note(self, offset: int, timestamp_us: int, position: int) -> None:
        """Add an entry to the index: a record begins at `position`."""
        self.index.add(offset, timestamp_us, position)
        self.index_due = position + INDEX_GAP_SIZE

    def complete(self, cover: Cover) -> None:
        """Put what was found out about the bytes before `known_from` in front of the index."""
        cover.index.extend(self.index)
        self.index = cover.index
        self.known_from = (self.base, 0)

    def forget_index(self) -> None:
        """Give the index's memory back; it is read again when it is needed. Only of a sealed segment."""
        self.index = Index()
        self.known_from = (self.end, self.size)


class Window(msgspec.Struct):
    """A part of a segment's file: `data` starts at the file's byte `origin`; the file ends at `size`."""

    path: Path
    data: memoryview
    origin: int
    size: int

    @property
    def end(self) -> int:
        return self.origin + len(self.data)


def look(disk: Disk, segment: Segment, fd: int, position: int, size: int) -> Window:
    """Read a window of a file that is not mapped. Raises Corrupt where the file is shorter than it was."""
    size = min(size, segment.size - position)
    data = disk.pread(fd, size, position)
    if len(data) < size:
        raise Corrupt(segment.path, position + len(data), "the file ends here")
    return Window(segment.path, memoryview(data), position, segment.size)


def walk(window: Window, position: int, offset: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Hop from header to header, from `position` in the file, where a record with `offset` starts.

    Yields position, base offset, base timestamp, size and message count of each record whose header lies in the
    window; its frames may reach out of it. Raises Corrupt at a header that can't be right.
    """
    # With `take` around it 0.45 us a record (CPython 3.11): what a poll of single-message records costs.
    data, look_at, origin = window.data, _LOOK.unpack_from, window.origin
    room = window.size - origin
    at = position - origin
    last = len(data) - HEADER_SIZE
    while at <= last:
        base, timestamp, size, count = look_at(data, at)
        if base != offset or size < RECORD_SIZE_MIN or at + size > room or not count:
            raise Corrupt(window.path, at + origin, _fault(base, offset, size, room - at))
        yield at + origin, base, timestamp, size, count
        at += size
        offset += count
    if at < room <= len(data):
        raise Corrupt(window.path, at + origin, f"{room - at} bytes can't be a record")


def _fault(base: int, offset: int, size: int, room: int) -> str:
    """Say what is wrong with a header."""
    if base != offset:
        return f"base offset {base}, should be {offset}"
    if size > room:
        return f"a record of {size} bytes, the file ends after {room}"
    return "record size" if size < RECORD_SIZE_MIN else "message count"


def segment_names(names: Iterable[str]) -> list[str]:
    """Return those of a folder's names that are segments, ascending by base offset."""
    return sorted(filter(_NAME.fullmatch, names))


def unlink(disk: Disk, segment: Segment) -> None:
    """Remove a segment's files, the index first, so that a crash leaves none without its log."""
    with suppress(FileNotFoundError):
        disk.unlink(segment.index_path)
    disk.unlink(segment.path)


class Poll(msgspec.Struct):
    """A read that is under way: where it stands, and what it has.

    first: the offset asked for. stop: the offset at which there are enough messages. room: bytes still allowed.
    position, offset: of the record to come next. last: position and offset of the last record taken.
    start, base: position and offset of the first record in the last of `buffers`.
    need: the size of the record that the window cut off.
    """

    first: int
    stop: int
    room: int
    position: int
    offset: int
    buffers: list[memoryview] = msgspec.field(default_factory=list[memoryview])
    last: tuple[int, int] = (0, 0)
    start: int = 0
    base: int = 0
    need: int = 0
    done: bool = False


def take(window: Window, poll: Poll) -> bool:
    """Take the records that `poll` wants out of a window, in one buffer, and move `poll` on; say if there were any.

    Raises Corrupt if the first record is damaged; later damage ends the read before it.
    """
    poll.need = 0
    start = end = poll.position
    base = next_offset = poll.offset
    try:
        for position, offset, _, size, count in walk(window, start, next_offset):
            after = position + size
            if offset + count <= poll.first:
                start = end = after
                base = next_offset = offset + count
                continue
            if after - start > poll.room and (end > start or poll.buffers):
                poll.done = True
                break
            if after > window.end:
                poll.need = size
                break
            poll.last = (position, offset)
            end = after
            next_offset = offset + count
            if next_offset >= poll.stop:
                poll.done = True
                break
    except Corrupt:
        if end == start and not poll.buffers:
            raise
        poll.done = True
    if end > start:
        poll.buffers.append(window.data[start - window.origin : end - window.origin])
        poll.room -= end - start
        poll.start, poll.base = start, base
    poll.position, poll.offset = end, next_offset
    return end > start


class Maps:
    """The sealed segments that are mapped, the least recently read pushed out first."""

    def __init__(self, disk: Disk, count_max: int = MAPS_MAX) -> None:
        self._disk = disk
        self._count_max = count_max
        self._views: OrderedDict[Segment, memoryview] = OrderedDict()

    def window(self, segment: Segment) -> Window:
        """Return all of a sealed segment. Raises Corrupt if its file is gone."""
        view = self._views.get(segment)
        if view is None:
            view = self._map(segment)
        else:
            self._views.move_to_end(segment)
        return Window(segment.path, view, 0, len(view))

    def forget(self, segment: Segment) -> None:
        """Drop the reference to a map; views of it live on."""
        self._views.pop(segment, None)

    def _map(self, segment: Segment) -> memoryview:
        try:
            view = self._disk.mmap(segment.path)
        except FileNotFoundError:
            raise Corrupt(segment.path, 0, "the file is gone") from None
        if len(view) < segment.size:
            raise Corrupt(segment.path, len(view), "the file ends here")
        self._views[segment] = view
        if len(self._views) > self._count_max:
            oldest, _ = self._views.popitem(last=False)
            oldest.forget_index()
        return view
