"""What the local engine does when the disk is full, fails or lies, and how syncs are shared."""

import asyncio
import errno
from pathlib import Path
from threading import Event

import pytest
from pybroker.storage.engine import Log, LogPolicy, ReadLimit
from pybroker.storage.errors import Full, Locked, Poisoned
from pybroker.storage.local.engine import LocalEngine
from support.batches import make_batch, payloads_of
from support.engines import FakeClock, Stage

ALL = ReadLimit(messages=1_000_000, bytes=1 << 30)
WRITTEN = LogPolicy(segment_size=1 << 30)
PERSISTED = LogPolicy(segment_size=1 << 30, persisted=True)


def no_room() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def broken() -> OSError:
    return OSError(errno.EIO, "Input/output error")


async def payloads(log: Log) -> list[bytes]:
    return payloads_of(await log.read(0, ALL))


@pytest.mark.parametrize("fault", [0, 1, 255, 256, 300, no_room()])
async def test_full_disk_refuses_one_append_and_keeps_nothing_of_it(local: Stage, fault: int | OSError):
    log = local.engine.open_log(1, WRITTEN)
    await log.append(make_batch([b"a"]))
    local.disk.write_faults = [fault]
    with pytest.raises(Full):
        await log.append(make_batch([b"lost"]))
    assert await log.append(make_batch([b"b"])) == 1
    assert await payloads(log) == [b"a", b"b"]
    log = (await local.reopen()).open_log(1, WRITTEN)
    assert await payloads(log) == [b"a", b"b"]


async def test_first_append_refused_leaves_an_empty_log(local: Stage):
    log = local.engine.open_log(1, WRITTEN)
    local.disk.write_faults = [no_room()]
    with pytest.raises(Full):
        await log.append(make_batch())
    assert (log.bounds.first, log.bounds.next, log.bounds.size) == (0, 0, 0)
    assert await log.read(0, ALL) == []
    assert await log.append(make_batch()) == 0


async def test_append_refused_after_a_roll_goes_to_the_new_segment_next(local: Stage):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    await log.append(make_batch([b"a"]))
    local.disk.write_faults = [no_room()]
    with pytest.raises(Full):
        await log.append(make_batch())
    assert log.cuts() == [0, 1]
    assert await log.offset_at(local.clock()) == 0
    assert await log.offset_at(local.clock() + 1) == 1
    await log.append(make_batch([b"b"]))
    assert log.cuts() == [0, 1]
    assert await payloads(log) == [b"a", b"b"]


async def test_failed_write_poisons_and_reads_go_on(local: Stage):
    log = local.engine.open_log(1, WRITTEN)
    await log.append(make_batch([b"a"]))
    local.disk.write_faults = [broken()]
    for _ in range(2):
        with pytest.raises(Poisoned) as caught:
            await log.append(make_batch())
        assert isinstance(caught.value.cause, OSError)
    with pytest.raises(Poisoned):
        await log.flush()
    assert local.engine.is_poisoned
    assert await payloads(log) == [b"a"]
    log = (await local.reopen()).open_log(1, WRITTEN)
    assert not local.engine.is_poisoned
    assert await log.append(make_batch([b"b"])) == 1


async def test_full_disk_that_can_not_be_cut_back_poisons(local: Stage):
    log = local.engine.open_log(1, WRITTEN)
    await log.append(make_batch([b"a"]))
    local.disk.write_faults, local.disk.truncate_fault = [100], broken()
    with pytest.raises(Poisoned):
        await log.append(make_batch())
    local.disk.truncate_fault = None
    log = (await local.reopen()).open_log(1, WRITTEN)
    assert await payloads(log) == [b"a"]


