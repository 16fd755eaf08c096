"""Finds out what a log's files hold after a stop, clean or not, and cuts off what a crash left half written.

A checkpoint beside the segments says up to where the files were known to be durable. From there on every record
is verified; before it, names and sizes are believed, so a start takes as long as what was written since the last
checkpoint, not as long as the log.

Where verification stops, the bytes are a torn tail if nothing valid follows, and are cut. If a valid record
follows, they are damage: nothing is touched, and the log ends there and takes no appends.

Checkpoint, 40 bytes (little-endian; sizes in bytes):

    +----+----------------------------------------+---+
    |  0 | base offset of the segment             | 8 |
    |  8 | position in it, durable up to here     | 8 |
    | 16 | next offset at this position           | 8 |
    | 24 | timestamp of the record before it      | 8 |
    | 32 | XXH3-64 of bytes 0..31                 | 8 |
    +----+----------------------------------------+---+
"""

import logging
import re
from contextlib import suppress
from pathlib import Path
from struct import Struct

import msgspec
from xxhash import xxh3_64_intdigest

from ...protocol.batch import HEADER_SIZE, BadBatch, read_header, verify
from ..errors import Corrupt
from .disk import Disk
from .segment import Segment, build_index, look, unlink, walk

# What is read at a time: large enough that the reads cost little beside the checksums.
CHUNK_SIZE = 4 * 1024 * 1024

_POINT = Struct("<4Q")
_CHECKSUM = Struct("<Q")
_SEGMENT_NAME = re.compile(r"(\d{20})\.log")
# Bytes 52..255 of a header are zero and the message count before them is not.
_RESERVED = re.compile(rb"[^\0]\0{204}")
_RESERVED_POSITION = 52

_logger = logging.getLogger(__name__)


class Checkpoint(msgspec.Struct, frozen=True):
    """Up to where a log was durable once: a place in a segment, and the offset and timestamp there."""

    base: int
    position: int
    next_offset: int
    last_timestamp_us: int


class Recovered(msgspec.Struct):
    """What a log's files hold.

    segments: ascending; those that may not be durable yet have their file open, the last one always has.
    durable: whether all of it is known to survive a power failure.
    damage: where valid data lies behind bytes that aren't; the last segment then ends before it.
    """

    segments: list[Segment]
    last_timestamp_us: int
    checkpoint: Checkpoint | None
    durable: bool
    damage: Corrupt | None = None


class _Progress(msgspec.Struct):
    """Up to where a segment has been verified, and what is wrong there."""

    position: int
    offset: int
    timestamp_us: int
    fault: str | None = None


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


def recover(disk: Disk, folder: Path) -> Recovered | None:
    """Recover the log in `folder`; None if it holds no segment. Cuts a torn tail; warns of it and of damage."""
    segments = _list_segments(disk, folder)
    if not segments:
        return None
    data = disk.read_file(checkpoint_path(folder))
    point = decode_checkpoint(data) if data else None
    if point is not None and not _fits(point, segments):
        point = None
    # Without a file the first sync never came to its end, so nothing is known to be durable. A file that is
    # damaged was being rewritten after one: the sealed segments were durable by then.
    start = segments[0].base if data is None else segments[-1].base
    progress = _Progress(0, start, 0)
    if point is not None:
        progress = _Progress(point.position, point.next_offset, point.last_timestamp_us)
        start = point.base
    recovered = _verify_segments(disk, segments, start, progress)
    recovered.checkpoint = point
    if not recovered.last_timestamp_us and len(recovered.segments) > 1:
        recovered.last_timestamp_us = _last_timestamp(disk, recovered.segments[-2])
    return recovered


def _list_segments(disk: Disk, folder: Path) -> list[Segment]:
    """Return the segments by name and size, ascending; each ends where the next one starts."""
    names = [match for match in map(_SEGMENT_NAME.fullmatch, disk.listdir(folder)) if match]
    bases = sorted(int(match[1]) for match in names)
    segments = [Segment(folder, base) for base in bases]
    for segment, end in zip(segments, [*bases[1:], *bases[-1:]], strict=True):
        segment.size = disk.size(segment.path)
        segment.end = end
        segment.known_from = (end, segment.size)
    return segments


def _fits(point: Checkpoint, segments: list[Segment]) -> bool:
    """Say whether the files can be those that the checkpoint is about."""
    for segment in segments:
        if segment.base == point.base:
            return point.position <= segment.size and segment.base <= point.next_offset
    # Its segment may have been trimmed; what came after it is then all there is to verify.
    return point.base < segments[-1].base


def _verify_segments(disk: Disk, segments: list[Segment], start: int, progress: _Progress) -> Recovered:
    """Verify what follows the place `progress` in the segment with base `start`, and end the log where it ends."""
    recovered = Recovered(segments, progress.timestamp_us, None, durable=True)
    for index, segment in enumerate(segments):
        if segment.base < start:
            continue
        if segment.base > start:
            progress = _Progress(0, segment.base, progress.timestamp_us)
        segment.fd = disk.open(segment.path)
        begin = progress.position
        progress = _verify_or_restart(disk, segment, progress)
        recovered.durable = recovered.durable and progress.position == begin
        followers = segments[index + 1 :]
        if progress.fault is None and followers and followers[0].base != progress.offset:
            progress.fault = f"the log goes on with offset {followers[0].base}, should be {progress.offset}"
        if progress.fault is not None:
            _end_here(disk, recovered, segment, progress, followers)
            break
        segment.end = progress.offset
    recovered.last_timestamp_us = progress.timestamp_us
    return recovered


