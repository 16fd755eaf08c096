"""What a refusal looks like over HTTP: its status and its JSON body, which is Iggy's.

A request that makes no sense as HTTP or as JSON (`Malformed`) is answered in plain text, as Iggy's framework does.
"""

import msgspec
from starlette.responses import PlainTextResponse, Response

from ....protocol.errors import Refused, Status

JSON = "application/json"

_NOT_FOUND = (
    Status.STREAM_ID_NOT_FOUND,
    Status.TOPIC_ID_NOT_FOUND,
    Status.PARTITION_NOT_FOUND,
    Status.SEGMENT_NOT_FOUND,
    Status.CLIENT_NOT_FOUND,
    Status.CONSUMER_GROUP_ID_NOT_FOUND,
    Status.CONSUMER_GROUP_NAME_NOT_FOUND,
    Status.CONSUMER_GROUP_MEMBER_NOT_FOUND,
    Status.CONSUMER_OFFSET_NOT_FOUND,
    Status.RESOURCE_NOT_FOUND,
)
_NO_CREDENTIALS = (
    Status.UNAUTHENTICATED,
    Status.ACCESS_TOKEN_MISSING,
    Status.INVALID_ACCESS_TOKEN,
    Status.INVALID_PERSONAL_ACCESS_TOKEN,
)
_HTTP_STATUSES = dict.fromkeys(_NOT_FOUND, 404) | dict.fromkeys(_NO_CREDENTIALS, 401) | {Status.UNAUTHORIZED: 403}
_FIELDS = {
    Status.STREAM_ID_NOT_FOUND: "stream_id",
    Status.INVALID_STREAM_ID: "stream_id",
    Status.TOPIC_ID_NOT_FOUND: "topic_id",
    Status.INVALID_TOPIC_ID: "topic_id",
    Status.PARTITION_NOT_FOUND: "partition_id",
    Status.SEGMENT_NOT_FOUND: "segment_id",
    Status.CLIENT_NOT_FOUND: "client_id",
    Status.INVALID_STREAM_NAME: "name",
    Status.STREAM_NAME_ALREADY_EXISTS: "name",
    Status.INVALID_TOPIC_NAME: "name",
    Status.TOPIC_NAME_ALREADY_EXISTS: "name",
    Status.INVALID_CONSUMER_GROUP_NAME: "name",
    Status.CONSUMER_GROUP_NAME_ALREADY_EXISTS: "name",
    Status.INVALID_PERSONAL_ACCESS_TOKEN_NAME: "name",
    Status.PERSONAL_ACCESS_TOKEN_ALREADY_EXISTS: "name",
    Status.INVALID_OFFSET: "offset",
    Status.INVALID_CONSUMER_GROUP_ID: "consumer_group_id",
    Status.USER_ALREADY_EXISTS: "username",
}


class Malformed(Exception):
    """Say that a request is answered with an HTTP status and a line of text, before it became a command."""

    def __init__(self, http_status: int, text: str) -> None:
        super().__init__(text)
        self.http_status = http_status


class ErrorBody(msgspec.Struct):
    """id, code: the number and the name of the status, as on the wires."""

    id: int
    code: str
    reason: str
    field: str | None = None


def refusal(error: Refused) -> Response:
    """Answer a refusal."""
    return _json(body_of(error), _HTTP_STATUSES.get(error.status, 400))


def body_of(error: Refused) -> ErrorBody:
    """Return what a refusal says. What broke inside (paths, keys) is for the log: of that only the status is told."""
    status = error.status
    words = status.name.replace("_", " ").capitalize()
    is_inside = error.__cause__ is not None and not isinstance(error.__cause__, Refused)
    detail = "" if is_inside else str(error).partition(": ")[2]
    return ErrorBody(status, status.name.lower(), f"{words}: {detail}" if detail else words, _FIELDS.get(status))


def not_found() -> Response:
    """Answer a look-up that found nothing."""
    return _json(ErrorBody(404, "not_found", "Resource not found"), 404)


def malformed(error: Malformed) -> Response:
    """Answer in text. Of a body that is not read the rest can't be told from a next request: the connection ends."""
    headers = {"connection": "close"} if error.http_status in (408, 413) else None
    return PlainTextResponse(str(error), error.http_status, headers)


def _json(body: ErrorBody, http_status: int) -> Response:
    return Response(msgspec.json.encode(body), http_status, media_type=JSON)
