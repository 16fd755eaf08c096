"""When requests are due.

With a rate, request n is due at begin + n * interval, whatever happened to those before it: a server that stalls does
not slow the clock by which it is measured. Latencies count from when a request was due, so a stall counts for every
request that had to wait for it, and not just for the one that met it.
"""

import asyncio
import ctypes
import os
import sys
import time
from struct import Struct

from msgspec import Struct as Record

_SECOND_NS = 1_000_000_000
_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1
_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_TIMES = Struct("@llll")  # interval, then expiry: seconds and nanoseconds each

clock_ns = time.monotonic_ns
"""The same for all processes of a machine."""


class Times(Record, frozen=True):
    """begin: of the warm-up. start: of what is measured. end: when nothing more is due; None for no such time."""

    begin_ns: int
    start_ns: int
    end_ns: int | None = None


class Alarm:
    """Waits to a few hundredths of a millisecond, where loops wait to a millisecond. One wait at a time."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._fd = -1 if self._libc is None else self._libc.timerfd_create(_CLOCK_MONOTONIC, _CLOEXEC_NONBLOCK)

    async def until(self, due_ns: int) -> None:
        """Wait until the clock says `due_ns`; not at all if that has been."""
        wait_ns = due_ns - clock_ns()
        if wait_ns <= 0:
            return
        if self._libc is None or self._fd < 0:
            await asyncio.sleep(wait_ns / _SECOND_NS)
            return
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, _TIMES.pack(0, 0, *divmod(due_ns, _SECOND_NS)), None)
        loop = asyncio.get_running_loop()
        rung: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._fd, _ring, rung)
        try:
            await rung
        finally:
            loop.remove_reader(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _ring(rung: asyncio.Future[None]) -> None:
    if not rung.done():
        rung.set_result(None)


class Schedule:
    """What one actor has to do, and when. Any number of tasks may ask it.

    interval_ns: between two requests, 0 for as fast as possible. measured_max: how many are due after the warm-up.
    """

    def __init__(self, times: Times, *, interval_ns: int = 0, measured_max: int | None = None) -> None:
        self.times = times
        self._interval_ns = interval_ns
        self._left = measured_max
        self._due_ns = times.begin_ns
        self._turn = asyncio.Lock()
        self._alarm = Alarm()

    async def begun(self) -> None:
        await self._alarm.until(self.times.begin_ns)

    async def next(self) -> int | None:
        """Wait until a request is due; return when it was, None when there are no more."""
        if not self._interval_ns:
            return self._take(clock_ns())
        async with self._turn:
            due_ns = self._take(self._due_ns)
            if due_ns is not None:
                self._due_ns += self._interval_ns
                await self._alarm.until(due_ns)
            return due_ns

    def close(self) -> None:
        self._alarm.close()

    def _take(self, due_ns: int) -> int | None:
        times = self.times
        if times.end_ns is not None and due_ns >= times.end_ns:
            return None
        if self._left is not None and due_ns >= times.start_ns:
            if not self._left:
                return None
            self._left -= 1
        return due_ns
