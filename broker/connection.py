"""One peer: complete requests in, their answers out, in order.

A channel is a transport as the connection sees it. It tells the connection what arrived (`received`, `ended`,
`lost`) and does what it is asked (`Channel`). Every request that is complete is taken, all of them are answered and
their answers written at once. What needs no wait is answered where it arrives, while the connection's task rests;
the task does what waits: for the disk, for a peer that is slow to read, for more bytes.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..protocol.batch import Buffer
from ..protocol.errors import Refused, Status, WireError
from ..protocol.wire import Request, Wire
from .busypoll import BusyPoll
from .dispatch import Dispatch, Serving
from .session import Session

log = logging.getLogger(__name__)

# Answers are written when there are this many bytes of them: large polls must not pile up in memory.
WRITE_SIZE = 256 * 1024
# So many bytes of answers are joined before they are written: a copy is cheaper than to keep account of each buffer.
JOINED_SIZE_MAX = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """What one connection may hold and how long it may stall. Sizes are bytes; see `[pybroker]` in server.toml."""

    frame_size_max: int
    frame_size_max_before_login: int
    unread_size_max: int
    requests_per_turn_max: int
    login_timeout_s: float
    write_timeout_s: float


# Puts the buffers of one answer into the frame that its transport has for messages.
Frame = Callable[[list[Buffer]], list[Buffer]]


class Channel(Protocol):
    """The sending half of a transport."""

    @property
    def unsent(self) -> int:
        """How many bytes of answers the peer has not taken yet."""
        ...

    def write(self, buffers: list[Buffer]) -> None: ...

    @property
    def is_writable(self) -> bool:
        """Whether `drained` would return at once."""
        ...

    async def drained(self) -> None:
        """Return at once, or when a peer that is slow to read has caught up. Raises ConnectionError when it is gone."""
        ...

    def pause(self) -> None:
        """Receive nothing for now."""
        ...

    def resume(self) -> None: ...

    def expect_more(self) -> None:
        """Tell the peer's system now what has arrived: it may hold the rest of a request back until then."""
        ...

    def close(self) -> None:
        """Send what is written, then close."""
        ...

    def abort(self) -> None:
        """Close and forget what is not sent."""
        ...


