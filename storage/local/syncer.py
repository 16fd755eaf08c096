"""Makes written bytes durable, off the event loop, once for everybody who waits.

A group stands for what one sync covers: a log's files, a journal. At most one sync of it is in flight; who
arrives meanwhile shares the next one. What nobody waits for is synced every `interval_s`.

Crash invariant: a wait returns only after an fdatasync that began after the bytes were written. A sync that
failed is never tried again, for the kernel may have dropped the very pages it could not write.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from ..errors import Poisoned

# fdatasync waits on the device: a few in flight let it merge, more only queue up.
SYNC_THREADS = 4

P = ParamSpec("P")
R = TypeVar("R")

Job = Callable[[], None]


def _nothing(_seconds: float) -> None:
    """Take no note of a sync."""


class Syncer:
    """The threads that sync, and the groups that have something to be synced."""

    def __init__(self, interval_s: float, pool: Executor | None = None) -> None:
        """pool: what runs the syncs; threads of its own unless a test hands down something it can steer."""
        self._interval_s = interval_s
        self._pool = pool if pool is not None else ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="pybroker-sync")
        self._dirty: dict[Group, None] = {}  # in the order they came
        self._task: asyncio.Task[None] | None = None
        self.has_given_up = False  # a group, whichever it was
        self.noted: Callable[[float], None] = _nothing  # told of each sync how many seconds it took

    def start(self) -> None:
        """Begin the background pass on the running loop. Without a loop, the first group marked in one does."""
        if self._task is None:
            with suppress(RuntimeError):
                self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, group: "Group") -> None:
        self._dirty[group] = None
        self.start()

    def remove(self, group: "Group") -> None:
        self._dirty.pop(group, None)

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking function in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def submit(self, job: Job) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._pool, job)

    async def sync_dirty(self) -> None:
        """Sync every group that has something; return when that is over. A failure stays with its group."""
        groups = list(self._dirty)
        for group in groups:
            group.start()
        for group in groups:
            await group.idle()

    async def close(self) -> None:
        """End the background pass and the threads. The groups have been synced or given up before."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._pool.shutdown()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self.sync_dirty()


class Group:
    """What one sync makes durable.

    plan: called on the loop when a sync begins; returns what to do in a thread for all written so far.
    ended: called on the loop when it is over, with the error if there was one.
    cause: why it was given up. sync_failed: because of a sync.
    """

    def __init__(
        self, syncer: Syncer, path: Path, plan: Callable[[], Job], ended: Callable[[BaseException | None], None]
    ) -> None:
        self.cause: BaseException | None = None
        self.sync_failed = False
        self._syncer = syncer
        self._path = path
        self._plan = plan
        self._ended = ended
        self._dirty = False
        self._running = False
        self._left = False
        self._began = 0.0
        self._current: list[asyncio.Future[None]] = []
        self._next: list[asyncio.Future[None]] = []

    @property
    def is_pending(self) -> bool:
        """Whether something written is not known to be durable."""
        return self._dirty or self._running

    def mark(self) -> None:
        """Note that something was written."""
        if not self._dirty and self.cause is None:
            self._dirty = True
            self._syncer.add(self)

    def poison(self, cause: BaseException) -> None:
        """Give up: everybody who waits, now or later, gets Poisoned."""
        self.cause = self.cause or cause
        self._syncer.has_given_up = True
        self._syncer.remove(self)
        self._wake(self._current, self.cause)
        self._wake(self._next, self.cause)

    def leave(self) -> None:
        """Sync no more, for what is to be synced is being removed or was synced. Whoever waits is let go."""
        self._left = True
        self.cause = self.cause or ValueError("it is closed")
        self._syncer.remove(self)
        self._wake(self._current, None)
        self._wake(self._next, None)

    async def sync(self) -> None:
        """Return when all that was written before the call is durable. Raises Poisoned."""
        if self.cause is not None:
            raise Poisoned(self._path, self.cause)
        if self._dirty:
            if not self._next and not self._running:
                # Not at once: who writes in the same turn of the loop shares this sync.
                asyncio.get_running_loop().call_soon(self.start)
            await self._join(self._next)
        elif self._running:
            await self._join(self._current)

    def sync_now(self) -> None:
        """Sync before anybody else can ask for it; a failure is as that of any sync. Blocks."""
        try:
            self._plan()()
        except OSError as error:
            self._end(error)
        else:
            self._end(None)

    async def sync_anyway(self) -> None:
        """Sync what was written before a write failed, if that can be. After a failed sync nothing is tried again."""
        await self.idle()
        if self.sync_failed or self._left:
            return
        self._running = True  # or the files are closed meanwhile by who removes them
        try:
            with suppress(OSError):
                await self._syncer.submit(self._plan())
        finally:
            self._running = False
            self._wake(self._current, None)

    async def idle(self) -> None:
        """Return when no sync is in flight, whatever came of it."""
        while self._running:
            with suppress(Poisoned):
                await self._join(self._current)

    def start(self) -> None:
        """Begin a sync if there is something to sync and none is in flight."""
        if self._running or not self._dirty or self.cause is not None:
            return
        self._dirty = False
        self._running = True
        self._syncer.remove(self)
        self._current, self._next = self._next, []
        self._began = asyncio.get_running_loop().time()
        self._syncer.submit(self._plan()).add_done_callback(self._finish)

    def _finish(self, done: asyncio.Future[None]) -> None:
        self._running = False
        self._syncer.noted(asyncio.get_running_loop().time() - self._began)
        cause = done.exception()
        self._end(cause)
        self._wake(self._current, cause)
        if self._next:
            self.start()

    def _end(self, cause: BaseException | None) -> None:
        if cause is not None:
            self.sync_failed = True
            self.poison(cause)
        self._ended(cause)

    async def _join(self, waiters: list[asyncio.Future[None]]) -> None:
        # A future each, so that one who is cancelled takes nobody along.
        future = asyncio.get_running_loop().create_future()
        waiters.append(future)
        await future

    def _wake(self, waiters: list[asyncio.Future[None]], cause: BaseException | None) -> None:
        for future in waiters:
            if not future.done():
                future.set_exception(Poisoned(self._path, cause)) if cause else future.set_result(None)
        waiters.clear()
