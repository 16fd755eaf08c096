"""One peer: complete requests in, their answers out, in order, by one task.

A channel is a transport as the connection sees it. It tells the connection what arrived (`received`, `ended`,
`lost`) and does what it is asked (`Channel`). The task takes every request that is complete, answers all of them
and writes once; it waits only for more bytes, for the disk, or for a peer that is slow to read.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..protocol.batch import Buffer
from ..protocol.errors import Refused, Status, WireError
from ..protocol.wire import Request, Wire
from .dispatch import Dispatch
from .session import Session

log = logging.getLogger(__name__)

# Answers are written when there are this many bytes of them: large polls must not pile up in memory.
WRITE_SIZE = 256 * 1024


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
    ) -> None:
        self.wire = wire
        self.session = session
        session.close = self.stop
        self._channel = channel
        self._dispatch = dispatch
        self._limits = limits
        self._frame = frame
        self._waiter: asyncio.Future[None] | None = None
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
        # Woken and not running yet counts as busy: the loop may deliver more before the task's turn comes.
        busy = self._waiter is None or self._waiter.done()
        self._wake()
        if busy and not self._paused and self.wire.unread > self._limits.unread_size_max:
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

    async def _serve(self) -> None:
        answers: list[Buffer] = []
        while True:
            size = answered = 0
            try:
                for request in self.wire.requests(self._limits.requests_per_turn_max):
                    answer = await self._answer(request)
                    if self._frame is not None and answer:
                        answer = self._frame(answer)
                    answers += answer
                    answered += 1
                    size += sum(map(len, answer))
                    del answer  # or a poll of 63 MiB lives as long as its client rests
                    if size > WRITE_SIZE:
                        await self._write(answers, size)
                        answers, size = [], 0
            except WireError:
                await self._write(answers, size)
                raise
            if answers:
                if self.wire.pause_s and not self.wire.unread:
                    await self._pause(self.wire.pause_s)
                await self._write(answers, size)
                answers = []
            if answered:  # a turn has a limit: there may be more
                continue
            if self._ending:
                return
            await self._arrival()

    async def _answer(self, request: Request) -> list[Buffer]:
        if request.answer is not None:
            return request.answer
        if request.command is None:
            assert request.refusal is not None
            return self.wire.refuse(request, request.refusal)
        try:
            reply = await self._dispatch(self.session, request.command)
        except Refused as error:
            log.debug("refused %s from %s: %s", type(request.command).__name__, self.session.address, error)
            if error.status is Status.STALE_CLIENT:
                self.stop()
            return self.wire.refuse(request, error.status)
        limits = self._limits
        signed_in = self.session.signed_in
        self.wire.frame_size_max = limits.frame_size_max if signed_in else limits.frame_size_max_before_login
        return self.wire.reply(request, reply)

    async def _write(self, answers: list[Buffer], size: int) -> None:
        self._dispatch.sending(size)
        try:
            self._channel.write(answers)
            self._draining = True
            await self._channel.drained()
            self._draining = False
        finally:
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
            if self.wire.unread:
                self._channel.expect_more()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        self._arrived = False

    def _wake(self) -> None:
        self._arrived = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _abort(self, why: str) -> None:
        log.warning("closed %s: %s", self.session.address, why)
        self._channel.abort()
