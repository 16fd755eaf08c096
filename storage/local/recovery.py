"""Finds out what a log's files hold after a stop, clean or not, and cuts off what a crash left half written.

A checkpoint beside the segments says up to where the files were known to be durable. From there on every record
is verified; before it, names and sizes are believed, so a start takes as long as what was written since the last
checkpoint, not as long as the log.

Where a record is not valid and a later one is, the stretch between is damage: it is reported, no byte of it is
touched, who reads there is refused, and the log goes on behind it. Where nothing valid follows, the bytes are a torn
tail and are cut if a crash explains them: a killed process leaves the beginning of a record, a power failure anything.
A whole record that does not verify, when nothing but the process has died, is damage.

Rule: an offset that a reader may have seen is not given out again. After a power failure, and behind damage at the
end, the log goes on SKIP offsets later.
"""

import logging
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from ...protocol.batch import HEADER_SIZE, BadBatch, read_header
from ..errors import Corrupt
from .bounds import SKIP, Kept, bounds_path, read_bounds, write_bounds
from .checkpoint import Checkpoint, checkpoint_path, decode_checkpoint
from .indexing import build_index
from .reader import Parts
from .resync import header_at, is_torn, next_record
from .segment import Segment, look, segment_names, unlink, walk

# What is read at a time: large enough that the reads cost little beside the checksums.
CHUNK_SIZE = 4 * 1024 * 1024

_logger = logging.getLogger(__name__)


class Recovered(msgspec.Struct):
    """What a log's files hold.

    segments: ascending, at least one; those that may not be durable yet have their file open, the last one always has.
    next: the offset to go on with; more than the last segment's end where offsets are skipped.
    durable: whether all of it is known to survive a power failure.
    damages: the stretches that were found and can't be read.
    """

    segments: list[Segment]
    kept: Kept
    checkpoint: Checkpoint | None
    next: int = 0
    last_timestamp_us: int = 0
    durable: bool = True
    damages: list[Corrupt] = []


class _Progress(msgspec.Struct):
    """Up to where a segment has been verified, and what is wrong there."""

    position: int
    offset: int
    timestamp_us: int
    fault: str | None = None


class Crash(msgspec.Struct, frozen=True):
    """How the last run ended, besides that its process may have died.

    power_failed: what was not durable may be lost. sync_failed: what can be read may be in the system's cache only.
    """

    power_failed: bool = False
    sync_failed: bool = False


