"""Reads a log: finds the record that covers an offset or a time, and hands out the records from there on.

What was sealed is mapped, what is appended to is read with `pread`. Records are proven before they are handed out,
but for those that this process itself verified or wrote and that are still appended to.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from ...protocol.batch import BadBatch, hop, span_of
from ..engine import Clock, Found, ReadLimit
from ..errors import Corrupt, OffsetGone
from .codec import Codec
from .disk import Disk
from .indexing import build_index
from .segment import WINDOW_SIZE, Maps, Poll, Segment, Window, look, take, walk
from .segments import Segments
from .syncer import Syncer

# Places where a reader is expected next: as many readers of a partition poll without a search.
HINTS_MAX = 64
# A read of less costs the same.
READ_SIZE_MIN = 4096
# So much is read, and kept, where a poll goes on behind another: small messages polled one by one share their reads.
AHEAD_SIZE = 8192
# The size of a record as long as none was seen since the start.
RECORD_SIZE_GUESS = 4096

# A record's segment, position and offset, and whether it was proven a moment ago.
Place = tuple[Segment, int, int, bool]
# What was read last: where, and the bytes.
_NOTHING_RECENT: tuple[Segment | None, int, memoryview] = None, 0, memoryview(b"")


class Parts(msgspec.Struct):
    """What the logs of an engine share. lost: to be called when a disk has failed to keep what readers have seen."""

    disk: Disk
    clock: Clock
    syncer: Syncer
    maps: Maps
    codec: Codec
    lost: Callable[[], None]


class _Unindexed(Exception):
    """It takes the index of this segment to know more."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment.path)
        self.segment = segment


