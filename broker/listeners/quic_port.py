"""QUIC's port until somebody knocks.

Few clients come by QUIC, and what serves them is a third of a start: 0.1 s and 13 MB. So it is imported for the first
datagram, in a thread, while others are served. Datagrams wait in the socket for as long.
"""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from ..config.schema import Quic
from ..tls import Certificate
from .peers import Peers

if TYPE_CHECKING:
    from .quic import QuicListener

log = logging.getLogger(__name__)


class QuicPort:
    """The port. A certificate that has to be made is made for the first datagram too."""

    def __init__(self, peers: Peers, settings: Quic, certificate: Certificate) -> None:
        self._peers = peers
        self._settings = settings
        self._certificate = certificate
        self._socket: socket.socket | None = None
        self._loading: asyncio.Task[None] | None = None
        self._listener: QuicListener | None = None

    async def open(self, host: str, port: int) -> str:
        """Listen; return the bound "host:port". Raises OSError."""
        self._socket = bind(host, port)
        asyncio.get_running_loop().add_reader(self._socket, self._knocked, self._socket)
        host, port, *_ = self._socket.getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def close(self) -> None:
        """Take no more connections. Those there are stay; the last one to go closes the port."""
        if self._listener is not None:
            self._listener.close()
        elif self._socket is not None and self._loading is None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def finish(self) -> None:
        """Close also what a first datagram has only begun to load."""
        if self._loading is not None:
            await self._loading
            self.close()

    def _knocked(self, port: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(port)
        self._loading = loop.create_task(self._serve(port), name="quic")

    async def _serve(self, port: socket.socket) -> None:
        try:
            listener = await asyncio.to_thread(self._load)
            await listener.serve(port)
        except Exception:
            log.exception("QUIC can't be served; this is a bug in pybroker, or a part of it is missing")
            port.close()
        else:
            self._listener = listener

    def _load(self) -> "QuicListener":
        from .quic import QuicListener

        return QuicListener(self._peers, self._settings, self._certificate)


def bind(host: str, port: int) -> socket.socket:
    """Return a UDP socket that does not block, on the first address of `host`. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setblocking(False)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