async def test_failed_sync_poisons_everybody_who_waits_and_is_not_tried_again(local: Stage):
    log = local.engine.open_log(1, PERSISTED)
    local.disk.sync_fault = broken()
    results = await asyncio.gather(*(log.append(make_batch()) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [Poisoned] * 5
    local.disk.sync_fault = None
    synced = local.disk.calls["fdatasync"]
    for wait in (log.flush, lambda: log.append(make_batch())):
        with pytest.raises(Poisoned):
            await wait()
    assert local.disk.calls["fdatasync"] == synced
    assert await payloads(log) == []  # nobody sees what may be lost


async def test_failed_background_sync_poisons(local: Stage):
    assert isinstance(local.engine, LocalEngine)
    log = local.engine.open_log(1, WRITTEN)
    await log.append(make_batch())
    local.disk.sync_fault = broken()
    await local.engine.syncer.sync_dirty()
    local.disk.sync_fault = None
    with pytest.raises(Poisoned):
        await log.append(make_batch())


async def test_poisoned_log_leaves_the_others_alone(local: Stage):
    first, second = (local.engine.open_log(log_id, WRITTEN) for log_id in (1, 2))
    local.disk.write_faults = [broken()]
    with pytest.raises(Poisoned):
        await first.append(make_batch())
    assert await second.append(make_batch()) == 0
    await second.flush()


async def test_appends_of_one_turn_share_one_sync(local: Stage):
    log = local.engine.open_log(1, PERSISTED)
    await log.append(make_batch())  # the first sync also writes the checkpoint
    synced = local.disk.calls["fdatasync"]
    await asyncio.gather(*(log.append(make_batch()) for _ in range(100)))
    assert local.disk.calls["fdatasync"] == synced + 1


async def start_gated_sync(stage: Stage, log: Log) -> tuple[Event, asyncio.Task[int]]:
    """Append to a persisted log and return while the sync is in flight, with the gate it waits at."""
    stage.disk.sync_gate = gate = Event()
    task = asyncio.create_task(log.append(make_batch()))
    await asyncio.sleep(0)  # written, and the sync asked for
    await asyncio.sleep(0)  # in flight
    return gate, task


async def test_who_comes_during_a_sync_shares_the_next(local: Stage):
    log = local.engine.open_log(1, PERSISTED)
    await log.append(make_batch())
    synced = local.disk.calls["fdatasync"]
    gate, first = await start_gated_sync(local, log)
    later = [asyncio.create_task(log.append(make_batch())) for _ in range(10)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *later)
    assert local.disk.calls["fdatasync"] == synced + 2


async def test_failed_sync_also_fails_who_waits_for_the_next(local: Stage):
    log = local.engine.open_log(1, PERSISTED)
    gate, first = await start_gated_sync(local, log)
    later = asyncio.create_task(log.append(make_batch()))
    await asyncio.sleep(0)
    local.disk.sync_fault = broken()
    gate.set()
    results = await asyncio.gather(first, later, return_exceptions=True)
    assert [type(result) for result in results] == [Poisoned, Poisoned]


async def test_trim_waits_for_the_sync_that_uses_the_files(local: Stage):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    for _ in range(3):
        await log.append(make_batch())
    local.engine.open_log(1, LogPolicy(segment_size=1, persisted=True))
    gate, task = await start_gated_sync(local, log)
    trim = asyncio.create_task(log.trim(3))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(task, trim)
    assert log.cuts() == [3]
    assert await log.append(make_batch()) == 4


async def test_new_segments_name_is_durable_before_the_old_ones_go(local: Stage):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    for _ in range(3):
        await log.append(make_batch())
    local.disk.changes.clear()
    await log.trim(2)
    names = [f"{base:020}.log" for base in (0, 1)]
    # Once for the name of `bounds`, which says that they are gone; once if there is no room for that.
    assert local.disk.changes == [f"fsync {1:020}"] * 2 + [f"unlink {name}" for name in names]


async def test_drop_waits_for_the_sync_that_uses_the_files(local: Stage):
    log = local.engine.open_log(1, PERSISTED)
    gate, task = await start_gated_sync(local, log)
    drop = asyncio.create_task(local.engine.drop_log(1))
    await asyncio.sleep(0)
    gate.set()
    await drop
    assert await task == 0  # sent, then deleted
    assert local.engine.log_ids() == []


async def test_trims_of_one_log_go_one_after_the_other(local: Stage, tmp_path: Path):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    for _ in range(6):
        await log.append(make_batch())
    await asyncio.gather(log.trim(4), log.trim(2), log.trim(5))
    assert log.cuts() == [5]
    assert [path.name for path in tmp_path.rglob("*.log")] == [f"{5:020}.log"]


async def test_full_disk_does_not_keep_a_trim_from_making_room(local: Stage, tmp_path: Path):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    for _ in range(3):
        await log.append(make_batch())
    local.disk.rename_fault = no_room()  # as when there is none for a new file
    await log.trim(2)
    assert [path.name for path in tmp_path.rglob("*.log")] == [f"{2:020}.log"]


async def test_what_a_failed_trim_left_goes_with_the_next_one_and_leaves_no_hole(local: Stage):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    for number in range(6):
        await log.append(make_batch([b"%d" % number]))
    local.disk.rename_fault = broken()
    with pytest.raises(OSError, match="Input/output error"):
        await log.trim(2)
    local.disk.rename_fault = None
    local.disk.write_faults = [0, 0]  # no room to note the next one
    await log.trim(4)
    log = (await local.reopen()).open_log(1, WRITTEN)
    assert log.cuts() == [4, 5]
    assert payloads_of(await log.read(4, ALL)) == [b"4", b"5"]


async def test_trim_that_failed_half_way_is_finished_by_the_next_one(local: Stage, tmp_path: Path):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    for _ in range(6):
        await log.append(make_batch())
    local.disk.write_faults = [0]
    local.disk.rename_fault = broken()  # when the files are gone and there is room again
    with pytest.raises(OSError, match="Input/output error"):
        await log.trim(2)
    local.disk.rename_fault = None
    await log.trim(4)
    assert sorted(path.name for path in tmp_path.rglob("*.log")) == [f"{base:020}.log" for base in (4, 5)]


async def test_sync_covers_every_segment_written_since_the_last(local: Stage):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    for _ in range(3):
        await log.append(make_batch())
    await log.flush()
    names = [path.name for path in local.disk.synced if path.suffix == ".log"]
    assert names == [f"{base:020}.log" for base in range(3)]


async def test_sealed_segments_files_are_closed_once_they_are_durable(local: Stage):
    log = local.engine.open_log(1, LogPolicy(segment_size=1))
    before = len(local.disk.opened)
    for _ in range(5):
        await log.append(make_batch())
    await log.flush()
    assert len(local.disk.opened) == before + 1
    await log.read(0, ALL)
    assert len(local.disk.opened) == before + 1
    await log.close()
    assert len(local.disk.opened) == before


async def test_names_are_made_durable_once(local: Stage):
    log = local.engine.open_log(1, PERSISTED)
    await log.append(make_batch())
    before = local.disk.calls["fsync_dir"]
    await log.append(make_batch())
    assert local.disk.calls["fsync_dir"] == before


async def test_who_gives_up_waiting_takes_nobody_along(local: Stage):
    log = local.engine.open_log(1, PERSISTED)
    tasks = [asyncio.create_task(log.append(make_batch())) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await asyncio.gather(*tasks[1:]) == [1, 2]


async def test_flush_syncs_once_and_then_not_again(local: Stage):
    log = local.engine.open_log(1, WRITTEN)
    await log.append(make_batch())
    await log.flush()
    synced = local.disk.calls["fdatasync"]
    await log.flush()
    assert local.disk.calls["fdatasync"] == synced


async def test_new_segments_names_are_durable_before_the_acknowledgement(local: Stage):
    log = local.engine.open_log(1, LogPolicy(segment_size=1, persisted=True))
    for _ in range(3):
        before = local.disk.calls["fsync_dir"]
        await log.append(make_batch())
        assert local.disk.calls["fsync_dir"] > before


async def test_clean_log_is_closed_without_a_sync(local: Stage):
    log = local.engine.open_log(1, WRITTEN)
    await log.append(make_batch())
    log = (await local.reopen()).open_log(1, WRITTEN)
    synced = local.disk.calls["fdatasync"]
    await log.close()
    assert local.disk.calls["fdatasync"] == synced


async def test_second_process_is_told_who_holds_the_directory(local: Stage, tmp_path: Path):
    with pytest.raises(Locked) as caught:
        LocalEngine.open(tmp_path, FakeClock())
    assert caught.value.holder.startswith("process ")
    assert caught.value.path == tmp_path


async def test_log_that_is_never_appended_to_leaves_no_file(local: Stage, tmp_path: Path):
    log = local.engine.open_log(1, WRITTEN)
    await log.flush()
    await log.close()
    assert list((tmp_path / "logs").iterdir()) == []


async def test_background_pass_ends_with_the_engine(tmp_path: Path):
    before = asyncio.all_tasks()
    engine = LocalEngine.open(tmp_path, FakeClock())
    assert len(asyncio.all_tasks()) == len(before) + 1
    await engine.close()
    assert asyncio.all_tasks() == before


async def test_all_is_closed_even_if_a_sync_fails(local: Stage, tmp_path: Path):
    await local.engine.open_log(1, WRITTEN).append(make_batch())
    await local.engine.open_log(2, WRITTEN).append(make_batch())
    local.disk.sync_fault = broken()
    with pytest.raises(Poisoned):
        await local.engine.close()
    local.disk.sync_fault = None
    local.engine = LocalEngine.open(tmp_path, local.clock)
    assert len(await payloads(local.engine.open_log(2, WRITTEN))) == 1
