"""The file `bounds` of a log: where the log starts, and which offsets were skipped.

A power failure can take messages that readers have seen. Their offsets are never given to other messages: the log
goes on behind all that can have been given out, and the file says so, durably, before it does. Nor does what was
trimmed come back, whichever unlink a power failure undoes.

Little-endian; sizes in bytes. Without the file a log starts with its first segment and nothing was skipped.

    +----+--------------------------------------------------+---+
    |  0 | first offset that is kept                        | 8 |
    +----+--------------------------------------------------+---+
    then for each skip, ascending
    +----+--------------------------------------------------+---+
    |  0 | next offset before the skip                      | 8 |
    |  8 | offset that the log went on with                 | 8 |
    +----+--------------------------------------------------+---+
    at the end
    +----+--------------------------------------------------+---+
    |  0 | XXH3-64 of all before it                         | 8 |
    +----+--------------------------------------------------+---+

Crash invariant: the file is replaced whole and durably; there is the old one or the new one.
"""

import logging
from pathlib import Path
from struct import Struct

import msgspec
from xxhash import xxh3_64_intdigest

from .disk import Disk

# More than a log can hold that is not durable: see UNSYNCED_MAX in log.py.
SKIP = 10_000_000

_U64 = Struct("<Q")
_GAP = Struct("<QQ")

_logger = logging.getLogger(__name__)


class Kept(msgspec.Struct):
    """first: the offset a log starts at. gaps: pairs of the next offset before a skip and the one after, ascending."""

    first: int = 0
    gaps: list[tuple[int, int]] = []

    def after_gap(self, offset: int) -> int:
        """Return `offset`, or the first one that was given out behind the skips it lies in."""
        for end, base in self.gaps:
            if end <= offset < base:
                offset = base
        return offset

    def joins(self, end: int, base: int) -> bool:
        """Say whether a segment that starts at `base` goes on where one ends at `end`, or behind a skip from there."""
        return base == end or (end, base) in self.gaps

    def skip(self, end: int, base: int) -> None:
        """Note that offsets from `end` up to but not including `base` were skipped."""
        self.gaps = sorted([*(gap for gap in self.gaps if gap[1] <= end or gap[0] >= base), (end, base)])


def bounds_path(folder: Path) -> Path:
    return folder / "bounds"


def encode(kept: Kept) -> bytes:
    body = _U64.pack(kept.first) + b"".join(_GAP.pack(*gap) for gap in kept.gaps)
    return body + _U64.pack(xxh3_64_intdigest(body))


def decode(data: bytes) -> Kept | None:
    """Return what the file says, None if it is damaged."""
    if len(data) < 2 * _U64.size or len(data) % _GAP.size:
        return None
    body = data[: -_U64.size]
    if _U64.unpack_from(data, len(body))[0] != xxh3_64_intdigest(body):
        return None
    gaps = [(end, base) for end, base in _GAP.iter_unpack(body[_U64.size :])]
    return Kept(_U64.unpack_from(body)[0], gaps)


def read_bounds(disk: Disk, folder: Path) -> Kept:
    """Return what a log's file says; warn of one that is damaged and go on without it."""
    data = disk.read_file(bounds_path(folder))
    if data is None:
        return Kept()
    kept = decode(data)
    if kept is None:
        _logger.warning("%s: byte 0: damaged; skipped offsets are taken for missing ones", bounds_path(folder))
        return Kept()
    return kept


def write_bounds(disk: Disk, folder: Path, kept: Kept) -> None:
    """Replace a log's file, durably. Blocks for two syncs. Raises OSError, Full."""
    path = bounds_path(folder)
    fresh = path.with_suffix(".fresh")
    disk.write_file(fresh, encode(kept))
    disk.rename(fresh, path)
    disk.fsync_dir(folder)
