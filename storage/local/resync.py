"""Finds the next valid record behind damage, so that it costs no more than what it hit."""

import re
from struct import Struct

from xxhash import xxh3_64_intdigest

from ...protocol.batch import FRAME_HEADER_SIZE, HEADER_SIZE, BadBatch, read_header
from ..seal import MAGIC, SEAL_END, SEAL_POSITION, sealed_with
from .codec import Codec
from .disk import Disk
from .segment import Segment, look

# What is searched at a time.
CHUNK_SIZE = 4 * 1024 * 1024

_FRAME = Struct("<Q16xI4xII")  # checksum, offset delta, sizes of user headers and payload
_CHECKSUM_SIZE = 8

_PLAIN_ZEROS = HEADER_SIZE - SEAL_POSITION
# A plain header ends in zeros behind a message count that isn't; a sealed one in its mark and zeros.
_HEADER = re.compile(rb"[^\0]\0{%d}|%s\0{%d}" % (_PLAIN_ZEROS, re.escape(MAGIC), HEADER_SIZE - SEAL_END))


def next_record(
    disk: Disk, segment: Segment, fd: int, codec: Codec, *, position: int, offset: int
) -> tuple[int, int] | None:
    """Return position and base offset of the first valid record behind the damaged one at `position`.

    offset: the one the damaged record has, or should have. A header that makes sense is believed about where its
    record ends; else, or if nothing valid follows there, a valid record of a later offset is looked for at every
    byte. None if there is none. Blocks.
    """
    header = header_at(disk, segment, fd, position, offset)
    if header is not None:
        size, count = header
        if position + size > segment.size and is_beginning(disk, segment, fd, position, count, if_sealed=False):
            return None  # all that follows is the record's own
        if _record_at(disk, segment, fd, codec, position + size) == offset + count:
            return position + size, offset + count
    return _search(disk, segment, fd, codec, position + 1, offset)


def header_at(disk: Disk, segment: Segment, fd: int, position: int, offset: int) -> tuple[int, int] | None:
    """Return size and message count of a header that can be the one of `offset`, None if it can't."""
    try:
        header = read_header(look(disk, segment, fd, position, HEADER_SIZE).data)
    except BadBatch:
        return None
    return (header.size, header.count) if header.base_offset == offset else None


def is_torn(disk: Disk, segment: Segment, fd: int, *, position: int, offset: int) -> bool:
    """Say whether a process that died explains the bytes at the end of a file: no record, or one's beginning."""
    here = header_at(disk, segment, fd, position, offset)
    if here is None:
        return True
    size, count = here
    return position + size > segment.size and is_beginning(disk, segment, fd, position, count, if_sealed=True)


def is_beginning(disk: Disk, segment: Segment, fd: int, position: int, count: int, *, if_sealed: bool) -> bool:
    """Say whether the file ends before a record's frames are all there and valid, whatever its header says of its size.

    if_sealed: what to say of a sealed record, whose frames tell nothing.
    """
    head = disk.pread(fd, HEADER_SIZE, position)
    if sealed_with(head) is not None:
        return if_sealed
    end = position + HEADER_SIZE
    for delta in range(count):
        frame = disk.pread(fd, FRAME_HEADER_SIZE, end)
        if len(frame) < FRAME_HEADER_SIZE:
            return True
        checksum, offset_delta, headers_size, payload_size = _FRAME.unpack_from(frame)
        start, end = end, end + FRAME_HEADER_SIZE + headers_size + payload_size
        if offset_delta != delta or end > segment.size:
            return True
        if xxh3_64_intdigest(disk.pread(fd, end - start - _CHECKSUM_SIZE, start + _CHECKSUM_SIZE)) != checksum:
            return True
    return False


def _search(disk: Disk, segment: Segment, fd: int, codec: Codec, position: int, offset: int) -> tuple[int, int] | None:
    while position < segment.size:
        # Chunks overlap by a header, so that none falls between two.
        data = look(disk, segment, fd, position, CHUNK_SIZE + HEADER_SIZE).data
        for match in _HEADER.finditer(data):
            for start in _starts(match):
                at = position + start
                found = _record_at(disk, segment, fd, codec, at) if start >= 0 else None
                if found is not None and found > offset:
                    return at, found
        position += CHUNK_SIZE
    return None


def _starts(match: re.Match[bytes]) -> list[int]:
    """Return where the record can start whose header ends with this match."""
    if match[0].startswith(MAGIC):
        return [match.end() - HEADER_SIZE]
    # The run of zeros begins behind the highest byte of the count that is not zero.
    first = match.start() + 1 - SEAL_POSITION
    return [first + unset for unset in range(4)]


def _record_at(disk: Disk, segment: Segment, fd: int, codec: Codec, position: int) -> int | None:
    """Return the base offset of the valid record at `position`, None if there is none."""
    if position >= segment.size:
        return None
    try:
        header = read_header(look(disk, segment, fd, position, HEADER_SIZE).data)
        if header.size > segment.size - position:
            return None
        codec.decode(look(disk, segment, fd, position, header.size).data)
    except BadBatch:
        return None
    return header.base_offset
