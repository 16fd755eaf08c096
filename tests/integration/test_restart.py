"""What outlives the process, ended politely or not."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from apache_iggy import Consumer, Durability, IggyClient, MaxTopicSize, PollingStrategy
from pybroker.protocol.model import groups, offsets, streams, topics
from pybroker.protocol.model.partitions import DeleteSegments
from pybroker.protocol.primitives import Consumer as WireConsumer
from pybroker.protocol.primitives import ConsumerKind
from support.raw import RawClient, Stored, read_log
from support.server import Server, free_port
from support.wheel import bounded, connect, make_topic, offsets_of, poll, send, texts_of

READER = WireConsumer(ConsumerKind.SINGLE, "reader")
GROUP = WireConsumer(ConsumerKind.GROUP, "group")
ENDS = ["SIGTERM", "SIGKILL"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, on the same port after a restart."""
    with Server(tmp_path / "data", port=free_port()) as running:
        yield running


def restart(server: Server, end: str) -> None:
    if end == "SIGTERM":
        assert server.stop() == 0
    else:
        server.kill()
    server.start()


def snapshot(server: Server) -> dict[str, Any]:
    """Return all that a client can see and that has to outlive the process."""
    with RawClient(server.port) as raw:
        raw.login()
        return {
            "streams": raw.ask(streams.GetStreams()),
            "topics": [raw.ask(topics.GetTopic(stream, topic)) for stream, topic in TOPICS],
            "logs": [read_log(raw, stream, topic, number) for stream, topic in TOPICS for number in (0, 1)],
            "groups": [raw.ask(groups.GetConsumerGroups(stream, topic)) for stream, topic in TOPICS],
            "offsets": [
                raw.ask(offsets.GetConsumerOffset(consumer, stream, topic, number))
                for consumer in (READER, GROUP)
                for stream, topic in TOPICS
                for number in (0, 1)
            ],
        }


TOPICS = [("stream", "plain"), ("stream", "persisted"), ("renamed", "small")]


async def fill(client: IggyClient, raw: RawClient) -> None:
    """Make TOPICS with all that can be in a topic, and remove others."""
    for stream in ("stream", "gone", "old name"):
        await bounded(client.create_stream(stream))
    await bounded(client.create_topic("stream", "gone", 1))
    await bounded(client.create_topic("stream", "plain", 2))
    options = {"message_expiry": "7 days", "enforce_fsync": "true"}
    await bounded(client.create_topic("stream", "persisted", 3, durability=Durability.PERSISTED, options=options))
    await bounded(client.create_topic("old name", "small", 2, segment_size=1 << 20))
    await bounded(client.update_stream("old name", "renamed"))
    await bounded(client.delete_stream("gone"))
    await bounded(client.delete_topic("stream", "gone"))
    await bounded(client.delete_partitions("stream", "persisted", 1))
    for stream, topic in TOPICS:
        raw.ask(groups.CreateConsumerGroup(stream, topic, "group"))
        raw.ask(groups.JoinConsumerGroup(stream, topic, "group"))
        for partition_id in (0, 1):
            for number in range(5):
                texts = [f"{topic}-{partition_id}-{number}-{part}" + "x" * 50_000 for part in range(6)]
                await send(client, stream, topic, texts, partition_id)
            for offset, consumer in ((7, READER), (11 + partition_id, GROUP)):
                raw.ask(offsets.StoreConsumerOffset(consumer, stream, topic, partition_id, offset))
        raw.ask(groups.LeaveConsumerGroup(stream, topic, "group"))


@pytest.mark.parametrize("end", ENDS)
async def test_everything_is_there_after_a_restart(server: Server, end: str) -> None:
    client = await connect(server.address)
    with RawClient(server.port) as raw:
        raw.login()
        await fill(client, raw)
    before = snapshot(server)
    assert sum(map(len, before["logs"])) == 180
    for _ in range(2):
        restart(server, end)
        assert snapshot(server) == before
    fresh = await connect(server.address)
    assert await send(fresh, "stream", "plain", ["more"]) == 30
    assert texts_of(await poll(fresh, "stream", "plain", PollingStrategy.Last(), count=1)) == ["more"]
    reader = Consumer.Single("reader")
    assert offsets_of(await poll(fresh, "renamed", "small", PollingStrategy.Next(), count=2, consumer=reader)) == [8, 9]


@pytest.mark.parametrize("end", ENDS)
async def test_freed_ids_are_given_again_after_a_restart(server: Server, end: str) -> None:
    client = await connect(server.address)
    for name in ("a", "b", "c"):
        await bounded(client.create_stream(name))
    await bounded(client.delete_stream("b"))
    restart(server, end)
    client = await connect(server.address)
    for name in ("d", "e"):
        await bounded(client.create_stream(name))
    listed = {each.name: each.id for each in await bounded(client.get_streams())}
    assert listed == {"a": 0, "c": 2, "d": 1, "e": 3}


