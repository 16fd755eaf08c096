"""A machine with a data directory, for tests of what survives when it is killed or loses power."""

import shutil
from contextlib import suppress
from pathlib import Path

from pybroker.storage.engine import LogPolicy, ReadLimit
from pybroker.storage.errors import Poisoned
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.local.log import LocalLog

from .batches import make_batch
from .engines import FakeClock, FaultyDisk

ALL = ReadLimit(messages=1_000_000, bytes=1 << 30)
WRITTEN = LogPolicy(segment_size=1 << 30)
PERSISTED = LogPolicy(segment_size=1 << 30, persisted=True)


class Machine:
    """A data directory on a machine that can be killed (a copy is taken of its files) and lose power."""

    def __init__(self, root: Path) -> None:
        self.disk = FaultyDisk()
        self.clock = FakeClock()
        self.root = root / "0"
        self._parent = root
        self._engines: list[LocalEngine] = []

    def start(self, *, load: bool = True) -> LocalEngine:
        """Open the engine, and the journal as every broker does; until that was recovered the crash is not over."""
        engine = LocalEngine.open(self.root, self.clock, sync_interval_s=3600, disk=self.disk)
        self._engines.append(engine)
        if load:
            engine.journal.load()
        return engine

    def kill(self, *, power: bool = False) -> None:
        """Go on with a copy of the files as they are now."""
        target = self._parent / str(len(self._engines))
        shutil.copytree(self.root, target)
        self.root = target
        if power:
            self.disk.boot += b"later "

    async def close(self) -> None:
        for engine in self._engines:
            with suppress(Poisoned):
                await engine.close()

    def segment(self, base: int = 0, log_id: int = 1) -> Path:
        return self.root / "logs" / f"{log_id:020}" / f"{base:020}.log"


async def append(log: LocalLog, *texts: bytes) -> list[int]:
    return [await log.append(make_batch([text])) for text in texts]
