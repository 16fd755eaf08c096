"""Logs as a killed process leaves them, and ways to harm their files."""

from collections.abc import Callable
from pathlib import Path

from pybroker.storage.engine import Clock, LogPolicy, ReadLimit
from pybroker.storage.errors import Corrupt
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.local.log import LocalLog
from support.batches import make_sized_batch, payloads_of
from support.engines import FakeClock, FaultyDisk

ALL = ReadLimit(messages=1_000_000, bytes=1 << 30)
ONE_SEGMENT = LogPolicy(segment_size=1 << 30)
SMALL_SEGMENTS = LogPolicy(segment_size=1000)
RECORD_SIZE = 400
CLOCK: Clock = FakeClock()


def folder(root: Path) -> Path:
    return root / "logs" / f"{1:020}"


def segment(root: Path, base: int = 0) -> Path:
    return folder(root) / f"{base:020}.log"


def open_engine(root: Path, disk: FaultyDisk | None = None) -> LocalEngine:
    return LocalEngine.open(root, CLOCK, sync_interval_s=3600, disk=disk)


async def write_log(root: Path, count: int, policy: LogPolicy = ONE_SEGMENT, *, checkpoint: bool = False) -> None:
    """Leave a log of `count` batches behind, as a killed process does: no checkpoint unless asked for."""
    engine = open_engine(root)
    log = engine.open_log(1, policy)
    for _ in range(count):
        await log.append(make_sized_batch(RECORD_SIZE))
    await engine.close()
    if not checkpoint:
        (folder(root) / "checkpoint").unlink()
        for path in folder(root).glob("*.index"):
            path.unlink()


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


async def readable(log: LocalLog) -> int:
    """Count the messages that can be read before the end or the damage; all of them are valid."""
    offset = log.bounds.first
    try:
        while buffers := await log.read(offset, ReadLimit(3, 1 << 30)):
            offset += len(payloads_of(buffers))
    except Corrupt:
        pass
    return offset


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-24])


def flip_first(path: Path) -> None:
    flip(path, 3)


def flip_last(path: Path) -> None:
    flip(path, -1)


HARM: list[Callable[[Path], None]] = [delete, empty, shorten, flip_first, flip_last]
