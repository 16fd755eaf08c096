"""One partition's log in files: segments that are appended to at the end and forgotten at the front.

Everything but the sync and the search for an index runs on the event loop, and nothing waits between choosing an
offset and writing, so there is no lock.

Crash invariant: the bytes of a segment are durable before the checkpoint passes them, and recovery believes
nothing behind the checkpoint without verifying it.
"""

from bisect import bisect_left, bisect_right
from contextlib import suppress
from pathlib import Path

import msgspec

from ...protocol.batch import Batch, stamp
from ..engine import Bounds, Clock, LogPolicy, ReadLimit
from ..errors import Corrupt, Full, OffsetGone, Poisoned
from .disk import NO_ROOM, Disk, write_whole
from .index import Cover
from .recovery import Checkpoint, checkpoint_path, encode_checkpoint, recover
from .segment import WINDOW_SIZE, Maps, Poll, Segment, Window, build_index, look, take, unlink, walk, write_index
from .syncer import Group, Syncer

# How much recovery verifies at most of what was durable: 16 MiB in messages of 1 KB take 40 ms.
CHECKPOINT_GAP_SIZE = 16 * 1024 * 1024
# Places where a reader is expected next: as many readers of a partition poll without a search.
HINTS_MAX = 64
# A read of less costs the same.
READ_SIZE_MIN = 4096
# The size of a record as long as none was seen since the start.
RECORD_SIZE_GUESS = 4096

Place = tuple[Segment, int, int]  # a record's segment, position and offset


class Parts(msgspec.Struct):
    """What the logs of an engine share."""

    disk: Disk
    clock: Clock
    syncer: Syncer
    maps: Maps


