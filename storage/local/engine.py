"""Keeps everything in one data directory of the local file system.

    <root>/lock                                         held by the process that uses the directory
    <root>/catalog.journal, catalog.snapshot            journal.py
    <root>/offsets.journal, offsets.snapshot            table.py on journal.py
    <root>/running                                      running.py
    <root>/logs/<log id, 20 digits>/                    log.py
        <base offset, 20 digits>.log, .index            segment.py, index.py
        checkpoint, bounds                              checkpoint.py, bounds.py

A log that is dropped is first renamed, in one step, to a name that no log has; what a crash leaves of it is
removed at the next start.
"""

import re
from asyncio import gather
from concurrent.futures import Executor
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from ...protocol.batch import HEADER_SIZE
from ..engine import Clock, LogPolicy
from ..errors import Locked, UnknownKey
from ..seal import Keys, sealed_with
from .codec import Codec
from .disk import Disk
from .journal import LocalJournal
from .log import LocalLog
from .reader import Parts
from .recovery import Crash
from .running import NAME as RUNNING
from .running import Running
from .segment import Maps, segment_names
from .syncer import Syncer
from .table import LocalTable

JOURNALS = CATALOG, OFFSETS = "catalog", "offsets"
_ID_DIGITS = 20
_LOG_NAME = re.compile(rf"\d{{{_ID_DIGITS}}}")
_DROPPED = ".dropped"


