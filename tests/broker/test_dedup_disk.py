"""Deduplication on a disk that fails: a repeat is never acknowledged before, or instead of, what it repeats."""

import asyncio
import errno
from pathlib import Path
from threading import Event

import pytest
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.model.messages import SendMessages, Sent
from pybroker.protocol.primitives import Partitioning, PartitioningKind
from support.batches import make_batch
from support.broker import Broker, polled_offsets, polled_payloads, text_option
from support.engines import Stage

ON = text_option("message_deduplication", "true")
PERSISTED = text_option("durability", "persisted")
TURNS = 20
TIMEOUT_S = 20


@pytest.fixture
async def broker(stage: Stage) -> Broker:
    """A broker whose topic "t" has two partitions and waits for a sync."""
    broker = Broker(stage=stage)
    await broker.create_topic(2, ON, PERSISTED)
    return broker


def command(ident: int, *more: int, partition_id: int = 0, size: int = 1) -> SendMessages:
    ids = (ident, *more)
    batch = make_batch([b"%d" % ident + b" " * size for ident in ids], message_ids=ids)
    return SendMessages("s", "t", Partitioning(PartitioningKind.PARTITION, partition_id), batch)


async def stored(broker: Broker, partition_id: int = 0) -> list[int]:
    """Return the ids of what is stored; their offsets have no gaps."""
    polled = await broker.poll(partition_id=partition_id)
    assert polled_offsets(polled) == list(range(polled.messages_count))
    return [int(payload) for payload in polled_payloads(polled)]


async def begin(broker: Broker, asked: SendMessages) -> asyncio.Task[Sent]:
    """Begin a send and let it go as far as it gets without the disk."""
    task = asyncio.ensure_future(asyncio.wait_for(broker.ask(asked), TIMEOUT_S))
    for _ in range(TURNS):
        await asyncio.sleep(0)
    return task


async def status_of(task: asyncio.Task[Sent]) -> Status:
    try:
        await task
    except Refused as refused:
        return refused.status
    return Status.OK


async def test_message_that_a_full_disk_refused_is_stored_when_it_comes_again(stage: Stage) -> None:
    broker = Broker(stage=stage)
    await broker.create_topic(1, ON)
    await broker.ask(command(1))
    stage.disk.write_faults = [OSError(errno.ENOSPC, "No space left on device")]
    assert await broker.status(command(2, 1, 3)) is Status.CANNOT_APPEND_TO_FILE
    assert await broker.ask(command(1)) == Sent(0, 0, 0, 0)
    assert await broker.ask(command(2, 1, 3)) == Sent(0, 0, 0, 1)
    assert await stored(broker) == [1, 2, 3]


async def test_refused_sends_push_nothing_out_of_the_window(stage: Stage) -> None:
    broker = Broker(stage=stage)
    await broker.create_topic(1, ON)
    await broker.ask(command(1))
    ids_max = broker.config.system.message_deduplication.max_entries
    stage.disk.write_faults = [OSError(errno.ENOSPC, "No space left on device")]
    assert await broker.status(command(*range(2, ids_max + 2))) is Status.CANNOT_APPEND_TO_FILE
    assert await broker.ask(command(1)) == Sent(0, 0, 0, 0)


async def test_repeat_waits_for_the_sync_of_what_it_repeats(stage: Stage, broker: Broker) -> None:
    await broker.ask(command(1))
    stage.disk.sync_gate = Event()
    first = await begin(broker, command(2))
    again = await begin(broker, command(2))
    elsewhere = await begin(broker, command(2, partition_id=1))
    known = await begin(broker, command(1))
    assert (first.done(), again.done(), elsewhere.done()) == (False, False, False)
    assert await known == Sent(0, 0, 0, 0)
    stage.disk.sync_gate.set()
    assert [await first, await again, await elsewhere] == [Sent(0, 0, 0, 1)] * 3
    assert [await stored(broker), await stored(broker, 1)] == [[1, 2], []]