class LocalLog:
    """A log in a folder of its own, which appears with the first append. See storage.engine.Log.

    policy: may be replaced while the log is open; it applies from the next append.
    damage: what recovery found in front of valid data; the log ends there and takes no appends.
    """

    def __init__(self, parts: Parts, folder: Path, policy: LogPolicy) -> None:
        self.policy = policy
        self.damage: Corrupt | None = None
        self._parts = parts
        self._disk = parts.disk
        self._clock = parts.clock
        self._folder = folder
        self._segments: list[Segment] = []
        self._bases: list[int] = []
        self._active: Segment | None = None
        self._next = 0
        self._size = 0
        self._last_timestamp = 0
        self._hints: dict[int, Place] = {}
        self._unsynced: list[Segment] = []  # sealed, their files still open
        self._syncing: list[Segment] = []  # those among them that a sync in flight covers
        self._names_changed = False
        self._checkpoint: Checkpoint | None = None
        self._closing = False
        self._group = Group(parts.syncer, folder, self._plan_sync, self._end_sync)
        self._recover()

    @property
    def bounds(self) -> Bounds:
        segments = self._segments
        return Bounds(segments[0].base if segments else self._next, self._next, self._size, len(segments))

    @property
    def is_closed(self) -> bool:
        return self._closing

    async def append(self, batch: Batch) -> int:
        offset = self._write(batch)
        if self.policy.persisted:
            await self._group.sync()
        return offset

    async def read(self, offset: int, limit: ReadLimit) -> list[memoryview]:
        """See storage.engine.Log; a limit of no messages gives []."""
        if offset >= self._next:
            if self.damage is not None:
                # Without the traceback, which would grow with every read.
                raise self.damage.with_traceback(None)
            return []
        if limit.messages < 1:
            return []
        place = self._hints.get(offset)
        if place is not None:
            return self._collect(place, offset, limit)
        place = await self._locate(offset)
        try:
            return self._collect(place, offset, limit)
        except Corrupt:
            if not await self._mend_index(place[0]):
                raise
        return self._collect(await self._locate(offset), offset, limit)

    async def offset_at(self, timestamp_us: int) -> int:
        while (segment := self._segment_before(timestamp_us)) is not None:
            if segment.known_from[1] == 0:
                return self._search_time(segment, timestamp_us)
            # The log may be trimmed meanwhile, so look again.
            await self._complete_index(segment)
        return self.bounds.first

    def cuts(self) -> list[int]:
        return list(self._bases) or [self._next]

    async def trim(self, before: int) -> None:
        """See storage.engine.Log. Raises OSError if a file can't be removed; it is back after a restart."""
        ends = [segment.end for segment in self._segments[:-1]]
        doomed = self._segments[: bisect_right(ends, before)]
        if not doomed:
            return
        self._forget(doomed)
        # A sync in flight may still use their files.
        await self._group.idle()
        self._unsynced = [segment for segment in self._unsynced if segment not in doomed]
        self._close_files(doomed)
        await self._parts.syncer.call(_unlink, self._disk, self._folder, doomed)
        self._names_changed = True
        self._group.mark()

    async def flush(self) -> None:
        await self._group.sync()

    async def close(self) -> None:
        """Sync, note where everything ends, and let go of the files. Raises Poisoned if the sync fails."""
        if self._closing:
            return
        self._closing = True
        try:
            if self._group.cause is None and self._active is not None and not self._is_noted(self._active):
                self._group.mark()
                await self._group.sync()
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Let go of the files without a sync. The log is empty from here on and takes no appends."""
        self._closing = True
        self._group.poison(ValueError("the log is closed"))
        await self._group.idle()
        self._close_files(self._segments)
        self._close_files(self._unsynced)
        self._active = None
        self._forget(list(self._segments))

    def _recover(self) -> None:
        found = recover(self._disk, self._folder)
        if found is None:
            return
        self._segments = found.segments
        self._bases = [segment.base for segment in found.segments]
        self._active = found.segments[-1]
        self._next = self._active.end
        self._size = sum(segment.size for segment in found.segments)
        self._last_timestamp = found.last_timestamp_us
        self._checkpoint = found.checkpoint
        self._unsynced = [segment for segment in found.segments[:-1] if segment.fd >= 0]
        self.damage = found.damage
        if found.damage is not None:
            self._group.poison(found.damage)
        elif not found.durable or self._unsynced:
            self._names_changed = True
            self._group.mark()

    def _write(self, batch: Batch) -> int:
        """Stamp a batch and write it at the end; return its base offset."""
        assert not batch.first_delta, "recovery takes a part of a batch for damage"
        # 3 us for a small record, half of it the system call (CPython 3.11).
        group, segment, record = self._group, self._active, batch.record
        if group.cause is not None:
            raise Poisoned(self._folder, group.cause)
        if segment is None or segment.size >= max(self.policy.segment_size, 1):
            segment = self._roll()
        offset, position = self._next, segment.size
        # Timestamps never go back, whatever the clock does.
        timestamp = max(self._clock(), self._last_timestamp)
        stamp(batch, base_offset=offset, base_timestamp_us=timestamp)
        try:
            write_whole(self._disk, segment.fd, record, position)
        except OSError as error:
            group.poison(error)
            raise Poisoned(segment.path, error) from error
        size = len(record)
        self._last_timestamp = timestamp
        self._next = segment.end = offset + batch.count
        self._size += size
        segment.size = position + size
        segment.records += 1
        segment.records_size += size
        if position >= segment.index_due:
            segment.note(offset, timestamp, position)
        group.mark()
        return offset

    def _roll(self) -> Segment:
        """Seal the active segment and begin the next one. Raises Full, Poisoned."""
        segment = Segment(self._folder, self._next)
        try:
            segment.fd = _create(self._disk, segment.path)
        except OSError as error:
            self._group.poison(error)
            raise Poisoned(segment.path, error) from error
        if self._active is not None:
            self._unsynced.append(self._active)
        self._active = segment
        self._segments.append(segment)
        self._bases.append(segment.base)
        self._names_changed = True
        return segment

    def _window(self, segment: Segment, position: int, size: int) -> Window:
        if segment is self._active:
            return look(self._disk, segment, segment.fd, position, size)
        return self._parts.maps.window(segment)

    def _segment_of(self, offset: int) -> Segment:
        number = bisect_right(self._bases, offset) - 1
        if number < 0:
            raise OffsetGone(f"offset {offset}, the first is {self.bounds.first}")
        return self._segments[number]

    async def _locate(self, offset: int) -> Place:
        """Return the last indexed place at or before `offset`."""
        segment = self._segment_of(offset)
        while offset < segment.known_from[0]:
            await self._complete_index(segment)
            segment = self._segment_of(offset)
        number = segment.index.find(offset)
        if number < 0:
            return segment, 0, segment.base
        return segment, segment.index.positions[number], segment.index.offsets[number]

    async def _complete_index(self, segment: Segment) -> None:
        """Load or build what the index of a segment lacks, off the loop."""
        known_from = segment.known_from
        if known_from[1] == 0:
            return
        offset, size = known_from
        cover = await self._parts.syncer.call(build_index, self._disk, segment, offset=offset, size=size)
        if segment.known_from == known_from:
            segment.complete(cover)

    async def _mend_index(self, segment: Segment) -> bool:
        """Throw the index of a sealed segment away if it led astray: if the whole log file is walked without it."""
        if segment is self._active or segment.index_tried:
            return False
        segment.index_tried = True
        cover = await self._parts.syncer.call(
            build_index, self._disk, segment, offset=segment.end, size=segment.size, trusted=False
        )
        if cover.size != segment.size:
            return False
        segment.index, segment.known_from = cover.index, (segment.base, 0)
        return True

    def _collect(self, place: Place, offset: int, limit: ReadLimit) -> list[memoryview]:
        """Take records from `place` on, over the ends of windows and segments, until the limit or the end."""
        segment, position, base = place
        poll = Poll(offset, offset + limit.messages, limit.bytes, position, base)
        while not poll.done:
            if poll.position >= segment.size:
                if poll.offset >= self._next:
                    break
                following = self._segment_of(poll.offset)
                if following.base != poll.offset:
                    _end_at_gap(poll, segment)
                    break
                segment, poll.position = following, 0
            take(self._window(segment, poll.position, self._size_wanted(segment, poll)), poll)
        self._remember(segment, poll)
        return poll.buffers

    def _size_wanted(self, segment: Segment, poll: Poll) -> int:
        """Guess how many bytes hold what `poll` still wants, so that the common poll is one read.

        Nearly exact where records are alike: a large one too many would cost as much as the one that is wanted.
        """
        records = max(segment.records, 1)
        record = -(-segment.records_size // records) or RECORD_SIZE_GUESS
        messages = max((segment.end - segment.base) * record // max(segment.size, 1), 1)  # in such a record
        wanted = min(-((poll.offset - poll.stop) // messages) * record, max(poll.room, 0))
        wanted += min(wanted // 8, WINDOW_SIZE)
        skipped = WINDOW_SIZE if poll.offset < poll.first else 0
        return max(wanted + skipped, record, poll.need, READ_SIZE_MIN)

    def _remember(self, segment: Segment, poll: Poll) -> None:
        """Keep the place where the next poll will start: behind the last record, or inside of it."""
        hints = self._hints
        if poll.offset > poll.stop:
            hints[poll.stop] = (segment, *poll.last)
        else:
            hints[poll.offset] = (segment, poll.position, poll.offset)
        if len(hints) > HINTS_MAX:
            del hints[next(iter(hints))]

    def _segment_before(self, timestamp_us: int) -> Segment | None:
        """Return the last segment that starts before `timestamp_us`, None if there is none."""
        filled = [segment for segment in self._segments if segment.size]
        number = bisect_left(filled, timestamp_us, key=self._first_timestamp)
        return filled[number - 1] if number else None

    def _first_timestamp(self, segment: Segment) -> int:
        """Return the base timestamp of a segment's first record."""
        if segment.first_timestamp is None:
            window = self._window(segment, 0, WINDOW_SIZE)
            segment.first_timestamp = next(walk(window, 0, segment.base))[2]
        return segment.first_timestamp

    def _search_time(self, segment: Segment, timestamp_us: int) -> int:
        """Return the first offset in a segment with at least this timestamp, or the segment's end."""
        number = max(segment.index.find_earlier(timestamp_us), 0)
        position, offset = segment.index.positions[number], segment.index.offsets[number]
        while position < segment.size:
            window = self._window(segment, position, WINDOW_SIZE)
            for at, base, timestamp, size, count in walk(window, position, offset):
                if timestamp >= timestamp_us:
                    return base
                position, offset = at + size, base + count
        return offset

    def _forget(self, segments: list[Segment]) -> None:
        """Take the oldest segments out of the log; views of them live on."""
        del self._segments[: len(segments)]
        del self._bases[: len(segments)]
        self._hints.clear()
        for segment in segments:
            self._size -= segment.size
            self._parts.maps.forget(segment)

    def _close_files(self, segments: list[Segment]) -> None:
        for segment in segments:
            if segment.fd >= 0:
                self._disk.close(segment.fd)
                segment.fd = -1

    def _is_noted(self, active: Segment) -> bool:
        """Say whether the checkpoint tells of everything, so that there is nothing to sync."""
        last = self._checkpoint
        return (
            last is not None and (last.base, last.position) == (active.base, active.size) and not self._group.is_pending
        )

    def _plan_sync(self) -> "_Sync":
        """Say what one sync has to do for everything written so far."""
        active = self._active
        assert active is not None, "a log without a file has nothing to sync"
        point = Checkpoint(active.base, active.size, self._next, self._last_timestamp)
        sync = _Sync(self._disk, self._folder, self._unsynced, active, names=self._names_changed)
        if self._closing or self._is_checkpoint_due(point):
            sync.checkpoint = self._checkpoint = point
        indexed = [*self._unsynced, active] if self._closing else self._unsynced
        sync.covers = [(each, Cover(each.index, each.size, each.end)) for each in indexed if not each.known_from[1]]
        self._syncing, self._unsynced = self._unsynced, []
        self._names_changed = False
        return sync

    def _is_checkpoint_due(self, point: Checkpoint) -> bool:
        last = self._checkpoint
        return last is None or last.base != point.base or point.position - last.position >= CHECKPOINT_GAP_SIZE

    def _end_sync(self) -> None:
        self._close_files(self._syncing)
        self._syncing = []


