"""What the journal and the table make of crashes, damage and failing disks."""

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pybroker.storage.errors import Corrupt, Full, Poisoned
from pybroker.storage.local.journal import LocalJournal
from pybroker.storage.local.syncer import Syncer
from pybroker.storage.local.table import LocalTable
from support.engines import FaultyDisk

EVENTS = [b"first", b"", b"third" * 10, b"last one"]


class Room:
    """A folder in which journals are opened one after the other."""

    def __init__(self, root: Path) -> None:
        self.disk = FaultyDisk()
        self.path = root / "catalog.journal"
        self.snapshot_path = root / "catalog.snapshot"
        self._syncer = Syncer(3600)
        self._root = root

    def open(self) -> LocalJournal:
        return LocalJournal(self.disk, self._syncer, self._root / "catalog")

    async def close(self) -> None:
        await self._syncer.close()


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    room = Room(tmp_path)
    yield room
    await room.close()


async def write(room: Room, events: list[bytes]) -> None:
    journal = room.open()
    journal.load()
    for event in events:
        journal.append(event)
    await journal.close()


async def load(room: Room) -> tuple[bytes | None, list[bytes]]:
    journal = room.open()
    try:
        return journal.load()
    finally:
        await journal.close()


async def test_journal_cut_anywhere_keeps_every_whole_event(room: Room):
    await write(room, EVENTS)
    whole = room.path.read_bytes()
    ends = [0]
    for event in EVENTS:
        ends.append(ends[-1] + 20 + len(event))
    for size in range(len(whole) + 1):
        room.path.write_bytes(whole[:size])
        count = sum(end <= size for end in ends) - 1
        assert await load(room) == (None, EVENTS[:count])
        assert room.path.stat().st_size == ends[count]


async def test_journal_goes_on_after_a_cut(room: Room):
    await write(room, EVENTS)
    room.path.write_bytes(room.path.read_bytes()[:-1])
    await write(room, [b"new"])
    assert await load(room) == (None, [*EVENTS[:-1], b"new"])


async def test_any_flipped_byte_is_noticed(room: Room):
    await write(room, EVENTS)
    whole = room.path.read_bytes()
    last = len(whole) - 20 - len(EVENTS[-1])
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        room.path.write_bytes(damaged)
        if position >= last:
            assert await load(room) == (None, EVENTS[:-1])
            continue
        with pytest.raises(Corrupt) as caught:
            await load(room)
        assert caught.value.path == room.path
        assert caught.value.position <= position
        assert room.path.read_bytes() == damaged


async def test_damaged_snapshot_is_noticed(room: Room):
    journal = room.open()
    journal.load()
    journal.snapshot(b"state")
    await journal.close()
    room.snapshot_path.write_bytes(room.snapshot_path.read_bytes()[:-1])
    with pytest.raises(Corrupt):
        await load(room)


async def test_lost_snapshot_is_noticed(room: Room):
    journal = room.open()
    journal.load()
    journal.append(b"a")
    journal.snapshot(b"state")
    journal.append(b"b")
    await journal.close()
    room.snapshot_path.unlink()
    with pytest.raises(Corrupt):
        await load(room)


async def test_crash_before_the_snapshot_is_renamed_leaves_the_old_state(room: Room):
    await write(room, EVENTS)
    journal = room.open()
    journal.load()
    room.disk.rename_fault = OSError(errno.EIO, "Input/output error")
    with pytest.raises(Poisoned):
        journal.snapshot(b"state")
    await journal.close()
    assert await load(room) == (None, EVENTS)


async def test_crash_before_the_journal_is_cut_leaves_the_new_state(room: Room):
    await write(room, EVENTS)
    journal = room.open()
    journal.load()
    events = room.path.read_bytes()
    journal.snapshot(b"state")
    await journal.close()
    room.path.write_bytes(events)
    assert await load(room) == (b"state", [])
    await write(room, [b"later"])
    assert await load(room) == (b"state", [b"later"])


