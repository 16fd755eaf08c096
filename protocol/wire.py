"""The seam between bytes and commands: what any wire has to be. No wire waits, and none knows a socket."""

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from .batch import Buffer
from .errors import Status
from .inbox import Inbox


class Request(msgspec.Struct, gc=False):
    """One request of a peer. Its command may view received bytes: it lives until `Wire.requests` is called again.

    command: what is asked, or None when `refusal` or `answer` says how to reply already.
    tag: the wire's own, for the reply.
    refusal: the status a request that could not be decoded gets; the connection lives.
    answer: the reply's bytes, when the wire knows them: the request is a duplicate.
    """

    command: msgspec.Struct | None
    tag: Any
    refusal: Status | None = None
    answer: list[Buffer] | None = None


class Wire(Protocol):
    """One peer's requests in, its replies out. Replies are given in the order of the requests, one each."""

    pause_s: float  # how long the last answer may wait when nothing else does: 0 but for a peer that asks in vain

    @property
    def frame_size_max(self) -> int:
        """How many bytes a frame may have: a longer one is a WireError. Few until the peer has signed in."""
        ...

    @frame_size_max.setter
    def frame_size_max(self, size: int) -> None: ...

    @property
    def unread(self) -> int:
        """How many bytes have arrived that no request has been made of."""
        ...

    def space(self, hint: int, /) -> memoryview:
        """Return where the next bytes from the peer go, at least one."""
        ...

    def filled(self, count: int) -> None:
        """Say that `count` bytes have arrived in the last `space`."""
        ...

    def requests(self, count_max: int) -> Iterator[Request]:
        """Yield complete requests in order, each to be answered before the next is taken.

        Raises WireError when the peer can't be followed any more.
        """
        ...

    def reply(self, request: Request, reply: msgspec.Struct | None) -> list[Buffer]:
        """Return the bytes that answer `request`; None is the empty answer."""
        ...

    def refuse(self, request: Request, status: Status) -> list[Buffer]:
        """Return the bytes that say `request` failed."""
        ...

    def reuse(self) -> int:
        """Say that no request is in use: what they were received in is free for others. Return `unread`."""
        ...

    def close(self) -> None:
        """Give up what was received. No request may be in use."""
        ...


class Receiver:
    """The half of a wire that every one has alike: its peer's bytes, which go to an inbox. See Wire."""

    def __init__(self, inbox: Inbox, frame_size_max: int) -> None:
        self.pause_s = 0.0
        self.space = inbox.space
        self.filled = inbox.filled
        self.reuse = inbox.reuse
        self.close = inbox.close
        self._inbox = inbox
        inbox.frame_size_max = frame_size_max

    @property
    def frame_size_max(self) -> int:
        return self._inbox.frame_size_max

    @frame_size_max.setter
    def frame_size_max(self, size: int) -> None:
        self._inbox.frame_size_max = size

    @property
    def unread(self) -> int:
        return self._inbox.unread