def _verify_or_restart(disk: Disk, segment: Segment, start: _Progress) -> _Progress:
    """Verify a segment from `start`, or all of it if the first record there is not what should be there."""
    progress = _verify(disk, segment, start)
    if progress.fault is None or progress.position != start.position or not start.position:
        return progress
    return _verify(disk, segment, _Progress(0, segment.base, 0))


def _verify(disk: Disk, segment: Segment, start: _Progress) -> _Progress:
    """Verify record after record and index them; stop at the end or where a record is not valid."""
    progress = _Progress(start.position, start.offset, start.timestamp_us)
    segment.known_from = (start.offset, start.position)
    while progress.position < segment.size:
        window = look(disk, segment, segment.fd, progress.position, CHUNK_SIZE)
        begin = progress.position
        progress.fault = _verify_window(segment, window.data, window.origin, progress)
        if progress.fault is not None and progress.position == begin:
            progress.fault = _verify_large(disk, segment, progress)
        if progress.fault is not None and progress.position == begin:
            break
    return progress


def _verify_window(segment: Segment, data: memoryview, origin: int, progress: _Progress) -> str | None:
    """Verify the records that lie in `data` whole; return what is wrong with the one after them."""
    while progress.position < origin + len(data):
        at = progress.position - origin
        try:
            header = read_header(data, at)
            if header.base_offset != progress.offset:
                return f"base offset {header.base_offset}, should be {progress.offset}"
            if verify(data[at : at + header.size], header).first_delta:
                return "the record does not start with its first message"
        except BadBatch as fault:
            return f"{fault.what} ({fault.position} bytes into the record)"
        if progress.position >= segment.index_due:
            segment.note(header.base_offset, header.base_timestamp_us, progress.position)
        segment.records += 1
        segment.records_size += header.size
        progress.position += header.size
        progress.offset += header.count
        progress.timestamp_us = max(progress.timestamp_us, header.base_timestamp_us)
    return None


def _verify_large(disk: Disk, segment: Segment, progress: _Progress) -> str | None:
    """Verify one record that a chunk did not hold whole."""
    head = look(disk, segment, segment.fd, progress.position, HEADER_SIZE)
    try:
        size = read_header(head.data).size
    except BadBatch as fault:
        return f"{fault.what} ({fault.position} bytes into the record)"
    room = segment.size - progress.position
    if size > room:
        return f"a record of {size} bytes, the file ends after {room}"
    window = look(disk, segment, segment.fd, progress.position, size)
    return _verify_window(segment, window.data, window.origin, progress)


def _end_here(
    disk: Disk, recovered: Recovered, segment: Segment, progress: _Progress, followers: list[Segment]
) -> None:
    """End the log in `segment` where verification stopped: cut a torn tail, or stay before damage."""
    fault = Corrupt(segment.path, progress.position, progress.fault or "")
    torn = not any(follower.size for follower in followers) and not _valid_after(disk, segment, progress)
    if torn:
        _logger.warning("%s; nothing valid follows: cut %d bytes", fault, segment.size - progress.position)
        with suppress(FileNotFoundError):
            disk.unlink(segment.index_path)  # It may tell of what is cut.
        disk.truncate(segment.fd, progress.position)
        for follower in followers:
            unlink(disk, follower)
    else:
        _logger.warning("%s; valid data follows: the log is read-only up to here", fault)
        recovered.damage = fault
    recovered.segments = recovered.segments[: len(recovered.segments) - len(followers)]
    recovered.durable = False
    segment.size = progress.position
    segment.end = progress.offset


def _valid_after(disk: Disk, segment: Segment, progress: _Progress) -> bool:
    """Say whether a later valid record lies anywhere behind the place where verification stopped."""
    position = progress.position + 1
    while position < segment.size:
        # Chunks overlap by a header, so that none falls between two.
        data = look(disk, segment, segment.fd, position, CHUNK_SIZE + HEADER_SIZE).data
        for match in _RESERVED.finditer(data):
            # The run of zeros begins behind the highest byte of the count that is not zero.
            for unset in range(4):
                start = position + match.start() + 1 + unset - _RESERVED_POSITION
                if start > progress.position and _is_record(disk, segment, start, progress.offset):
                    return True
        position += CHUNK_SIZE
    return False


def _is_record(disk: Disk, segment: Segment, position: int, offset: int) -> bool:
    """Say whether a valid record with a base offset after `offset` starts at `position`."""
    try:
        header = read_header(look(disk, segment, segment.fd, position, HEADER_SIZE).data)
        if header.base_offset <= offset or header.size > segment.size - position:
            return False
        verify(look(disk, segment, segment.fd, position, header.size).data, header)
    except BadBatch:
        return False
    return True


def _last_timestamp(disk: Disk, segment: Segment) -> int:
    """Return the last base timestamp of a sealed segment; the index file makes it one read."""
    cover = build_index(disk, segment, offset=segment.end, size=segment.size)
    if not cover.index.positions:
        return 0
    fd = disk.open(segment.path)
    try:
        position, offset = cover.index.positions[-1], cover.index.offsets[-1]
        window = look(disk, segment, fd, position, segment.size - position)
        return max((row[2] for row in walk(window, position, offset)), default=0)
    except Corrupt:
        return cover.index.timestamps[-1]
    finally:
        disk.close(fd)