class Connection:
    """A peer's session, wire and channel, and the task that serves it (`run`).

    wire: may be a detector; whoever made that puts the chosen wire in its place. Both read from one inbox.
    frame: for a transport that has messages; its channel takes whole frames.
    """

    def __init__(
        self,
        *,
        wire: Wire,
        session: Session,
        channel: Channel,
        dispatch: Dispatch,
        limits: Limits,
        frame: Frame | None = None,
        busy_poll: BusyPoll | None = None,
    ) -> None:
        self.wire = wire
        self.session = session
        session.close = self.stop
        self._channel = channel
        self._dispatch = dispatch
        self._begin = dispatch.begin
        self._limits = limits
        self._turn_count_max = limits.requests_per_turn_max
        self._frame = frame
        self._busy_poll = busy_poll
        self._turn: Iterator[Request] | None = None  # the requests that are being answered
        self._turn_count = 0  # of them, so far
        self._begun: tuple[Request, Serving] | None = None  # what the task has to await next
        self._error: Exception | None = None
        self._answers: list[Buffer] = []  # not written yet
        self._size = 0  # of those, in bytes
        self._waiter: asyncio.Future[None] | None = None  # of the task, while it rests or was woken just now
        self._is_resting = False  # neither the task nor anybody else is at it
        self._arrived = False
        self._paused = False
        self._ending = False  # no more bytes will come, or are wanted
        self._received = 0
        self._seen = 0
        self._silent_s = 0.0
        self._stuck_s = 0.0
        self._unsent = 0
        self._draining = False

    def received(self, count: int) -> None:
        """Take note of bytes that went into the wire's space."""
        self.wire.filled(count)
        self._received += count
        if self._is_resting:
            self._answer_at_once()
            return
        self._arrived = True
        if not self._paused and self.wire.unread > self._limits.unread_size_max:
            self._paused = True
            self._channel.pause()

    def ended(self) -> None:
        """Take note that the peer sends no more. What is complete still gets its answer."""
        self._ending = True
        self._wake()

    lost = ended

    def stop(self) -> None:
        """Finish the requests that have arrived, then close."""
        self.ended()

    async def run(self) -> None:
        """Serve until the peer is gone, breaks its protocol or is told to go."""
        try:
            await self._serve()
        except WireError as error:
            log.warning("closed %s: %s", self.session.address, error)
        except ConnectionError as error:
            log.debug("lost %s: %s", self.session.address, error)
        except Exception:
            log.exception("closed %s; this is a bug in pybroker", self.session.address)
        finally:
            if self._begun is not None:
                self._begun[1].close()
            self._channel.close()
            self.wire.close()
            self._dispatch.disconnected(self.session)

    def check(self, elapsed_s: float) -> None:
        """Abort a peer that stalls: with half a frame, without signing in, or without reading its answers."""
        self._silent_s = 0 if self._received != self._seen else self._silent_s + elapsed_s
        self._seen = self._received
        unsent = self._channel.unsent
        self._stuck_s = self._stuck_s + elapsed_s if self._draining and unsent >= self._unsent else 0
        self._unsent = unsent
        waits_for_more = self._waiter is not None and (self.wire.unread or not self.session.signed_in)
        if waits_for_more and self._silent_s > self._limits.login_timeout_s:
            what = f"an unfinished frame of {self.wire.unread} bytes" if self.wire.unread else "no login"
            self._abort(f"{what} for {self._limits.login_timeout_s:g} s")
        elif self._stuck_s > self._limits.write_timeout_s:
            self._abort(f"reads no answers for {self._limits.write_timeout_s:g} s")

    def _answer_at_once(self) -> None:
        """Answer what has arrived, as far as that needs no wait; wake the task for the rest.

        It saves a turn of the loop and one of the task: 5 of 30 us for a message sent by itself.
        """
        self._is_resting = False  # a channel may deliver more while it is written to
        try:
            self._begun = self._advance()
        except Exception as error:
            self._error = error  # for the task, which ends of it
            self._wake_task()
            return
        is_over = self._is_turn_over
        if self._size > WRITE_SIZE or (is_over and not self.wire.pause_s):
            self._send()
            if self._channel.is_writable:
                self._size = 0
        if self._size or self._arrived or not is_over:
            self._wake_task()
        else:
            self._rest()

    async def _serve(self) -> None:
        while True:
            if self._size > WRITE_SIZE or not self._answers:  # what was answered at once may be too much for the peer
                await self._write()
            try:
                begun, self._begun = self._begun or self._advance(), None
            except WireError:
                await self._write()
                raise
            if begun is not None:
                await self._finish(*begun)
                continue
            if self._answers and self.wire.pause_s and not self.wire.unread:
                await self._pause(self.wire.pause_s)
            await self._write()
            if not self._is_turn_over:
                continue
            if self._ending and not self._arrived:
                return
            await self._arrival()

    @property
    def _is_turn_over(self) -> bool:
        """Whether all that has arrived was taken: a turn has a limit."""
        return self._turn is None and self._turn_count < self._turn_count_max

    def _advance(self) -> tuple[Request, Serving] | None:
        """Answer requests up to one that has to wait, which is returned, or until there is much to write.

        The turn is over when there is none. Raises WireError where the peer can't be followed.
        """
        if self._error is not None:
            raise self._error
        if self._turn is None:
            self._turn = self.wire.requests(self._turn_count_max)
            self._turn_count = 0
        begin, reply, session, frame, answers = self._begin, self.wire.reply, self.session, self._frame, self._answers
        size, count = self._size, self._turn_count
        try:
            for request in self._turn:
                count += 1
                command = request.command
                if command is None:
                    answer = self._unasked(request)
                else:
                    try:
                        begun = begin(session, command)
                    except Refused as error:
                        answer = self._refusal(request, error)
                    else:
                        if type(begun) is Serving:
                            return request, begun
                        answer = reply(request, begun)
                # What `_take` does, without a call for each request of many.
                if frame is not None and answer:
                    answer = frame(answer)
                answers += answer
                for buffer in answer:
                    size += len(buffer)
                if size > WRITE_SIZE:
                    return None
        finally:
            self._size, self._turn_count = size, count
        self._turn = None
        return None

    async def _finish(self, request: Request, serving: Serving) -> None:
        try:
            reply = await serving
        except Refused as error:
            self._take(self._refusal(request, error))
            return
        limits = self._limits
        signed_in = self.session.signed_in
        self.wire.frame_size_max = limits.frame_size_max if signed_in else limits.frame_size_max_before_login
        self._take(self.wire.reply(request, reply))

    def _unasked(self, request: Request) -> list[Buffer]:
        """Return the answer of a request that is no command."""
        if request.answer is not None:
            return request.answer
        assert request.refusal is not None
        return self.wire.refuse(request, request.refusal)

    def _refusal(self, request: Request, error: Refused) -> list[Buffer]:
        log.debug("refused %s from %s: %s", type(request.command).__name__, self.session.address, error)
        if error.status is Status.STALE_CLIENT:
            self.stop()
        return self.wire.refuse(request, error.status)

    def _take(self, answer: list[Buffer]) -> None:
        """Take an answer that is to be written."""
        if self._frame is not None and answer:
            answer = self._frame(answer)
        self._answers += answer
        for buffer in answer:
            self._size += len(buffer)

    def _send(self) -> None:
        if self._answers:
            answers, self._answers = self._answers, []
            is_small = len(answers) > 1 and self._size <= JOINED_SIZE_MAX
            self._channel.write([b"".join(answers)] if is_small else answers)

    async def _write(self) -> None:
        """Write what is answered, and wait for a peer that is slow to read."""
        self._send()
        size, self._size = self._size, 0
        if not size or self._channel.is_writable:
            return
        self._dispatch.sending(size)
        self._draining = True
        try:
            await self._channel.drained()
        finally:
            self._draining = False
            self._dispatch.sending(-size)
        self._stuck_s = 0.0
        self._unsent = 0

    async def _pause(self, seconds: float) -> None:
        """Wait before an answer that is no news, for as long as nothing else happens."""
        timer = asyncio.get_running_loop().call_later(seconds, self._wake)
        try:
            await self._arrival()
        finally:
            timer.cancel()

    async def _arrival(self) -> None:
        """Wait for bytes, unless some came while requests were being answered."""
        if self._paused:
            self._paused = False
            self._channel.resume()
        if not self._arrived:
            self._waiter = asyncio.get_running_loop().create_future()
            self._rest()
            try:
                await self._waiter
            finally:
                self._is_resting = False
            self._waiter = None
        self._arrived = False

    def _rest(self) -> None:
        """Leave everything as it should be while nothing happens."""
        self._is_resting = True
        if self.wire.reuse():
            self._channel.expect_more()
        if self._busy_poll is not None:
            self._busy_poll.answered()

    def _wake(self) -> None:
        self._arrived = True
        if self._is_resting:
            self._wake_task()

    def _wake_task(self) -> None:
        """Wake the task. Until its turn comes, the loop may deliver more."""
        self._is_resting = False
        self._arrived = True
        if self._waiter is not None and not self._waiter.done():  # the task may have been cancelled
            self._waiter.set_result(None)

    def _abort(self, why: str) -> None:
        log.warning("closed %s: %s", self.session.address, why)
        self._channel.abort()
