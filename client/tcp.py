"""TCP, plain or under TLS."""

import asyncio
from typing import cast

from ..protocol.batch import Buffer
from .connection import Connection, Frame

# What Iggy's server has no room for it drops without a word: 1024 requests of all connections that share a shard.
# More than this is not faster, neither there nor at pybroker.
IN_FLIGHT_MAX = 128
UNSENT_SIZE_MAX = 4 * 1024 * 1024  # bytes in asyncio's buffer, before it says that it has enough
# A buffer of this many bytes is written by itself: joining it to others would copy it.
_LARGE = 64 * 1024


class SocketLink(asyncio.BaseProtocol):
    """The half of a link that all sockets have alike."""

    in_flight_max = IN_FLIGHT_MAX
    _transport: asyncio.Transport

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNSENT_SIZE_MAX)

    def pause_writing(self) -> None:
        self._connection.pause()

    def resume_writing(self) -> None:
        self._connection.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.broken(exc)

    def abort(self) -> None:
        self._transport.abort()


class TcpLink(SocketLink, asyncio.BufferedProtocol):
    """A socket. What arrives is received where it will be read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connection.made(self)
        self._connection.begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._connection.space(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.filled(nbytes)

    def send(self, frames: list[Frame]) -> None:
        small: list[Buffer] = []
        for frame in frames:
            for buffer in frame:
                if len(buffer) < _LARGE:
                    small.append(buffer)
                    continue
                self._transport.write(b"".join(small))
                self._transport.write(buffer)
                small.clear()
        if small:
            self._transport.write(b"".join(small))
