"""What retention does with real files: which thread removes them, and what happens where that fails or races."""

import asyncio
import errno
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from pybroker.broker.catalog import Catalog
from pybroker.broker.dispatch import Dispatch
from pybroker.broker.logs import Logs
from pybroker.broker.offsets import Offsets
from pybroker.broker.retention import Retention
from pybroker.protocol.model.messages import SendMessages
from pybroker.protocol.model.partitions import DeletePartitions, DeleteSegments
from pybroker.protocol.model.streams import CreateStream, DeleteStream, PurgeStream
from pybroker.protocol.model.topics import CreateTopic, DeleteTopic, PurgeTopic
from pybroker.protocol.primitives import Option, Partitioning, PartitioningKind
from pybroker.storage.engine import Log
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.local.log import LocalLog
from support.batches import make_sized_batch
from support.broker import TINY_SEGMENTS, Broker, number_option
from support.engines import FaultyDisk

SECOND = 1_000_000
RECORD_SIZE = 400  # of a message, and so of a segment
EXPIRY = number_option("message_expiry", SECOND)
TURNS_MAX = 10_000


class WatchedDisk(FaultyDisk):
    """A disk that knows which threads removed files, and refuses to in folders of `stuck`.

    gate: when set, a removal waits in its thread for this event, and says so in `waiting`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.removed_by: list[int] = []
        self.stuck: set[str] = set()
        self.gate: threading.Event | None = None
        self.waiting = threading.Event()

    def unlink(self, path: Path) -> None:
        if path.parent.name in self.stuck:
            raise OSError(errno.EIO, "Input/output error", str(path))
        if self.gate is not None:
            self.waiting.set()
            assert self.gate.wait(10), "the test never opened the gate"
        self.removed_by.append(threading.get_ident())
        super().unlink(path)

    def rmdir(self, path: Path) -> None:
        self.removed_by.append(threading.get_ident())
        super().rmdir(path)


class Files:
    """A broker on local files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = WatchedDisk()
        self._broker = Broker(segment_size=TINY_SEGMENTS)
        self.clock = self._broker.clock

    async def open(self) -> "Files":
        self.engine = LocalEngine.open(self.root, self.clock, sync_interval_s=3600, disk=self.disk)
        offsets = Offsets(self.engine.offsets)
        catalog, logs = Catalog(self.engine.journal), Logs(self.engine, offsets)
        self.state = replace(self._broker.state, catalog=catalog, logs=logs, offsets=offsets)
        await logs.reconcile(catalog)
        return self

    async def ask(self, command: Struct) -> Any:
        return await Dispatch(self.state)(self._broker.root, command)

    async def fill(self, topic: str, partitions: list[int], *options: Option) -> None:
        """Create a topic and send a message a second to these partitions."""
        await self.ask(CreateTopic("s", max(partitions) + 1, topic, options))
        for second, partition_id in enumerate(partitions, 1):
            self.clock.now_us = second * SECOND
            partitioning = Partitioning(PartitioningKind.PARTITION, partition_id)
            await self.ask(SendMessages("s", topic, partitioning, make_sized_batch(RECORD_SIZE)))

    def logs(self, topic: str) -> list[Log]:
        return [self.state.logs.of(partition) for partition in self.state.catalog.topic("s", topic)[1].partitions]

    def folder(self, topic: str, partition_id: int) -> Path:
        log_id = self.state.catalog.topic("s", topic)[1].partitions[partition_id].log_id
        return self.root / "logs" / f"{log_id:020}"


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    opened = await Files(tmp_path / "data").open()
    await opened.ask(CreateStream("s"))
    yield opened
    if opened.disk.gate is not None:
        opened.disk.gate.set()
    await opened.engine.close()


async def test_age_counts_from_the_record_not_from_the_file(files: Files) -> None:
    await files.fill("t", [0] * 6, number_option("message_expiry", 2 * SECOND))
    for touched, path in enumerate(sorted(files.folder("t", 0).glob("*.log"))):
        os.utime(path, (touched * 10**9, (6 - touched) * 10**9))
    await files.engine.close()
    await files.open()
    await Retention(files.state).clean()
    assert [log.cuts() for log in files.logs("t")] == [[3, 4, 5]]
    assert sorted(path.name for path in files.folder("t", 0).glob("*.log")) == [f"{base:020}.log" for base in (3, 4, 5)]


async def test_a_log_that_can_not_be_cleaned_leaves_the_others_to_be(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Of partition 0 no file can be removed, of partition 1 the first header is damaged; the index of 2 helps."""
    limit = number_option("max_topic_size", RECORD_SIZE)
    await files.fill("t", [0, 1, 2] * 3, limit)
    await files.fill("other", [0] * 3, limit)
    await files.engine.close()
    for partition in (1, 2):
        (files.folder("t", partition) / f"{0:020}.log").write_bytes(bytes(RECORD_SIZE))
    (files.folder("t", 1) / f"{0:020}.index").unlink()
    await files.open()
    files.disk.stuck = {files.folder("t", 0).name}
    await Retention(files.state).clean()
    assert [log.cuts() for log in files.logs("t")] == [[1, 2], [0, 1, 2], [2]]
    assert [log.cuts() for log in files.logs("other")] == [[2]]
    warned = [
        record.message.partition(", a later")[0] for record in caplog.records if record.name.endswith("retention")
    ]
    assert warned == [f"can't delete old segments of partition s/t/{number}" for number in (1, 0)]


REMOVALS = {
    "retention": None,
    "segments": DeleteSegments("s", "t", 0, 2),
    "purge": PurgeTopic("s", "t"),
    "purge of the stream": PurgeStream("s"),
    "delete": DeleteTopic("s", "t"),
    "delete of the stream": DeleteStream("s"),
    "fewer partitions": DeletePartitions("s", "t", 1),
}


@pytest.mark.parametrize("what", REMOVALS)
async def test_no_file_is_removed_on_the_event_loop(files: Files, what: str) -> None:
    await files.fill("t", [0] * 6, EXPIRY)
    command = REMOVALS[what]
    await (Retention(files.state).clean() if command is None else files.ask(command))
    assert len(files.disk.removed_by) >= 2
    assert threading.get_ident() not in files.disk.removed_by


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(TURNS_MAX):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never happened")


@pytest.mark.parametrize("gone", [PurgeTopic("s", "t"), DeleteTopic("s", "t")], ids=["purge", "delete"])
@pytest.mark.parametrize("what", ["retention", "segments"])
async def test_a_log_that_goes_while_segments_are_removed_disturbs_nothing(
    files: Files, caplog: pytest.LogCaptureFixture, what: str, gone: PurgeTopic | DeleteTopic
) -> None:
    caplog.set_level(logging.INFO)
    await files.fill("t", [0] * 6, EXPIRY)
    folder = files.folder("t", 0)
    log = files.state.logs.of(files.state.catalog.topic("s", "t")[1].partitions[0])
    assert isinstance(log, LocalLog)
    files.disk.gate = threading.Event()
    work = files.ask(DeleteSegments("s", "t", 0, 2)) if what == "segments" else Retention(files.state).clean()
    removal = asyncio.create_task(work)
    await until(files.disk.waiting.is_set)
    going = asyncio.create_task(files.ask(gone))
    await until(lambda: log.is_closed)
    files.disk.gate.set()
    await asyncio.gather(removal, going)
    assert not folder.exists()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