class LocalEngine:
    """The engine on local files. See storage.engine.Engine."""

    def __init__(self, root: Path, clock: Clock, disk: Disk, codec: Codec, syncer: Syncer) -> None:
        """See `open`, which takes the lock and so comes first."""
        self.syncer = syncer
        self._disk = disk
        self._folder = root / "logs"
        self._logs: dict[int, LocalLog] = {}
        self._lock_fd = -1
        disk.mkdir(self._folder)
        self._remove_dropped()
        self._running = Running(disk, root, [*map(str, self.log_ids()), *JOURNALS])
        self._journal = LocalJournal(disk, self.syncer, root / CATALOG, self._running)
        self._offsets = LocalTable(LocalJournal(disk, self.syncer, root / OFFSETS, self._running))
        self._parts = Parts(disk, clock, self.syncer, Maps(disk), codec, self._running.doubt)

    @classmethod
    def open(
        cls,
        root: Path,
        clock: Clock,
        *,
        sync_interval_s: float = 1.0,
        keys: Keys | None = None,
        validate: bool = True,
        disk: Disk | None = None,
        pool: Executor | None = None,
    ) -> "LocalEngine":
        """Open a data directory, or begin a new one, and hold it until `close`.

        keys: what records are encrypted with from now on, and can be read with. validate: verify what is read.
        What was written is durable after `sync_interval_s` at the latest; the pass that sees to it starts on the
        running loop, or with the first write in one. Raises Locked if another process holds the directory,
        Corrupt if the consumer offsets are damaged, UnknownKey, with nothing changed, if records can't be decrypted.
        """
        disk = disk or Disk()
        _check_keys(disk, root / "logs", keys)
        _make_root(disk, root)
        lock_fd = _take_lock(disk, root / "lock")
        try:
            engine = cls(root, clock, disk, Codec(keys, validate=validate), Syncer(sync_interval_s, pool))
        except BaseException:
            disk.close(lock_fd)
            raise
        engine._lock_fd = lock_fd
        engine.syncer.start()
        return engine

    @staticmethod
    def erase(root: Path, disk: Disk | None = None) -> None:
        """Delete what an engine keeps in `root`, and nothing else. Raises Locked if another process holds it."""
        disk = disk or Disk()
        disk.mkdir(root)
        lock_fd = _take_lock(disk, root / "lock")
        try:
            for name in disk.listdir(root / "logs"):
                _remove(disk, root / "logs" / name)
            for name in disk.listdir(root):
                if name.partition(".")[0] in (*JOURNALS, RUNNING):
                    disk.unlink(root / name)
            disk.fsync_dir(root)
        finally:
            disk.close(lock_fd)

    @property
    def journal(self) -> LocalJournal:
        return self._journal

    @property
    def offsets(self) -> LocalTable:
        return self._offsets

    @property
    def is_poisoned(self) -> bool:
        return self.syncer.has_given_up

    def open_log(self, log_id: int, policy: LogPolicy) -> LocalLog:
        """See storage.engine.Engine. A log that is open gets the new policy."""
        log = self._logs.get(log_id)
        if log is None or log.is_closed:
            in_doubt = self._running.is_in_doubt(str(log_id))
            crash = Crash(power_failed=in_doubt, sync_failed=in_doubt and self._running.sync_failed)
            log = self._logs[log_id] = LocalLog(self._parts, self._path_of(log_id), policy, crash)
            self._running.recovered(str(log_id))
        log.policy = policy
        return log

    def log_ids(self) -> list[int]:
        names = self._disk.listdir(self._folder)
        return sorted(int(name) for name in names if _LOG_NAME.fullmatch(name))

    async def drop_log(self, log_id: int) -> None:
        log = self._logs.pop(log_id, None)
        if log is not None:
            await log.abandon()
        path = self._path_of(log_id)
        try:
            self._disk.rename(path, path.with_suffix(_DROPPED))
        except FileNotFoundError:  # a log that was never appended to
            return
        finally:
            self._running.recovered(str(log_id))
        await self.syncer.call(_remove, self._disk, path.with_suffix(_DROPPED))

    async def close(self) -> None:
        """See storage.engine.Engine. Everything is closed even if a sync fails; then raises Poisoned."""
        if self._lock_fd < 0:
            return
        lock_fd, self._lock_fd = self._lock_fd, -1
        async with AsyncExitStack() as stack:
            stack.callback(self._disk.close, lock_fd)
            stack.callback(self._running.end)
            stack.push_async_callback(self.syncer.close)
            stack.push_async_callback(self._offsets.close)
            stack.push_async_callback(self._journal.close)
            stack.push_async_callback(self._close_logs)

    async def _close_logs(self) -> None:
        # All at once, so that the threads of the syncer share the waiting.
        results = await gather(*(log.close() for log in self._logs.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _path_of(self, log_id: int) -> Path:
        return self._folder / f"{log_id:0{_ID_DIGITS}}"

    def _remove_dropped(self) -> None:
        for name in self._disk.listdir(self._folder):
            if name.endswith(_DROPPED):
                _remove(self._disk, self._folder / name)


def _make_root(disk: Disk, root: Path) -> None:
    """Make the data directory, and its name durable: a power failure would else take all that is ever in it."""
    if disk.listdir(root):
        return
    disk.mkdir(root)
    for parent in root.parents:
        with suppress(PermissionError):
            disk.fsync_dir(parent)


def _check_keys(disk: Disk, folder: Path, keys: Keys | None) -> None:
    """Raise UnknownKey if there is a segment whose key is not among `keys`. A segment has one key."""
    for name in filter(_LOG_NAME.fullmatch, disk.listdir(folder)):
        for segment in segment_names(disk.listdir(folder / name)):
            path = folder / name / segment
            fd = disk.open(path)
            try:
                key = sealed_with(disk.pread(fd, HEADER_SIZE, 0))
            finally:
                disk.close(fd)
            if key is not None and (keys is None or key not in keys):
                raise UnknownKey(key, path)


def _take_lock(disk: Disk, path: Path) -> int:
    try:
        return disk.lock(path)
    except BlockingIOError:
        pid = (disk.read_file(path) or b"").decode(errors="replace")
        raise Locked(path.parent, f"process {pid}") from None


def _remove(disk: Disk, folder: Path) -> None:
    """Remove a folder with the files in it and make that durable."""
    for name in disk.listdir(folder):
        disk.unlink(folder / name)
    disk.rmdir(folder)
    disk.fsync_dir(folder.parent)
