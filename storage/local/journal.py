"""An ordered list of small events in a file, and a second file with a snapshot of what they add up to.

Event, 20 bytes and the payload            Snapshot, 20 bytes and the state
(little-endian; sizes in bytes):

    +----+-------------------------+---+   +----+--------------------------------+---+
    |  0 | payload size            | 4 |   |  0 | state size                     | 4 |
    |  4 | XXH3-64 of the rest and | 8 |   |  4 | XXH3-64 of the rest and        | 8 |
    |    | the payload             |   |   |    | the state                      |   |
    | 12 | sequence                | 8 |   | 12 | sequence of the last event     | 8 |
    |    |                         |   |   |    | that the state contains        |   |
    | 20 | payload                 |   |   | 20 | state                          |   |
    +----+-------------------------+---+   +----+--------------------------------+---+

Sequences ascend by one and are never used again, so events that a snapshot already holds are known by theirs.

Crash invariant: a snapshot is complete and durable under another name before it takes the old one's place, and in
its place, durably, before the events it holds are cut off.
"""

import logging
from pathlib import Path
from struct import Struct

import msgspec
from xxhash import xxh3_64_intdigest

from ..errors import Corrupt, Full, Poisoned
from .disk import Disk, write_whole
from .running import Running
from .syncer import Group, Job, Syncer

_logger = logging.getLogger(__name__)

_HEADER = Struct("<IQQ")
_CHECKSUMMED = 12  # the checksum is of everything from here on
_SEQUENCE = Struct("<Q")


class Event(msgspec.Struct, gc=False):
    """An event in a journal file, where it starts, and its number."""

    position: int
    sequence: int
    payload: bytes

    @property
    def end(self) -> int:
        return self.position + _HEADER.size + len(self.payload)


class Contents(msgspec.Struct):
    """What the files of a journal hold.

    state: the snapshot, None if there is none. covered: the sequence of the last event in it.
    events: the valid ones from the start of the journal on, those that the snapshot holds too.
    size: of the journal. end: where `events` end; what follows is a torn tail if there is no fault.
    faults: what can't be loaded without losing events.
    """

    state: bytes | None
    covered: int
    events: list[Event]
    size: int
    end: int
    faults: list[Corrupt]

    @property
    def later(self) -> list[Event]:
        """The events that the snapshot does not hold."""
        return [event for event in self.events if event.sequence > self.covered]

    @property
    def last_sequence(self) -> int:
        return max(self.covered, self.events[-1].sequence if self.events else 0)


def read_journal(disk: Disk, path: Path) -> Contents:
    """Read `<path>.journal`, then `<path>.snapshot`, and say what is in them. Changes nothing."""
    journal = disk.read_file(path.with_suffix(".journal")) or b""
    return parse_journal(path, journal, disk.read_file(path.with_suffix(".snapshot")))


def parse_journal(path: Path, data: bytes, snapshot: bytes | None) -> Contents:
    """Say what the bytes of a journal and its snapshot hold."""
    path, snapshot_path = path.with_suffix(".journal"), path.with_suffix(".snapshot")
    state = None if snapshot is None else _parse_event(snapshot, 0)
    events, end = _parse_events(data)
    contents = Contents(None, 0, events, len(data), end, [])
    if state is not None:
        contents.state, contents.covered = state.payload, state.sequence
    elif snapshot is not None:
        contents.faults.append(Corrupt(snapshot_path, 0, "checksum"))
    if events and not contents.faults and events[0].sequence > contents.covered + 1:
        what = f"starts with event {events[0].sequence}, should be at most {contents.covered + 1}"
        contents.faults.append(Corrupt(path, 0, what))
    if end < len(data) and _is_event_after(data, end, contents.last_sequence):
        contents.faults.append(Corrupt(path, end, "an event is damaged, later ones are not"))
    return contents


