"""The file `checkpoint` of a log: up to where all of it is durable. A start verifies only what lies behind.

Checkpoint, 40 bytes (little-endian; sizes in bytes):

    +----+----------------------------------------+---+
    |  0 | base offset of the segment             | 8 |
    |  8 | position in it, durable up to here     | 8 |
    | 16 | next offset at this position           | 8 |
    | 24 | timestamp of the record before it      | 8 |
    | 32 | XXH3-64 of bytes 0..31                 | 8 |
    +----+----------------------------------------+---+
"""

from pathlib import Path
from struct import Struct

import msgspec
from xxhash import xxh3_64_intdigest

_POINT = Struct("<4Q")
_CHECKSUM = Struct("<Q")


class Checkpoint(msgspec.Struct, frozen=True):
    """Up to where a log was durable once: a place in a segment, and the offset and timestamp there."""

    base: int
    position: int
    next_offset: int
    last_timestamp_us: int


def checkpoint_path(folder: Path) -> Path:
    return folder / "checkpoint"


def encode_checkpoint(point: Checkpoint) -> bytes:
    body = _POINT.pack(point.base, point.position, point.next_offset, point.last_timestamp_us)
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))


def decode_checkpoint(data: bytes) -> Checkpoint | None:
    if len(data) != _POINT.size + _CHECKSUM.size:
        return None
    if _CHECKSUM.unpack_from(data, _POINT.size)[0] != xxh3_64_intdigest(data[: _POINT.size]):
        return None
    return Checkpoint(*_POINT.unpack_from(data))
