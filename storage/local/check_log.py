"""Checks one log: that its segments follow one another, every record in them, and the files that tell of them.

A tail is torn if a crash explains it: nothing valid follows in this or a later segment, it lies behind the checkpoint,
and it is not a whole record, or power has failed. All else that is not valid is damage, and stays as it is.
"""

import re
from itertools import zip_longest
from pathlib import Path

import msgspec

from ..errors import Corrupt
from .bounds import Kept, bounds_path
from .bounds import decode as decode_bounds
from .check import Check, Finding, cut, torn
from .checkpoint import Checkpoint, checkpoint_path, decode_checkpoint
from .index import Cover, decode, encode
from .resync import is_torn
from .scan import U64_MAX, Damage, Scan
from .segment import Segment

SEGMENT_NAME = re.compile(r"(\d{20})\.log")
_NAMES = {"checkpoint", "bounds"}


class Held(msgspec.Struct):
    """What a log holds, as far as it is valid. next: the offset that the next append gets, at least."""

    log_id: int
    next: int = 0
    segments: int = 0
    records: int = 0
    messages: int = 0
    size: int = 0


class _Reading(msgspec.Struct):
    """A segment that was read: what it holds, its torn tail, and what its index file says."""

    segment: Segment
    scan: Scan
    sealed: bool
    index_data: bytes | None
    index: Cover
    tail: Damage | None = None
    damaged: bool = False

    @property
    def cover(self) -> Cover:
        """The index that the segment should have."""
        size = self.segment.size if self.tail is None else self.tail.start
        return Cover(self.scan.index, size, self.scan.offset)


