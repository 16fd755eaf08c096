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

from pathlib import Path
from struct import Struct

from xxhash import xxh3_64_intdigest

from ..errors import Corrupt, Poisoned
from .disk import Disk, write_whole
from .syncer import Group, Job, Syncer

_HEADER = Struct("<IQQ")
_CHECKSUMMED = 12  # the checksum is of everything from here on
_SEQUENCE = Struct("<Q")


class LocalJournal:
    """A journal `<path>.journal` with its snapshot `<path>.snapshot`. See storage.engine.Journal.

    `load` comes first: it finds out where to go on. Raises Corrupt where events before others are damaged.
    """

    def __init__(self, disk: Disk, syncer: Syncer, path: Path) -> None:
        self._disk = disk
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
        """See storage.engine.Journal. Cuts off an event that a crash left half written."""
        state, covered = self._load_snapshot()
        data = self._disk.read_file(self._path) or b""
        events, end = _parse_events(data)
        if events and events[0][0] > covered + 1:
            raise Corrupt(self._path, 0, f"starts with event {events[0][0]}, should be at most {covered + 1}")
        self._sequence = max(covered, events[-1][0] if events else 0)
        if end < len(data) and _is_event_after(data, end, self._sequence):
            raise Corrupt(self._path, end, "an event is damaged, later ones are not")
        later = [payload for sequence, payload in events if sequence > covered]
        # A snapshot that holds all of them was interrupted: what follows starts a fresh journal.
        self._position = end if later else 0
        self._count = len(later)
        if self._position < len(data):
            self._disk.truncate(self._fd, self._position)
            self._disk.fdatasync(self._fd)
        self._loaded = True
        return state, later

    def append(self, event: bytes) -> None:
        """See storage.engine.Journal. Raises Full (nothing kept), Poisoned."""
        assert self._loaded, "the journal is loaded before it is written"
        if self._group.cause is not None:
            raise Poisoned(self._path, self._group.cause)
        frame = _frame(self._sequence + 1, event)
        try:
            write_whole(self._disk, self._fd, frame, self._position)
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
        finally:
            self._group.poison(ValueError("the journal is closed"))
            await self._group.idle()
            if self._fd >= 0:
                self._disk.close(self._fd)
            self._fd = -1

    def _replace_snapshot(self, frame: bytes) -> None:
        fresh = self._path.with_suffix(".fresh")
        self._disk.write_file(fresh, frame)
        self._disk.rename(fresh, self._snapshot_path)
        self._disk.fsync_dir(self._path.parent)

    def _load_snapshot(self) -> tuple[bytes | None, int]:
        """Return the snapshot's state and the sequence of the last event in it; None and 0 if there is none."""
        data = self._disk.read_file(self._snapshot_path)
        if data is None:
            return None, 0
        event = _parse_event(data, 0)
        if event is None:
            raise Corrupt(self._snapshot_path, 0, "checksum")
        return event[1], event[0]

    def _plan_sync(self) -> Job:
        disk, fd, name_changed = self._disk, self._fd, self._name_changed
        self._name_changed = False

        def sync() -> None:
            disk.fdatasync(fd)
            if name_changed:
                disk.fsync_dir(self._path.parent)

        return sync


def _nothing() -> None:
    """What a journal does when a sync is over."""


def _frame(sequence: int, payload: bytes) -> bytes:
    hashed = _SEQUENCE.pack(sequence) + payload
    return _HEADER.pack(len(payload), xxh3_64_intdigest(hashed), sequence) + payload


def _parse_event(data: bytes, position: int) -> tuple[int, bytes] | None:
    """Return sequence and payload of the event at `position`, None if there is no valid one."""
    if position + _HEADER.size > len(data):
        return None
    size, checksum, sequence = _HEADER.unpack_from(data, position)
    end = position + _HEADER.size + size
    if end > len(data) or xxh3_64_intdigest(data[position + _CHECKSUMMED : end]) != checksum:
        return None
    return sequence, data[position + _HEADER.size : end]


def _parse_events(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Return the valid events from the start on, sequences ascending by one, and where they end."""
    events: list[tuple[int, bytes]] = []
    position = 0
    while (event := _parse_event(data, position)) is not None:
        if events and event[0] != events[-1][0] + 1:
            break
        events.append(event)
        position += _HEADER.size + len(event[1])
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
