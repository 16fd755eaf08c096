"""One connection, over whichever transport: any number of calls at once, answered in whatever order.

A call is one future. It waits its turn in a queue, is written when there is room for it, and is answered by number. So
whoever gives up waiting only leaves a future behind that nobody reads: no answer can reach another call. A server that
can't take a request for now, or not finish it, says so, and is asked again until the call's time is over.
"""

import asyncio
import math
import secrets
import struct
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Protocol

import msgspec

from ..protocol.batch import Buffer
from ..protocol.errors import Status, WireError
from ..protocol.inbox import Inbox, Pool
from ..protocol.model.system import Ping
from ..protocol.vsr.client import Answer, Evicted, VsrClient
from .errors import BrokerError, ConnectError, ConnectionLost, InvalidRequest, PybrokerError

# How many bytes are on their way at once. What is more waits in the calls that ask it.
IN_FLIGHT_SIZE_MAX = 16 * 1024 * 1024
# How many go out before the link is asked whether it has enough; the last may pass it.
TOGETHER_SIZE_MAX = 256 * 1024
# How long a server that can't do something for now is left alone; Iggy's own client waits as long.
PAUSE_S = 0.05
_FOR_NOW = frozenset({Status.TRANSIENT_NOT_COMMITTED, Status.TRANSIENT_NOT_ACCEPTED})

Frame = list[Buffer]
"""One request's bytes."""


class Link(Protocol):
    """A transport as the connection sees it. It tells the connection what happens: see there.

    in_flight_max: how many requests it carries at once.
    """

    in_flight_max: int

    def send(self, frames: list[Frame]) -> None: ...

    def abort(self) -> None:
        """Close, and forget what is not sent. `Connection.broken` follows."""
        ...


Lost = Callable[["Connection", PybrokerError], None]
# What is asked, for whom, when it is given up (loop time), and the number that it was asked under before.
_Call = tuple[msgspec.Struct, asyncio.Future[Answer], float, int | None]


