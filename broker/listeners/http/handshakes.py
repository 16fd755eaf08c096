"""TLS handshakes of HTTP's connections. The loops' own servers close who fails one without a word; here it is logged.

A task for each that is under way: it ends with the handshake, or after a time.
"""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import cast

from ..peers import Room

log = logging.getLogger(__name__)

_NO_TLS = {"HTTP_REQUEST", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}


class Handshakes:
    """Those that are under way. connect: returns what goes on with one that is done, counted in `room` already."""

    def __init__(
        self, context: ssl.SSLContext, room: Room, connect: Callable[[], asyncio.Protocol], timeout_s: float
    ) -> None:
        self._context = context
        self._room = room
        self._connect = connect
        self._timeout_s = timeout_s
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> asyncio.Protocol:
        """Return what a new connection begins with."""
        return _Taken(self._made)

    async def close(self) -> None:
        """Give up what is not done."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _made(self, peer: socket.socket, address: str) -> None:
        if not self._room.enter(address):
            self._room.leave()
            peer.close()
            return
        task = asyncio.get_running_loop().create_task(self._shake_hands(peer, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, peer: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._connect, peer, ssl=self._context, ssl_handshake_timeout=self._timeout_s
            )
            return
        except ssl.SSLError as error:
            log.warning("closed %s: %s", address, _reason(error))
        except ConnectionAbortedError:
            log.warning("closed %s: no TLS handshake for %g s", address, self._timeout_s)
        except OSError:
            log.debug("%s went away in its TLS handshake", address)
        self._room.leave()


class _Taken(asyncio.Protocol):
    """Takes a connection's socket from the loop before that reads of it: it would not give back what it has read."""

    def __init__(self, made: Callable[[socket.socket, str], None]) -> None:
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        address = address_of(transport)
        peer = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        peer.setblocking(False)
        cast(asyncio.Transport, transport).abort()
        self._made(peer, address)


def address_of(transport: asyncio.BaseTransport) -> str:
    host, port, *_ = transport.get_extra_info("peername") or ("?", 0)
    return f"{host}:{port}"


def _reason(error: ssl.SSLError) -> str:
    """Return why a handshake failed, for the log."""
    reason = (error.reason or str(error)).replace("_", " ").lower()
    advice = ": this port has TLS only, connect to https://" if error.reason in _NO_TLS else ""
    return f"TLS failed: {reason}{advice}"