@pytest.mark.parametrize("end", ENDS)
async def test_what_was_deleted_stays_away_and_what_was_purged_begins_at_0(server: Server, end: str) -> None:
    client = await connect(server.address)
    for stream in ("purged", "deleted"):
        await make_topic(client, stream)
        await send(client, stream, "topic", ["old"] * 10)
        await poll(client, stream, "topic", auto_commit=True)
    await bounded(client.purge_topic("purged", "topic"))
    await bounded(client.delete_stream("deleted"))
    restart(server, end)
    client = await connect(server.address)
    assert await bounded(client.get_stream("deleted")) is None
    await make_topic(client, "deleted")
    for stream in ("purged", "deleted"):
        assert await poll(client, stream, "topic") == []
        assert await send(client, stream, "topic", ["new"]) == 0
        assert texts_of(await poll(client, stream, "topic", PollingStrategy.Next())) == ["new"]


@pytest.mark.parametrize("end", ENDS)
async def test_offsets_go_on_after_all_segments_were_deleted(server: Server, end: str) -> None:
    client = await connect(server.address)
    await bounded(client.create_stream("stream"))
    await bounded(client.create_topic("stream", "topic", 1, segment_size=1 << 20))
    for _ in range(6):
        await send(client, "stream", "topic", [b"x" * 600_000])
    with RawClient(server.port) as raw:
        raw.login()
        raw.ask(DeleteSegments("stream", "topic", 0, 100))
        before: list[Stored] = read_log(raw, "stream", "topic")
        restart(server, end)
    with RawClient(server.port) as raw:
        raw.login()
        assert read_log(raw, "stream", "topic") == before
    assert await send(await connect(server.address), "stream", "topic", ["on"]) == 6


@pytest.mark.parametrize("end", ENDS)
async def test_connected_clients_come_back_by_themselves(server: Server, end: str) -> None:
    client = await connect(server.address)
    await make_topic(client, "stream")
    await send(client, "stream", "topic", ["before"])
    restart(server, end)
    assert texts_of(await poll(client, "stream", "topic")) == ["before"]
    assert await send(client, "stream", "topic", ["after"]) == 1
    assert texts_of(await poll(client, "stream", "topic")) == ["before", "after"]


async def test_a_call_during_the_restart_waits_for_the_server(server: Server) -> None:
    client = await connect(server.address)
    await make_topic(client, "stream")
    await send(client, "stream", "topic", ["before"])
    server.kill()
    waiting = asyncio.ensure_future(poll(client, "stream", "topic"))
    await asyncio.sleep(timedelta(milliseconds=200).total_seconds())
    assert not waiting.done()
    await asyncio.to_thread(server.start)
    assert texts_of(await bounded(waiting)) == ["before"]


async def test_a_group_consumer_rejoins_and_misses_nothing(server: Server) -> None:
    client = await connect(server.address)
    await make_topic(client, "stream", "topic", 2)
    consumers_client = await connect(server.address)
    consumer = await bounded(
        consumers_client.consumer_group(
            "group", "stream", "topic", batch_length=3, poll_interval=timedelta(milliseconds=5)
        )
    )
    messages = consumer.iter_messages()
    found: list[str] = []
    for start in (0, 10, 20):
        for number in range(start, start + 10):
            await send(client, "stream", "topic", [str(number)], number % 2)
        while len(set(found)) < start + 10:
            try:
                found.append((await bounded(anext(messages))).payload().decode())
            except RuntimeError as error:
                # The client tells of a write, here the commit of an offset, that was under way: it can't know.
                assert str(error) == "Disconnected"
                messages = consumer.iter_messages()
        if start < 20:
            await asyncio.to_thread(restart, server, "SIGKILL")
            await bounded(client.get_streams())
    assert {int(text) for text in found} == set(range(30))
    group = await bounded(client.get_consumer_group("stream", "topic", "group"))
    assert group is not None
    assert group.members_count == 1


async def test_the_settings_of_a_topic_are_the_same_after_a_restart(server: Server) -> None:
    client = await connect(server.address)
    await bounded(client.create_stream("stream"))
    await bounded(client.create_topic("stream", "topic", 1, max_topic_size=MaxTopicSize.Unlimited()))
    await bounded(client.update_topic("stream", "topic", "topic", options={"message_expiry": "2 h"}))
    before = await bounded(client.get_topics("stream"))
    restart(server, "SIGKILL")
    after = await bounded(client.get_topics("stream"))
    assert [topic.options.to_scalar_dict() for topic in after] == [topic.options.to_scalar_dict() for topic in before]
    assert after[0].created_at == before[0].created_at
