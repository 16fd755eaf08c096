"""What a load asks of a peer's Python client."""

import asyncio
import importlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

M = TypeVar("M")


def untyped(name: str) -> Any:
    """Return a client's package, unchecked: where the code is checked, the extra `peers` need not be installed."""
    return importlib.import_module(name)


class Driver(ABC):
    """One connection of a peer's client. address: what the peer's server has told, or the user."""

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def versions(self) -> str:
        """Return which server and which client these are."""

    @abstractmethod
    async def create(self, topic: str) -> None:
        """Make a topic, or what the peer has for it; it is empty, and has one partition."""

    @abstractmethod
    async def delete(self, topic: str) -> None: ...

    @abstractmethod
    async def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        """Send messages, together if there are many; return once every one is confirmed."""

    @abstractmethod
    async def subscribe(self, topic: str, *, count: int) -> None:
        """Read a topic from its first message on, `count` messages at once, as a consumer whose progress is kept."""

    @abstractmethod
    async def receive(self, count: int) -> Sequence[bytes]:
        """Return 1 to `count` messages, and have the server keep that they are done with."""

    async def unsubscribe(self) -> None:  # noqa: B027
        """Stop what goes on without being asked."""


class Pushed(Generic[M]):
    """Messages that the server sends without being asked for each."""

    def __init__(self) -> None:
        self._messages: deque[M] = deque()
        self._wanted = 1
        self._enough = asyncio.Event()

    async def put(self, message: M) -> None:
        self._messages.append(message)
        if len(self._messages) >= self._wanted:
            self._enough.set()

    async def take(self, count: int) -> list[M]:
        """Wait for `count` messages."""
        self._wanted = count
        if len(self._messages) < count:
            self._enough.clear()
            await self._enough.wait()
        return [self._messages.popleft() for _ in range(count)]