class Reader:
    """What reads one log. The log owns the segments."""

    def __init__(self, parts: Parts, segments: Segments) -> None:
        self._disk = parts.disk
        self._syncer = parts.syncer
        self._maps = parts.maps
        self._codec = parts.codec
        self._segments = segments
        self._hints: OrderedDict[int, Place] = OrderedDict()  # by offset, the oldest first
        self._recent = _NOTHING_RECENT
        self._is_doubtful = False

    def doubt(self) -> None:
        """Prove all that is read from here on: a sync failed, and the system may have dropped what was written."""
        self._is_doubtful = True

    async def read(self, offset: int, limit: ReadLimit) -> list[memoryview]:
        """See storage.engine.Log; a limit of no messages gives []."""
        found = self.read_nowait(offset, limit)
        if found is not None:
            return found[0]
        if self._segments.kept.gaps:
            offset = self._segments.kept.after_gap(offset)
        place = await self._locate(offset)
        try:
            return self._collect(place, offset, limit)[0]
        except Corrupt:
            if not await self._mend_index(place[0]):
                raise
        return self._collect(await self._locate(offset), offset, limit)[0]

    def read_nowait(self, offset: int, limit: ReadLimit) -> Found | None:
        """See storage.engine.Log: what is not easy is to complete an index, or to do without one that leads astray."""
        segments = self._segments
        if segments.kept.gaps:
            offset = segments.kept.after_gap(offset)
        if offset >= segments.visible or limit.messages < 1:
            return [], offset, offset
        place = self._hints.get(offset)
        if place is not None:
            return self._glance(place, offset, limit) or self._collect(place, offset, limit)
        try:
            place = self._find(segments.of(offset), offset)
            return None if place is None else self._collect(place, offset, limit)
        except (OffsetGone, Corrupt):
            return None

    async def offset_at(self, timestamp_us: int) -> int:
        while (segment := await self._segment_before(timestamp_us)) is not None:
            if segment.known_from[1] == 0:
                found = self._search_time(segment, timestamp_us)
                return min(self._segments.kept.after_gap(found), self._segments.visible)
            # The log may be trimmed meanwhile, so look again.
            await self._complete_index(segment)
        return self._segments.bounds.first

    async def started_at(self) -> int | None:
        """Return the base timestamp of the first record there is."""
        while True:
            filled = next((each for each in self._segments.all if each.size and not self._is_lost(each)), None)
            try:
                return None if filled is None else self._first_timestamp(filled)
            except _Unindexed as error:
                await self._complete_index(error.segment)

    def stored(self, segment: Segment) -> memoryview:
        """Return the bytes of a sealed segment's file."""
        return self._maps.window(segment).data[: segment.size]

    def forget(self, gone: list[Segment]) -> None:
        """Forget what is known of segments that the log no longer has; views of them live on."""
        self._hints.clear()
        for segment in gone:
            self._maps.forget(segment)

    def _window(self, segment: Segment, position: int, size: int) -> Window:
        if segment is self._segments.active:
            return look(self._disk, segment, segment.fd, position, size)
        return self._maps.window(segment)

    async def _locate(self, offset: int) -> Place:
        """Return the last indexed place at or before `offset`."""
        while True:
            segment = self._segments.of(offset)
            if place := self._find(segment, offset):
                return place
            await self._complete_index(segment)

    def _find(self, segment: Segment, offset: int) -> Place | None:
        """Return the last indexed place in a segment at or before `offset`, None if its index does not reach there."""
        if offset < segment.known_from[0]:
            return None
        number = segment.index.find(offset)
        if number < 0:
            return segment, 0, segment.base, False
        return segment, segment.index.positions[number], segment.index.offsets[number], False

    async def _complete_index(self, segment: Segment) -> None:
        """Load or build what the index of a segment lacks, off the loop."""
        known_from = segment.known_from
        if known_from[1] == 0:
            return
        offset, size = known_from
        cover = await self._syncer.call(build_index, self._disk, segment, self._codec, offset=offset, size=size)
        if segment.known_from == known_from:
            segment.complete(cover)

    async def _mend_index(self, segment: Segment) -> bool:
        """Throw the index of a segment away if it led astray: if the whole log file is walked without it."""
        if segment.index_tried:
            return False
        segment.index_tried = True
        offset, size = segment.end, segment.size
        cover = await self._syncer.call(
            build_index, self._disk, segment, self._codec, offset=offset, size=size, trusted=False
        )
        if cover.size != size:
            return False
        cover.index.extend(segment.index.behind(size))  # what was appended meanwhile
        segment.index, segment.known_from = cover.index, (segment.base, 0)
        return True

    def _glance(self, place: Place, offset: int, limit: ReadLimit) -> Found | None:
        """Read records of the newest segment that need no proof, if one look shows them all; None where it takes more.

        What most polls are: 6 us instead of 14 for one message (CPython 3.11).
        """
        segment, start, base, _ = place
        segments = self._segments
        if base != offset or self._is_doubtful:
            return None
        stop = offset + limit.messages
        if stop > segments.visible:
            stop = segments.visible
        seen, origin, data = self._recent
        end = after = last = 0
        if seen is segment and start >= origin:
            end, after, last, base = hop(data, start - origin, offset, stop, limit.bytes)
        if after < stop:
            is_own = segment is segments.active and start >= segment.proven_from
            if not is_own or self._codec.keys is not None:
                return None
            origin, data = start, self._look(segment, start, stop - offset, limit.bytes)
            end, after, last, base = hop(data, 0, offset, stop, limit.bytes)
            if after < stop:
                return None
        self._remember(segment, origin + end, after, stop, origin + last, base)
        return [data[start - origin : end]], offset, after

    def _look(self, segment: Segment, position: int, count: int, size_max: int) -> memoryview:
        """Read what should be enough for `count` messages of the newest segment."""
        guess = count * segment.size // (segment.end - segment.base)
        record = segment.records_size // (segment.records or 1)
        size = min(max(guess + guess // 8, record, AHEAD_SIZE), size_max, segment.size - position)
        data = memoryview(self._disk.pread(segment.fd, size, position))
        self._recent = (segment, position, data) if size <= AHEAD_SIZE else _NOTHING_RECENT
        return data

    def _collect(self, place: Place, offset: int, limit: ReadLimit) -> Found:
        """Take records from `place` on, over the ends of windows and segments, until the limit or the end."""
        segment, position, base, proven = place
        stop = min(offset + limit.messages, self._segments.visible)
        poll = Poll(offset, stop, limit.bytes, position, base)
        while not poll.done:
            if poll.position >= segment.size:
                following = self._following(segment, poll)
                if following is None:
                    break
                segment, poll.position = following, 0
            if take(self._window(segment, poll.position, self._size_wanted(segment, poll)), poll):
                is_that_record = segment is place[0] and poll.start == poll.last[0] == position
                self._prove(segment, poll, trusted=proven and is_that_record)
        self._remember(segment, poll.position, poll.offset, poll.stop, *poll.last)
        found = poll.buffers
        return found, span_of(found[0])[0] if found else poll.offset, poll.offset

    def _following(self, segment: Segment, poll: Poll) -> Segment | None:
        """Return the segment that goes on where `segment` ended, None where a poll ends."""
        if poll.offset >= self._segments.visible:
            return None
        following = self._segments.of(poll.offset)
        is_skip = self._segments.kept.after_gap(poll.offset) != poll.offset
        if following.base == poll.offset and following is not segment and not is_skip:
            return following
        # Offsets were skipped, or a part of the log is missing. A read that starts behind it gets on.
        if not poll.buffers:
            raise Corrupt(segment.path, segment.size, f"the segment ends before offset {poll.offset}")
        return None

    def _prove(self, segment: Segment, poll: Poll, *, trusted: bool) -> None:
        """Turn the buffer just taken into what readers get; where it is damaged, end the poll before that."""
        own = segment is self._segments.active and poll.start >= segment.proven_from
        trusted = (trusted or own) and not self._is_doubtful
        if trusted and self._codec.keys is None:
            return
        run = poll.buffers.pop()
        opened, size, fault = self._codec.deliver(run, trusted=trusted)
        poll.buffers += opened
        if fault is None:
            return
        base, _, count = span_of(run, size)
        if not poll.buffers:
            raise _corrupt(segment, poll.start + size, base, count, fault)
        poll.position, poll.offset, poll.done = poll.start + size, base, True

    def _size_wanted(self, segment: Segment, poll: Poll) -> int:
        """Guess how many bytes hold what `poll` still wants, so that the common poll is one read.

        Nearly exact where records are alike: a large one too many would cost as much as the one that is wanted.
        """
        record = -(-segment.records_size // (segment.records or 1)) or RECORD_SIZE_GUESS
        if poll.offset == poll.first == poll.stop - 1:
            return max(record, poll.need, READ_SIZE_MIN)
        messages = max((segment.end - segment.base) * record // max(segment.size, 1), 1)  # in such a record
        wanted = min(-((poll.offset - poll.stop) // messages) * record, max(poll.room, 0))
        wanted += min(wanted // 8, WINDOW_SIZE)
        skipped = WINDOW_SIZE if poll.offset < poll.first else 0
        return max(wanted + skipped, record, poll.need, READ_SIZE_MIN)

    def _remember(self, segment: Segment, position: int, offset: int, stop: int, last: int, base: int) -> None:
        """Keep the place where the next poll will start: behind the last record, or inside of it.

        position, offset: where the last record ends. last, base: where it begins. stop: the offset that was read up to.
        """
        hints = self._hints
        if offset > stop:
            # Proven once: polls of single messages would prove the batch that holds them for each.
            hints[stop] = (segment, last, base, True)
        else:
            hints[offset] = (segment, position, offset, False)
        if len(hints) > HINTS_MAX:
            hints.popitem(last=False)

    async def _segment_before(self, timestamp_us: int) -> Segment | None:
        """Return the last segment that starts before `timestamp_us`, None if there is none."""
        while True:
            filled = [segment for segment in self._segments.all if segment.size and not self._is_lost(segment)]
            try:
                number = bisect_left(filled, timestamp_us, key=self._first_timestamp)
                return filled[number - 1] if number else None
            except _Unindexed as error:
                await self._complete_index(error.segment)

    def _is_lost(self, segment: Segment) -> bool:
        """Say whether a power failure took all of a segment but its file."""
        return self._segments.kept.after_gap(segment.base) >= max(segment.end, segment.base + 1)

    def _first_timestamp(self, segment: Segment) -> int:
        """Return the base timestamp of a segment's first record that is not lost. Raises _Unindexed, Corrupt."""
        if segment.first_timestamp is None:
            try:
                window = self._window(segment, 0, WINDOW_SIZE)
                segment.first_timestamp = next(walk(window, 0, segment.base))[2]
            except Corrupt:
                if segment.known_from[1]:
                    raise _Unindexed(segment) from None
                if not segment.index.timestamps:
                    raise
                segment.first_timestamp = segment.index.timestamps[0]
        return segment.first_timestamp

    def _search_time(self, segment: Segment, timestamp_us: int) -> int:
        """Return the first offset in a segment with at least this timestamp, or the segment's end."""
        number = max(segment.index.find_earlier(timestamp_us), 0)
        position, offset = segment.index.positions[number], segment.index.offsets[number]
        while position < segment.size:
            window = self._window(segment, position, WINDOW_SIZE)
            try:
                for at, base, timestamp, size, count in walk(window, position, offset):
                    if timestamp >= timestamp_us:
                        return base
                    position, offset = at + size, base + count
            except Corrupt:
                resumed = self._segments.kept.after_gap(offset)
                if resumed == offset:
                    raise
                offset, before = resumed, position
                number = segment.index.find(offset)
                position = segment.index.positions[number] if number >= 0 else segment.size
                if position <= before:
                    break
        return offset


def _corrupt(segment: Segment, position: int, base: int, count: int, fault: BadBatch) -> Corrupt:
    lost = f"offset {base}" if count == 1 else f"offsets {base} to {base + count - 1}"
    return Corrupt(segment.path, position + fault.position, f"{fault.what}; {lost} can't be read")
