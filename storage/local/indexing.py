"""Builds the index of a segment from its records, and keeps it beside them."""

from contextlib import suppress

from ..errors import Corrupt, Full
from .codec import Codec
from .disk import Disk
from .index import INDEX_GAP_SIZE, Cover, decode, encode
from .resync import next_record
from .segment import WINDOW_SIZE, Segment, look, walk


def build_index(disk: Disk, segment: Segment, codec: Codec, *, offset: int, size: int, trusted: bool = True) -> Cover:
    """Index the first `size` bytes of a segment, which end before the record with `offset`. Blocks.

    trusted: begin with what the index file says, as far as it goes. A better index of a whole file is kept beside
    it. Damage is passed over: the record behind it is indexed, who reads there meets the damage.
    """
    data = disk.read_file(segment.index_path) if trusted else None
    cover = decode(data, segment.base, size_max=size)
    if cover.size == size and cover.next_offset == offset:
        return cover
    if cover.size == size:
        cover = decode(None, segment.base, size_max=size)
    with suppress(Corrupt, FileNotFoundError):
        _extend(disk, segment, codec, cover, size)
        if size == segment.size:
            write_index(disk, segment, cover)
    return cover


def write_index(disk: Disk, segment: Segment, cover: Cover) -> None:
    """Keep an index beside its segment. It only saves time, so a disk that refuses it fails nothing."""
    with suppress(OSError, Full):
        disk.write_file(segment.index_path, encode(cover))


def _extend(disk: Disk, segment: Segment, codec: Codec, cover: Cover, size: int) -> None:
    """Walk on from where `cover` ends, over damage too. Raises Corrupt where nothing valid follows."""
    due = cover.index.positions[-1] + INDEX_GAP_SIZE if cover.index.positions else 0
    fd = disk.open(segment.path)
    try:
        while cover.size < size:
            try:
                due = _extend_window(disk, segment, fd, cover, size, due)
            except Corrupt:
                found = next_record(disk, segment, fd, codec, position=cover.size, offset=cover.next_offset)
                if found is None:
                    raise
                due, cover.next_offset = found
                cover.size = due
    finally:
        disk.close(fd)


def _extend_window(disk: Disk, segment: Segment, fd: int, cover: Cover, size: int, due: int) -> int:
    """Index the records of one window; return the position from which on the next entry is due."""
    window = look(disk, segment, fd, cover.size, 16 * WINDOW_SIZE)
    for position, offset, timestamp, record_size, count in walk(window, cover.size, cover.next_offset):
        if position >= size:
            break
        if position >= due:
            cover.index.add(offset, timestamp, position)
            due = position + INDEX_GAP_SIZE
        cover.size, cover.next_offset = position + record_size, offset + count
    return due
