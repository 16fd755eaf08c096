"""HTTP: a port, and uvicorn's protocol on each connection that it takes.

Only the protocol is uvicorn's: its server would tick ten times a second, and take the signals. What that leaves to
others is here: senders that stall are closed, idle connections too, and readers that don't read.
"""

import asyncio
import logging
import ssl
from typing import Any, cast

import msgspec
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ...config import ConfigError
from ...connection import Limits
from ...dispatch import Dispatch
from ...state import State
from ..peers import Room
from ..tcp import BACKLOG, bound_address
from .app import Api
from .handshakes import Handshakes, address_of

log = logging.getLogger(__name__)

# Clients keep connections for their next request; theirs rest for as long at most.
KEEP_ALIVE_S = 75
HEADERS_SIZE_MAX = 64 * 1024
CHECK_INTERVAL_S = 1.0
FINISH_INTERVAL_S = 0.01


class _Watch(msgspec.Struct):
    """What the last look at a connection saw: its request, what was not sent, and for how long it stands still."""

    cycle: object
    unsent: int
    still_s: float = 0.0


class _Connection(H11Protocol):
    """uvicorn's protocol; who breaks it gets a line in the log. room: set first, and whether that has counted it."""

    room: Room
    is_counted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if not self.is_counted and not self.room.enter(address_of(transport)):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.room.leave()

    def send_400_response(self, msg: str) -> None:
        why = f"no HTTP/1.1 request, or one with more than {HEADERS_SIZE_MAX} bytes of headers"
        log.warning("closed %s: %s", address_of(self.transport), why)
        super().send_400_response(msg)


class HttpListener:
    """The port and its connections."""

    def __init__(
        self,
        state: State,
        dispatch: Dispatch,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        room: Room | None = None,
    ) -> None:
        """tls: what holds the certificate, None for plain HTTP. room: for connections, one of its own unless given.

        Raises ConfigError for settings that can't be.
        """
        cors = state.config.http.cors
        if cors.enabled and cors.allow_credentials and "*" in cors.allowed_origins:
            raise ConfigError("http.cors.allow_credentials", 'given true, expected .allowed_origins without "*"')
        metrics = state.config.http.metrics
        if metrics.enabled and not metrics.endpoint.startswith("/"):
            raise ConfigError(
                "http.metrics.endpoint", f'given "{metrics.endpoint}", expected a path such as "/metrics"'
            )
        self._limits = limits
        self._room = room or Room(state.config.pybroker.connections_max)
        self._handshakes = Handshakes(tls, self._room, self._encrypted, limits.login_timeout_s) if tls else None
        self._api = Api(state, dispatch, body_timeout_s=limits.login_timeout_s)
        self._config = UvicornConfig(
            self._api.asgi(),
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=HEADERS_SIZE_MAX,
        )
        self._shared = ServerState()
        self._watched: dict[H11Protocol, _Watch] = {}
        self._server: asyncio.Server | None = None
        self._checker: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int) -> str:
        """Listen; return the bound "host:port". Raises OSError."""
        loop = asyncio.get_running_loop()
        self._config.load()
        begin = self._handshakes.begin if self._handshakes else self._protocol
        self._server = await loop.create_server(begin, host, port, backlog=BACKLOG)
        self._checker = loop.create_task(self._check(), name="http")
        return bound_address(self._server)

    def close(self) -> None:
        """Take no more connections, and close those that ask for nothing or follow messages."""
        self._api.stop()
        if self._server is not None:
            self._server.close()
        for connection in self._connections():
            if not connection.transport.is_closing():
                connection.shutdown()

    async def finish(self, timeout_s: float) -> None:
        """Answer what has arrived, and abort what is not done in time."""
        self.close()
        if self._checker is not None:
            self._checker.cancel()
            await asyncio.wait([self._checker])
        if self._handshakes is not None:
            await self._handshakes.close()
        for _ in range(int(timeout_s / FINISH_INTERVAL_S)):
            if not (self._shared.connections or self._shared.tasks):
                break
            await asyncio.sleep(FINISH_INTERVAL_S)
        late = list(self._shared.tasks)
        for task in late:
            task.cancel()
        for connection in self._connections():
            connection.transport.abort()
        if late:
            await asyncio.wait(late)

    def _protocol(self) -> _Connection:
        connection = _Connection(config=self._config, server_state=self._shared, app_state={})
        connection.room = self._room
        return connection

    def _encrypted(self) -> _Connection:
        connection = self._protocol()
        connection.is_counted = True
        return connection

    def _connections(self) -> list[H11Protocol]:
        return cast(list[H11Protocol], list(self._shared.connections))

    async def _check(self) -> None:
        """Look for stalled peers, all at once: uvicorn has no limit for them."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            connections = self._connections()
            self._watched = {connection: self._look(connection) for connection in connections}
            for connection, watch in self._watched.items():
                if watch.still_s > self._patience_s(watch):
                    connection.transport.abort()

    def _look(self, connection: H11Protocol) -> _Watch:
        cycle: Any = cast(Any, connection).cycle
        unsent = connection.transport.get_write_buffer_size()
        last = self._watched.get(connection)
        is_answering = cycle is not None and not cycle.response_complete and not unsent
        if last is None or is_answering or last.cycle is not cycle or unsent < last.unsent:
            return _Watch(cycle, unsent)
        return _Watch(cycle, unsent, last.still_s + CHECK_INTERVAL_S)

    def _patience_s(self, watch: _Watch) -> float:
        """Return how long a connection may stand still: before its first request, with an answer, between requests."""
        if watch.cycle is None:
            return self._limits.login_timeout_s
        return self._limits.write_timeout_s if watch.unsent else KEEP_ALIVE_S