async def test_batch_with_some_repeats_waits_for_them_too(stage: Stage, broker: Broker) -> None:
    stage.disk.sync_gate = Event()
    first = await begin(broker, command(1))
    some = await begin(broker, command(2, 1, partition_id=1))
    assert not some.done()
    stage.disk.sync_gate.set()
    assert [await first, await some] == [Sent(0, 0, 0, 0), Sent(0, 0, 1, 0)]
    assert [await stored(broker), await stored(broker, 1)] == [[1], [2]]


async def test_repeat_of_what_could_not_be_synced_is_stored_elsewhere_or_fails_too(
    stage: Stage, broker: Broker
) -> None:
    await broker.ask(command(9, partition_id=1))
    stage.disk.sync_gate = gate = Event()
    stage.disk.sync_fault = OSError(errno.EIO, "Input/output error")
    first = await begin(broker, command(1))
    again = await begin(broker, command(1))
    elsewhere = await begin(broker, command(1, partition_id=1))
    stage.disk.sync_gate = later = Event()
    gate.set()
    assert await status_of(first) is Status.CANNOT_SAVE_MESSAGES_TO_SEGMENT
    stage.disk.sync_fault = None
    later.set()
    assert await status_of(again) is Status.CANNOT_SAVE_MESSAGES_TO_SEGMENT
    assert await elsewhere == Sent(0, 0, 1, 1)
    assert await stored(broker, 1) == [9, 1]
    assert await broker.ask(command(1)) == Sent(0, 0, 1, 1)


async def test_cancelled_send_counts_once_it_is_synced(stage: Stage, broker: Broker) -> None:
    """Its message may be stored, so the next send reads the log, and waits for the sync it needs."""
    await broker.ask(command(1))
    stage.disk.sync_gate = Event()
    first = await begin(broker, command(2))
    first.cancel()
    again = await begin(broker, command(2))
    assert (first.cancelled(), again.done()) == (True, False)
    stage.disk.sync_gate.set()
    assert await again == Sent(0, 0, 0, 1)
    assert await stored(broker) == [1, 2]


async def test_cancelled_send_that_could_not_be_synced_does_not_count(stage: Stage, broker: Broker) -> None:
    await broker.ask(command(1))
    stage.disk.sync_gate = gate = Event()
    first = await begin(broker, command(2))
    first.cancel()
    again = await begin(broker, command(2))
    stage.disk.sync_fault = OSError(errno.EIO, "Input/output error")
    gate.set()
    assert await status_of(again) is Status.CANNOT_SAVE_MESSAGES_TO_SEGMENT
    stage.disk.sync_fault = None
    assert await broker.ask(command(2, partition_id=1)) == Sent(0, 0, 1, 0)


async def test_window_survives_the_engines_restart(stage: Stage, broker: Broker) -> None:
    await broker.ask(command(1, 2))
    stage.clock.now_us += 1
    await broker.ask(command(3, partition_id=1))
    broker.engine = await stage.reopen()
    await broker.restart()
    assert await broker.ask(command(2, 1)) == Sent(0, 0, 0, 1)
    assert await broker.ask(command(3)) == Sent(0, 0, 1, 0)
    assert await broker.ask(command(4, 3)) == Sent(0, 0, 0, 2)


async def test_damage_in_the_log_keeps_no_send_back(
    stage: Stage, broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What lies in front of it and some way behind is still known."""
    for ident in range(1, 31):
        stage.clock.now_us += 1
        await broker.ask(command(ident, size=20_000))
    (path,) = tmp_path.glob("logs/*/*.log")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 30 * 9 + 32)
        file.write(b"\xff" * 8)
    await broker.restart()
    assert await broker.ask(command(9)) == Sent(0, 0, 0, 8)
    assert await broker.ask(command(30)) == Sent(0, 0, 0, 29)
    assert await broker.ask(command(10)) == Sent(0, 0, 0, 30)
    assert [record for record in caplog.records if str(path) in record.getMessage()] != []
