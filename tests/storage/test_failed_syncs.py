"""What a disk that fails a write or a sync leaves behind: nobody trusts what it may have dropped."""

import asyncio

import pytest
from pybroker.storage.errors import Corrupt, Poisoned
from pybroker.storage.local.bounds import SKIP
from support.batches import make_batch, payloads_of
from support.machine import ALL, PERSISTED, WRITTEN, Machine, append


async def test_cut_that_cannot_be_made_durable_puts_all_in_doubt(machine: Machine):
    await append(machine.start().open_log(1, WRITTEN), b"a")
    machine.kill()
    with machine.segment().open("ab") as file:
        file.write(b"torn")
    engine = machine.start()
    machine.disk.sync_fault = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        engine.open_log(1, WRITTEN)
    machine.disk.sync_fault = None
    machine.kill()
    log = machine.start().open_log(1, WRITTEN)
    assert await append(log, b"b") == [1 + SKIP]


@pytest.mark.parametrize("note", [b"", b"lostt 0\n"], ids=["empty", "not cut"])
async def test_failed_sync_counts_though_its_note_failed_too(machine: Machine, note: bytes):
    engine = machine.start()
    await append(engine.open_log(1, WRITTEN), b"seen, and perhaps in the cache only")
    machine.kill()
    (machine.root / "running").write_bytes(note)
    written = machine.disk.calls["pwrite"]
    log = machine.start().open_log(1, WRITTEN)
    assert machine.disk.calls["pwrite"] - written >= 2  # the record again, and the skip
    assert await append(log, b"b") == [1 + SKIP]


async def test_failed_sync_is_noted_though_writing_the_note_fails(machine: Machine):
    engine = machine.start()
    await append(engine.open_log(1, WRITTEN), b"seen, and perhaps in the cache only")
    machine.disk.sync_fault = OSError(5, "Input/output error")
    machine.disk.write_faults = [OSError(5, "Input/output error")]
    await engine.syncer.sync_dirty()
    machine.disk.sync_fault = None
    machine.kill()
    assert await append(machine.start().open_log(1, WRITTEN), b"b") == [1 + SKIP]


async def test_what_is_read_after_a_failed_sync_is_proven(machine: Machine):
    engine = machine.start()
    log = engine.open_log(1, WRITTEN)
    await append(log, b"a")
    assert payloads_of(await log.read(0, ALL)) == [b"a"]
    machine.disk.sync_fault = OSError(5, "Input/output error")
    await engine.syncer.sync_dirty()
    data = machine.segment().read_bytes()
    machine.segment().write_bytes(data[:-1] + b"b")  # as when the system drops the pages it could not write
    with pytest.raises(Corrupt, match="message checksum"):
        await log.read(0, ALL)


async def test_log_dropped_while_it_is_closed_after_a_failed_write(machine: Machine):
    engine = machine.start()
    log = engine.open_log(1, WRITTEN)
    await append(log, b"a")
    machine.disk.write_faults = [OSError(5, "Input/output error")]
    with pytest.raises(Poisoned):
        await append(log, b"b")
    await asyncio.gather(log.close(), engine.drop_log(1))
    assert not machine.segment().exists()


async def test_failed_sync_puts_in_doubt_what_readers_have_seen(machine: Machine):
    engine = machine.start()
    log = engine.open_log(1, WRITTEN)
    await append(log, b"seen, and never on the disk")
    machine.disk.sync_fault = OSError(5, "Input/output error")
    await engine.syncer.sync_dirty()
    machine.disk.sync_fault = None
    assert payloads_of(await log.read(0, ALL)) == [b"seen, and never on the disk"]
    machine.kill()
    machine.segment().write_bytes(b"")
    log = machine.start().open_log(1, WRITTEN)
    assert await append(log, b"b") == [SKIP]


async def test_failed_write_puts_nothing_in_doubt(machine: Machine):
    engine = machine.start()
    log = engine.open_log(1, WRITTEN)
    await append(log, b"a")
    machine.disk.write_faults = [OSError(5, "Input/output error")]
    with pytest.raises(Poisoned):
        await append(log, b"b")
    await engine.close()
    assert await append(machine.start().open_log(1, WRITTEN), b"c") == [1]


async def test_what_a_failed_sync_may_have_left_in_the_cache_is_written_again(machine: Machine):
    engine = machine.start(load=False)
    engine.journal.load()
    engine.journal.append(b"change")
    log = engine.open_log(1, WRITTEN)
    await append(log, b"a")
    machine.disk.sync_fault = OSError(5, "Input/output error")
    await engine.syncer.sync_dirty()
    machine.disk.sync_fault = None
    machine.kill()
    machine.disk.calls.clear()
    engine = machine.start(load=False)
    opened = machine.disk.calls["pwrite"]
    assert engine.journal.load() == (None, [b"change"])
    assert payloads_of(await engine.open_log(1, WRITTEN).read(0, ALL)) == [b"a"]
    # The journal, the record, and the file that says which offsets are skipped.
    assert machine.disk.calls["pwrite"] - opened >= 3


async def test_log_that_is_being_closed_takes_no_appends(machine: Machine):
    log = machine.start().open_log(1, WRITTEN)
    await append(log, b"a")
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0)
    with pytest.raises(Poisoned):
        await append(log, b"not synced by anybody")
    await closing


async def test_sync_that_fails_at_the_start_is_not_tried_again_at_the_stop(machine: Machine):
    log = machine.start().open_log(1, PERSISTED)
    await append(log, b"a")
    log._write(make_batch([b"b"]))
    machine.kill()
    engine = machine.start()
    machine.disk.sync_fault = OSError(5, "Input/output error")
    log = engine.open_log(1, PERSISTED)
    machine.disk.sync_fault = None
    with pytest.raises(Poisoned):
        await append(log, b"c")
    machine.disk.synced.clear()
    await engine.close()
    assert machine.segment() not in machine.disk.synced
