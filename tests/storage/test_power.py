"""What a power failure may take, and that no offset a reader has seen is given to another message afterwards.

The machine's boot id says that it was one; what it took is taken from the files by hand. tests/simulation does the
same at random.
"""

import pytest
from pybroker.storage.engine import LogPolicy, ReadLimit
from pybroker.storage.errors import Corrupt, Full
from pybroker.storage.local.bounds import SKIP, Kept, encode, read_bounds
from support.batches import make_batch, make_sized_batch, payloads_of
from support.machine import ALL, PERSISTED, WRITTEN, Machine, append

SMALL = LogPolicy(segment_size=1000)
RECORD_SIZE = 400


async def test_killed_process_loses_nothing_and_skips_nothing(machine: Machine):
    await append(machine.start().open_log(1, WRITTEN), b"a", b"b")
    machine.kill()
    log = machine.start().open_log(1, WRITTEN)
    assert await append(log, b"c") == [2]
    assert payloads_of(await log.read(0, ALL)) == [b"a", b"b", b"c"]
    assert log.bounds.messages == 3


async def test_offsets_that_may_have_been_seen_are_skipped_after_a_power_failure(machine: Machine):
    log = machine.start().open_log(1, WRITTEN)
    await append(log, b"a", b"seen and lost")
    assert payloads_of(await log.read(1, ALL)) == [b"seen and lost"]
    machine.kill(power=True)
    data = machine.segment().read_bytes()
    machine.segment().write_bytes(data[: len(data) // 2])
    log = machine.start().open_log(1, WRITTEN)
    assert (log.bounds.next, log.bounds.messages) == (1, 1)
    assert await log.read(2, ALL) == []
    offset = 1 + SKIP
    assert await append(log, b"b", b"c") == [offset, offset + 1]
    # Whoever had read the lost one goes on with the first one behind it, and nobody reads over it unaware.
    assert payloads_of(await log.read(2, ALL)) == [b"b", b"c"]
    assert payloads_of(await log.read(0, ALL)) == [b"a"]
    assert payloads_of(await log.read(1, ALL)) == [b"b", b"c"]
    assert (log.bounds.next, log.bounds.messages) == (offset + 2, 3)
    assert [log.last(count) for count in (1, 2, 3, 9)] == [offset + 1, offset, 0, 0]
    assert await log.offset_at(machine.clock()) == 0
    machine.clock.now_us += 5
    assert await log.offset_at(machine.clock()) == offset + 2


async def test_second_power_failure_skips_what_the_first_one_did_too(machine: Machine):
    await append(machine.start().open_log(1, WRITTEN), b"a")
    machine.kill(power=True)
    log = machine.start().open_log(1, WRITTEN)
    assert await append(log, b"seen and lost") == [1 + SKIP]
    machine.kill(power=True)
    machine.segment(1 + SKIP).unlink()
    log = machine.start().open_log(1, WRITTEN)
    assert await append(log, b"b") == [1 + 2 * SKIP]
    assert payloads_of(await log.read(1, ALL)) == [b"b"]
    assert log.bounds.messages == 2


async def test_power_failure_of_a_run_that_was_recovering_from_one_is_not_forgotten(machine: Machine):
    await append(machine.start().open_log(1, WRITTEN), b"a")
    machine.kill(power=True)
    machine.start()  # and killed before the log was opened
    machine.kill()
    log = machine.start().open_log(1, WRITTEN)
    assert await append(log, b"b") == [1 + SKIP]


async def test_log_that_was_recovered_skips_once(machine: Machine):
    engine = machine.start()
    await append(engine.open_log(1, WRITTEN), b"a")
    machine.kill(power=True)
    await append(machine.start().open_log(1, WRITTEN), b"b")
    machine.kill()
    log = machine.start().open_log(1, WRITTEN)
    assert await append(log, b"c") == [2 + SKIP]
    machine.kill()
    log = machine.start().open_log(1, WRITTEN)
    assert payloads_of(await log.read(1, ALL)) == [b"b", b"c"]
    assert log.bounds.messages == 3


async def test_clean_stop_before_a_power_failure_skips_nothing(machine: Machine):
    engine = machine.start()
    await append(engine.open_log(1, WRITTEN), b"a")
    await engine.close()
    machine.disk.boot += b"later "
    assert await append(machine.start().open_log(1, WRITTEN), b"b") == [1]


async def test_skip_outlives_a_clean_stop_without_an_append(machine: Machine):
    await append(machine.start().open_log(1, WRITTEN), b"a")
    machine.kill(power=True)
    engine = machine.start()
    engine.open_log(1, WRITTEN)
    await engine.close()
    log = machine.start().open_log(1, WRITTEN)
    assert log.bounds.next == 1
    assert await append(log, b"b") == [1 + SKIP]


async def test_persisted_log_shows_only_what_is_durable_and_skips_nothing(machine: Machine):
    log = machine.start().open_log(1, PERSISTED)
    await append(log, b"a")
    offset = log._write(make_batch([b"not synced"]))
    assert (offset, log.bounds.next, log.bounds.messages) == (1, 1, 1)
    assert payloads_of(await log.read(0, ALL)) == [b"a"]
    assert await log.read(1, ALL) == []
    assert log.last(1) == 0
    machine.kill(power=True)
    data = machine.segment().read_bytes()
    machine.segment().write_bytes(data[:RECORD_SIZE])
    log = machine.start().open_log(1, PERSISTED)
    assert await append(log, b"b") == [1]
    assert payloads_of(await log.read(0, ALL)) == [b"a", b"b"]


async def test_persisted_log_is_synced_before_what_a_killed_process_left_is_shown(machine: Machine):
    log = machine.start().open_log(1, PERSISTED)
    await append(log, b"a")
    log._write(make_batch([b"b"]))
    machine.kill()
    machine.disk.synced.clear()
    log = machine.start().open_log(1, PERSISTED)
    assert machine.segment() in machine.disk.synced
    assert payloads_of(await log.read(0, ALL)) == [b"a", b"b"]


async def test_stretch_that_a_power_failure_took_is_passed_over(machine: Machine, caplog: pytest.LogCaptureFixture):
    log = machine.start().open_log(1, WRITTEN)
    for _ in range(5):
        await log.append(make_sized_batch(RECORD_SIZE))
    machine.kill(power=True)
    data = bytearray(machine.segment().read_bytes())
    data[RECORD_SIZE : 3 * RECORD_SIZE] = bytes(2 * RECORD_SIZE)  # written out of order, as disks may
    machine.segment().write_bytes(data)
    log = machine.start().open_log(1, WRITTEN)
    assert f"{machine.segment()}: byte {RECORD_SIZE}: " in caplog.text
    assert "offsets 1 to 2 are lost" in caplog.text
    assert len(payloads_of(await log.read(0, ALL))) == 1
    for offset in (1, 2, 3):
        assert len(payloads_of(await log.read(offset, ALL))) == 2
    assert await append(log, b"later") == [5 + SKIP]
    assert machine.segment().read_bytes() == data


async def test_segment_that_a_power_failure_cut_before_an_empty_one_is_the_last(machine: Machine):
    log = machine.start().open_log(1, SMALL)
    for _ in range(4):
        await log.append(make_sized_batch(RECORD_SIZE))
    machine.kill(power=True)
    machine.segment().write_bytes(machine.segment().read_bytes()[: RECORD_SIZE + 100])
    machine.segment(3).write_bytes(b"")
    log = machine.start().open_log(1, SMALL)
    assert (log.bounds.next, log.bounds.messages) == (1, 1)
    assert not machine.segment(3).exists()
    assert await append(log, b"later") == [1 + SKIP]
    assert payloads_of(await log.read(2, ALL)) == [b"later"]


@pytest.mark.parametrize("power", [False, True])
async def test_next_offset_stays_when_a_start_from_a_power_failure_is_cut_short(machine: Machine, power: bool):
    log = machine.start().open_log(1, LogPolicy(segment_size=1))
    await append(log, b"lost", b"lost", b"lost")
    machine.kill(power=True)
    for base in range(3):
        machine.segment(base).write_bytes(bytes(machine.segment(base).stat().st_size))
    log = machine.start(load=False).open_log(1, WRITTEN)
    bounds = log.bounds
    assert (bounds.next, bounds.messages) == (2, 0)
    machine.kill(power=power)  # before the journal was recovered: the crash is not over
    log = machine.start().open_log(1, WRITTEN)
    assert log.bounds == bounds
    assert await append(log, b"later") == [2 + 2 * SKIP]
    assert payloads_of(await log.read(0, ALL)) == [b"later"]


async def test_trim_that_a_power_failure_undid_in_part_leaves_no_hole(machine: Machine):
    log = machine.start().open_log(1, LogPolicy(segment_size=1))
    await append(log, b"a", b"b", b"c", b"d")
    old = machine.segment(0).read_bytes()
    await log.trim(3)
    machine.kill(power=True)
    machine.segment(0).write_bytes(old)  # back, but the next one is not
    log = machine.start().open_log(1, WRITTEN)
    assert log.bounds.first == 3
    assert not machine.segment(0).exists()


async def test_bytes_of_a_refused_append_that_come_back_before_another_segment_are_cut(machine: Machine):
    log = machine.start().open_log(1, LogPolicy(segment_size=1))
    await append(log, b"a", b"b")
    size = machine.segment(0).stat().st_size
    machine.kill(power=True)
    with machine.segment(0).open("ab") as file:
        file.write(b"\x08" * 300)
    log = machine.start().open_log(1, WRITTEN)
    for _ in range(2):  # the second one starts where the first one ended
        assert payloads_of(await log.read(0, ReadLimit(1, 1 << 20))) == [b"a"]
        assert payloads_of(await log.read(1, ALL)) == [b"b"]
    assert machine.segment(0).stat().st_size == size


async def test_what_is_cut_is_cut_durably(machine: Machine):
    await append(machine.start().open_log(1, WRITTEN), b"a")
    machine.kill()
    with machine.segment().open("ab") as file:
        file.write(b"torn")
    engine = machine.start()
    machine.disk.synced.clear()
    engine.open_log(1, WRITTEN)
    # A later power failure, when nothing of this crash is known any more, would bring it back.
    assert machine.segment() in machine.disk.synced


async def test_offsets_before_an_empty_segment_are_not_given_out_again(machine: Machine):
    log = machine.start().open_log(1, LogPolicy(segment_size=1, persisted=True))
    await append(log, b"a", b"b", b"c")
    old = machine.segment(0).read_bytes()
    machine.disk.write_faults = [0, 0, 0]  # no room: neither for the message nor to note the trim
    with pytest.raises(Full):
        await append(log, b"refused")
    await log.trim(3)
    machine.kill(power=True)
    machine.segment(0).write_bytes(old)  # back, the next two are not
    assert sorted(path.name for path in machine.segment().parent.glob("*.log")) == [f"{0:020}.log", f"{3:020}.log"]
    log = machine.start().open_log(1, PERSISTED)
    assert payloads_of(await log.read(0, ALL)) == [b"a"]
    assert await append(log, b"d") == [3]
    assert payloads_of(await log.read(1, ALL)) == [b"d"]


async def test_durable_record_that_was_damaged_since_is_not_cut_with_the_torn_tail_behind_it(machine: Machine):
    engine = machine.start()
    log = engine.open_log(1, WRITTEN)
    await append(log, b"durable")
    await log.flush()
    machine.kill(power=True)
    data = bytearray(machine.segment().read_bytes())
    size = len(data)
    data[60] ^= 1  # in the header
    machine.segment().write_bytes(data + b"torn")
    log = machine.start().open_log(1, WRITTEN)
    assert machine.segment().read_bytes() == data
    assert machine.segment().stat().st_size == size
    assert await append(log, b"b") == [1 + SKIP]


async def test_checkpoint_that_does_not_fit_is_forgotten(machine: Machine):
    engine = machine.start()
    await append(engine.open_log(1, WRITTEN), b"a", b"b", b"c")
    await engine.close()
    checkpoint = machine.segment().with_name("checkpoint")
    assert checkpoint.exists()
    machine.segment().write_bytes(machine.segment().read_bytes()[:-100])
    machine.start().open_log(1, WRITTEN)
    assert not checkpoint.exists()


async def test_trim_whose_note_was_not_durable_is_noted_before_it_is_done_again(machine: Machine):
    log = machine.start().open_log(1, LogPolicy(segment_size=1))
    await append(log, b"a", b"b", b"c")
    old = machine.segment(0).read_bytes()
    await log.trim(2)
    machine.kill()
    machine.segment(0).write_bytes(old)
    engine = machine.start()
    machine.disk.changes.clear()
    engine.open_log(1, WRITTEN)
    name = machine.segment(0).name
    assert machine.disk.changes.index(f"fsync {machine.segment().parent.name}") < machine.disk.changes.index(
        f"unlink {name}"
    )


async def test_damaged_bounds_file_is_reported_and_ignored(machine: Machine, caplog: pytest.LogCaptureFixture):
    engine = machine.start()
    await append(engine.open_log(1, WRITTEN), b"a")
    await engine.close()
    path = machine.segment().parent / "bounds"
    whole = encode(Kept(0, [(1, 9)]))
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1
        path.write_bytes(data)
        assert read_bounds(machine.disk, path.parent) == Kept()
    assert f"{path}: byte 0: damaged" in caplog.text
    path.write_bytes(whole)
    assert await append(machine.start().open_log(1, WRITTEN), b"b") == [9]


def journal_with(machine: Machine, *events: bytes) -> None:
    engine = machine.start(load=False)
    engine.journal.load()
    for event in events:
        engine.journal.append(event)


async def test_changes_that_a_power_failure_tore_are_cut_and_a_copy_kept(
    machine: Machine, caplog: pytest.LogCaptureFixture
):
    """Written out of order, as disks may: nobody had synced the first, so nobody had synced the second."""
    journal_with(machine, b"first", b"torn", b"behind")
    machine.kill(power=True)
    path = machine.root / "catalog.journal"
    data = path.read_bytes().replace(b"torn", bytes(4))
    path.write_bytes(data)
    engine = machine.start(load=False)
    assert engine.journal.load() == (None, [b"first"])
    assert f"{path}: byte 25: " in caplog.text
    assert (machine.root / "catalog.lost").read_bytes() == data[25:]
    engine.journal.append(b"second")
    machine.kill()
    assert machine.start(load=False).journal.load() == (None, [b"first", b"second"])


async def test_the_same_without_a_power_failure_is_damage(machine: Machine):
    journal_with(machine, b"first", b"torn", b"behind")
    machine.kill()
    path = machine.root / "catalog.journal"
    data = path.read_bytes().replace(b"torn", bytes(4))
    path.write_bytes(data)
    with pytest.raises(Corrupt) as caught:
        machine.start(load=False).journal.load()
    assert (caught.value.path, caught.value.position) == (path, 25)
    assert path.read_bytes() == data


async def test_changes_that_a_killed_process_left_are_synced_by_the_next_sync(machine: Machine):
    journal_with(machine, b"first")
    machine.kill()
    engine = machine.start(load=False)
    engine.journal.load()
    machine.disk.synced.clear()
    await engine.journal.sync()
    assert machine.disk.synced == [machine.root / "catalog.journal"]


async def test_search_by_time_passes_over_what_a_power_failure_took(machine: Machine):
    log = machine.start().open_log(1, WRITTEN)
    for now in range(1_000_000, 1_000_005):
        machine.clock.now_us = now
        await log.append(make_sized_batch(RECORD_SIZE))
    machine.kill(power=True)
    data = bytearray(machine.segment().read_bytes())
    data[RECORD_SIZE : 3 * RECORD_SIZE] = bytes(2 * RECORD_SIZE)
    machine.segment().write_bytes(data)
    log = machine.start().open_log(1, WRITTEN)
    assert [await log.offset_at(now) for now in range(1_000_000, 1_000_006)] == [0, 3, 3, 3, 4, 5]