@pytest.mark.parametrize("size", range(0, 160, 7))
async def test_events_lost_behind_a_snapshot_that_holds_them_do_no_harm(room: Room, size: int):
    await write(room, EVENTS)
    journal = room.open()
    journal.load()
    events = room.path.read_bytes()
    journal.snapshot(b"state")
    await journal.close()
    room.path.write_bytes(events[:size])
    await write(room, [b"later"])
    await write(room, [b"and later"])
    assert await load(room) == (b"state", [b"later", b"and later"])


async def test_snapshot_makes_the_journal_short(room: Room):
    await write(room, EVENTS)
    journal = room.open()
    journal.load()
    journal.snapshot(b"state")
    assert room.path.stat().st_size == 0
    await journal.close()


@pytest.mark.parametrize("fault", [0, 10, 21, OSError(errno.ENOSPC, "No space left on device")])
async def test_full_disk_refuses_an_event_and_keeps_nothing_of_it(room: Room, fault: int | OSError):
    journal = room.open()
    journal.load()
    journal.append(b"a")
    room.disk.write_faults = [fault]
    with pytest.raises(Full):
        journal.append(b"lost")
    journal.append(b"b")
    assert journal.event_count == 2
    await journal.close()
    assert await load(room) == (None, [b"a", b"b"])


async def test_full_disk_refuses_a_snapshot_and_keeps_the_events(room: Room):
    await write(room, EVENTS)
    journal = room.open()
    journal.load()
    room.disk.write_faults = [3]
    with pytest.raises(Full):
        journal.snapshot(b"state")
    journal.append(b"more")
    await journal.close()
    assert await load(room) == (None, [*EVENTS, b"more"])


async def test_failed_write_poisons_the_journal(room: Room):
    journal = room.open()
    journal.load()
    room.disk.write_faults = [OSError(errno.EIO, "Input/output error")]
    for attempt in (lambda: journal.append(b"a"), lambda: journal.append(b"a"), lambda: journal.snapshot(b"")):
        with pytest.raises(Poisoned):
            attempt()
    await journal.close()


async def test_failed_sync_poisons_the_journal(room: Room):
    journal = room.open()
    journal.load()
    journal.append(b"a")
    room.disk.sync_fault = OSError(errno.EIO, "Input/output error")
    with pytest.raises(Poisoned):
        await journal.sync()
    room.disk.sync_fault = None
    with pytest.raises(Poisoned):
        journal.append(b"b")
    await journal.close()


async def test_table_compacts_itself_and_loses_nothing(room: Room, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pybroker.storage.local.table.EVENTS_SPARE", 20)
    table = LocalTable(room.open())
    for number in range(500):
        table.put(b"key%d" % (number % 7), number)
    table.delete([b"key1"])
    assert room.path.stat().st_size < 60 * 40
    await table.close()
    table = LocalTable(room.open())
    assert {key: table.get(key) for key in sorted(table.keys())} == {
        b"key%d" % (number % 7): number for number in range(493, 500) if number % 7 != 1
    }
    await table.close()


async def test_table_that_can_not_be_compacted_takes_the_change(room: Room, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pybroker.storage.local.table.EVENTS_SPARE", 0)
    table = LocalTable(room.open())
    for number in range(4):
        table.put(b"key", number)
    room.disk.write_faults = [None, 0]
    table.put(b"key", 4)
    await table.close()
    table = LocalTable(room.open())
    assert table.get(b"key") == 4
    await table.close()


async def test_refused_change_of_a_table_changes_nothing(room: Room):
    table = LocalTable(room.open())
    table.put(b"key", 1)
    room.disk.write_faults = [0, 0]
    with pytest.raises(Full):
        table.put(b"key", 2)
    with pytest.raises(Full):
        table.delete([b"key"])
    assert table.get(b"key") == 1
    await table.close()