class _Sync(msgspec.Struct):
    """What one sync does in its thread. The checkpoint comes last: it says that the rest is durable."""

    disk: Disk
    folder: Path
    sealed: list[Segment]
    active: Segment
    names: bool
    checkpoint: Checkpoint | None = None
    covers: list[tuple[Segment, Cover]] = msgspec.field(default_factory=list[tuple[Segment, Cover]])

    def __call__(self) -> None:
        # Oldest first: a power failure in between leaves no hole.
        for segment in [*self.sealed, self.active]:
            self.disk.fdatasync(segment.fd)
        if self.names:
            self.disk.fsync_dir(self.folder)
            self.disk.fsync_dir(self.folder.parent)
        for segment, cover in self.covers:
            write_index(self.disk, segment, cover)
        if self.checkpoint is not None:
            with suppress(OSError, Full):  # Without it the next start only verifies more.
                self.disk.write_file(checkpoint_path(self.folder), encode_checkpoint(self.checkpoint))


def _create(disk: Disk, path: Path) -> int:
    """Make and open a file and the folder it is in. Raises Full if there is no room for them."""
    try:
        disk.mkdir(path.parent)
        return disk.open(path, create=True)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise Full(f"no room for {path}") from error
        raise


def _end_at_gap(poll: Poll, segment: Segment) -> None:
    """End a poll where the next segment does not go on with the offset that should follow."""
    if not poll.buffers:
        raise Corrupt(segment.path, segment.size, f"the segment ends before offset {poll.offset}")


def _unlink(disk: Disk, folder: Path, segments: list[Segment]) -> None:
    """Remove segments, oldest first, so that a crash leaves no hole."""
    # The name of the active segment may be new. It tells the next offset when the others are gone, so it has to
    # be durable before they go.
    disk.fsync_dir(folder)
    for segment in segments:
        unlink(disk, segment)
