"""The ASGI application: one request, one session, one command.

A request signs in with what it brings: a token of a login over HTTP, or a personal access token. What it may do is
checked where every command is checked, by dispatch. Errors end here, so that no request can end the server.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import msgspec
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ....protocol.commands import BY_REQUEST
from ....protocol.errors import Refused, Status
from ....protocol.model import messages, system, tokens, users
from ....protocol.primitives import Transport, UserStatus
from ... import gate
from ...catalog import User
from ...config.schema import Cors
from ...connection import WRITE_SIZE
from ...dispatch import Dispatch
from ...passwords import token_digest
from ...session import Session
from ...state import State
from . import decode, own, shapes
from .auth import Claims, Tokens
from .commands import Call
from .encode import REPLIES
from .errors import JSON, Malformed, malformed, not_found, refusal
from .eventstream import EventStreams
from .routes import FOLLOWED, Route, command_of, routes_with
from .webui import web_ui

if TYPE_CHECKING:
    from ...metrics import Metrics

log = logging.getLogger(__name__)

DISCARDED_SIZE_MAX = 64 * 1024 * 1024  # of a body that is too large
PAGE = Path(__file__).with_name("docs.html")
PAGE_HEADERS = {"content-security-policy": "default-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'"}
_BEARER = "Bearer "
_DURABILITY = "iggy-durability"


class Asked(NamedTuple):
    """A request of `own`. claims: of the token that it brought, None for a personal access token or nobody."""

    request: Request
    session: Session
    command: msgspec.Struct
    claims: Claims | None


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
        self._metrics: Metrics | None = None
        self._event_streams = EventStreams(state, dispatch)
        self._routes = routes_with(self._settings.metrics)
        self._own: dict[type[msgspec.Struct], Callable[[Asked], Awaitable[Response]]] = {
            own.Health: self._health,
            own.Ready: self._ready,
            own.Metrics: self._measures,
            own.RefreshToken: self._refresh,
            own.OpenApi: self._openapi,
            own.Docs: self._docs,
            own.Follow: self._follow,
        }

    def asgi(self) -> ASGIApp:
        routes = [StarletteRoute(row.path, _Endpoint(self, row), methods=[row.method]) for row in self._routes]
        pages = web_ui(self._state.config.pybroker.web_ui_path) if self._settings.web_ui else []
        app: ASGIApp = Router([*routes, *pages, *_other_methods(self._routes)], redirect_slashes=False)
        return _undecoded(_with_cors(app, self._settings.cors) if self._settings.cors.enabled else app)

    @cached_property
    def _document(self) -> bytes:
        from .openapi import document  # only for who asks

        return msgspec.json.encode(document(self._routes))

    @cached_property
    def _page(self) -> bytes:
        return PAGE.read_bytes()

    def connect(self, request: Request) -> Session:
        session = self._state.clients.connect(Transport.HTTP, _address(request))
        if self._state.config.telemetry.enabled:
            session.traceparent = request.headers.get("traceparent", "")
            session.tracestate = ",".join(request.headers.getlist("tracestate"))
        return session

    def disconnect(self, session: Session) -> None:
        self._dispatch.disconnected(session)

    def stop(self) -> None:
        """End the event streams."""
        self._event_streams.stop()

    async def answer(self, route: Route, request: Request, session: Session) -> Response:
        """Do what a request asks for; whatever comes of it is an answer."""
        self._state.counters.http_requests += 1
        try:
            return await self._serve(route, request, session)
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

    async def _serve(self, route: Route, request: Request, session: Session) -> Response:
        claims = None if route.is_public else await self._sign_in(session, request)
        query = decode.read_query(request.query_params, route.query) if route.query else None
        size_max = self._public_size_max if route.is_public else self._settings.max_request_size
        body = await self._body(request, route.body, size_max) if route.body else None
        path = {name: unquote(text) for name, text in request.path_params.items()}
        command = command_of(route, Call(path, body, query, session.user_id, self._state.clock()))
        if (own_answer := self._own.get(route.command)) is not None:
            return await own_answer(Asked(request, session, command, claims))
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
        if isinstance(reply, system.Snapshot):
            return _download(reply.zip, self._state.clock())
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
        token = _token_of(request)
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

    async def _health(self, _asked: Asked) -> Response:
        """Answer that there is a broker: it listens once everything is loaded."""
        return PlainTextResponse("ok")

    async def _ready(self, _asked: Asked) -> Response:
        """Answer whether sends can be taken. What failed is in the log: anybody may read this."""
        if self._state.logs.is_poisoned:
            return PlainTextResponse("the disk failed; see the log, and restart when it is mended", 503)
        return PlainTextResponse("ready")

    async def _measures(self, asked: Asked) -> Response:
        if not gate.allows(self._state.catalog, asked.session.user_id, own.NEEDS[own.Metrics], None):
            raise Refused(Status.UNAUTHORIZED, "metrics need the right to read servers")
        if self._metrics is None:
            self._metrics = await asyncio.to_thread(self._load_metrics)
        return Response(self._metrics.render(), media_type=own.METRICS_TYPE)

    def _load_metrics(self) -> "Metrics":
        from ...metrics import Metrics  # 20 ms and 1 MB that only who is asked for them should need

        return Metrics(self._state)

    async def _refresh(self, asked: Asked) -> Response:
        """Answer a token with one that is good for longer. The old one stays good for its time, as with Iggy 0.9."""
        assert isinstance(asked.command, own.RefreshToken)
        return self._identity(self._active(self._tokens.read(asked.command.token)))

    async def _follow(self, asked: Asked) -> Response:
        command, token = asked.command, _token_of(asked.request)
        assert isinstance(command, own.Follow)
        # A browser that comes back asks for the same URL: what it says besides is newer.
        command.last_event_id = asked.request.headers.get("last-event-id") or command.last_event_id
        return await self._event_streams.open(asked.session, command, lambda: self._check(token))

    def _check(self, token: str) -> None:
        """Raise Refused for a token that once signed somebody in, and does not any more."""
        if "." in token:
            self._active(self._tokens.read(token))
            return
        found = self._state.catalog.token(token_digest(token))
        if found is None or found[1].is_expired(self._state.clock()):
            raise Refused(Status.UNAUTHENTICATED, "the token is not good any more")

    async def _openapi(self, _asked: Asked) -> Response:
        return Response(self._document, media_type=JSON)

    async def _docs(self, _asked: Asked) -> Response:
        return HTMLResponse(self._page, headers=PAGE_HEADERS)

    def _identity(self, user: User) -> Response:
        return self._json(shapes.Identity(user.id, self._tokens.issue(user)))

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


class _Endpoint:
    """A route as an ASGI application. Its session is there until the answer is sent."""

    def __init__(self, api: Api, route: Route) -> None:
        self._api = api
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        session = self._api.connect(request)
        try:
            response = await self._api.answer(self._route, request, session)
            await response(scope, receive, send)
        finally:
            self._api.disconnect(session)


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


def _token_of(request: Request) -> str:
    """Return the credential of a request. Raises Refused.

    A browser's EventSource can set no header; for such the path of events, and no other, takes it in the URL too.
    """
    given = request.headers.get("authorization", "")
    token = given.removeprefix(_BEARER)
    if token and token != given:
        return token
    if request.url.path.endswith(FOLLOWED) and (token := request.query_params.get("access_token", "")):
        return token
    raise Refused(Status.UNAUTHENTICATED, "expected the header Authorization: Bearer <token>")


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


def _download(data: bytes, now_us: int) -> Response:
    """Answer with a zip, under the name that Iggy gives it."""
    made = datetime.fromtimestamp(now_us / 1e6, UTC)
    name = f"iggy_snapshot_{made:%Y%m%d_%H%M%S}.zip"
    return Response(data, media_type=own.ZIP, headers={"content-disposition": f'attachment; filename="{name}"'})


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


def _other_methods(routes: Iterable[Route]) -> list[StarletteRoute]:
    """Return what tells, for each path, all methods that it has; a router by itself tells only those of one route."""
    methods: dict[str, list[str]] = defaultdict(list)
    for route in routes:
        methods[route.path] += ["GET", "HEAD"] if route.method == "GET" else [route.method]
    return [
        StarletteRoute(path, PlainTextResponse("Method Not Allowed", 405, {"allow": ", ".join(of)}))
        for path, of in methods.items()
    ]


def _undecoded(app: ASGIApp) -> ASGIApp:
    """Let routes be told apart by the path as it was sent: a name may hold a slash, as %2F."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path": scope["raw_path"].decode("latin-1")}, receive, send)

    return call