class LocalJournal:
    """A journal `<path>.journal` with its snapshot `<path>.snapshot`. See storage.engine.Journal.

    `load` comes first: it finds out where to go on. Raises Corrupt where events before others are damaged.
    """

    def __init__(self, disk: Disk, syncer: Syncer, path: Path, running: Running | None = None) -> None:
        """running: what happened to the last run; without it, nothing but the death of the process."""
        self._disk = disk
        self._running = running
        self._path = path.with_suffix(".journal")
        self._snapshot_path = path.with_suffix(".snapshot")
        self._fd = disk.open(self._path, create=True)
        self._position = 0
        self._sequence = 0
        self._count = 0
        self._name_changed = True
        self._loaded = False
        self._group = Group(syncer, self._path, self._plan_sync, _nothing)

    @property
    def event_count(self) -> int:
        return self._count

    def load(self) -> tuple[bytes | None, list[bytes]]:
        """See storage.engine.Journal. Cuts off what a crash left half written or, out of order, unsynced."""
        contents = read_journal(self._disk, self._path)
        for fault in contents.faults:
            if not self._is_explained(fault, contents):
                raise fault
            self._set_aside(fault, contents)
        later = [event.payload for event in contents.later]
        self._sequence = contents.last_sequence
        # A snapshot that holds all of them was interrupted: what follows starts a fresh journal.
        self._position = contents.end if later else 0
        self._count = len(later)
        if self._position < contents.size:
            self._disk.truncate(self._fd, self._position)
            self._disk.fdatasync(self._fd)
        if later:
            if self._running is not None and self._running.sync_failed:
                self._write_again()
            self._group.mark()  # nobody knows whether the last run has synced them
        if self._running is not None:
            self._running.recovered(self._path.stem)
        self._loaded = True
        return contents.state, later

    def _is_explained(self, fault: Corrupt, contents: Contents) -> bool:
        """Say whether a power failure explains an event that is damaged: nobody had synced it, nor those behind it."""
        in_doubt = self._running is not None and self._running.is_in_doubt(self._path.stem)
        return in_doubt and (fault.path, fault.position) == (self._path, contents.end)

    def _set_aside(self, fault: Corrupt, contents: Contents) -> None:
        """Keep what is about to be cut where nobody reads it."""
        path = self._path.with_suffix(".lost")
        self._disk.write_file(path, self._disk.pread(self._fd, contents.size - contents.end, contents.end))
        _logger.warning("%s; power failed before it was synced: cut, a copy is in %s", fault, path)

    def _write_again(self) -> None:
        """Write what a failed sync may have left in the system's cache alone: no later sync would write it."""
        data = self._disk.pread(self._fd, self._position, 0)
        write_whole(self._disk, self._fd, data, 0)

    def append(self, event: bytes) -> None:
        """See storage.engine.Journal. Raises Full (nothing kept), Poisoned."""
        assert self._loaded, "the journal is loaded before it is written"
        if self._group.cause is not None:
            raise Poisoned(self._path, self._group.cause)
        frame = _frame(self._sequence + 1, event)
        try:
            write_whole(self._disk, self._fd, frame, self._position)
        except Full:
            self._group.mark()  # or a power failure brings back what was cut
            raise
        except OSError as error:
            self._group.poison(error)
            raise Poisoned(self._path, error) from error
        self._sequence += 1
        self._position += len(frame)
        self._count += 1
        self._group.mark()

    def snapshot(self, state: bytes) -> None:
        """See storage.engine.Journal. Blocks for three syncs. Raises Full (nothing changed), Poisoned."""
        assert self._loaded, "the journal is loaded before it is written"
        if self._group.cause is not None:
            raise Poisoned(self._path, self._group.cause)
        try:
            self._replace_snapshot(_frame(self._sequence, state))
            # Cut in place: the file is never mapped, and durably before anything is written over it.
            self._disk.truncate(self._fd, 0)
            self._disk.fdatasync(self._fd)
        except OSError as error:
            self._group.poison(error)
            raise Poisoned(self._path, error) from error
        self._position = 0
        self._count = 0

    async def sync(self) -> None:
        await self._group.sync()

    async def close(self) -> None:
        """Sync and let go of the file. Raises Poisoned if the sync fails."""
        try:
            if self._group.cause is None:
                await self._group.sync()
            else:
                await self._group.sync_anyway()
        finally:
            self._group.leave()
            await self._group.idle()
            if self._fd >= 0:
                self._disk.close(self._fd)
            self._fd = -1

    def _replace_snapshot(self, frame: bytes) -> None:
        fresh = self._path.with_suffix(".fresh")
        self._disk.write_file(fresh, frame)
        self._disk.rename(fresh, self._snapshot_path)
        self._disk.fsync_dir(self._path.parent)

    def _plan_sync(self) -> Job:
        disk, fd, name_changed = self._disk, self._fd, self._name_changed
        self._name_changed = False

        def sync() -> None:
            try:
                disk.fdatasync(fd)
                if name_changed:
                    disk.fsync_dir(self._path.parent)
            except OSError:
                if self._running is not None:
                    self._running.doubt()  # at once: the system tells of it only once
                raise

        return sync


def _nothing(_cause: BaseException | None) -> None:
    """What a journal does when a sync is over."""


def _frame(sequence: int, payload: bytes) -> bytes:
    hashed = _SEQUENCE.pack(sequence) + payload
    return _HEADER.pack(len(payload), xxh3_64_intdigest(hashed), sequence) + payload


def _parse_event(data: bytes, position: int) -> Event | None:
    """Return the event at `position`, None if there is no valid one."""
    if position + _HEADER.size > len(data):
        return None
    size, checksum, sequence = _HEADER.unpack_from(data, position)
    end = position + _HEADER.size + size
    if end > len(data) or xxh3_64_intdigest(data[position + _CHECKSUMMED : end]) != checksum:
        return None
    return Event(position, sequence, data[position + _HEADER.size : end])


def _parse_events(data: bytes) -> tuple[list[Event], int]:
    """Return the valid events from the start on, sequences ascending by one, and where they end."""
    events: list[Event] = []
    position = 0
    while (event := _parse_event(data, position)) is not None:
        if events and event.sequence != events[-1].sequence + 1:
            break
        events.append(event)
        position = event.end
    return events, position


def _is_event_after(data: bytes, position: int, sequence: int) -> bool:
    """Say whether a valid event later than `sequence` lies anywhere behind `position`."""
    # The sequence is looked at before the checksum: it rules out nearly every position for 0.2 us.
    sequence_max = sequence + 1 + len(data) // _HEADER.size
    for start in range(position + 1, len(data) - _HEADER.size + 1):
        if sequence < _SEQUENCE.unpack_from(data, start + _CHECKSUMMED)[0] <= sequence_max:
            event = _parse_event(data, start)
            if event is not None:
                return True
    return False
