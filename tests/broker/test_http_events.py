"""Messages pushed as server-sent events, over a real port: where streams begin, and where they go on."""

import asyncio
import random
from typing import Any

import pytest
from pybroker.protocol.model.messages import PollMessages
from pybroker.protocol.model.partitions import CreatePartitions, DeletePartitions, DeleteSegments
from pybroker.protocol.model.topics import PurgeTopic, UpdateTopic
from pybroker.protocol.primitives import Transport
from support.broker import TINY_SEGMENTS, Broker, text_option
from support.events import follow
from support.rest import Rest, text64

TOPIC = "/streams/s/topics/t"
EVENTS = f"{TOPIC}/messages/stream"
OFFSETS = f"{TOPIC}/consumer-offsets"
PARTITIONS_COUNT = 3


@pytest.fixture
async def broker() -> Broker:
    broker = Broker(segment_size=TINY_SEGMENTS)
    await broker.create_topic(PARTITIONS_COUNT)
    return broker


def polls_of(broker: Broker) -> int:
    return sum(broker.state.counters.requests[PollMessages][Transport.HTTP].counts)


async def test_an_event_is_the_message_of_a_poll_and_its_partition(broker: Broker, root: Rest) -> None:
    await broker.send(b"a", b"line\nbreak", partition_id=2)
    polled = await root.get(f"{TOPIC}/messages", partition_id=2)
    async with follow(root, EVENTS, kind="first") as events:
        taken = await events.take(2)
    assert [event.data for event in taken] == [{"partition_id": 2, **message} for message in polled["messages"]]
    assert taken[1].data["payload"] == text64(b"line\nbreak")


async def test_the_answer_is_kept_by_nobody_and_held_back_by_nobody(root: Rest) -> None:
    async with follow(root, EVENTS) as events:
        headers = events.response.headers
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    assert "content-length" not in headers


async def test_who_asks_for_the_head_alone_gets_it(root: Rest) -> None:
    response = await root.ask("HEAD", EVENTS)
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("count", [1, 2, 1000])
async def test_a_partition_comes_in_order_however_little_is_in_hand(broker: Broker, root: Rest, count: int) -> None:
    for _ in range(10):
        await broker.send(b"a", b"b", b"c")
    async with follow(root, EVENTS, kind="first", partition_id=0, count=count) as events:
        assert await events.places(30) == [(0, offset) for offset in range(30)]


async def test_a_send_wakes_a_stream_which_else_asks_for_nothing(broker: Broker, root: Rest) -> None:
    await broker.send(b"before")
    async with follow(root, EVENTS) as events:
        for offset in range(5):
            await broker.send(b"after", partition_id=1)
            assert await events.places(1) == [(1, offset)]
    # One at the opening, then of each partition, and of each send.
    assert polls_of(broker) <= 1 + PARTITIONS_COUNT + 5


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        ({"kind": "first"}, [(0, 0), (0, 1), (0, 2), (0, 3)]),
        ({"kind": "offset", "value": 2}, [(0, 2), (0, 3)]),
        ({"kind": "offset", "value": 3}, [(0, 3)]),
        ({"kind": "last", "count": 1}, [(0, 2), (0, 3)]),
        ({"kind": "last", "count": 2}, [(0, 1), (0, 2), (0, 3)]),
        ({"kind": "timestamp", "value": 0}, [(0, 0), (0, 1), (0, 2), (0, 3)]),
        ({"kind": "timestamp", "value": 2**60}, [(0, 3)]),
        ({"kind": "next", "consumer_id": "fresh"}, [(0, 0), (0, 1), (0, 2), (0, 3)]),
        ({"consumer_id": "billing"}, [(0, 2), (0, 3)]),
        ({"kind": "new", "consumer_id": "billing"}, [(0, 3)]),
        ({"kind": "new"}, [(0, 3)]),
        ({}, [(0, 3)]),
    ],
    ids=repr,
)
async def test_a_stream_begins_where_it_is_asked_to(
    broker: Broker, root: Rest, asked: dict[str, Any], places: list[tuple[int, int]]
) -> None:
    """Three messages are there, of which `billing` has read two; the fourth comes later."""
    for _ in range(3):
        await broker.send(b"x")
    await root.do("PUT", OFFSETS, {"consumer_id": "billing", "partition_id": 0, "offset": 1})
    async with follow(root, EVENTS, **asked) as events:
        await broker.send(b"later")
        assert await events.places(len(places)) == places


async def test_a_timestamp_is_that_of_the_first_message_after_it(broker: Broker, root: Rest) -> None:
    await broker.send(b"early")
    broker.clock.now_us += 1000
    now_us = broker.clock.now_us
    await broker.send(b"late", partition_id=0)
    async with follow(root, EVENTS, kind="timestamp", value=now_us) as events:
        assert await events.places(1) == [(0, 1)]


async def test_a_stream_cut_at_any_event_goes_on_exactly_there(broker: Broker, root: Rest) -> None:
    sent = [(partition_id, turn) for turn in range(4) for partition_id in range(PARTITIONS_COUNT)]
    for partition_id, _ in sent:
        await broker.send(b"x", partition_id=partition_id)
    for cut in range(len(sent)):
        async with follow(root, EVENTS, kind="first", count=3) as events:
            before = await events.places(cut)
        async with follow(root, EVENTS, after=events.ident, kind="new", count=3) as events:
            after = await events.places(len(sent) - cut)
        assert sorted(before + after) == sorted(sent)


