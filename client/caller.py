"""What a client's commands and its agents build on: one call, and what happens at a new sign-in."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from ..protocol.primitives import Option, Options, ValueKind
from .errors import PybrokerError

R = TypeVar("R", bound=msgspec.Struct)

OptionValue = str | int | bool


class Caller(ABC):
    """Asks commands, over connections that come and go.

    on_connect: awaited in order after each sign-in, before any other call goes on; their calls go through. A
    ConnectionLost out of one has the connection dialled again, any other error ends it and reaches those who wait.
    connection_id: how many sign-ins there have been.
    """

    def __init__(self) -> None:
        self.on_connect: list[Callable[[], Awaitable[None]]] = []
        self.connection_id: int = 0

    @abstractmethod
    async def call(self, command: msgspec.Struct) -> msgspec.Struct | None:
        """Ask any command of `protocol.commands`; return its reply, None for an empty one.

        Raises BrokerError for what the server refuses, ConnectionLost when nobody can say whether it was done, Timeout,
        ConnectError and InvalidRequest when nothing was sent. A command that only reads is asked again when the
        connection is lost.
        """

    async def _get(self, command: msgspec.Struct, kind: type[R]) -> R:
        """Return a reply that is always there."""
        reply = await self._find(command, kind)
        if reply is None:
            raise PybrokerError(f"{type(command).__name__} was answered with nothing, expected {kind.__name__}")
        return reply

    async def _find(self, command: msgspec.Struct, kind: type[R]) -> R | None:
        """Return a reply, None where there is no such thing."""
        reply = await self.call(command)
        assert reply is None or isinstance(reply, kind)
        return reply


def text_options(options: Mapping[str, OptionValue]) -> Options:
    """Return options as text, which servers read whatever type an option has."""
    return tuple(Option(key, ValueKind.STRING, _text(value).encode()) for key, value in options.items())


def _text(value: OptionValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
