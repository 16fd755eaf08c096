"""Builds the index of a segment from its records, and keeps it beside them."""

from contextlib import suppress

import msgspec

from ..errors import Corrupt, Full
from .codec import Codec
from .disk import Disk
from .index import INDEX_GAP_SIZE, Cover, Index, decode, encode
from .resync import next_record
from .segment import WINDOW_SIZE, Segment, look, walk


class _Walker(msgspec.Struct):
    """The last record that was walked over, and the position from which on an entry is due."""

    position: int
    offset: int
    due: int


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
    walker = _Walker(cover.size, cover.next_offset, due=_next_due(cover.index))
    fd = disk.open(segment.path)
    try:
        while cover.size < size:
            try:
                _extend_window(disk, segment, fd, cover, size, walker)
            except Corrupt:
                # The header that is damaged may be the one before, if it led here.
                found = next_record(disk, segment, fd, codec, position=walker.position, offset=walker.offset)
                if found is None:
                    raise
                cover.size, cover.next_offset = found
                walker.due = cover.size
    finally:
        disk.close(fd)


def _extend_window(disk: Disk, segment: Segment, fd: int, cover: Cover, size: int, walker: _Walker) -> None:
    """Index the records of one window."""
    window = look(disk, segment, fd, cover.size, 16 * WINDOW_SIZE)
    for position, offset, timestamp, record_size, count in walk(window, cover.size, cover.next_offset):
        if position >= size:
            break
        if position >= walker.due:
            cover.index.add(offset, timestamp, position)
            walker.due = position + INDEX_GAP_SIZE
        walker.position, walker.offset = position, offset
        cover.size, cover.next_offset = position + record_size, offset + count


def _next_due(index: Index) -> int:
    return index.positions[-1] + INDEX_GAP_SIZE if index.positions else 0
