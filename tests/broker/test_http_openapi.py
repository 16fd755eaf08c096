"""The API's document: it is valid, it tells of every route, and every answer is as it says."""

from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from msgspec import Struct
from pybroker.broker.listeners.http import own
from pybroker.broker.listeners.http.openapi import Json, document, name_of
from pybroker.broker.listeners.http.routes import ROUTES
from pybroker.protocol.primitives import ValueKind
from pybroker.protocol.unpacked import HeaderEntry, HeaderField, pack_headers
from schemathesis.openapi.checks import JsonSchemaError
from support.broker import Broker
from support.rest import Rest, message, new_topic, text64, to_partition

DOCUMENT = document(ROUTES)
OPERATIONS: dict[str, tuple[str, str, Json]] = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
ENDLESS = {name_of(own.Follow)}  # its answer has no end; it has tests of its own

STREAM = {"stream": "s"}
TOPIC = {"stream": "s", "topic": "t"}
OTHER = {"stream": "a/b", "topic": "other"}
IN_TOPIC = dict.fromkeys(("manage_topic", "read_topic", "poll_messages", "send_messages"), True)
IN_STREAM = dict.fromkeys(
    ("manage_stream", "read_stream", "manage_topics", "read_topics", "poll_messages", "send_messages"), True
) | {"topics": {"0": IN_TOPIC}}
EVERYWHERE = dict.fromkeys(
    ("manage_servers", "read_servers", "manage_users", "read_users", "manage_streams", "read_streams",
     "manage_topics", "read_topics", "poll_messages", "send_messages"), False,
)  # fmt: skip
PERMISSIONS = {"global": EVERYWHERE, "streams": {"0": IN_STREAM}}
ENTRY = {"key": {"kind": "string", "value": text64(b"k")}, "value": {"kind": "int32", "value": text64(b"abcd")}}
UNREADABLE = pack_headers([HeaderEntry(HeaderField(ValueKind.STRING, b"k"), HeaderField(ValueKind.RAW, b"v"))])[:-1]


class Step(Struct):
    """What is asked for, and the status of its answer. path, query: values by name."""

    operation: str
    path: dict[str, str] = {}
    body: object = None
    query: dict[str, Any] = {}
    status: int = 200


STEPS = (
    Step("ping"),
    Step("health"),
    Step("ready"),
    Step("metrics"),
    Step("open_api"),
    Step("docs"),
    Step("get_stats"),
    Step("get_cluster_metadata"),
    Step("describe_options", {"scope": "topic"}),
    Step("describe_options", {"scope": "planet"}, status=400),
    Step("get_snapshot", body={"compression": "Stored", "snapshot_types": ["Test"]}),
    Step("get_snapshot", body={"snapshot_types": ["All", "Test"]}, status=400),
    Step("get_clients"),
    Step("get_client", {"client_id": "1"}),
    Step("get_client", {"client_id": "999"}, status=404),
    Step("login_user", body={"username": "bob", "password": "bob"}),
    Step("login_user", body={"username": "bob", "password": "wrong"}, status=400),
    Step("login_user", body={"username": "bob"}, status=422),
    Step("refresh_token", body={"token": "x.y.z"}, status=401),
    Step("create_user", body={"username": "alice", "password": "secret", "status": "active"}),
    Step("update_permissions", {"user": "alice"}, {"permissions": PERMISSIONS}, status=204),
    Step("update_user", {"user": "alice"}, {"status": "inactive"}, status=204),
    Step("get_users"),
    Step("get_user", {"user": "alice"}),
    Step("get_user", {"user": "nobody"}, status=404),
    Step("change_password", {"user": "alice"}, {"current_password": "secret", "new_password": "other"}, status=204),
    Step("delete_user", {"user": "alice"}, status=204),
    Step("create_token", body={"name": "one", "expiry": 0}),
    Step("create_token", body={"name": "two", "expiry": 1000}),
    Step("get_tokens"),
    Step("login_with_token", body={"token": "none"}, status=401),
    Step("delete_token", {"name": "one"}, status=204),
    Step("create_stream", body={"name": "a/b"}),
    Step("create_stream", body={"name": "a/b"}, status=400),
    Step("create_topic", {"stream": "a/b"}, new_topic("other", 3)),
    Step("get_streams"),
    Step("get_stream", {"stream": "a/b"}),
    Step("get_stream", STREAM),
    Step("update_stream", STREAM, {"name": "s"}, status=204),
    Step("get_topics", STREAM),
    Step("get_topic", TOPIC),
    Step("update_topic", TOPIC, {"name": "t"}, status=204),
    Step("create_partitions", OTHER, {"partitions_count": 2}),
    Step("delete_partitions", OTHER, query={"partitions_count": 1}, status=204),
    Step("send_messages", TOPIC, to_partition(message(b"1"), message(b"2", user_headers=[ENTRY])), status=201),
    Step("send_messages", TOPIC, to_partition(message(b"3", user_headers=text64(UNREADABLE))), {"ack": "none"}, 202),
    Step("send_messages", TOPIC, {"messages": []}, status=422),
    Step("poll_messages", TOPIC),
    Step("poll_messages", TOPIC, query={"count": "many"}, status=400),
    Step("flush_unsaved_buffer", TOPIC | {"partition_id": "0", "fsync": "true"}),
    Step("delete_segments", TOPIC | {"partition_id": "0"}, query={"segments_count": 1}, status=204),
    Step("get_consumer_offset", TOPIC, status=404),
    Step("store_consumer_offset", TOPIC, {"consumer_id": 1, "offset": 1}, status=204),
    Step("get_consumer_offset", TOPIC),
    Step("delete_consumer_offset", TOPIC | {"consumer": "1"}, status=204),
    Step("create_consumer_group", TOPIC, {"name": "new"}),
    Step("get_consumer_groups", TOPIC),
    Step("get_consumer_group", TOPIC | {"group": "g"}),
    Step("delete_consumer_group", TOPIC | {"group": "new"}, status=204),
    Step("purge_topic", OTHER, status=204),
    Step("purge_stream", {"stream": "a/b"}, status=204),
    Step("delete_topic", OTHER, status=204),
    Step("delete_stream", {"stream": "a/b"}, status=204),
    Step("logout_user", status=204),
)