class Recovery:
    """One recovery. persisted: nobody has seen what was not durable."""

    def __init__(self, parts: Parts, folder: Path, crash: Crash, *, persisted: bool) -> None:
        self._disk = parts.disk
        self._folder = folder
        self._codec = parts.codec
        self._lost = parts.lost
        self._seen_and_lost = crash.power_failed and not persisted
        self._power_failed = crash.power_failed
        self._sync_failed = crash.sync_failed
        self._bad_tail = False
        self._gaps: list[tuple[int, int]] = []  # as the file has them

    def run(self) -> Recovered | None:
        """Recover the log; None if it holds no segment. Warns of what it cuts and of damage. Raises OSError."""
        names = set(self._disk.listdir(self._folder))
        # A start opens every log of the engine, and few have the file.
        kept = read_bounds(self._disk, self._folder) if bounds_path(self._folder).name in names else Kept()
        self._gaps = kept.gaps
        segments = self._list(kept, names)
        if not segments:
            return None
        data = self._disk.read_file(checkpoint_path(self._folder))
        point = decode_checkpoint(data) if data else None
        if point is not None and not self._fits(point, segments):
            point = None
            self._disk.unlink(checkpoint_path(self._folder))  # The log may grow past the place again.
            self._disk.fsync_dir(self._folder)
        # Without one nothing is known to be durable.
        start = segments[0].base
        progress = _Progress(0, start, 0)
        if point is not None:
            progress = _Progress(point.position, point.next_offset, point.last_timestamp_us)
            start = point.base
        found = Recovered(segments, kept, point)
        self._verify_segments(found, start, progress)
        if not found.last_timestamp_us and len(found.segments) > 1:
            found.last_timestamp_us = self._last_timestamp(found.segments[-2])
        self._choose_next(found)
        return found

    def _list(self, kept: Kept, names: Iterable[str]) -> list[Segment]:
        """Return the segments by name and size, ascending; each ends where the next one starts or a skip begins."""
        bases = [int(name.partition(".")[0]) for name in segment_names(names)]
        ends = {base: end for end, base in kept.gaps}
        segments: list[Segment] = []
        for base, following in zip(bases, [*bases[1:], *bases[-1:]], strict=True):
            segment = Segment(self._folder, base)
            segment.end = max(ends.get(following, following), base)
            segment.size = self._disk.size(segment.path)
            segment.known_from = (segment.end, segment.size) if segment.size else (base, 0)
            segments.append(segment)
        self._trim_again(segments, kept)
        return segments

    def _trim_again(self, segments: list[Segment], kept: Kept) -> None:
        """Remove what was trimmed, and is back after a power failure or was not removed before the process died."""
        count = bisect_right([segment.base for segment in segments[1:]], kept.first)
        if count and segments[0].base < kept.first:
            self._disk.fsync_dir(self._folder)  # What says so has to be durable before they go.
            for segment in segments[:count]:
                unlink(self._disk, segment)
            del segments[:count]

    def _verify_segments(self, found: Recovered, start: int, progress: _Progress) -> None:
        """Verify what follows the place `progress` in the segment with base `start`; find where the log ends."""
        for index, segment in enumerate(found.segments):
            if segment.base < start:
                continue
            if segment.base > start:
                progress = _Progress(0, segment.base, progress.timestamp_us)
            segment.fd = self._disk.open(segment.path)
            begin = progress.position
            progress = self._verify_or_restart(found, segment, progress)
            found.durable = found.durable and progress.position == begin
            if self._sync_failed:
                self._write_again(segment, begin, progress.position)
            followers = found.segments[index + 1 :]
            if self._ends_here(found, progress, followers):
                self._end(found, segment, progress, followers)
                break
            self._join(found, segment, progress, followers)
        found.last_timestamp_us = progress.timestamp_us

    def _write_again(self, segment: Segment, begin: int, end: int) -> None:
        """Write what may be in the system's cache alone, marked as written after a failed sync, so that a sync will."""
        for position in range(begin, end, CHUNK_SIZE):
            data = look(self._disk, segment, segment.fd, position, min(CHUNK_SIZE, end - position)).data
            self._disk.pwrite(segment.fd, data, position)

    def _ends_here(self, found: Recovered, progress: _Progress, followers: list[Segment]) -> bool:
        """Say whether the log ends before the end of its files: nothing follows, and something is wrong or lost.

        A next segment that was begun, if only its name, tells that a process which died had written all of this one.
        """
        if not followers:
            return progress.fault is not None
        if not self._power_failed or any(follower.size for follower in followers):
            return False
        # A start that noted a loss here has shown the log's end behind it, and the next offset never goes back.
        return not found.kept.joins(progress.offset, followers[0].base)

    def _join(self, found: Recovered, segment: Segment, progress: _Progress, followers: list[Segment]) -> None:
        """Take note of where a verified segment ends, and of what is missing before the next one."""
        segment.end = progress.offset
        if not followers:
            return
        following = followers[0].base
        if progress.fault is not None and progress.offset == following:
            self._cut(found, segment, progress)  # A power failure undid a cut: an append was refused there.
        elif progress.fault is not None or not found.kept.joins(progress.offset, following):
            what = progress.fault or f"the log goes on with offset {following}"
            self._report(found, segment, progress, what, resumes_at=following)

    def _verify_or_restart(self, found: Recovered, segment: Segment, start: _Progress) -> _Progress:
        """Verify a segment from `start`, or all of it if there is no such record at that place."""
        if 0 < start.position < segment.size:
            here = header_at(self._disk, segment, segment.fd, start.position, start.offset)
            if here is None:
                return self._verify(found, segment, _Progress(0, segment.base, 0), floor=start)
        return self._verify(found, segment, start)

    def _verify(
        self, found: Recovered, segment: Segment, start: _Progress, floor: _Progress | None = None
    ) -> _Progress:
        """Verify record after record and index them, passing over damage; stop where nothing valid follows.

        floor: a place before which no crash takes anything, so that it is damage if nothing valid follows there.
        """
        progress = _Progress(start.position, start.offset, start.timestamp_us)
        segment.known_from = (start.offset, start.position)
        segment.proven_from = start.position
        while progress.position < segment.size:
            window = look(self._disk, segment, segment.fd, progress.position, CHUNK_SIZE)
            begin = progress.position
            progress.fault = self._verify_window(segment, window.data, window.origin, progress)
            if progress.fault is not None and progress.position == begin:
                progress.fault = self._verify_large(segment, progress)
            if progress.fault is None or progress.position != begin or self._resume(found, segment, progress):
                continue
            if floor is None or progress.position >= floor.position:
                break
            self._pass_over(found, segment, progress, (floor.position, floor.offset))
        return progress

    def _verify_window(self, segment: Segment, data: memoryview, origin: int, progress: _Progress) -> str | None:
        """Verify the records that lie in `data` whole; return what is wrong with the one after them."""
        while progress.position < origin + len(data):
            at = progress.position - origin
            try:
                header = read_header(data, at)
                if header.base_offset != progress.offset:
                    return f"base offset {header.base_offset}, should be {progress.offset}"
                if header.size > len(data) - at:
                    return f"a record of {header.size} bytes, {len(data) - at} are left"
                self._codec.decode(data[at : at + header.size])
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

    def _verify_large(self, segment: Segment, progress: _Progress) -> str | None:
        """Verify one record that a chunk did not hold whole."""
        head = look(self._disk, segment, segment.fd, progress.position, HEADER_SIZE)
        try:
            size = read_header(head.data).size
        except BadBatch as fault:
            return f"{fault.what} ({fault.position} bytes into the record)"
        room = segment.size - progress.position
        if size > room:
            return f"a record of {size} bytes, the file ends after {room}"
        window = look(self._disk, segment, segment.fd, progress.position, size)
        return self._verify_window(segment, window.data, window.origin, progress)

    def _resume(self, found: Recovered, segment: Segment, progress: _Progress) -> bool:
        """Go on behind damage, if a valid record follows; return whether one does."""
        resumed = next_record(
            self._disk, segment, segment.fd, self._codec, position=progress.position, offset=progress.offset
        )
        if resumed is not None:
            self._pass_over(found, segment, progress, resumed)
        return resumed is not None

    def _pass_over(self, found: Recovered, segment: Segment, progress: _Progress, resumed: tuple[int, int]) -> None:
        """Go on at a position and offset behind damage."""
        position, offset = resumed
        self._report(found, segment, progress, progress.fault or "", resumes_at=offset)
        progress.position, progress.offset, progress.fault = position, offset, None
        segment.index_due = position  # who reads behind the damage starts here
        segment.proven_from = position

    def _report(self, found: Recovered, segment: Segment, progress: _Progress, what: str, *, resumes_at: int) -> None:
        """Warn of offsets that can't be read. After a power failure they are lost, and readers pass over them."""
        lost = f"offsets {progress.offset} to {resumes_at - 1} are lost, the log goes on behind them"
        damage = Corrupt(segment.path, progress.position, f"{what}; {lost}")
        _logger.warning("%s", damage)
        found.damages = [*found.damages, damage]
        if self._power_failed and resumes_at > progress.offset:
            found.kept.skip(progress.offset, resumes_at)

    def _end(self, found: Recovered, segment: Segment, progress: _Progress, followers: list[Segment]) -> None:
        """End the log where nothing valid follows: cut a torn tail, leave anything else."""
        position, offset = progress.position, progress.offset
        if self._power_failed or is_torn(self._disk, segment, segment.fd, position=position, offset=offset):
            self._cut(found, segment, progress)
        else:
            fault = Corrupt(segment.path, position, progress.fault or "")
            _logger.warning("%s; no crash explains it: left as it is, the log goes on behind it", fault)
            found.damages = [*found.damages, fault]
            progress.offset += self._count_at(segment, progress)
            segment.proven_from = segment.size
            self._bad_tail = True
        for follower in followers:
            unlink(self._disk, follower)
        if followers:
            self._disk.fsync_dir(self._folder)
            found.next = followers[-1].base  # what came before it may have been read, and trimmed
        found.segments = found.segments[: len(found.segments) - len(followers)]
        found.durable = False
        segment.end = progress.offset

    def _cut(self, found: Recovered, segment: Segment, progress: _Progress) -> None:
        """Cut a segment off behind its last valid record, durably: no later crash is to bring the rest back."""
        fault = Corrupt(segment.path, progress.position, progress.fault or "")
        _logger.warning("%s; nothing valid follows: cut %d bytes", fault, segment.size - progress.position)
        with suppress(FileNotFoundError):
            self._disk.unlink(segment.index_path)  # It may tell of what is cut.
        self._disk.truncate(segment.fd, progress.position)
        try:
            self._disk.fdatasync(segment.fd)
        except OSError:
            self._lost()
            raise
        segment.size = progress.position
        found.durable = False

    def _count_at(self, segment: Segment, progress: _Progress) -> int:
        here = header_at(self._disk, segment, segment.fd, progress.position, progress.offset)
        return here[1] if here else 0

    def _choose_next(self, found: Recovered) -> None:
        """Choose the offset to go on with, and note durably what is skipped before it is given out."""
        end = found.segments[-1].end
        # What was skipped before, with nothing behind it, stays skipped.
        unused = max([end, *(base for _, base in found.kept.gaps)])
        if self._seen_and_lost or self._bad_tail:
            unused += SKIP
        found.next = max(unused, found.next)
        if found.next > end:
            found.kept.skip(end, found.next)
        if found.kept.gaps != self._gaps:
            write_bounds(self._disk, self._folder, found.kept)

    def _last_timestamp(self, segment: Segment) -> int:
        """Return the last base timestamp of a sealed segment; the index file makes it one read."""
        cover = build_index(self._disk, segment, self._codec, offset=segment.end, size=segment.size)
        if not cover.index.positions:
            return 0
        fd = self._disk.open(segment.path)
        try:
            position, offset = cover.index.positions[-1], cover.index.offsets[-1]
            window = look(self._disk, segment, fd, position, segment.size - position)
            return max((row[2] for row in walk(window, position, offset)), default=0)
        except Corrupt:
            return cover.index.timestamps[-1]
        finally:
            self._disk.close(fd)

    def _fits(self, point: Checkpoint, segments: list[Segment]) -> bool:
        """Say whether the files can be those that the checkpoint is about."""
        for segment in segments:
            if segment.base == point.base:
                return point.position <= segment.size and segment.base <= point.next_offset
        # Its segment may have been trimmed; what came after it is then all there is to verify. Unless older ones that
        # had been trimmed as well are back.
        return point.base < segments[-1].base and not self._power_failed
