"""The sparse index of one segment: where about every 16 KiB of records begin.

It only saves time. Whatever the file holds, the log decides: a missing, damaged or short index is completed from
the log, one that leads to a wrong place is thrown away.

File, written when a segment is sealed and when a log closes (little-endian; sizes in bytes):

    entry, 24, ascending              trailer, 24, at the end
    +----+----------------+---+       +----+-----------------------------+---+
    |  0 | base offset    | 8 |       |  0 | bytes of the log it covers  | 8 |
    |  8 | base timestamp | 8 |       |  8 | next offset after these     | 8 |
    | 16 | position       | 8 |       | 16 | XXH3-64 of all before it    | 8 |
    +----+----------------+---+       +----+-----------------------------+---+
"""

from array import array
from bisect import bisect_left, bisect_right
from struct import Struct

import msgspec
from xxhash import xxh3_64_intdigest

INDEX_GAP_SIZE = 16 * 1024

_TRAILER = Struct("<QQQ")
_COVERED = Struct("<QQ")
_CHECKSUM = Struct("<Q")
_ENTRY_SIZE = 24


class Index:
    """Entries in three columns: base offset, base timestamp and position of a record."""

    __slots__ = ("offsets", "positions", "timestamps")

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.timestamps = array("Q")
        self.positions = array("Q")

    def add(self, offset: int, timestamp_us: int, position: int) -> None:
        self.offsets.append(offset)
        self.timestamps.append(timestamp_us)
        self.positions.append(position)

    def extend(self, other: "Index") -> None:
        self.offsets.extend(other.offsets)
        self.timestamps.extend(other.timestamps)
        self.positions.extend(other.positions)

    def behind(self, position: int) -> "Index":
        """Return a copy of the entries at and behind `position`; at 0 of all."""
        number = bisect_left(self.positions, position)
        part = Index()
        part.offsets, part.timestamps = self.offsets[number:], self.timestamps[number:]
        part.positions = self.positions[number:]
        return part

    def find(self, offset: int) -> int:
        """Return the number of the last entry at or before `offset`, -1 if there is none."""
        return bisect_right(self.offsets, offset) - 1

    def find_earlier(self, timestamp_us: int) -> int:
        """Return the number of the last entry whose timestamp is lower, -1 if there is none."""
        return bisect_left(self.timestamps, timestamp_us) - 1


class Cover(msgspec.Struct):
    """An index of a segment's first `size` bytes; `next_offset` is the base of the record behind them."""

    index: Index
    size: int
    next_offset: int


def encode(cover: Cover) -> bytes:
    index = cover.index
    rows = array("Q", bytes(_ENTRY_SIZE * len(index.offsets)))
    rows[0::3], rows[1::3], rows[2::3] = index.offsets, index.timestamps, index.positions
    body = Struct(f"<{len(rows)}Q").pack(*rows) + _COVERED.pack(cover.size, cover.next_offset)
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))


def decode(data: bytes | None, base_offset: int, *, size_max: int) -> Cover:
    """Return what an index file covers, nothing if it is missing, damaged or of another segment.

    size_max: the segment's bytes; an index that covers more is of a file that was longer once.
    """
    nothing = Cover(Index(), 0, base_offset)
    if not data or len(data) % _ENTRY_SIZE:
        return nothing
    size, next_offset, checksum = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    if size > size_max or xxh3_64_intdigest(data[: -_CHECKSUM.size]) != checksum:
        return nothing
    index = Index()
    rows = array("Q", Struct(f"<{(len(data) - _TRAILER.size) // 8}Q").unpack_from(data))
    index.offsets, index.timestamps, index.positions = rows[0::3], rows[1::3], rows[2::3]
    if not rows or (rows[0], rows[2]) != (base_offset, 0):
        return nothing
    return Cover(index, size, next_offset)
