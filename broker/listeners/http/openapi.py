"""The API's document, in OpenAPI 3.1, made from the table of routes: nothing is told twice, so nothing can differ.

Paths, queries and bodies are those that requests are read with, answers the structs that are encoded, permissions those
that the gate asks for.
"""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import msgspec

from .... import __version__
from ....protocol.commands import BY_REQUEST
from ....protocol.model import messages, system, users
from ....protocol.needs import Need
from ...permissions import RULES
from . import own, shapes
from .encode import shape_of
from .errors import JSON, ErrorBody
from .routes import Route

Json = dict[str, Any]

TEXT = "text/plain"
_REF = "#/components/schemas/{name}"
_ABOUT = """The REST API of Apache Iggy, as pybroker speaks it.

Sign in with `POST /users/login`, and bring the token with every request: `Authorization: Bearer <token>`. A personal \
access token can be brought just like that.

A refusal has the body `ErrorBody`. What is no request of this API is answered in a line of text."""
_TAGS = {
    "server": "The server, its clients and its health",
    "users": "Users, what they may do, and signing in",
    "personal-access-tokens": "Secrets for programs that sign in as the user who made them",
    "streams": "Streams hold topics",
    "topics": "Topics hold partitions",
    "partitions": "Partitions hold messages in order, in segments",
    "messages": "Sending and polling",
    "consumer-offsets": "Where consumers are",
    "consumer-groups": "Consumers that share the partitions of a topic",
}
_U32: Json = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_NAME: Json = {"type": "string", "minLength": 1}
_TEXT: Json = {"type": "string"}
_PATH_VALUES: dict[str, Json] = {
    "partition_id": _U32,
    "client_id": _U32 | {"minimum": 1},
    "name": _NAME,
    "scope": {"enum": ["topic", "stream", "user"]},
    "fsync": {"enum": ["true", "false", "fsync=true", "fsync=false"]},
}
_ID_OR_NAME: Json = {"anyOf": [_U32, _NAME]}
_REFUSED: Json = {JSON: {"schema": {"$ref": _REF.format(name=ErrorBody.__name__)}}}
_MALFORMED: Json = {TEXT: {"schema": _TEXT}}
_UNREAD = (408, 413, 415, 422)
_REFUSALS = {
    400: ("What is asked for makes no sense, or can't be done now", _REFUSED | _MALFORMED),
    401: ("No credential that holds", _REFUSED),
    403: ("Not permitted", _REFUSED),
    404: ("Not there", _REFUSED),
    408: ("The body took too long", _MALFORMED),
    413: ("The body is too large", _MALFORMED),
    415: (f"The body's Content-Type is not {JSON}", _MALFORMED),
    422: ("The body is JSON of another shape", _MALFORMED),
}
# What is answered by other means than a reply's struct: media type and schema.
_OTHERS: dict[type[msgspec.Struct], tuple[str, Json]] = {
    system.Ping: (TEXT, _TEXT),
    own.Health: (TEXT, _TEXT),
    own.Ready: (TEXT, _TEXT),
    own.Metrics: (own.METRICS_TYPE, _TEXT),
    own.Docs: ("text/html", _TEXT),
    own.Follow: ("text/event-stream", _TEXT),
    own.OpenApi: (JSON, {"type": "object"}),
    own.Follow: ("text/event-stream", _TEXT),
    system.GetSnapshot: (own.ZIP, {}),
}


