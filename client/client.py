"""The client: one connection at a time, dialled again when it breaks.

It belongs to one event loop, and is not thread-safe. Any number of tasks may call it at once.
"""

import asyncio
import math
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from copy import copy
from itertools import count
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import msgspec

from .. import __version__
from ..protocol.commands import BY_REQUEST
from ..protocol.model.messages import PollMessages
from ..protocol.model.system import AttachConsumerSession
from ..protocol.model.tokens import LoginWithToken
from ..protocol.model.users import Login, Logout
from ..protocol.vsr.client import Answer
from .commands import Commands
from .connection import Connection
from .consumer import Consumer
from .dial import dial, tls_context
from .errors import BrokerError, ConnectError, ConnectionLost, InvalidRequest, PybrokerError, Timeout
from .producer import Producer
from .retry import Retry
from .url import parse

ATTEMPTS_MAX = 4  # of one call; only what is safe to repeat has more than one
SILENCE_MAX_S = 30.0  # of a server that is asked something, where calls may take for ever
_OWN = frozenset({Login, LoginWithToken, Logout})  # what the client itself asks when it is time
P = ParamSpec("P")
R = TypeVar("R")

# The connection that a task is making ready: its calls need not wait until it is.
_OPENING: ContextVar[Connection | None] = ContextVar("opening", default=None)


def _agent(make: Callable[Concatenate[Commands, P], R]) -> Callable[Concatenate[Commands, P], R]:
    """Return a method that makes something that works through the client, typed as what it makes."""

    def made(client: Commands, *args: P.args, **kwargs: P.kwargs) -> R:
        return make(client, *args, **kwargs)

    return made