class LogCheck:
    """The check of one log."""

    def __init__(self, check: Check, folder: Path) -> None:
        self._check = check
        self._disk = check.disk
        self._folder = folder
        self._held = Held(int(folder.name))
        self._kept = Kept()
        self._point: Checkpoint | None = None

    def run(self) -> Held:
        """Check all of the log's files; return what it holds."""
        names = self._disk.listdir(self._folder)
        bases = sorted(int(match[1]) for match in map(SEGMENT_NAME.fullmatch, names) if match)
        own = {f"{base:020}.{kind}" for base in bases for kind in ("log", "index")}
        self._check.mention_others(self._folder, _NAMES | own, self._held.log_id)
        self._kept = self._read_bounds()
        self._point = self._read_checkpoint()
        segments = self._list(bases)
        sealed_before = max((segment.base for segment in segments if segment.size), default=0)
        for segment, following in zip_longest(segments, segments[1:]):
            try:
                self._check_segment(segment, following, sealed=segment.base < sealed_before)
            except (OSError, Corrupt) as error:
                self._find(segment.path, f"can't be read: {error}")
        self._check_point_base(segments)
        self._held.next = self._kept.after_gap(self._held.next)
        return self._held

    def _list(self, bases: list[int]) -> list[Segment]:
        """Return the segments by name and size, without those that were trimmed."""
        segments: list[Segment] = []
        for base, following in zip_longest(bases, bases[1:], fillvalue=U64_MAX):
            segment = Segment(self._folder, base)
            segment.size = self._disk.size(segment.path)
            if self._before_gap(following) <= self._kept.first:
                self._find(segment.path, "trimmed; the next start removes it", harmless=True)
                self._check.seen(segment.size)
                continue
            segments.append(segment)
            self._held.size += segment.size
        self._held.segments = len(segments)
        return segments

    def _check_segment(self, segment: Segment, following: Segment | None, *, sealed: bool) -> None:
        """Check a segment and what tells of it. sealed: another one with records follows."""
        reading = self._read(segment, following, sealed=sealed)
        self._check_end(reading, following)
        if reading.tail is not None:
            self._cut_tail(segment, reading.tail)
        self._check_point(reading)
        self._check_index(reading)
        self._held.records += reading.scan.records
        self._held.messages += reading.scan.messages

    def _read(self, segment: Segment, following: Segment | None, *, sealed: bool) -> _Reading:
        """Read a segment to its end, and report what is damaged."""
        data = self._disk.read_file(segment.index_path)
        index = decode(data, segment.base, size_max=segment.size)
        end = self._before_gap(following.base) if sealed and following is not None else U64_MAX
        watched = {*index.index.positions, index.size}
        if self._point is not None and self._point.base == segment.base:
            watched.add(self._point.position)
        scan = Scan(self._disk, segment, self._check.codec, end=end, watched=watched, seen=self._check.seen)
        reading = _Reading(segment, scan, sealed, data, index)
        segment.fd = self._disk.open_to_read(segment.path)
        try:
            for damage in scan.damages():
                reading.damaged = True
                if self._is_torn(reading, damage):
                    reading.tail = damage
                    continue
                if not sealed and damage.end == segment.size > damage.start:
                    self._end_where_it_was(reading, damage)
                self._report(segment, damage)
        finally:
            self._disk.close(segment.fd)
        return reading

    def _is_torn(self, reading: _Reading, damage: Damage) -> bool:
        """Say whether a crash explains the bytes: not if they were durable, nor a whole record unless power failed."""
        segment, point = reading.segment, self._point
        if reading.sealed or not damage.start < damage.end == segment.size:
            return False
        if point is not None and point.base == segment.base and damage.start < point.position:
            return False
        if self._check.power_failed:
            return True
        return is_torn(self._disk, segment, segment.fd, position=damage.start, offset=reading.scan.offset)

    def _end_where_it_was(self, reading: _Reading, damage: Damage) -> None:
        """Take from the checkpoint which offsets the damaged end of the newest segment had."""
        point = self._point
        if point is not None and point.base == reading.segment.base and point.next_offset > reading.scan.offset:
            damage.lost = range(reading.scan.offset, point.next_offset)
            reading.scan.offset = point.next_offset

    def _report(self, segment: Segment, damage: Damage) -> None:
        what = damage.what if damage.start == damage.end else f"damaged up to byte {damage.end}: {damage.what}"
        known = bool(damage.lost) and self._kept.after_gap(damage.lost.start) >= damage.lost.stop
        if known:
            what += "; known since a power failure"
        self._find(segment.path, what, damage.start, lost=damage.lost, harmless=known)

    def _check_end(self, reading: _Reading, following: Segment | None) -> None:
        """Check that the next segment goes on where this one ends, or behind what was skipped."""
        offset = reading.scan.offset
        self._held.next = max(offset, following.base if following is not None else 0)
        if following is not None and following.base != self._kept.after_gap(offset):
            what = f"the log goes on with offset {following.base}"
            self._find(reading.segment.path, what, reading.segment.size, lost=range(offset, following.base))

    def _cut_tail(self, segment: Segment, tail: Damage) -> None:
        what = f"{torn(segment.size - tail.start)}: {tail.what}"
        finding = Finding(path=segment.path, position=tail.start, what=what, log_id=self._held.log_id)
        if self._check.mend(finding, lambda: cut(self._disk, segment.path, tail.start)):
            self._held.size -= segment.size - tail.start
            segment.size = tail.start

    def _check_index(self, reading: _Reading) -> None:
        """Hold the index file against the segment."""
        segment = reading.segment
        wrong = self._index_fault(reading)
        harmless = wrong is None
        wrong = wrong or self._index_lack(reading)
        if wrong is None:
            return
        finding = Finding(
            path=segment.index_path, what=f"{wrong}; --repair builds it", log_id=self._held.log_id, harmless=harmless
        )
        self._check.mend(finding, lambda: self._write_index(reading))

    def _index_fault(self, reading: _Reading) -> str | None:
        """Say what is wrong with an index file, if anything. Where there is damage it may lead to what was there."""
        index, places, tail = reading.index, reading.scan.places, reading.tail
        if reading.index_data is None or not reading.segment.size:
            return None
        if not index.size:
            return "damaged, or of another segment"
        if tail is not None and index.size > tail.start:
            return "tells of the torn tail"
        columns = index.index
        for position, offset, timestamp_us in zip(columns.positions, columns.offsets, columns.timestamps, strict=True):
            found = places.get(position)
            if found != (offset, timestamp_us) and not (reading.damaged and found is None):
                return f"leads to byte {position} for offset {offset}, where no such record begins"
        after = self._kept.after_gap
        found = places.get(index.size)
        if reading.damaged or (found is not None and after(found[0]) == after(index.next_offset)):
            return None
        return f"says that offset {index.next_offset} follows at byte {index.size}"

    def _index_lack(self, reading: _Reading) -> str | None:
        """Say what an index file does not lead to, if anything. Who needs it searches for it."""
        index, segment = reading.index, reading.segment
        if reading.sealed and index.size < segment.size:
            return "missing" if reading.index_data is None else f"covers {index.size} of {segment.size} bytes"
        if not set(reading.scan.resumed) <= set(index.index.positions):
            return "does not lead behind the damage"
        return None

    def _write_index(self, reading: _Reading) -> None:
        self._disk.write_file(reading.segment.index_path, encode(reading.cover))
        self._disk.fsync_dir(self._folder)

    def _read_bounds(self) -> Kept:
        data = self._disk.read_file(bounds_path(self._folder))
        kept = Kept() if data is None else decode_bounds(data)
        if kept is None:
            self._find(bounds_path(self._folder), "damaged; skipped offsets are taken for missing ones")
        return kept or Kept()

    def _before_gap(self, offset: int) -> int:
        """Return the offset that a segment ends with if the next one starts with `offset`."""
        for end, base in reversed(self._kept.gaps):
            if base == offset:
                offset = end
        return offset

    def _read_checkpoint(self) -> Checkpoint | None:
        data = self._disk.read_file(checkpoint_path(self._folder))
        point = None if data is None else decode_checkpoint(data)
        if data is not None and point is None:
            self._find(checkpoint_path(self._folder), "damaged; the next start goes without it and writes another")
        return point

    def _check_point(self, reading: _Reading) -> None:
        """Hold the checkpoint against the segment, if it is the one that it tells of."""
        point, segment = self._point, reading.segment
        if point is None or point.base != segment.base:
            return
        found = reading.scan.places.get(point.position)
        if point.position > segment.size:
            what = f"the file ends here, {point.position} bytes of it were durable"
            self._find(segment.path, what, segment.size, lost=range(reading.scan.offset, point.next_offset))
        elif not (reading.damaged and found is None) and (found is None or found[0] != point.next_offset):
            what = f"offset {point.next_offset} does not begin at byte {point.position} of {segment.path.name}"
            self._find(checkpoint_path(self._folder), what)

    def _check_point_base(self, segments: list[Segment]) -> None:
        """Check that the segment that the checkpoint tells of is there, or was trimmed."""
        point = self._point
        bases = [segment.base for segment in segments]
        if point is None or point.base in bases or (bases and point.base < bases[-1]):
            return
        what = f"tells of a segment that is not there, {point.base:020}.log"
        self._find(checkpoint_path(self._folder), what, lost=range(self._held.next, point.next_offset))

    def _find(
        self, path: Path, what: str, position: int = 0, *, lost: range = range(0), harmless: bool = False
    ) -> None:
        self._check.report(
            Finding(path=path, what=what, position=position, log_id=self._held.log_id, lost=lost, harmless=harmless)
        )
