"""How event streams are refused, how they end, and what a peer that does not read costs."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pybroker.broker.listeners.http import eventstream
from pybroker.broker.listeners.http import listener as listener_module
from pybroker.broker.listeners.http.listener import HttpListener
from pybroker.protocol.model.partitions import DeletePartitions
from pybroker.protocol.model.streams import DeleteStream
from pybroker.protocol.model.topics import DeleteTopic
from pybroker.protocol.model.users import DeleteUser, UpdatePermissions, UpdateUser
from pybroker.protocol.primitives import Permissions, UserStatus
from support.broker import Broker
from support.events import follow
from support.rest import CALL_TIMEOUT_S, LIMITS, Rest

TOPIC = "/streams/s/topics/t"
EVENTS = f"{TOPIC}/messages/stream"
SHORT_S = 0.05
PARTITIONS_COUNT = 2
SENT = 40  # messages of a megabyte, to who does not read
POLLS = Permissions(poll_messages=True)


@pytest.fixture
async def broker() -> Broker:
    broker = Broker()
    await broker.create_topic(PARTITIONS_COUNT)
    await broker.ask(UpdatePermissions("bob", POLLS))
    return broker


@pytest.fixture
async def listener(broker: Broker) -> AsyncIterator[HttpListener]:
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    yield listener
    await listener.finish(1)


@pytest.fixture
async def address(listener: HttpListener) -> str:
    return await listener.open("127.0.0.1", 0)


@pytest.fixture
async def bob(address: str) -> AsyncIterator[Rest]:
    """A user who may poll, and nothing else."""
    async with Rest(address) as rest:
        await rest.login("bob")
        yield rest


async def test_who_may_not_poll_is_refused(broker: Broker, bob: Rest) -> None:
    await broker.ask(UpdatePermissions("bob", None))
    assert await bob.code("GET", EVENTS) == (403, "unauthorized")
    assert await bob.code("GET", EVENTS, group="g") == (404, "consumer_group_id_not_found")
    await broker.create_group()
    assert await bob.code("GET", EVENTS, group="g") == (403, "unauthorized")
    assert not broker.state.arrivals._waiters


@pytest.mark.parametrize(
    ("path", "asked", "refused"),
    [
        ("/streams/no/topics/t/messages/stream", {}, (404, "stream_id_not_found")),
        ("/streams/s/topics/no/messages/stream", {}, (404, "topic_id_not_found")),
        (EVENTS, {"partition_id": PARTITIONS_COUNT}, (404, "partition_not_found")),
        (EVENTS, {"group": "no"}, (404, "consumer_group_id_not_found")),
        (EVENTS, {"group": ""}, (400, "invalid_identifier")),
        (EVENTS, {"consumer_id": "x" * 256}, (400, "invalid_identifier")),
    ],
)
async def test_what_is_not_there_is_refused_before_anything_is_sent(
    bob: Rest, path: str, asked: dict[str, Any], refused: tuple[int, str]
) -> None:
    assert await bob.code("GET", path, **asked) == refused


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "soon"},
        {"kind": "next"},
        {"count": 0},
        {"count": 1001},
        {"value": 2**64},
        {"auto_commit": True},
        {"group": "g", "consumer_id": "c"},
        {"group": "g", "partition_id": 0},
        {"group": "g", "kind": "first"},
        {"group": "g", "auto_commit": False},
        {"last_event_id": "1"},
        {"last_event_id": "1:2,"},
        {"last_event_id": "1:2:3"},
        {"last_event_id": "1:-2"},
        {"last_event_id": f"1:{2**64}"},
    ],
    ids=repr,
)
async def test_what_makes_no_sense_is_refused_in_words(broker: Broker, bob: Rest, asked: dict[str, Any]) -> None:
    response = await bob.ask("GET", EVENTS, **asked)
    assert response.status_code == 400
    assert response.headers["content-type"].startswith("text/plain")
    assert not broker.state.arrivals._waiters


async def test_a_permission_that_was_taken_ends_the_stream_at_its_next_message(broker: Broker, bob: Rest) -> None:
    async with follow(bob, EVENTS) as events:
        await broker.ask(UpdatePermissions("bob", None))
        await broker.send(b"x")
        assert await events.refusal() == "unauthorized"


async def test_who_is_deleted_or_made_inactive_is_out_at_once(broker: Broker, bob: Rest) -> None:
    async with follow(bob, EVENTS) as events:
        await broker.ask(UpdateUser("bob", None, UserStatus.INACTIVE))
        assert await events.refusal() == "unauthenticated"
    await broker.ask(UpdateUser("bob", None, UserStatus.ACTIVE))
    async with follow(bob, EVENTS) as events:
        await broker.ask(DeleteUser("bob"))
        assert await events.refusal() == "unauthenticated"


async def test_a_token_that_expires_ends_the_stream_and_shows_nothing_more(broker: Broker, bob: Rest) -> None:
    async with follow(bob, EVENTS) as events:
        broker.clock.now_us += 2 * broker.config.http.jwt.access_token_expiry_us
        await broker.send(b"x")
        assert await events.refusal() == "unauthenticated"


async def test_a_logout_ends_the_streams_of_its_token(broker: Broker, bob: Rest) -> None:
    async with follow(bob, EVENTS) as events:
        await bob.do("DELETE", "/users/logout")
        await broker.send(b"x")
        assert await events.refusal() == "unauthenticated"


async def test_a_personal_token_lets_in_until_it_is_deleted(broker: Broker, address: str, bob: Rest) -> None:
    secret = (await bob.post("/personal-access-tokens", {"name": "browser", "expiry": 0}))["token"]
    async with Rest(address, token=secret) as rest, follow(rest, EVENTS) as events:
        await broker.send(b"x")
        assert await events.places(1) == [(0, 0)]
        await bob.do("DELETE", "/personal-access-tokens/browser")
        await broker.send(b"y")
        assert await events.refusal() == "unauthenticated"


async def test_a_token_in_the_url_is_for_events_alone_and_in_no_log(
    broker: Broker, address: str, bob: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    for client in ("httpx", "httpcore"):
        caplog.set_level(logging.WARNING, client)
    caplog.set_level(logging.DEBUG)
    token = bob.http.headers["authorization"].removeprefix("Bearer ")
    caplog.clear()
    async with Rest(address) as rest:
        async with follow(rest, EVENTS, access_token=token) as events:
            await broker.ask(DeleteTopic("s", "t"))
            assert await events.refusal() == "topic_id_not_found"
        assert await rest.code("GET", "/streams", access_token=token) == (401, "unauthenticated")
        assert await rest.code("GET", EVENTS, access_token=token + "x") == (401, "unauthenticated")
        assert await rest.code("GET", EVENTS) == (401, "unauthenticated")
        await rest.ask("GET", EVENTS, access_token=token, count=0)
    assert caplog.messages
    assert token not in caplog.text


async def test_what_is_deleted_ends_the_streams_that_follow_it(broker: Broker, bob: Rest) -> None:
    async with follow(bob, EVENTS) as all_of_it, follow(bob, EVENTS, partition_id=1) as one_partition:
        await broker.ask(DeletePartitions("s", "t", 1))
        assert await one_partition.refusal() == "partition_not_found"
        await broker.ask(DeleteStream("s"))
        assert await all_of_it.refusal() == "topic_id_not_found"


async def test_another_topic_of_the_same_name_and_id_is_not_followed(broker: Broker, bob: Rest) -> None:
    async with follow(bob, EVENTS) as events:
        await broker.ask(DeleteTopic("s", "t"))
        await broker.create_topic(PARTITIONS_COUNT)
        await broker.send(b"x")
        assert await events.refusal() == "topic_id_not_found"


async def test_a_broker_that_stops_ends_streams_like_any_answer(
    broker: Broker, listener: HttpListener, bob: Rest
) -> None:
    await broker.send(b"x")
    async with follow(bob, EVENTS, kind="first") as events, follow(bob, EVENTS) as idle:
        assert await events.places(1) == [(0, 0)]
        listener.close()
        assert (await events.rest(), await idle.rest()) == ([], [])


async def test_who_hangs_up_is_forgotten(broker: Broker, bob: Rest) -> None:
    async with follow(bob, EVENTS):
        assert len(broker.state.clients.of_user(1)) == 1
    async with asyncio.timeout(CALL_TIMEOUT_S):
        while broker.state.clients.of_user(1):
            await asyncio.sleep(SHORT_S / 5)
    assert not broker.state.arrivals._waiters


async def test_a_stream_that_waits_is_kept_alive_and_not_taken_for_a_stalled_one(
    broker: Broker, bob: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "CHECK_INTERVAL_S", SHORT_S / 10)
    monkeypatch.setattr(listener_module, "KEEP_ALIVE_S", SHORT_S / 2)
    monkeypatch.setattr(eventstream, "KEEP_ALIVE_S", SHORT_S)
    async with follow(bob, EVENTS) as events:
        for _ in range(4):
            assert await events.block() is None
        assert events.comments == 4
        await broker.send(b"x")
        assert await events.places(1) == [(0, 0)]


async def stuck(broker: Broker, address: str) -> socket.socket:
    """Return a peer that asks for more than it and the sockets' buffers take, and reads nothing."""
    for _ in range(SENT):
        await broker.send(b"x" * 1_000_000)
    async with Rest(address) as rest:
        token = (await rest.login("bob"))["access_token"]["token"]
    host, _, port = address.rpartition(":")
    peer = socket.create_connection((host, int(port)))
    head = f"GET {EVENTS}?kind=first&count=2 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    peer.sendall(head.encode())
    async with asyncio.timeout(CALL_TIMEOUT_S):
        while not broker.state.counters.unsent_bytes:
            await asyncio.sleep(SHORT_S / 5)
    return peer


def is_forgotten(broker: Broker) -> bool:
    state = broker.state
    return not (state.counters.unsent_bytes or state.arrivals._waiters or state.clients.of_user(1))


async def test_a_peer_that_does_not_read_holds_one_batch_and_is_closed(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "CHECK_INTERVAL_S", SHORT_S / 5)
    impatient = HttpListener(broker.state, broker.dispatch, replace(LIMITS, write_timeout_s=SHORT_S))
    peer = await stuck(broker, await impatient.open("127.0.0.1", 0))
    async with asyncio.timeout(CALL_TIMEOUT_S):
        while not is_forgotten(broker):
            await asyncio.sleep(SHORT_S / 5)
    assert broker.state.counters.traffic[0, 0].messages_out < SENT
    peer.close()
    await impatient.finish(1)


async def test_a_broker_that_stops_does_not_wait_for_who_does_not_read(
    broker: Broker, listener: HttpListener, address: str
) -> None:
    peer = await stuck(broker, address)
    await listener.finish(SHORT_S)
    assert is_forgotten(broker)
    peer.close()