def document(routes: Iterable[Route]) -> Json:
    """Return the document of a table of routes."""
    rows = list(routes)
    schemas = _Schemas(rows)
    paths: dict[str, Json] = {}
    for route in rows:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "pybroker", "version": __version__, "description": _ABOUT},
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {str(status): _answer(*refusal) for status, refusal in _REFUSALS.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def name_of(command: type[msgspec.Struct]) -> str:
    """Return a command's name, as on the wires."""
    row = BY_REQUEST.get(command)
    return row.name if row else re.sub(r"(?<!^)(?=[A-Z])", "_", command.__name__).lower()


class _Schemas:
    """The schemas of the structs in bodies and answers. components: those that have a name."""

    def __init__(self, routes: list[Route]) -> None:
        used = [kind for route in routes for kind in (route.body, _shape(route)) if kind is not None]
        kinds = list({str(kind): kind for kind in (*used, ErrorBody)}.values())
        found, self.components = msgspec.json.schema_components(kinds, ref_template=_REF)
        self._found = {str(kind): schema for kind, schema in zip(kinds, found, strict=True)}

    def of(self, kind: Any) -> Json:
        return self._found[str(kind)]


def _shape(route: Route) -> Any:
    """Return the type of a route's JSON, None where there is none."""
    if route.command is own.RefreshToken:
        return shapes.Identity
    row = BY_REQUEST.get(route.command)
    if row is None or row.reply is None or route.command in _OTHERS:
        return None
    return shapes.Identity if row.reply is users.LoggedIn else shape_of(row.reply)


def _operation(route: Route, schemas: _Schemas) -> Json:
    operation: Json = {
        "operationId": name_of(route.command),
        "summary": route.summary,
        "description": _permission(route),
        "tags": [_tag(route.path)],
        "parameters": [*_path_parameters(route.path), *_query_parameters(route.query)],
        "responses": {str(status): answer for status, answer in _responses(route, schemas)},
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas.of(route.body)}}}
    if route.is_public:
        operation["security"] = []
    return operation


def _need(route: Route) -> Need:
    row = BY_REQUEST.get(route.command)
    return row.need if row else own.NEEDS.get(route.command, Need.NOTHING)


def _permission(route: Route) -> str:
    """Say who may ask."""
    if route.is_public:
        return "Needs no token."
    rule = RULES.get(_need(route))
    if rule is None:
        return "For whoever is signed in."
    levels = zip(("everywhere", "for the stream", "for the topic"), rule, strict=True)
    allowed = "; ".join(f"{where}: {_listed(flags)}" for where, flags in levels if flags)
    return f"Needs one of these permissions{_unless(route)}: {allowed}."


def _unless(route: Route) -> str:
    return ", except for oneself" if _need(route) in (Need.READ_USER, Need.CHANGE_PASSWORD) else ""


def _listed(flags: str) -> str:
    return ", ".join(f"`{flag}`" for flag in flags.split())


def _tag(path: str) -> str:
    return next((part for part in reversed(path.split("/")) if part in _TAGS), "server")


def _path_parameters(path: str) -> list[Json]:
    return [_path_parameter(name) for name in re.findall(r"{(\w+)}", path)]


def _path_parameter(name: str) -> Json:
    parameter: Json = {"name": name, "in": "path", "required": True}
    if name in _PATH_VALUES:
        return parameter | {"schema": _PATH_VALUES[name]}
    return parameter | {"description": "An id or a name", "schema": _ID_OR_NAME}


def _query_parameters(query: type[msgspec.Struct] | None) -> Iterator[Json]:
    if query is None:
        return
    _, components = msgspec.json.schema_components([query], ref_template=_REF)
    whole = components[query.__name__]
    for name, field in whole["properties"].items():
        schema = dict(field)
        parameter = {"name": name, "in": "query", "required": name in whole["required"]}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        yield parameter | {"schema": _given(schema)}


def _given(schema: Json) -> Json:
    """Return a schema without null: a URL has none, what is not given is left out."""
    if "anyOf" not in schema:
        return schema
    kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
    return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def _responses(route: Route, schemas: _Schemas) -> Iterator[tuple[int, Json]]:
    yield route.http_status, _answer(HTTPStatus(route.http_status).phrase, _content(route, schemas))
    if route.command is messages.SendMessages:
        yield 202, _answer("Taken, with ack=none", {})
    if route.command is own.Ready:
        yield 503, _answer("Requests can't be served, and why", {TEXT: {"schema": _TEXT}})
    for status in _refusals(route):
        yield status, {"$ref": f"#/components/responses/{status}"}


def _answer(description: str, content: Json) -> Json:
    return {"description": description, "content": content} if content else {"description": description}


def _content(route: Route, schemas: _Schemas) -> Json:
    if route.command in _OTHERS:
        media_type, schema = _OTHERS[route.command]
        return {media_type: {"schema": schema}}
    shape = _shape(route)
    return {JSON: {"schema": schemas.of(shape)}} if shape is not None else {}


def _refusals(route: Route) -> Iterator[int]:
    """Yield the statuses of what may be refused."""
    if not route.is_public or route.body:
        yield from (400, 401)
    if _need(route) in RULES:
        yield 403
    if "{" in route.path:
        yield 404
    if route.body:
        yield from _UNREAD