@pytest.fixture
async def broker() -> Broker:
    """Stream "s" with topic "t", which has a group with a member."""
    broker = Broker()
    await broker.create_topic(2)
    await broker.create_group(broker.connect())
    return broker


async def taken(rest: Rest, step: Step) -> httpx.Response:
    method, path, _ = OPERATIONS[step.operation]
    for name, value in step.path.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return await rest.ask(method.upper(), path, step.body, **step.query)


def check(operation: str, response: httpx.Response) -> None:
    """Fail where an answer is not one that the document tells of."""
    method, path, told = OPERATIONS[operation]
    assert str(response.status_code) in told["responses"], f"{operation}: {response.status_code} {response.text}"
    answer = told["responses"][str(response.status_code)]
    if "$ref" in answer:
        answer = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    kinds = {kind.partition(";")[0] for kind in answer.get("content", {})}
    kind = response.headers.get("content-type", "").partition(";")[0]
    assert kind in kinds if response.content else not kinds
    schema = cast(Any, schemathesis.openapi.from_dict(DOCUMENT))
    schema[path][method].validate_response(response)


def test_the_document_is_valid() -> None:
    cast(Any, schemathesis.openapi.from_dict(DOCUMENT)).validate()


def test_every_route_is_told_of_once_with_words_for_people() -> None:
    assert sorted(OPERATIONS) == sorted(name_of(route.command) for route in ROUTES)
    assert [name for name, (_, _, told) in OPERATIONS.items() if not (told["summary"] and told["description"])] == []
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert {tag for _, _, told in OPERATIONS.values() for tag in told["tags"]} == tags


async def test_every_route_answers_as_the_document_says(anyone: Rest) -> None:
    await anyone.login()
    for step in STEPS:
        response = await taken(anyone, step)
        assert response.status_code == step.status, f"{step}: {response.text}"
        check(step.operation, response)
    assert {step.operation for step in STEPS} == OPERATIONS.keys() - ENDLESS


async def test_an_answer_of_another_shape_would_be_noticed(anyone: Rest) -> None:
    await anyone.login()
    with pytest.raises(JsonSchemaError):
        check("get_stream", await taken(anyone, Step("get_streams")))
    with pytest.raises(AssertionError, match="get_streams: 404"):
        check("get_streams", await taken(anyone, Step("get_stream", {"stream": "none"})))


async def test_every_sign_in_answers_as_the_document_says(anyone: Rest) -> None:
    token = (await anyone.login())["access_token"]["token"]
    made = await anyone.post("/personal-access-tokens", {"name": "one", "expiry": 0})
    for operation, given in (("refresh_token", token), ("login_with_token", made["token"])):
        response = await taken(anyone, Step(operation, body={"token": given}))
        assert response.status_code == 200
        check(operation, response)


@pytest.mark.parametrize("operation", [name for name, (_, _, told) in OPERATIONS.items() if "security" not in told])
async def test_every_route_refuses_strangers_as_the_document_says(anyone: Rest, operation: str) -> None:
    response = await taken(anyone, Step(operation))
    assert response.status_code == 401
    check(operation, response)


@pytest.mark.parametrize("operation", [name for name, (_, _, told) in OPERATIONS.items() if "requestBody" in told])
async def test_every_body_that_can_not_be_is_refused_as_the_document_says(anyone: Rest, operation: str) -> None:
    await anyone.login()
    method, path, _ = OPERATIONS[operation]
    for content, kind, status in (
        (b"{", "application/json", 400),
        (b"1", "application/json", 422),
        (b"{}", "text/plain", 415),
        (b" " * 3_000_000, "application/json", 413),
    ):
        response = await anyone.http.request(method.upper(), path, content=content, headers={"content-type": kind})
        assert response.status_code == status
        check(operation, response)


async def test_the_right_that_the_document_tells_of_is_asked_for(anyone: Rest) -> None:
    await anyone.login("bob")
    for operation, (_, _, told) in OPERATIONS.items():
        if "403" in told["responses"] and "requestBody" not in told:
            path = {one["name"]: "0" for one in told["parameters"] if one["in"] == "path"} | {"fsync": "true"}
            query = {one["name"]: "1" for one in told["parameters"] if one["in"] == "query" and one["required"]}
            response = await taken(anyone, Step(operation, path, query=query))
            assert response.status_code == 403, operation
            check(operation, response)


async def test_anybody_may_read_the_document_and_its_page(anyone: Rest) -> None:
    assert await anyone.get("/openapi.json") == DOCUMENT
    page = await anyone.ask("GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "openapi.json" in page.text
    # It works without the network, and shows nothing that comes from elsewhere.
    assert "://" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
