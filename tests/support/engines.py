"""What storage tests run on: engines with a clock that stands still and a disk that fails on demand."""

from collections import Counter
from pathlib import Path
from threading import Event

from pybroker.protocol.batch import Buffer
from pybroker.storage.engine import Engine
from pybroker.storage.local.disk import Disk
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.memory import MemoryEngine


class FakeClock:
    """A clock that says `now_us` until it is told otherwise."""

    def __init__(self, now_us: int = 1_000_000) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


class FaultyDisk(Disk):
    """A disk that counts its calls and fails the next ones as told.

    write_faults: for each of the next writes, an error or how many bytes get written; None writes all.
    sync_gate: when set, a sync waits in its thread for this event.
    boot: what the machine's boot id is.
    opened: the files that are open. synced: the files that were synced, in order.
    changes: what was done to directories, in order.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.write_faults: list[OSError | int | None] = []
        self.sync_fault: OSError | None = None
        self.truncate_fault: OSError | None = None
        self.rename_fault: OSError | None = None
        self.sync_gate: Event | None = None
        self.boot = b"boot 0\n"
        self.opened: dict[int, Path] = {}
        self.synced: list[Path] = []
        self.changes: list[str] = []

    def boot_id(self) -> bytes:
        return self.boot

    def open(self, path: Path, *, create: bool = False) -> int:
        fd = super().open(path, create=create)
        self.opened[fd] = path
        return fd

    def close(self, fd: int) -> None:
        del self.opened[fd]
        super().close(fd)

    def pwrite(self, fd: int, data: Buffer, position: int) -> int:
        self.calls["pwrite"] += 1
        fault = self.write_faults.pop(0) if self.write_faults else None
        if isinstance(fault, OSError):
            raise fault
        return super().pwrite(fd, data if fault is None else bytes(data[:fault]), position)

    def pread(self, fd: int, size: int, position: int) -> bytes:
        self.calls["pread"] += 1
        return super().pread(fd, size, position)

    def fdatasync(self, fd: int) -> None:
        self.calls["fdatasync"] += 1
        self.synced.append(self.opened[fd])
        if self.sync_gate is not None:
            assert self.sync_gate.wait(10), "the test never opened the gate"
        if self.sync_fault is not None:
            raise self.sync_fault
        super().fdatasync(fd)

    def fsync_dir(self, path: Path) -> None:
        self.calls["fsync_dir"] += 1
        super().fsync_dir(path)
        self.changes.append(f"fsync {path.name}")

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.changes.append(f"unlink {path.name}")

    def truncate(self, fd: int, size: int) -> None:
        if self.truncate_fault is not None:
            raise self.truncate_fault
        super().truncate(fd, size)

    def rename(self, path: Path, target: Path) -> None:
        if self.rename_fault is not None:
            raise self.rename_fault
        super().rename(path, target)

    def mmap(self, path: Path) -> memoryview:
        self.calls["mmap"] += 1
        return super().mmap(path)


class Stage:
    """One kind of engine that can be closed and opened again on what it has kept."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.clock = FakeClock()
        self.disk = FaultyDisk()
        self._root = root
        self.engine = self._open()

    async def reopen(self) -> Engine:
        """Close the engine and open it again. The memory engine has nothing to come back from and stays."""
        if self.kind == "local":
            await self.engine.close()
            self.engine = self._open()
        return self.engine

    def _open(self) -> Engine:
        if self.kind == "memory":
            return MemoryEngine(self.clock)
        # Nothing syncs by itself: a test says when.
        return LocalEngine.open(self._root, self.clock, sync_interval_s=3600, disk=self.disk)
