"""Server-sent events: messages of a topic pushed to who asked for them, for as long as both sides last.

A stream has one batch in hand and reads the next when its peer has taken that. What ends it (a refusal, a token that
expired, a topic that is gone) is its last event; when the broker stops there is none, for its client shall come back.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ....protocol.errors import Refused, Status
from ...config.schema import Heartbeat
from ...connection import WRITE_SIZE
from ...dispatch import Dispatch
from ...session import Session
from ...state import State
from . import shapes
from .errors import body_of
from .followers import Batch, follower_of
from .own import Follow

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
RETRY_MS = 2000
_COMMENT = b":\n\n"
# Proxies shall neither keep events nor hold them back.
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

# Raises Refused once a stream's credential is good no more.
Check = Callable[[], None]


class EventStreams:
    """The streams that are open."""

    def __init__(self, state: State, dispatch: Dispatch) -> None:
        self._state = state
        self._dispatch = dispatch
        self._open: set[EventStream] = set()
        self._is_stopping = False

    async def open(self, session: Session, asked: Follow, check: Check) -> Response:
        """Return an answer that goes on; the session lives as long. Raises Refused, and Malformed for a wrong id."""
        stream = EventStream(self._state, self._dispatch, session, asked, check)
        self._open.add(stream)
        stream.closed = self._open.remove
        try:
            await stream.open()
        except BaseException:
            stream.close()
            raise
        if self._is_stopping:
            stream.stop()
        return stream

    def stop(self) -> None:
        """End all of them, and those to come."""
        self._is_stopping = True
        for stream in self._open:
            stream.stop()


class EventStream(Response):
    """One stream: `open` it once, then it is an answer. closed: called with it at its end."""

    closed: Callable[["EventStream"], None]

    def __init__(self, state: State, dispatch: Dispatch, session: Session, asked: Follow, check: Check) -> None:
        """Raises Refused for a topic that is not there."""
        super().__init__(None, 200, _HEADERS, "text/event-stream")
        del self.headers["content-length"]
        self._follower = follower_of(state, dispatch, session, asked)
        self._waiter = self._follower.waiter
        self._dispatch = dispatch
        self._session = session
        self._check = check
        self._patience_s = _patience_s(state.config.heartbeat)
        self._begin = ""
        self._is_ending = self._is_gone = False

    async def open(self) -> None:
        """Find where to begin. Raises Refused and Malformed."""
        ident = await self._follower.open()
        # An id without data is no event, but who is cut off before the first goes on from there.
        self._begin = f"retry: {RETRY_MS}\n" + (f"id: {ident}\n\n" if ident else "\n")
        self._session.close = self._waiter.wake  # it is signed out by then: the next poll is refused

    def close(self) -> None:
        self._follower.close()
        self.closed(self)

    def stop(self) -> None:
        """End it as soon as the batch in hand is sent."""
        self._is_ending = True
        self._waiter.wake()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(self._watch(receive), name="eventstream")
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                await self._serve(send)
            await send({"type": "http.response.body"})
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])
            self.close()

    async def _watch(self, receive: Receive) -> None:
        """Wait until the peer is gone; what it still sends means nothing."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self.stop()

    async def _serve(self, send: Send) -> None:
        with suppress(ClientDisconnect):
            if error := await self._push(send):
                log.debug("ended the event stream of %s: %s", self._session.address, error)
                await self._write(send, b"event: error\ndata: %b\n\n" % msgspec.json.encode(body_of(error)))

    async def _push(self, send: Send) -> Refused | None:
        """Send events until something ends that; return what, None when the broker stops. Raises ClientDisconnect."""
        try:
            await self._follow(send)
        except Refused as error:
            return error
        except ClientDisconnect:
            raise
        except Exception:
            log.exception("the event stream of %s failed; this is a bug in pybroker", self._session.address)
            return Refused(Status.ERROR)
        return None

    async def _follow(self, send: Send) -> None:
        await self._write(send, self._begin.encode())
        while not self._is_ending:
            self._check()
            if batch := await self._follower.take():
                await self._deliver(send, batch)
            elif not await self._waiter.wait(self._patience_s):
                await self._write(send, _COMMENT)
                self._waiter.wake()

    async def _deliver(self, send: Send, batch: Batch) -> None:
        """Send a batch, and take note of it once nearly all of it has left: an empty write waits for that."""
        self._dispatch.sending(batch.size)
        try:
            for part in chain(_parts(batch), (b"",)):
                await self._write(send, part)
            await self._follower.delivered(batch)
        finally:
            self._dispatch.sending(-batch.size)

    async def _write(self, send: Send, part: bytes) -> None:
        """Send a part when the peer has room for it. Raises ClientDisconnect."""
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0)  # others get their turn, and the watcher its word
        if self._is_gone:
            raise ClientDisconnect
        self._session.is_heard = True  # a peer that reads is there


def _patience_s(heartbeat: Heartbeat) -> float:
    """Return how long a stream may be silent: a member of a group has to be heard, and its peer says nothing."""
    return min(KEEP_ALIVE_S, heartbeat.interval_us / 1e6) if heartbeat.enabled else KEEP_ALIVE_S


def _parts(batch: Batch) -> Iterator[bytes]:
    """Yield a batch as events, some of them at a time."""
    part = bytearray()
    for message in batch.messages:
        event = shapes.Event(batch.partition_id, message.header, message.payload, message.user_headers)
        ident = batch.mark.format(message.header.offset + 1)
        part += b"id: %b\ndata: %b\n\n" % (ident.encode(), msgspec.json.encode(event))
        if len(part) >= WRITE_SIZE:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)