@pytest.mark.parametrize("seed", range(5))
async def test_cuts_at_random_while_messages_come_lose_and_double_nothing(
    broker: Broker, root: Rest, seed: int
) -> None:
    chance = random.Random(seed)
    sends = [(chance.randrange(PARTITIONS_COUNT), chance.randint(1, 3)) for _ in range(60)]
    total = sum(count for _, count in sends)

    async def produce() -> None:
        for partition_id, count in sends:
            await broker.send(*[b"x"] * count, partition_id=partition_id)
            await asyncio.sleep(chance.choice((0, 0, 0.001)))

    seen: list[tuple[int, int]] = []
    after = None
    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        while len(seen) < total:
            async with follow(root, EVENTS, after=after, kind="first", count=chance.randint(1, 4)) as events:
                seen += await events.places(min(chance.randint(0, 9), total - len(seen)))
                after = events.ident
    assert len(set(seen)) == len(seen)
    for partition_id in range(PARTITIONS_COUNT):
        count = sum(count for sent_to, count in sends if sent_to == partition_id)
        assert [offset for held_by, offset in seen if held_by == partition_id] == list(range(count))


async def test_a_stream_cut_before_its_first_event_misses_nothing(broker: Broker, root: Rest) -> None:
    await broker.send(b"old")
    async with follow(root, EVENTS) as events:
        pass
    await broker.send(b"new")
    await broker.send(b"new", partition_id=2)
    async with follow(root, EVENTS, after=events.ident) as events:
        assert sorted(await events.places(2)) == [(0, 1), (2, 0)]


async def test_the_last_id_in_the_url_holds_until_the_header_has_a_newer_one(broker: Broker, root: Rest) -> None:
    await broker.send(b"a", b"b", b"c")
    async with follow(root, EVENTS, kind="first") as events:
        first, second, _ = await events.take(3)
    async with follow(root, EVENTS, last_event_id=first.ident) as events:
        assert await events.places(1) == [(0, 1)]
    async with follow(root, EVENTS, after=second.ident, last_event_id=first.ident) as events:
        assert await events.places(1) == [(0, 2)]


async def test_offsets_are_stored_for_a_consumer_that_asks_for_it(broker: Broker, root: Rest) -> None:
    await broker.send(b"a", b"b")
    async with follow(root, EVENTS, consumer_id="billing", auto_commit=True) as events:
        await events.take(2)
        await broker.send(b"c")
        await events.take(1)  # the first two are stored before the third is read
        assert (await root.get(OFFSETS, consumer_id="billing"))["stored_offset"] >= 1
    async with follow(root, EVENTS, consumer_id="other") as events:
        await events.take(3)
        await broker.send(b"d")
        await events.take(1)
    assert (await root.ask("GET", OFFSETS, consumer_id="other")).status_code == 404


async def test_partitions_that_come_later_are_followed_from_their_first_message(broker: Broker, root: Rest) -> None:
    async with follow(root, EVENTS) as events:
        await broker.ask(CreatePartitions("s", "t", 1))
        await broker.send(b"x", partition_id=PARTITIONS_COUNT)
        assert await events.places(1) == [(PARTITIONS_COUNT, 0)]
    await broker.ask(CreatePartitions("s", "t", 1))
    await broker.send(b"x", partition_id=PARTITIONS_COUNT + 1)
    async with follow(root, EVENTS, after=events.ident) as events:
        assert await events.places(1) == [(PARTITIONS_COUNT + 1, 0)]


async def test_partitions_that_go_leave_the_others(broker: Broker, root: Rest) -> None:
    async with follow(root, EVENTS) as events:
        await broker.ask(DeletePartitions("s", "t", 2))
        await broker.send(b"x")
        assert await events.places(1) == [(0, 0)]
        assert events.ident == f"{broker.log_ids()[0]}:1"


async def test_a_purge_is_followed_by_what_comes_after_it(broker: Broker, root: Rest) -> None:
    await broker.send(b"a", b"b")
    async with follow(root, EVENTS, kind="first") as events:
        assert await events.places(2) == [(0, 0), (0, 1)]
        await broker.ask(PurgeTopic("s", "t"))
        await broker.send(b"c")
        assert await events.places(1) == [(0, 0)]
        before = events.ident
    await broker.ask(PurgeTopic("s", "t"))
    await broker.send(b"d", b"e")
    async with follow(root, EVENTS, after=before) as events:
        assert await events.places(2) == [(0, 0), (0, 1)]


async def test_what_retention_took_is_passed_over(broker: Broker, root: Rest) -> None:
    for _ in range(4):
        await broker.send(b"x")
    async with follow(root, EVENTS, kind="first") as events:
        await events.take(1)
    await broker.ask(DeleteSegments("s", "t", 0, 2))
    async with follow(root, EVENTS, after=events.ident) as events:
        assert await events.places(2) == [(0, 2), (0, 3)]


async def test_a_topic_may_be_renamed(broker: Broker, root: Rest) -> None:
    async with follow(root, EVENTS) as events:
        await broker.ask(UpdateTopic("s", "t", "u"))
        await broker.send(b"x", topic="u")
        assert await events.places(1) == [(0, 0)]


async def test_a_topic_with_deduplication_wakes_its_streams(broker: Broker, root: Rest) -> None:
    await broker.create_topic(1, text_option("message_deduplication", "true"), name="once")
    async with follow(root, "/streams/s/topics/once/messages/stream") as events:
        await broker.send(b"x", topic="once")
        assert await events.places(1) == [(0, 0)]
