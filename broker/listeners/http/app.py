"""The ASGI application: one request, one session, one command.

A request signs in with what it brings: a token of a login over HTTP, or a personal access token. What it may do is
checked where every command is checked, by dispatch. Errors end here, so that no request can end the server.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ....protocol.commands import BY_REQUEST
from ....protocol.errors import Refused, Status
from ....protocol.model import messages, system, tokens, users
from ....protocol.needs import Need
from ....protocol.primitives import Transport, UserStatus
from ... import gate
from ...catalog import User
from ...config.schema import Cors
from ...connection import WRITE_SIZE
from ...dispatch import Dispatch
from ...metrics import Metrics
from ...session import Session
from ...state import State
from . import decode
from .auth import Claims, Tokens
from .commands import Call
from .encode import REPLIES
from .errors import JSON, Malformed, malformed, not_found, refusal
from .routes import ROUTES, Route, command_of

log = logging.getLogger(__name__)

DISCARDED_SIZE_MAX = 64 * 1024 * 1024  # of a body that is too large
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BEARER = "Bearer "
_DURABILITY = "iggy-durability"


class Api:
    """Iggy's REST API over a broker. body_timeout_s: how long a request's body may take to arrive."""

    def __init__(self, state: State, dispatch: Dispatch, *, body_timeout_s: float) -> None:
        """Raises ConfigError for settings that can't be."""
        self._state = state
        self._dispatch = dispatch
        self._body_timeout_s = body_timeout_s
        self._settings = state.config.http
        # Who is nobody yet may not make the server hold much.
        self._public_size_max = min(self._settings.max_request_size, state.config.pybroker.frame_size_max_before_login)
        self._tokens = Tokens(self._settings.jwt, state.clock)
        self._metrics = Metrics(state)

    def asgi(self) -> ASGIApp:
        routes = [StarletteRoute("/users/refresh-token", self._endpoint(self._refresh), methods=["POST"])]
        routes.append(StarletteRoute("/health", self._endpoint(self._health), methods=["GET"]))
        if (asked := self._settings.metrics).enabled:
            routes.append(StarletteRoute(asked.endpoint, self._endpoint(self._measures), methods=["GET"]))
        routes += [StarletteRoute(row.path, self._endpoint(self._serving(row)), methods=[row.method]) for row in ROUTES]
        app: ASGIApp = Router(routes, redirect_slashes=False)
        return _undecoded(_with_cors(app, self._settings.cors) if self._settings.cors.enabled else app)

    def _endpoint(self, serve: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self._state.counters.http_requests += 1
            try:
                return await serve(request)
            except Refused as error:
                log.debug("refused %s %s: %s", request.method, request.url.path, error)
                return refusal(error)
            except Malformed as error:
                log.debug("malformed %s %s: %s", request.method, request.url.path, error)
                return malformed(error)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            except Exception:
                log.exception("%s %s failed; this is a bug in pybroker", request.method, request.url.path)
                return refusal(Refused(Status.ERROR))

        return endpoint

    def _serving(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            session = self._state.clients.connect(Transport.HTTP, _address(request))
            try:
                return await self._answer(route, request, session)
            finally:
                self._dispatch.disconnected(session)

        return serve

    async def _answer(self, route: Route, request: Request, session: Session) -> Response:
        claims = None if route.is_public else await self._sign_in(session, request)
        query = decode.read_query(request.query_params, route.query) if route.query else None
        size_max = self._public_size_max if route.is_public else self._settings.max_request_size
        body = await self._body(request, route.body, size_max) if route.body else None
        path = {name: unquote(text) for name, text in request.path_params.items()}
        command = command_of(route, Call(path, body, query, session.user_id, self._state.clock()))
        reply = await self._dispatch(session, command)
        if isinstance(command, users.Logout) and claims is not None:
            self._tokens.revoke(claims)
        if reply is None and BY_REQUEST[type(command)].reply is not None:
            return not_found()
        return self._shown(route, query, command, reply)

    def _shown(self, route: Route, query: Any, command: msgspec.Struct, reply: msgspec.Struct | None) -> Response:
        if isinstance(command, system.Ping):
            return PlainTextResponse("pong")
        if isinstance(reply, users.LoggedIn):
            return self._identity(self._state.catalog.users.items[reply.user_id])
        if isinstance(reply, messages.Sent) and query.ack == "none":
            return Response(status_code=202, headers={_DURABILITY: "none"})
        if reply is None:
            return Response(status_code=route.http_status)
        headers = {_DURABILITY: "replicated-memory"} if isinstance(reply, messages.Sent) else None
        return self._json(REPLIES[type(reply)](reply), route.http_status, headers)

    async def _sign_in(self, session: Session, request: Request) -> Claims | None:
        """Make a session whose credential the request brings. Return the claims of a token of ours.

        Raises Refused. A personal access token has no dot in it, one of ours has two: which it is costs no guess.
        """
        given = request.headers.get("authorization", "")
        token = given.removeprefix(_BEARER)
        if not token or token == given:
            raise Refused(Status.UNAUTHENTICATED, "expected the header Authorization: Bearer <token>")
        if "." in token:
            claims = self._tokens.read(token)
            self._state.clients.sign_in(session, self._active(claims).id)
            return claims
        try:
            await self._dispatch(session, tokens.LoginWithToken(token))
        except Refused as error:
            raise Refused(Status.UNAUTHENTICATED, "the token is not that of an active user, or expired") from error
        return None

    def _active(self, claims: Claims) -> User:
        """Return the user that a token was made for, who may still sign in. Raises Refused."""
        user = self._state.catalog.users.items.get(claims.user_id)
        if user is None or user.created_at_us != claims.since or user.status is UserStatus.INACTIVE:
            raise Refused(Status.UNAUTHENTICATED, "the token is that of a user who is gone or inactive")
        return user

    async def _health(self, _request: Request) -> Response:
        """Answer that there is a broker: it listens once everything is loaded."""
        return PlainTextResponse("ok")

    async def _measures(self, request: Request) -> Response:
        session = self._state.clients.connect(Transport.HTTP, _address(request))
        try:
            await self._sign_in(session, request)
            if not gate.allows(self._state.catalog, session.user_id, Need.READ_SERVERS, None):
                raise Refused(Status.UNAUTHORIZED, "metrics need the right to read servers")
            return Response(self._metrics.render(), media_type=METRICS_TYPE)
        finally:
            self._dispatch.disconnected(session)

    async def _refresh(self, request: Request) -> Response:
        """Answer a token with one that is good for longer. The old one stays good for its time, as with Iggy 0.9."""
        given = await self._body(request, decode.TokenLogin, self._public_size_max)
        return self._identity(self._active(self._tokens.read(given.token)))

    def _identity(self, user: User) -> Response:
        return self._json({"user_id": user.id, "access_token": self._tokens.issue(user)})

    async def _body(self, request: Request, kind: type[decode.S], size_max: int) -> decode.S:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise Malformed(415, f"expected the header Content-Type: {JSON}")
        try:
            async with asyncio.timeout(self._body_timeout_s):
                data = await _read(request, size_max)
        except TimeoutError:
            raise Malformed(408, f"the body took more than {self._body_timeout_s:g} s") from None
        return decode.read_json(data, kind)

    def _json(self, value: object, http_status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return _Answer(self._dispatch, msgspec.json.encode(value), http_status, headers)


class _Answer(Response):
    """JSON, sent in parts: who reads slowly is not sent more, and what waits for all counts against large polls."""

    media_type = JSON

    def __init__(self, dispatch: Dispatch, data: bytes, http_status: int, headers: dict[str, str] | None) -> None:
        super().__init__(data, http_status, headers)
        self._dispatch = dispatch
        self._data = memoryview(data)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = len(self._data)
        self._dispatch.sending(size)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, max(size, 1), WRITE_SIZE):
                part = bytes(self._data[start : start + WRITE_SIZE])
                more = start + WRITE_SIZE < size
                await send({"type": "http.response.body", "body": part, "more_body": more})
        finally:
            self._dispatch.sending(-size)


async def _read(request: Request, size_max: int) -> bytes:
    """Return a body. One that is too large is received but not kept: who still sends reads no answer."""
    length = request.headers.get("content-length", "0")
    too_large = Malformed(413, f"the body has more than {size_max} bytes")
    if length.isdigit() and int(length) > size_max and "expect" in request.headers:
        raise too_large
    data = bytearray()
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= size_max:
            data += part
        elif size > size_max + DISCARDED_SIZE_MAX:
            raise too_large
    if size > size_max:
        raise too_large
    return bytes(data)


def _address(request: Request) -> str:
    if request.client is None:
        return "?:0"
    host, port = request.client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _with_cors(app: ASGIApp, settings: Cors) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=settings.allowed_origins,
        allow_methods=settings.allowed_methods,
        allow_headers=settings.allowed_headers,
        expose_headers=settings.exposed_headers,
        allow_credentials=settings.allow_credentials,
        allow_private_network=settings.allow_private_network,
    )


def _undecoded(app: ASGIApp) -> ASGIApp:
    """Let routes be told apart by the path as it was sent: a name may hold a slash, as %2F."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path": scope["raw_path"].decode("latin-1")}, receive, send)

    return call
