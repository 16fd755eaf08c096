"""One partition's log in files: segments that are appended to at the end and forgotten at the front.

Everything but syncs, the making and removing of files and the search for an index runs on the event loop, and
nothing waits between choosing an offset and writing, so there is no lock.

Crash invariant: the bytes of a segment are durable before the checkpoint passes them, and recovery believes
nothing behind the checkpoint without verifying it.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from ...protocol.batch import HEADER_SIZE, Batch, stamp
from ..engine import Bounds, LogPolicy, ReadLimit
from ..errors import Corrupt, Full, OffsetGone, Poisoned
from ..seal import sealed_with
from .bounds import SKIP, Kept, write_bounds
from .checkpoint import Checkpoint, checkpoint_path, encode_checkpoint
from .disk import NO_ROOM, Disk, write_whole
from .index import Cover
from .indexing import write_index
from .reader import Parts, Reader
from .recovery import Crash, Recovered, Recovery
from .segment import Segment, unlink
from .segments import Segments
from .syncer import Group

# How much recovery verifies at most of what was durable: 16 MiB in messages of 1 KB take 40 ms.
CHECKPOINT_GAP_SIZE = 16 * 1024 * 1024
# How much of the newest segment is walked again at most for its index after a crash: with messages of 1 KB one by one
# 0.15 s. An index of 1 GiB is 1.5 MB, so it is not written with every checkpoint.
INDEXED_GAP_SIZE = 128 * 1024 * 1024
# More messages than this wait for a sync, so that SKIP is always more than a power failure can take.
UNSYNCED_MAX = SKIP // 2


class LocalLog:
    """A log in a folder of its own, which appears with the first append. See storage.engine.Log.

    policy: may be replaced while the log is open; it applies from the next append.
    damages: the stretches that recovery found and that can't be read.
    """

    def __init__(self, parts: Parts, folder: Path, policy: LogPolicy, crash: Crash | None = None) -> None:
        """crash: how the last run of the log ended, if a process that died is not all of it."""
        self.policy = policy
        self.damages: list[Corrupt] = []
        self._disk = parts.disk
        self._clock = parts.clock
        self._syncer = parts.syncer
        self._codec = parts.codec
        self._folder = folder
        self._last_timestamp = 0
        self._unsynced: list[Segment] = []  # sealed, their files still open
        self._syncing: list[Segment] = []  # those among them that a sync in flight covers
        self._doomed: list[Segment] = []  # trimmed, their files not known to be gone
        self._sync_end = 0  # the next offset when the sync in flight began
        self._indexed_to = 0  # the position that the index file of the active segment reaches
        self._names_changed = False
        self._checkpoint: Checkpoint | None = None
        self._roll_due = False
        self._is_named = False  # whether the names of the first segment and its folder are durable
        self._closing = False
        self._note_loss = parts.lost
        self._files = asyncio.Lock()  # held while files are made or removed off the loop
        self._group = Group(parts.syncer, folder, self._plan_sync, self._end_sync)
        recovery = Recovery(parts, folder, crash or Crash(), persisted=policy.persisted)
        found = recovery.run()
        self._segments = Segments(found.segments, found.kept) if found else Segments([], Kept())
        self._reader = Reader(parts, self._segments)
        self.read_nowait = self._reader.read_nowait
        self._durable = 0  # the next offset that is known to be durable
        if found is not None:
            self._take(found)

    @property
    def bounds(self) -> Bounds:
        return self._segments.bounds

    @property
    def next(self) -> int:
        return self._segments.visible

    @property
    def is_closed(self) -> bool:
        return self._closing

    async def append(self, batch: Batch) -> int:
        segments = self._segments
        if not self._is_named:
            await self._begin()
        elif segments.next - self._durable > UNSYNCED_MAX:
            await self._group.sync()
        offset = self._write(batch)
        if self.policy.persisted:
            await self._group.sync()
        return offset

    def append_nowait(self, batch: Batch) -> int | None:
        if self.policy.persisted or not self._is_named or self._segments.next - self._durable > UNSYNCED_MAX:
            return None
        return self._write(batch)

    async def read(self, offset: int, limit: ReadLimit) -> list[memoryview]:
        return await self._reader.read(offset, limit)

    async def offset_at(self, timestamp_us: int) -> int:
        return await self._reader.offset_at(timestamp_us)

    def last(self, count: int) -> int:
        return self._segments.last(count)

    async def started_at(self) -> int | None:
        return await self._reader.started_at()

    def cuts(self) -> list[int]:
        return list(self._segments.bases) or [self._segments.next]

    async def trim(self, before: int) -> None:
        """See storage.engine.Log. Raises OSError if a file can't be removed; it is back after a restart."""
        async with self._files:
            await self._trim(before)

    async def _trim(self, before: int) -> None:
        segments = self._segments
        count = bisect_right(segments.bases[1:], before)
        if not count:
            return
        # What an earlier trim failed to remove goes first, or a restart would find it with a hole behind it.
        self._doomed += self._forget(count)
        segments.kept.first = segments.bases[0]
        segments.kept.gaps = [gap for gap in segments.kept.gaps if gap[1] > segments.kept.first]
        kept = Kept(segments.kept.first, list(segments.kept.gaps))
        # Until they are gone they are synced with the others: after a failure they are back.
        await self._syncer.call(_unlink, self._disk, self._folder, self._doomed, kept)
        await self._group.idle()  # it may still use their files
        gone = set(self._doomed)
        self._unsynced = [segment for segment in self._unsynced if segment not in gone]
        self._close_files(self._doomed)
        self._doomed = []
        self._names_changed = True
        self._group.mark()

    def stored(self, base: int) -> memoryview:
        if base not in self._segments.bases[:-1]:
            raise OffsetGone(f"no sealed segment starts at offset {base}")
        return self._reader.stored(self._segments.of(base))

    async def flush(self) -> None:
        await self._group.sync()

    async def close(self) -> None:
        """Sync, note where everything ends, and let go of the files. Raises Poisoned if the sync fails."""
        if self._closing:
            return
        self._closing = True
        active = self._segments.active
        try:
            if active is None or self._is_noted(active):
                return
            if self._group.cause is None:
                self._group.mark()
                await self._group.sync()
            else:
                await self._group.sync_anyway()
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Let go of the files without a sync. The log is empty from here on and takes no appends."""
        self._closing = True
        self._group.leave()
        async with self._files:
            await self._group.idle()
        self._close_files(self._segments.all)
        self._close_files(self._unsynced)
        self._forget(len(self._segments.all))

    def _take(self, found: Recovered) -> None:
        """Go on with what recovery found."""
        active = found.segments[-1]
        self.damages = found.damages
        self._last_timestamp = found.last_timestamp_us
        self._checkpoint = found.checkpoint
        self._unsynced = [segment for segment in found.segments[:-1] if segment.fd >= 0]
        self._segments.next = self._durable = found.next
        self._roll_due = found.next != active.end or self._needs_another_key(active)
        self._is_named = found.checkpoint is not None
        if found.durable and not self._unsynced and self._is_named:
            return
        known = found.checkpoint.next_offset if found.checkpoint else found.segments[0].base
        self._durable -= max(active.end - known, 0)
        self._names_changed = True
        if self.policy.persisted:
            self._group.sync_now()  # before anybody sees it
        else:
            self._group.mark()

    def _needs_another_key(self, active: Segment) -> bool:
        """Say whether a segment holds records that are encrypted with another key than new ones, or not at all."""
        if self._codec.keys is None or not active.size:
            return False
        return sealed_with(self._disk.pread(active.fd, HEADER_SIZE, 0)) != self._codec.writing_id

    async def _begin(self) -> None:
        """Make the first segment, its names durable: after a power failure they tell that there were messages."""
        async with self._files:
            if self._is_named or self._group.cause is not None:
                return
            if self.policy.persisted:  # nobody sees a message before all of it is durable
                self._is_named = True
                return
            # There may be one already: a process that died may have left its names unsynced.
            segment = self._segments.active or Segment(self._folder, self._segments.next)
            try:
                fd = await self._syncer.call(_create_durably, self._disk, segment.path)
            except OSError as error:
                self._group.poison(error)
                raise Poisoned(segment.path, error) from error
            self._is_named = True
            if self._closing or segment is self._segments.active:
                self._disk.close(fd)
            else:
                segment.fd = fd
                self._segments.add(segment)

    def _write(self, batch: Batch) -> int:
        """Stamp a batch and write it at the end; return its base offset."""
        assert not batch.first_delta, "recovery takes a part of a batch for damage"
        # 2.5 us for a small record, half of it the system call (CPython 3.11).
        group, segments, record = self._group, self._segments, batch.record
        if group.cause is not None or self._closing:
            raise Poisoned(self._folder, group.cause or ValueError("the log is closed"))
        segment = segments.active
        if segment is None or 0 < segment.size >= self.policy.segment_size or self._roll_due:
            segment = self._roll()
        offset, position, timestamp = segments.next, segment.size, self._clock()
        if timestamp < self._last_timestamp:  # they never go back, whatever the clock does
            timestamp = self._last_timestamp
        stamp(batch, offset, timestamp)
        try:
            write_whole(self._disk, segment.fd, self._codec.encode(record), position)
        except Full:
            group.mark()  # or a power failure brings back what was cut
            raise
        except OSError as error:
            group.poison(error)
            raise Poisoned(segment.path, error) from error
        size = len(record)
        self._last_timestamp = timestamp
        segments.next = segment.end = offset + batch.count
        if not self.policy.persisted:
            segments.visible = segments.next
        segment.size = position + size
        segment.records += 1
        segment.records_size += size
        if position >= segment.index_due:
            segment.note(offset, timestamp, position)
        group.mark()
        return offset

    def _roll(self) -> Segment:
        """Seal the active segment and begin the next one. Raises Full, Poisoned."""
        segments = self._segments
        segment = Segment(self._folder, segments.next)
        try:
            segment.fd = _create(self._disk, segment.path)
        except OSError as error:
            self._group.poison(error)
            raise Poisoned(segment.path, error) from error
        if segments.active is not None:
            self._unsynced.append(segments.active)
        segments.add(segment)
        self._indexed_to = 0
        self._names_changed = True
        self._roll_due = False
        return segment

    def _forget(self, count: int) -> list[Segment]:
        """Take the oldest segments out of the log; views of them live on."""
        gone = self._segments.forget(count)
        self._reader.forget(gone)
        return gone

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
        active = self._segments.active
        assert active is not None, "a log without a file has nothing to sync"
        point = Checkpoint(active.base, active.size, active.end, self._last_timestamp)
        sync = _Sync(self._disk, self._doubt, self._folder, self._unsynced, active, names=self._names_changed)
        if self._closing or self._is_checkpoint_due(point):
            sync.checkpoint = self._checkpoint = point
        indexed = list(self._unsynced)
        if self._closing or (sync.checkpoint is not None and active.size - self._indexed_to >= INDEXED_GAP_SIZE):
            indexed.append(active)
            self._indexed_to = active.size
        sync.covers = [_cover(each, active) for each in indexed if not each.known_from[1]]
        self._syncing, self._unsynced = self._unsynced, []
        self._sync_end = active.end
        self._names_changed = False
        return sync

    def _doubt(self) -> None:
        """Called in the thread of a sync that failed."""
        self._reader.doubt()
        self._note_loss()

    def _is_checkpoint_due(self, point: Checkpoint) -> bool:
        last = self._checkpoint
        return last is None or last.base != point.base or point.position - last.position >= CHECKPOINT_GAP_SIZE

    def _end_sync(self, cause: BaseException | None) -> None:
        self._close_files(self._syncing)
        self._syncing = []
        if cause is None:
            self._durable = max(self._durable, self._sync_end)
            self._segments.visible = max(self._segments.visible, self._sync_end)


def _cover(segment: Segment, active: Segment) -> tuple[Segment, Cover]:
    """Return a segment with its index as it is now; of the one that is appended to a copy."""
    index = segment.index.behind(0) if segment is active else segment.index
    return segment, Cover(index, segment.size, segment.end)


class _Sync(msgspec.Struct):
    """What one sync does in its thread. The checkpoint comes last: it says that the rest is durable.

    lost: to be called at once if the disk fails: the system tells of it only once.
    """

    disk: Disk
    lost: Callable[[], None]
    folder: Path
    sealed: list[Segment]
    active: Segment
    names: bool
    checkpoint: Checkpoint | None = None
    covers: list[tuple[Segment, Cover]] = msgspec.field(default_factory=list[tuple[Segment, Cover]])

    def __call__(self) -> None:
        try:
            # Oldest first: a power failure in between leaves no hole.
            for segment in [*self.sealed, self.active]:
                self.disk.fdatasync(segment.fd)
            if self.names:
                self.disk.fsync_dir(self.folder)
                self.disk.fsync_dir(self.folder.parent)
        except OSError:
            self.lost()
            raise
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


def _create_durably(disk: Disk, path: Path) -> int:
    """Make and open a file and the folder it is in, and make their names durable. Blocks. Raises Full, OSError."""
    fd = _create(disk, path)
    try:
        disk.fsync_dir(path.parent)
        disk.fsync_dir(path.parent.parent)
    except BaseException:
        disk.close(fd)
        raise
    return fd


def _unlink(disk: Disk, folder: Path, segments: list[Segment], kept: Kept) -> None:
    """Remove segments, oldest first, so that a crash leaves no hole."""
    is_noted = _note(disk, folder, kept)
    # The name of the active segment may be new. It tells the next offset when the others are gone, so it has to
    # be durable before they go.
    disk.fsync_dir(folder)
    for segment in segments:
        with suppress(FileNotFoundError):  # An earlier trim may have failed behind it.
            unlink(disk, segment)
        if not is_noted:
            disk.fsync_dir(folder)  # or a power failure could bring back an older one and not a newer one
    if not is_noted:  # now there is room
        _note(disk, folder, kept)


def _note(disk: Disk, folder: Path, kept: Kept) -> bool:
    """Say where the log starts, so that a power failure brings nothing back; a full disk is no reason to keep it."""
    try:
        write_bounds(disk, folder, kept)
    except Full:
        return False
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return False
    return True