class Connection:
    """Made by `dial`. lost: told once when the connection has ended, by whichever side, and why, as `error` says."""

    def __init__(self, lost: Lost, *, heartbeat_s: float, silence_max_s: float) -> None:
        self.wire = VsrClient(Inbox(Pool()), secrets.token_bytes(16))
        self._lost = lost
        self._heartbeat_s = heartbeat_s
        self._silence_max_s = silence_max_s
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Call] = deque()
        self._asked: dict[int, tuple[_Call, int]] = {}  # with sizes in bytes
        self._in_flight = 0  # bytes
        self._is_ready = False
        self._paused = False
        self._is_due = False  # to be written before the next turn of the loop
        self._wrote = False  # since the last beat
        self._heard = False
        self._silent_s = 0.0
        self.error: PybrokerError | None = None
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None  # at the first time that a call is given up
        self._ended = self._loop.create_future()

    def ask(self, command: msgspec.Struct, deadline: float = math.inf) -> asyncio.Future[Answer]:
        """Ask a command; it goes out when there is room for it. Cancelling the future is safe at any time.

        Fails with ConnectionLost, InvalidRequest, ConnectError when nothing was sent, and TimeoutError at the deadline
        (loop time).
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self.error is not None:
            future.set_exception(ConnectError(str(self.error)))
        else:
            self._queue.append((command, future, deadline, None))
            if self._alarm is None or deadline < self._alarm.when():
                self._set_alarm(deadline)
            if not self._asked:
                self._write()
            elif not self._is_due:
                # Calls of one turn of the loop go out together: 16 tasks that ping take 49 us a ping, 62 one by one.
                self._is_due = True
                self._loop.call_soon(self._write)
        return future

    def close(self, error: PybrokerError) -> None:
        """Fail what is unanswered with `error`, and close."""
        if self.error is not None:
            return
        self.error = error
        for timer in (self._timer, self._alarm):
            if timer is not None:
                timer.cancel()
        if self._link is not None:
            self._link.abort()
        for (_, future, _, _), _ in self._asked.values():
            _fail(future, copy(error) if isinstance(error, BrokerError) else ConnectionLost(str(error)))
        for _, future, _, number in self._queue:
            _fail(future, ConnectError(str(error)) if number is None else ConnectionLost(str(error)))
        self._asked.clear()
        self._queue.clear()
        self._lost(self, error)

    async def closed(self) -> None:
        """Wait until the link is closed."""
        if self._link is not None:
            await asyncio.wait((self._ended,))

    # What a link calls.

    def made(self, link: Link) -> None:
        """Take note that there is a link, which has to be closed whatever happens."""
        self._link = link
        if self.error is not None:
            link.abort()

    def begin(self) -> None:
        """Send what waits: the link is ready."""
        if self.error is None:
            self._is_ready = True
            self._timer = self._loop.call_later(self._heartbeat_s, self._beat)
            self._write()

    def space(self, hint: int) -> memoryview:
        """Return where the next bytes go, at least one."""
        return self.wire.space(hint)

    def filled(self, count: int) -> None:
        """Take note of bytes in the last `space`."""
        self._heard = True
        self.wire.filled(count)
        try:
            for answer in self.wire.answers():
                self._settle(answer)
        except Evicted as error:
            self.close(self._evicted(error))
        except WireError as error:
            self.close(ConnectionLost(f"the server's bytes make no sense: {error}"))
        else:
            self._write()

    def take(self, data: bytes) -> None:
        """Take bytes that are somewhere else."""
        rest = memoryview(data)
        while rest and self.error is None:
            space = self.space(len(rest))
            count = min(len(space), len(rest))
            space[:count] = rest[:count]
            rest = rest[count:]
            self.filled(count)

    def broken(self, error: Exception | None) -> None:
        """Take note that the link is closed. error: what broke it; None if the server closed it."""
        self.close(ConnectionLost(f"the connection broke: {error}" if error else "the server closed the connection"))
        if not self._ended.done():
            self._ended.set_result(None)

    def pause(self) -> None:
        """Send nothing for now: the link has enough."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._write()

    # Ours.

    def _write(self) -> None:
        """Write what waits, as far as there is room."""
        self._is_due = False
        if self._link is None or not self._is_ready or self.error is not None:
            return
        while frames := self._next_frames(self._link):
            self._wrote = True
            self._link.send(frames)

    def _next_frames(self, link: Link) -> list[Frame]:
        """Take from the queue what may go out together; nothing when there is no room."""
        frames: list[Frame] = []
        end = self._in_flight + TOGETHER_SIZE_MAX
        while self._queue and not self._paused and self._has_room(link) and self._in_flight < end:
            call = self._queue.popleft()
            if not call[1].done() and (frame := self._frame(call)):
                frames.append(frame)
        return frames

    def _frame(self, call: _Call) -> Frame:
        """Return a request's frame, and expect its answer; nothing when there is no such frame."""
        command, future, _, number = call
        frame: Frame = []
        try:
            number = self.wire.ask(command, frame, number=number)
        except (ValueError, struct.error) as error:
            name = type(command).__name__
            future.set_exception(InvalidRequest(f"{name} has a part too long or out of range: {error}"))
            return []
        size = sum(map(len, frame))
        self._asked[number] = (call, size)
        self._in_flight += size
        return frame

    def _has_room(self, link: Link) -> bool:
        return len(self._asked) < link.in_flight_max and self._in_flight < IN_FLIGHT_SIZE_MAX

    def _evicted(self, error: Evicted) -> PybrokerError:
        """Say what an eviction means: a refusal when it answers the sign-in, else the connection's end."""
        if not self.wire.session:
            return BrokerError(error.status, "the sign-in was refused")
        return ConnectionLost(f"the server has ended the session: {error.status.name.lower()} ({error.status})")

    def _settle(self, answer: Answer) -> None:
        (_, future, _, _), size = self._asked[answer.number]
        if answer.code in _FOR_NOW and not future.done():
            self._loop.call_later(PAUSE_S, self._ask_again, answer)
            return
        del self._asked[answer.number]
        self._in_flight -= size
        if not future.done():
            future.set_result(answer)

    def _ask_again(self, answer: Answer) -> None:
        """Ask once more, under the same number if it may be done yet: the server must not do it twice."""
        if self.error is not None:
            return
        (command, future, deadline, _), size = self._asked.pop(answer.number)
        self._in_flight -= size
        number = answer.number if answer.code == Status.TRANSIENT_NOT_COMMITTED else None
        self._queue.appendleft((command, future, deadline, number))
        self._write()

    def _set_alarm(self, deadline: float) -> None:
        """Wake up at `deadline`: one timer for all calls, because one each costs 4 us."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(deadline, self._give_up) if deadline < math.inf else None

    def _give_up(self) -> None:
        """Fail the calls whose time is over, and wait for the next one's. Their answers may come yet."""
        now = self._loop.time()
        self._alarm = None
        earliest = math.inf
        for _, future, deadline, _ in (*self._queue, *(call for call, _ in self._asked.values())):
            if future.done():
                continue
            if deadline <= now:
                future.set_exception(TimeoutError())
            else:
                earliest = min(earliest, deadline)
        self._set_alarm(earliest)

    def _beat(self) -> None:
        """Give up on a server that is silent too long, and ask one that has nothing to say whether it is there."""
        self._silent_s = 0.0 if self._heard or not self._asked else self._silent_s + self._heartbeat_s
        if self._silent_s >= self._silence_max_s:
            self.close(ConnectionLost(f"no answer for {self._silent_s:g} s"))
            return
        if not self._wrote and not self._asked:
            self.ask(Ping()).add_done_callback(_forget)
        self._wrote = self._heard = False
        self._timer = self._loop.call_later(self._heartbeat_s, self._beat)


def _fail(future: asyncio.Future[Answer], error: PybrokerError) -> None:
    if not future.done():
        future.set_exception(error)


def _forget(future: asyncio.Future[Answer]) -> None:
    """Take note of how a ping ended, as asyncio complains when nobody does."""
    if not future.cancelled():
        future.exception()
