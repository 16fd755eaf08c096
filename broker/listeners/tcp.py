"""TCP: a port, and the channel of each connection that it takes."""

import asyncio
import socket
from collections.abc import Callable
from typing import TypeAlias, cast

from ...protocol.batch import Buffer
from ...protocol.primitives import Transport
from ..connection import Connection, Frame
from .peers import AUTO, Peers

BACKLOG = 1024
# A dead peer is noticed after a minute: 30 s of silence, then three probes.
KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))

Connect: TypeAlias = Callable[["TcpChannel", str], Connection]
"""Begins to serve the peer at an address, whose channel is given."""
# Iggy's client writes a request's header and its body by themselves. Nagle's algorithm may hold the end of the second
# back until the first is acknowledged, and the system waits 40 ms with that: the option sends it at once, until the
# next answer is written. Wheel 0.9.0 on loopback: 100 messages of 100 bytes took 44 ms without it, and over TLS each
# request with a body.
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class TcpChannel(asyncio.BufferedProtocol):
    """One TCP connection. Bytes are received where the wire wants them."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._transport: asyncio.Transport | None = None
        self._drained: asyncio.Future[None] | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._gathers = type(transport).__module__.startswith("uvloop")
        self._socket: socket.socket = transport.get_extra_info("socket")
        _keep_alive(self._socket)
        host, port, *_ = transport.get_extra_info("peername") or ("?", 0)
        self.connection = self._connect(self, f"{host}:{port}")
        self._received = self.connection.received
        self._space = self.connection.wire.space

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._space(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._received(nbytes)

    def eof_received(self) -> bool:
        self.connection.ended()
        return True  # the connection closes once everything is answered

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.resume_writing()
        self.connection.lost()

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def set_unsent_size_max(self, size: int) -> None:
        self._open().set_write_buffer_limits(high=size)

    @property
    def unsent(self) -> int:
        return self._open().get_write_buffer_size()

    def write(self, buffers: list[Buffer]) -> None:
        if self._lost:
            return
        if len(buffers) == 1:
            self._open().write(buffers[0])
        elif self._gathers:
            self._open().writelines(buffers)
        else:
            # asyncio's own writelines never pauses its writer (CVE-2024-12254: 3.12 to 3.12.8, 3.13 to 3.13.1): one
            # peer that does not read would take all memory.
            self._open().write(b"".join(buffers))

    @property
    def is_writable(self) -> bool:
        return self._drained is None and not self._lost

    async def drained(self) -> None:
        if self._drained is not None:
            await self._drained
        if self._lost:
            raise ConnectionResetError("the peer is gone")

    def pause(self) -> None:
        self._open().pause_reading()

    def resume(self) -> None:
        if not self._lost:
            self._open().resume_reading()

    def expect_more(self) -> None:
        if QUICK_ACK is not None and not self._lost:
            self._socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)

    def close(self) -> None:
        self._open().close()

    def abort(self) -> None:
        self._open().abort()

    def _open(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport


def _keep_alive(peer: socket.socket) -> None:
    """Let the system ask a silent peer whether it is there: one whose machine died must not keep its partitions."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE:
        if (option := getattr(socket, name, None)) is not None:  # not every system has them all
            peer.setsockopt(socket.IPPROTO_TCP, option, value)


class TcpListener:
    """The port. wire: the name of the generation to take, or AUTO for whichever a peer speaks. channel: makes one."""

    transport = Transport.TCP
    frame: Frame | None = None

    def __init__(self, peers: Peers, wire: str = AUTO, channel: Callable[[Connect], TcpChannel] = TcpChannel) -> None:
        self._peers = peers
        self._wire = wire
        self._channel = channel
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> str:
        """Listen; return the bound "host:port". Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self._channel(self._connect), host, port, backlog=BACKLOG)
        return bound_address(self._server)

    def close(self) -> None:
        """Take no more connections. Those there are stay."""
        if self._server is not None:
            self._server.close()

    def _connect(self, channel: TcpChannel, address: str) -> Connection:
        channel.set_unsent_size_max(self._peers.limits.unread_size_max)
        return self._peers.connect(channel, self.transport, address, self._wire, frame=self.frame)


def bound_address(server: asyncio.Server) -> str:
    """Return where a server listens, as "host:port"."""
    host, port, *_ = server.sockets[0].getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
