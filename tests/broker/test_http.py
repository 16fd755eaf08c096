"""The REST API over a broker on the memory engine, through a real port of this process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from pybroker.broker.config import Config, ConfigError
from pybroker.broker.config.schema import Cors, Http
from pybroker.broker.listeners.http import own
from pybroker.broker.listeners.http.commands import POLL_COUNT_MAX
from pybroker.broker.listeners.http.listener import HttpListener
from pybroker.broker.listeners.http.routes import ROUTES
from pybroker.broker.services.messages import HTTP_POLL_SIZE_MAX
from pybroker.protocol.commands import COMMANDS
from pybroker.protocol.needs import Need
from pybroker.protocol.primitives import U64_MAX
from support.broker import Broker
from support.rest import LIMITS, Rest, exchange, message, new_topic, succeeded, text64, to_partition

TOPIC = "/streams/s/topics/t"
MESSAGES = f"{TOPIC}/messages"
OFFSETS = f"{TOPIC}/consumer-offsets"
BODY_SIZE_MAX = 100_000


@pytest.fixture
async def broker() -> Broker:
    broker = Broker(config=replace(Config(), http=Http(max_request_size=BODY_SIZE_MAX)))
    await broker.create_topic(2)
    return broker


@pytest.fixture
async def bob(address: str) -> AsyncIterator[Rest]:
    """A user without permissions."""
    async with Rest(address) as rest:
        await rest.login("bob")
        yield rest


def test_every_route_has_a_command_of_its_own() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    assert len({route.command for route in ROUTES}) == len(ROUTES)
    needs = {row.request: row.need for row in COMMANDS} | own.NEEDS
    assert {needs.get(route.command, Need.NOTHING) for route in ROUTES if route.is_public} == {Need.NOTHING}


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.is_public], ids=lambda route: str(route[:2]))
async def test_nothing_but_signing_in_is_public(anyone: Rest, route: Any) -> None:
    path = route.path.replace("{partition_id}", "0").replace("{client_id}", "1")
    assert await anyone.code(route.method, path) == (401, "unauthenticated")


async def test_ping_answers_anybody(anyone: Rest) -> None:
    response = await anyone.ask("GET", "/ping")
    assert (response.status_code, response.text) == (200, "pong")


async def test_unknown_paths_and_methods_are_not_found(root: Rest) -> None:
    assert (await root.ask("GET", "/no/such/path")).status_code == 404
    for method in ("PATCH", "OPTIONS"):
        refused = await root.ask(method, "/streams/s")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, PUT, DELETE")


async def test_requests_leave_no_session_behind(broker: Broker, root: Rest, anyone: Rest) -> None:
    await root.get("/streams")
    assert await anyone.code("GET", "/streams") == (401, "unauthenticated")
    assert broker.state.clients.all() == [broker.root]


async def test_a_request_sees_itself_among_the_clients(root: Rest) -> None:
    theirs, own = await root.get("/clients")
    assert (theirs["transport"], own["transport"], own["user_id"]) == ("TCP", "HTTP", 0)
    assert await root.get(f"/clients/{theirs['client_id']}") == theirs | {"consumer_groups": []}
    assert await root.code("GET", "/clients/999") == (404, "not_found")
    assert (await root.ask("GET", "/clients/me")).status_code == 400


async def test_permissions_hold_as_on_the_wires(root: Rest, bob: Rest) -> None:
    assert await bob.code("GET", "/stats") == (403, "unauthorized")
    assert await bob.code("POST", MESSAGES, to_partition(message(b"x"))) == (403, "unauthorized")
    in_topic = {"manage_topic": False, "read_topic": False, "poll_messages": False, "send_messages": True}
    in_stream = {
        "manage_stream": False, "read_stream": False, "manage_topics": False, "read_topics": False,
        "poll_messages": False, "send_messages": False, "topics": {"0": in_topic},
    }  # fmt: skip
    everywhere = dict.fromkeys(
        ("manage_servers", "read_servers", "manage_users", "read_users", "manage_streams", "read_streams",
         "manage_topics", "read_topics", "poll_messages", "send_messages"), False,
    )  # fmt: skip
    granted = {"global": everywhere, "streams": {"0": in_stream}}
    await root.do("PUT", "/users/bob/permissions", {"permissions": granted})
    await bob.post(MESSAGES, to_partition(message(b"x")))
    assert await bob.code("GET", MESSAGES) == (403, "unauthorized")
    assert (await root.get("/users/bob"))["permissions"] == granted
    del in_topic["read_topic"]
    assert (await root.ask("PUT", "/users/bob/permissions", {"permissions": granted})).status_code == 422


async def test_streams_are_made_shown_changed_and_deleted(root: Rest) -> None:
    made = await root.post("/streams", {"name": "a b/c", "unknown": 1})
    assert made == {
        "id": 1, "created_at": made["created_at"], "name": "a b/c", "size": "0 B",
        "messages_count": 0, "topics_count": 0, "options": {}, "topics": [],
    }  # fmt: skip
    assert await root.get("/streams/1") == await root.get("/streams/a%20b%2Fc") == made
    assert [stream["id"] for stream in await root.get("/streams")] == [0, 1]
    await root.do("PUT", "/streams/1", {"name": "d"})
    assert await root.code("POST", "/streams", {"name": "d"}) == (400, "stream_name_already_exists")
    await root.do("DELETE", "/streams/d/purge")
    await root.do("DELETE", "/streams/d")
    assert await root.code("GET", "/streams/1") == (404, "not_found")
    assert await root.code("DELETE", "/streams/1") == (404, "stream_id_not_found")


async def test_topics_are_made_shown_changed_and_deleted(root: Rest) -> None:
    asked = new_topic("u", 3, message_expiry=5_000_000, replication_factor=1, options={"segment_size": "1 MiB"})
    made = await root.post("/streams/s/topics", asked)
    assert (made["id"], made["message_expiry"], made["max_topic_size"]) == (1, 5_000_000, U64_MAX)
    assert (made["replication_factor"], made["compression_algorithm"], made["size"]) == (1, "none", "0 B")
    assert made["options"]["segment_size"] == {"value": "1 MiB", "explicit": True}
    assert made["options"]["durability"] == {"value": "replicated", "explicit": False}
    assert [partition["id"] for partition in made["partitions"]] == [0, 1, 2]
    assert await root.get("/streams/s/topics/u") == made
    await root.do("PUT", "/streams/s/topics/u", {"name": "v", "compression_algorithm": "gzip"})
    changed = await root.get("/streams/s/topics/v")
    assert (changed["compression_algorithm"], changed["message_expiry"]) == ("gzip", 5_000_000)
    await root.do("POST", "/streams/s/topics/v/partitions", {"partitions_count": 2})
    await root.do("DELETE", "/streams/s/topics/v/partitions", partitions_count=1)
    assert (await root.get("/streams/s/topics/v"))["partitions_count"] == 4
    await root.do("DELETE", "/streams/s/topics/v/purge")
    await root.do("DELETE", "/streams/s/topics/v")
    assert [topic["name"] for topic in await root.get("/streams/s/topics")] == ["t"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"message_expiry": "1 h"}, 422),
        ({"message_expiry": -1}, 422),
        ({"message_expiry": U64_MAX + 1}, 422),
        ({"compression_algorithm": "zstd"}, 422),
        ({"partitions_count": 1001}, 400),
        ({"replication_factor": 0}, 400),
        ({"name": ""}, 400),
        ({"name": "n" * 256}, 400),
        ({"options": {"no_such": "1"}}, 400),
    ],
    ids=str,
)
async def test_a_topic_that_makes_no_sense_is_refused(root: Rest, change: dict[str, object], expected: int) -> None:
    assert (await root.ask("POST", "/streams/s/topics", new_topic("u") | change)).status_code == expected


async def test_what_was_sent_is_polled(broker: Broker, root: Rest) -> None:
    entries = [
        {"key": {"kind": "string", "value": text64(b"k")}, "value": {"kind": "uint8", "value": text64(b"\x07")}},
        {"key": {"kind": "raw", "value": text64(b"r")}, "value": {"kind": "float64", "value": text64(b"8 bytes!")}},
    ]
    ident = 2**128 - 1
    sent = [message(b"one", id=ident, user_headers=entries), message(b"two", id=str(7)), message(b"three")]
    response = succeeded(await root.ask("POST", MESSAGES, to_partition(*sent, partition_id=1)))
    assert response.status_code == 201
    assert response.headers["iggy-durability"] == "replicated-memory"
    confirmation = {"stream_id": 0, "topic_id": 0, "partition_id": 1, "base_offset": 0}
    assert response.json() == {"confirmations": [confirmation]}
    polled = await root.get(MESSAGES, partition_id=1, count=2)
    assert (polled["partition_id"], polled["current_offset"], polled["count"]) == (1, 2, 2)
    one, two = polled["messages"]
    assert one["payload"] == text64(b"one")
    assert one["user_headers"] == entries
    assert two["user_headers"] == []
    assert (one["header"]["id"], two["header"]["id"]) == (ident, 7)
    assert {key: two["header"][key] for key in ("offset", "payload_length", "user_headers_length", "reserved")} == {
        "offset": 1, "payload_length": 3, "user_headers_length": 0, "reserved": 0,
    }  # fmt: skip
    assert one["header"]["timestamp"] == one["header"]["origin_timestamp"] == broker.clock()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"kind": "offset", "value": 2}, [2, 3]),
        ({"kind": "o", "value": 1, "count": 1}, [1]),
        ({"kind": "last", "count": 1}, [3]),
        ({"kind": "f", "count": 2}, [0, 1]),
        ({"kind": "t", "value": 0}, [0, 1, 2, 3]),
    ],
    ids=str,
)
async def test_a_poll_starts_where_it_says(broker: Broker, root: Rest, query: Any, expected: list[int]) -> None:
    await broker.send(*(bytes([number + 1]) for number in range(4)))
    polled = await root.get(MESSAGES, **query)
    assert [one["header"]["offset"] for one in polled["messages"]] == expected


async def test_a_poll_returns_so_many_messages_at_most(broker: Broker, root: Rest) -> None:
    await broker.send(*[b"x"] * (POLL_COUNT_MAX + 1))
    assert (await root.get(MESSAGES, count=2**32 - 1))["count"] == POLL_COUNT_MAX


async def test_a_refused_number_of_partitions_names_the_limit(root: Rest) -> None:
    many = {"name": "n", "partitions_count": 1001, "compression_algorithm": "none"}
    made = await root.ask("POST", "/streams/s/topics", many | {"message_expiry": 0, "max_topic_size": 0})
    assert made.json()["reason"] == "Too many partitions: 1001, at most 1000"
    added = await root.ask("POST", f"{TOPIC}/partitions", {"partitions_count": 1001})
    assert added.json()["reason"] == "Too many partitions: 1001, expected 1 to 1000"


async def test_large_messages_come_in_parts_but_never_none(broker: Broker, root: Rest) -> None:
    part = HTTP_POLL_SIZE_MAX // 4
    await broker.send(*[bytes(part)] * 6)  # one record, which is larger than an answer
    await broker.send(bytes(HTTP_POLL_SIZE_MAX))
    offsets: list[int] = []
    for _ in range(7):
        polled = await root.get(MESSAGES, value=len(offsets), count=20)
        sizes = [one["header"]["payload_length"] for one in polled["messages"]]
        assert len(sizes) == 1 or 0 < sum(sizes) <= HTTP_POLL_SIZE_MAX
        offsets += [one["header"]["offset"] for one in polled["messages"]]
        if len(offsets) == 7:
            break
    assert offsets == list(range(7))


async def test_an_auto_commit_is_gone_on_from(broker: Broker, root: Rest) -> None:
    await broker.send(b"1", b"2", b"3")
    first = await root.get(MESSAGES, consumer_id="reader", kind="next", count=2, auto_commit="true")
    rest = await root.get(MESSAGES, consumer_id="reader", kind="next")
    assert [first["count"], rest["count"]] == [2, 1]


async def test_offsets_are_stored_shown_and_deleted(broker: Broker, root: Rest) -> None:
    await broker.send(b"1", b"2", b"3", partition_id=1)
    await root.do("PUT", OFFSETS, {"consumer_id": 5, "partition_id": 1, "offset": 1})
    shown = await root.get(OFFSETS, consumer_id=5, partition_id=1)
    assert shown == {"partition_id": 1, "current_offset": 2, "stored_offset": 1}
    assert await root.code("GET", OFFSETS, consumer_id=5) == (404, "not_found")
    await root.do("DELETE", f"{OFFSETS}/5", partition_id=1)
    assert await root.code("DELETE", f"{OFFSETS}/5", partition_id=1) == (404, "consumer_offset_not_found")
    body = {"consumer_id": "reader", "partition_id": 1, "offset": 3}
    response = await root.ask("PUT", OFFSETS, body)
    assert (response.status_code, response.json()["field"]) == (400, "offset")


async def test_partitions_are_chosen_as_on_the_wires(root: Rest) -> None:
    async def send(kind: str, value: bytes) -> int:
        body = {"partitioning": {"kind": kind, "value": text64(value)}, "messages": [message(b"x")]}
        return (await root.post(MESSAGES, body))["confirmations"][0]["partition_id"]

    assert [await send("balanced", b"") for _ in range(3)] == [0, 1, 0]
    assert len({await send("messages_key", b"key") for _ in range(3)}) == 1
    for kind, value in (("messages_key", b""), ("messages_key", b"k" * 256), ("partition_id", b"1")):
        body = {"partitioning": {"kind": kind, "value": text64(value)}, "messages": [message(b"x")]}
        assert (await root.ask("POST", MESSAGES, body)).status_code == 400


async def test_a_send_need_not_be_confirmed(root: Rest) -> None:
    response = await root.ask("POST", MESSAGES, to_partition(message(b"x")), ack="none")
    assert (response.status_code, response.content, response.headers["iggy-durability"]) == (202, b"", "none")
    assert (await root.get(MESSAGES))["count"] == 1
    assert (await root.ask("POST", MESSAGES, to_partition(message(b"x")), ack="some")).status_code == 400


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (to_partition(), 400),
        (to_partition(message(b"")), 400),
        (to_partition(message(b"x"), partition_id=2), 404),
        (to_partition(message(b"x", id=2**128)), 422),
        (to_partition(message(b"x", id="x")), 422),
        (to_partition(message(b"x", id=-1)), 422),
        (to_partition({"payload": "not base64"}), 422),
        (to_partition(message(b"x")) | {"more": 1}, 422),
        ({"messages": [message(b"x")]}, 422),
        (
            to_partition(
                message(
                    b"x",
                    user_headers=[{"key": {"kind": "raw", "value": ""}, "value": {"kind": "raw", "value": "eA=="}}],
                )
            ),
            400,
        ),
    ],
    ids=lambda value: str(value)[-60:],
)
async def test_a_send_that_makes_no_sense_stores_nothing(root: Rest, body: Any, expected: int) -> None:
    assert (await root.ask("POST", MESSAGES, body)).status_code == expected
    assert (await root.get(TOPIC))["messages_count"] == 0


async def test_headers_that_a_client_encrypted_stay_as_they_are(root: Rest) -> None:
    await root.post(MESSAGES, to_partition(message(b"x", user_headers=text64(b"\xffsecret"))))
    assert (await root.get(MESSAGES))["messages"][0]["user_headers"] == text64(b"\xffsecret")


async def test_consumer_groups_are_made_shown_and_deleted(root: Rest) -> None:
    made = await root.post(f"{TOPIC}/consumer-groups", {"name": "g"})
    assert made == {"id": 0, "name": "g", "partitions_count": 2, "members_count": 0, "members": []}
    assert await root.get(f"{TOPIC}/consumer-groups/g") == made
    del made["members"]
    assert await root.get(f"{TOPIC}/consumer-groups") == [made]
    await root.do("DELETE", f"{TOPIC}/consumer-groups/0")
    assert await root.code("GET", f"{TOPIC}/consumer-groups/g") == (404, "not_found")


async def test_segments_are_deleted_and_buffers_flushed(broker: Broker, root: Rest) -> None:
    await broker.send(b"1")
    await root.do("DELETE", f"{TOPIC}/partitions/0", segments_count=1)
    await root.do("GET", f"{MESSAGES}/flush/0/true")
    await root.do("GET", f"{MESSAGES}/flush/0/fsync=false")
    assert (await root.ask("GET", f"{MESSAGES}/flush/0/perhaps")).status_code == 400


async def test_the_server_tells_about_itself(broker: Broker, root: Rest) -> None:
    await broker.send(b"1")
    stats = await root.get("/stats")
    assert (stats["streams_count"], stats["messages_count"], stats["cache_metrics"]) == (1, 1, {})
    assert stats["messages_size_bytes"] == "305 B"
    (node,) = (await root.get("/cluster/metadata"))["nodes"]
    assert (node["role"], node["status"]) == ("leader", "healthy")
    keys = {spec["key"]: spec["kind"] for spec in await root.get("/options/topic")}
    assert (keys["segment_size"], keys["durability"]) == ("uint64", "string")
    assert await root.get("/options/user") == []
    assert (await root.ask("GET", "/options/server")).status_code == 400


async def test_a_body_that_is_no_json_is_told_from_one_that_does_not_fit(root: Rest) -> None:
    async def post(content: bytes, kind: str = "application/json") -> int:
        response = await root.http.post("/streams", content=content, headers={"content-type": kind})
        return response.status_code

    assert await post(b"{") == 400
    assert await post(b'{"name": "\xff"}') == 400
    assert await post(b'{"unknown":' + b"[" * 50_000) == 400
    assert await post(b'{"name": 1}') == 422
    assert await post(b"{}", "text/plain") == 415
    assert await post(b'{"name": "x"}', "application/json; charset=utf-8") == 200


async def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(root: Rest) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    headers = {"content-type": "application/json"}
    for content in (b" " * (BODY_SIZE_MAX + 1), parts()):
        response = await root.http.post("/streams", content=content, headers=headers)
        assert (response.status_code, response.headers["connection"]) == (413, "close")
    assert (await root.http.post("/streams", content=b" " * BODY_SIZE_MAX, headers=headers)).status_code == 400


async def test_who_has_not_signed_in_may_send_less(broker: Broker, anyone: Rest, root: Rest) -> None:
    size_max = broker.config.pybroker.frame_size_max_before_login
    body = {"username": "iggy", "password": "iggy", "context": "x" * size_max}
    assert (await anyone.ask("POST", "/users/login", body)).status_code == 413
    assert (await anyone.ask("POST", "/users/refresh-token", {"token": "x" * size_max})).status_code == 413
    assert (await root.ask("POST", "/streams", {"name": "u", "unknown": "x" * size_max})).status_code == 200


async def test_a_body_that_nobody_reads_is_no_next_request(anyone: Rest) -> None:
    for _ in range(3):
        response = await anyone.http.post("/streams", content=b"GET /ping HTTP/1.1\r\n\r\n" * 5000)
        assert response.status_code == 401


async def test_a_client_that_asks_first_need_not_send_a_body_over_the_limit(root: Rest, address: str) -> None:
    head = f"POST /streams HTTP/1.1\r\nhost: x\r\nauthorization: {root.http.headers['authorization']}\r\n"
    head += "content-type: application/json\r\ncontent-length: 999999\r\nexpect: 100-continue\r\n\r\n"
    assert (await exchange(address, head.encode())).startswith(b"HTTP/1.1 413")


async def test_headers_over_the_limit_are_refused(address: str) -> None:
    answer = await exchange(address, b"GET /ping HTTP/1.1\r\nx: " + b"x" * 100_000 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


async def test_answers_of_many_parts_arrive_whole(broker: Broker, root: Rest) -> None:
    payload = bytes(range(1, 251)) * 4000
    await broker.send(payload, payload)
    polled = await root.get(MESSAGES)
    assert [one["payload"] for one in polled["messages"]] == [text64(payload)] * 2
    assert broker.state.counters.unsent_bytes == 0


async def test_pages_of_other_origins_are_let_in_before_they_sign_in(anyone: Rest) -> None:
    asks = {"origin": "http://ui", "access-control-request-method": "PUT",
            "access-control-request-headers": "authorization"}  # fmt: skip
    preflight = await anyone.http.options("/streams", headers=asks)
    assert preflight.status_code == 200
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    refused = await anyone.http.get("/streams", headers={"origin": "http://ui"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")


def test_credentials_for_any_origin_stop_the_start(broker: Broker) -> None:
    broker.state.config = replace(broker.config, http=Http(cors=Cors(allow_credentials=True)))
    with pytest.raises(ConfigError, match="allow_credentials"):
        HttpListener(broker.state, broker.dispatch, LIMITS)


async def test_a_closed_listener_has_let_go_of_idle_connections(broker: Broker) -> None:
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    address = await listener.open("127.0.0.1", 0)
    async with Rest(address) as rest:
        await rest.ask("GET", "/ping")
        await listener.finish(1)
        with pytest.raises(ConnectionRefusedError):
            await exchange(address, b"")