class Client(Commands):
    """A signed-in client: `async with Client("iggy://user:password@host:8090") as client`.

    timeout_s: how long a call may take, waiting for a connection included; None for ever.
    retry: how a lost connection is dialled again; the URL's reconnection options go before it.
    tls_ca_file, tls_verify: what the server's certificate has to be signed by, and whether it matters; TLS itself is
    asked for in the URL, with tls=true.
    """

    def __init__(
        self,
        url: str,
        *,
        tls_ca_file: str | None = None,
        tls_verify: bool = True,
        timeout_s: float | None = 30.0,
        retry: Retry = Retry(),  # noqa: B008
    ) -> None:
        super().__init__()
        target = parse(url)
        target.login.version = f"pybroker/{__version__}"
        self._target = msgspec.structs.replace(
            target,
            tls_ca_file=tls_ca_file or target.tls_ca_file,
            tls_verify=tls_verify and target.tls_verify,
        )
        self._retry = target.retry or retry
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None
        self._ready: Connection | None = None
        self._opening: Connection | None = None
        self._redialling: asyncio.Task[None] | None = None
        self._failure: PybrokerError = ConnectError("not connected: call connect(), or use async with")
        self._signed_in_at = 0.0  # loop time
        self._open = False
        self._connecting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Client({self._target!r})"

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect and sign in; one attempt. Raises ConnectError, or BrokerError for a sign-in that is refused."""
        async with self._connecting:
            if self._open:
                return
            if self._target.tls and self._tls is None:
                self._tls = tls_context(self._target)
            await self._dial()
            self._open = True

    async def close(self) -> None:
        """Close the connection. Calls that wait fail with ConnectionLost; a closed client may connect again."""
        self._open = False
        self._failure = ConnectError("the client is closed")
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.close(self._failure)
        if self._redialling is not None:
            self._redialling.cancel()
            await asyncio.wait((self._redialling,))
        if ready is not None:
            await ready.closed()

    async def call(self, command: msgspec.Struct) -> msgspec.Struct | None:
        row = BY_REQUEST.get(type(command))
        if row is None or type(command) in _OWN:
            raise InvalidRequest(f"{type(command).__name__} is nothing to ask; who signs in is said in the URL")
        timeout_s = self._timeout_s
        deadline = math.inf if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        try:
            answer = await self._ask(command, deadline)
        except TimeoutError:
            raise self._too_late(row.name) from None
        if answer.fault is not None:
            raise PybrokerError(f"the answer to {row.name} can't be read: {answer.fault}")
        if answer.code:
            raise BrokerError(answer.code, row.name)
        return answer.reply

    producer = _agent(Producer)
    """Return what sends messages in batches; it takes what Producer takes behind the client."""

    consumer = _agent(Consumer)
    """Return what reads messages one after the other, alone or in a group; it takes what Consumer takes."""

    async def _ask(self, command: msgspec.Struct, deadline: float) -> Answer:
        """Ask until there is an answer, as often as that is safe. Raises TimeoutError at the deadline (loop time)."""
        is_repeatable = _is_repeatable(command)
        for attempts_left in reversed(range(ATTEMPTS_MAX)):
            connection = self._ready or await self._connected(deadline)
            try:
                return await connection.ask(command, deadline)
            except (ConnectError, ConnectionLost) as error:
                is_safe = is_repeatable or isinstance(error, ConnectError)
                if not (is_safe and self._open and attempts_left and connection is not self._opening):
                    raise
        raise AssertionError("the last attempt raises")

    async def _connected(self, deadline: float) -> Connection:
        """Return the connection to ask on, when there is one. Raises ConnectError, BrokerError, TimeoutError."""
        opening = _OPENING.get()
        if opening is not None and opening is self._opening:
            return opening
        async with asyncio.timeout_at(deadline if deadline < math.inf else None):
            return await self._redialled()

    async def _redialled(self) -> Connection:
        while self._ready is None:
            if not self._open:
                raise copy(self._failure)
            if self._redialling is None:
                self._redial()
            redialling = self._redialling
            assert redialling is not None
            await asyncio.wait((redialling,))
            if self._ready is None and self._redialling is None:
                raise copy(self._failure)
        return self._ready

    def _lost(self, connection: Connection, error: PybrokerError) -> None:
        if connection is self._ready:
            self._ready = None
            self._failure = ConnectError(str(error))
            self._redial()

    def _redial(self) -> None:
        self._redialling = asyncio.get_running_loop().create_task(self._redial_until_ready(), name="redial")

    async def _redial_until_ready(self) -> None:
        """Dial until there is a connection, the sign-in is refused, or there were enough attempts."""
        try:
            for attempt in count():
                if not self._retry.allows(attempt):
                    return
                await asyncio.sleep(self._delay_s(attempt))
                try:
                    await self._dial()
                    return
                except (ConnectionError, TimeoutError) as error:
                    self._failure = ConnectError(str(error))
        except Exception as error:
            self._failure = error if isinstance(error, PybrokerError) else ConnectError(f"on_connect failed: {error!r}")
        finally:
            self._redialling = None

    def _delay_s(self, attempt: int) -> float:
        now = asyncio.get_running_loop().time()
        return max(self._retry.delay_s(attempt), self._signed_in_at + self._target.reestablish_after_s - now)

    async def _dial(self) -> None:
        """Connect, sign in, and do what is to be done first."""
        silence_max_s = self._timeout_s or SILENCE_MAX_S
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await dial(self._target, self._lost, tls=self._tls, silence_max_s=silence_max_s)
        except TimeoutError as error:
            raise ConnectError(f"can't connect to {self._target.address}: no answer in {silence_max_s:g} s") from error
        self._signed_in_at = asyncio.get_running_loop().time()
        self.connection_id += 1
        self._opening = connection
        token = _OPENING.set(connection)
        try:
            for hook in tuple(self.on_connect):
                await hook()
        except BaseException:
            connection.close(ConnectError("on_connect failed"))
            raise
        finally:
            _OPENING.reset(token)
            self._opening = None
        if connection.error is not None:
            raise ConnectError(str(connection.error))
        self._ready = connection

    def _too_late(self, name: str) -> PybrokerError:
        if self._ready is None:
            return ConnectError(f"{name}: no connection in {self._timeout_s} s: {self._failure}")
        return Timeout(f"{name}: no answer in {self._timeout_s} s")


def _is_repeatable(command: msgspec.Struct) -> bool:
    """Say whether a command only reads, so that asking it twice does no harm."""
    if isinstance(command, PollMessages):
        return not command.auto_commit
    return BY_REQUEST[type(command)].operation is None and not isinstance(command, AttachConsumerSession)
