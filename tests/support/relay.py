"""A TCP relay between a client and a broker, for what networks do: connections that break, answers that never come."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

SEND = 160
STORE_OFFSET = 161
_OPERATION = 208  # where the header of an answer has it


class Relay:
    """Passes bytes on, both ways.

    is_mute: keeps to itself what the broker answers, until `speak` or `cut`. is_away: takes no new connections.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._ends: list[tuple[_End, _End]] = []
        self.address = ""
        self.is_mute = False
        self.is_away = False
        self.requested_bytes = 0
        self._losing: tuple[int, int] = (0, 0)  # an operation, and how many answers to it
        self.connections_count = 0

    def cut(self) -> None:
        """Break every connection; what was not passed on by now never is."""
        for pair in self._ends:
            for end in pair:
                end.abort()
        self._ends.clear()

    def lose_answers(self, operation: int, count: int = 1) -> None:
        """Break the connection in place of passing on an answer to an operation, so often."""
        self._losing = (operation, count)

    def loses(self, answer: bytes) -> bool:
        operation, count = self._losing
        if not count or len(answer) <= _OPERATION or answer[_OPERATION] != operation:
            return False
        self._losing = (operation, count - 1)
        return True

    def mute(self) -> None:
        self.is_mute = True

    def speak(self) -> None:
        """Pass on what was kept, and what comes."""
        self.is_mute = False
        for near, _ in self._ends:
            near.write(b"")

    async def open(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        return server

    async def join(self, near: "_End") -> None:
        far = _Far(self, near)
        try:
            if self.is_away:
                raise OSError
            await asyncio.get_running_loop().create_connection(lambda: far, *self._target)
        except OSError:
            near.abort()
            return
        near.other = far
        far.write(bytes(near.held))
        near.held.clear()
        self.connections_count += 1
        self._ends.append((near, far))


class _End(asyncio.Protocol):
    """One connection. other: where what it receives goes. held: what could not be passed on to it yet."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.other: _End | None = None
        self.held = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.abort()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Near(_End):
    """The client's side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._joining = asyncio.get_running_loop().create_task(self.relay.join(self))

    def data_received(self, data: bytes) -> None:
        self.relay.requested_bytes += len(data)
        if self.other is None:
            self.held += data
        else:
            self.other.write(data)

    def write(self, data: bytes) -> None:
        self.held += data
        if not self.relay.is_mute:
            super().write(bytes(self.held))
            self.held.clear()


class _Far(_End):
    """The broker's side."""

    def __init__(self, relay: Relay, near: _End) -> None:
        super().__init__(relay)
        self.other = near

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        if self.relay.loses(data):
            self.abort()
        else:
            self.other.write(data)


@asynccontextmanager
async def relay_to(address: str) -> AsyncGenerator[Relay]:
    """Run a relay to a broker that listens at "host:port"."""
    relay = Relay(address)
    server = await relay.open()
    try:
        yield relay
    finally:
        server.close()
        relay.cut()
