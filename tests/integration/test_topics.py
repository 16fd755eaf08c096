"""Streams, topics and partitions: made, found, changed, emptied, deleted."""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from apache_iggy import Durability, IggyClient, IggyExpiry, MaxTopicSize
from pybroker.protocol.errors import Status
from pybroker.protocol.model import partitions, streams, topics
from support.raw import RawClient
from support.server import Server
from support.wheel import bounded, connect, make_topic, offsets_of, poll, refused, send, stream_of, topic_of

MIB = 1 << 20
U64_MAX = 2**64 - 1
BASE = {"durability": "replicated", "consumer_offset_durability": "replicated"}

# What create_topic is told, the options that the topic then shows as asked for (besides BASE).
TOPIC_SETTINGS: dict[str, tuple[dict[str, Any], dict[str, object]]] = {
    "nothing": ({}, {}),
    "persisted": ({"durability": Durability.PERSISTED}, {"durability": "persisted"}),
    "replicated": ({"durability": Durability.REPLICATED}, {}),
    "offsets persisted": (
        {"consumer_offset_durability": Durability.PERSISTED},
        {"consumer_offset_durability": "persisted"},
    ),
    "expiry": (
        {"message_expiry": IggyExpiry.ExpireDuration(timedelta(days=7))},
        {"message_expiry": 7 * 86400 * 10**6},
    ),
    "no expiry": ({"message_expiry": IggyExpiry.NeverExpire()}, {"message_expiry": U64_MAX}),
    "server's expiry": ({"message_expiry": IggyExpiry.ServerDefault()}, {}),
    "size": (
        {"max_topic_size": MaxTopicSize.Custom(8 * MIB), "segment_size": 2 * MIB},
        {"max_topic_size": 8 * MIB, "segment_size": 2 * MIB},
    ),
    "no size": ({"max_topic_size": MaxTopicSize.Unlimited()}, {"max_topic_size": U64_MAX}),
    "server's size": ({"max_topic_size": MaxTopicSize.ServerDefault()}, {}),
    "compression": ({"compression_algorithm": "gzip"}, {"compression_algorithm": "gzip"}),
    "flush thresholds": (
        {"messages_required_to_save": 7, "size_of_messages_required_to_save": 4096},
        {"messages_required_to_save": 7, "size_of_messages_required_to_save": 4096},
    ),
    "preallocated": ({"preallocate_segments": True}, {"preallocate_segments": True}),
    "as text": (
        {"options": {"segment_size": "2 MiB", "message_expiry": "7 days", "enforce_fsync": "true"}},
        {"segment_size": "2 MiB", "message_expiry": "7 days", "enforce_fsync": "true"},
    ),
    "flags as text": (
        {"options": {"preallocate_segments": "true", "messages_required_to_save": "10"}},
        {"preallocate_segments": "true", "messages_required_to_save": "10"},
    ),
}
DERIVED = {
    "compression_algorithm",
    "message_expiry",
    "max_topic_size",
    "segment_size",
    "messages_required_to_save",
    "size_of_messages_required_to_save",
    "preallocate_segments",
    "message_deduplication",
}

REFUSED_OPTIONS: dict[str, tuple[dict[str, Any], Status]] = {
    "unknown key": ({"options": {"colour": "red"}}, Status.UNSUPPORTED_OPTION_KEY),
    "no size": ({"options": {"segment_size": "large"}}, Status.INVALID_OPTION_VALUE),
    "segment too small": ({"segment_size": 512}, Status.INVALID_OPTION_VALUE),
    "segment too large": ({"segment_size": 2 << 30}, Status.INVALID_OPTION_VALUE),
    "segment not of sectors": ({"segment_size": MIB + 1}, Status.INVALID_OPTION_VALUE),
    "no durability": ({"options": {"durability": "eternal"}}, Status.INVALID_OPTION_VALUE),
    "no compression": ({"options": {"compression_algorithm": "zip"}}, Status.INVALID_OPTION_VALUE),
    "smaller than a segment": ({"max_topic_size": MaxTopicSize.Custom(100 * MIB)}, Status.INVALID_TOPIC_SIZE),
}

Call = Callable[[IggyClient, str], Awaitable[Any]]

REFUSALS: dict[str, tuple[Call, Status]] = {
    "stream twice": (lambda client, name: client.create_stream(name), Status.STREAM_NAME_ALREADY_EXISTS),
    "topic twice": (lambda client, name: client.create_topic(name, "topic", 1), Status.TOPIC_NAME_ALREADY_EXISTS),
    "topic of no stream": (lambda client, _: client.create_topic("none", "topic", 1), Status.STREAM_ID_NOT_FOUND),
    "topics of no stream": (lambda client, _: client.purge_stream("none"), Status.STREAM_ID_NOT_FOUND),
    "rename no stream": (lambda client, _: client.update_stream("none", "some"), Status.STREAM_ID_NOT_FOUND),
    "delete no stream": (lambda client, _: client.delete_stream("none"), Status.STREAM_ID_NOT_FOUND),
    "delete no id": (lambda client, _: client.delete_stream(4_000_000_000), Status.STREAM_ID_NOT_FOUND),
    "delete no topic": (lambda client, name: client.delete_topic(name, "none"), Status.TOPIC_ID_NOT_FOUND),
    "purge no topic": (lambda client, name: client.purge_topic(name, "none"), Status.TOPIC_ID_NOT_FOUND),
    "rename no topic": (lambda client, name: client.update_topic(name, "none", "some"), Status.TOPIC_ID_NOT_FOUND),
    "too many partitions": (lambda client, name: client.create_topic(name, "many", 1001), Status.TOO_MANY_PARTITIONS),
    "add too many": (lambda client, name: client.create_partitions(name, "topic", 1001), Status.TOO_MANY_PARTITIONS),
    "add none": (lambda client, name: client.create_partitions(name, "topic", 0), Status.TOO_MANY_PARTITIONS),
    "delete none": (lambda client, name: client.delete_partitions(name, "topic", 0), Status.TOO_MANY_PARTITIONS),
    "delete too many": (
        lambda client, name: client.delete_partitions(name, "topic", 3),
        Status.INVALID_PARTITIONS_COUNT,
    ),
    "add to no topic": (lambda client, name: client.create_partitions(name, "none", 1), Status.TOPIC_ID_NOT_FOUND),
    "stream's options": (
        lambda client, name: client.update_stream(name, name, options={"colour": "red"}),
        Status.UNSUPPORTED_OPTION_KEY,
    ),
    "option set at creation": (
        lambda client, name: client.update_topic(name, "topic", "topic", options={"segment_size": "2 MiB"}),
        Status.UNSUPPORTED_OPTION_KEY,
    ),
}


async def test_a_stream_is_found_by_name_and_by_id(client: IggyClient, stream: str) -> None:
    await bounded(client.create_stream(stream))
    by_name = await stream_of(client, stream)
    assert (by_name.name, by_name.topics_count, by_name.messages_count, by_name.size) == (stream, 0, 0, 0)
    assert abs(by_name.created_at / 1e6 - time.time()) < 3600
    assert (await stream_of(client, by_name.id)).name == stream
    assert by_name.id in [each.id for each in await bounded(client.get_streams())]
    assert await bounded(client.get_stream("none")) is None


async def test_a_stream_takes_another_name(client: IggyClient, stream: str) -> None:
    await bounded(client.create_stream(stream))
    before = await stream_of(client, stream)
    await bounded(client.update_stream(stream, stream))
    await bounded(client.update_stream(stream, f"{stream} renamed"))
    assert await bounded(client.get_stream(stream)) is None
    after = await stream_of(client, f"{stream} renamed")
    assert (after.id, after.created_at) == (before.id, before.created_at)
    await bounded(client.create_stream(stream))
    await refused(client.update_stream(stream, f"{stream} renamed"), Status.STREAM_NAME_ALREADY_EXISTS)


async def test_names_have_1_to_255_bytes_and_are_kept_as_they_are(client: IggyClient) -> None:
    for name in ("x" * 255, "ä" * 127, " spaced. out ", "UPPER", "upper", "日本"):
        await bounded(client.create_stream(name))
        assert (await stream_of(client, name)).name == name


async def test_ids_start_at_0_and_the_last_freed_is_given_again(fresh_server: Server) -> None:
    client = await connect(fresh_server.address)
    for name in ("a", "b", "c", "d"):
        await bounded(client.create_stream(name))
        await bounded(client.create_topic("a", name, 1))
        await bounded(client.create_consumer_group("a", "a", name))
    for name in ("b", "c"):
        await bounded(client.delete_stream(name))
        await bounded(client.delete_topic("a", name))
        await bounded(client.delete_consumer_group("a", "a", name))
    for name in ("e", "f", "g"):
        await bounded(client.create_stream(name))
        await bounded(client.create_topic("a", name, 1))
        await bounded(client.create_consumer_group("a", "a", name))
    expected = {"a": 0, "d": 3, "e": 2, "f": 1, "g": 4}
    assert {each.name: each.id for each in await bounded(client.get_streams())} == expected
    assert {each.name: each.id for each in await bounded(client.get_topics("a"))} == expected
    assert {each.name: each.id for each in await bounded(client.get_consumer_groups("a", "a"))} == expected


@pytest.mark.parametrize("case", TOPIC_SETTINGS)
async def test_a_topic_shows_the_options_it_was_created_with(client: IggyClient, stream: str, case: str) -> None:
    asked, shown = TOPIC_SETTINGS[case]
    await bounded(client.create_stream(stream))
    await bounded(client.create_topic(stream, "topic", 2, **asked))
    topic = await topic_of(client, stream)
    assert topic.options.to_scalar_dict() == BASE | shown
    derived = set(topic.derived_options.to_scalar_dict())
    assert derived == DERIVED - set(shown)
    (listed,) = await bounded(client.get_topics(stream))
    assert listed.options.to_scalar_dict() == BASE | shown
    await send(client, stream, "topic", ["kept"])
    assert len(await poll(client, stream, "topic")) == 1


@pytest.mark.parametrize("case", REFUSED_OPTIONS)
async def test_an_option_that_cannot_be_is_refused(client: IggyClient, stream: str, case: str) -> None:
    asked, status = REFUSED_OPTIONS[case]
    await bounded(client.create_stream(stream))
    await refused(client.create_topic(stream, "topic", 1, **asked), status)
    assert (await stream_of(client, stream)).topics_count == 0


async def test_a_topic_shows_its_limits_as_fields(client: IggyClient, stream: str) -> None:
    await bounded(client.create_stream(stream))
    options = {"message_expiry": "1 day", "max_topic_size": "2 GiB"}
    await bounded(client.create_topic(stream, "topic", 1, compression_algorithm="gzip", options=options))
    topic = await topic_of(client, stream)
    assert isinstance(topic.message_expiry, IggyExpiry.ExpireDuration)
    assert topic.message_expiry.duration == timedelta(days=1)
    assert isinstance(topic.max_topic_size, MaxTopicSize.Custom)
    assert topic.max_topic_size.bytes == 2 << 30
    assert topic.compression_algorithm == "gzip"
    await bounded(client.create_topic(stream, "plain", 1))
    plain = await topic_of(client, stream, "plain")
    assert isinstance(plain.message_expiry, IggyExpiry.NeverExpire)
    assert isinstance(plain.max_topic_size, MaxTopicSize.Unlimited)
    assert plain.compression_algorithm == "none"


async def test_an_update_changes_what_it_names_and_nothing_else(client: IggyClient, stream: str) -> None:
    await bounded(client.create_stream(stream))
    await bounded(client.create_topic(stream, "topic", 1, compression_algorithm="gzip", segment_size=2 * MIB))
    before = await topic_of(client, stream)
    expiry = IggyExpiry.ExpireDuration(timedelta(hours=1))
    await bounded(client.update_topic(stream, "topic", "renamed", message_expiry=expiry))
    after = await topic_of(client, stream, "renamed")
    assert (after.id, after.created_at) == (before.id, before.created_at)
    assert after.compression_algorithm == "gzip"
    shown = after.options.to_scalar_dict()
    assert (shown["segment_size"], shown["message_expiry"]) == (2 * MIB, 3600 * 10**6)
    assert await bounded(client.get_topic(stream, "topic")) is None
    await bounded(client.create_topic(stream, "topic", 1))
    await refused(client.update_topic(stream, "topic", "renamed"), Status.TOPIC_NAME_ALREADY_EXISTS)


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_cannot_be_done_is_refused(client: IggyClient, stream: str, case: str) -> None:
    call, status = REFUSALS[case]
    await make_topic(client, stream, "topic", 2)
    await refused(call(client, stream), status)
    assert (await topic_of(client, stream)).partitions_count == 2


async def test_partitions_are_added_and_removed_at_the_end(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "topic", 0)
    assert (await topic_of(client, stream)).partitions == []
    await bounded(client.create_partitions(stream, "topic", 3))
    for partition_id in range(3):
        await send(client, stream, "topic", [str(partition_id)], partition_id)
    await bounded(client.delete_partitions(stream, "topic", 1))
    await bounded(client.create_partitions(stream, "topic", 2))
    found = (await topic_of(client, stream)).partitions
    assert [(part.id, part.messages_count, part.segments_count) for part in found] == [
        (0, 1, 1),
        (1, 1, 1),
        (2, 0, 1),
        (3, 0, 1),
    ]
    assert await poll(client, stream, "topic", partition_id=2) == []
    assert await send(client, stream, "topic", ["anew"], 2) == 0
    await bounded(client.delete_partitions(stream, "topic", 4))
    assert (await topic_of(client, stream)).partitions_count == 0
    await refused(poll(client, stream, "topic"), Status.PARTITION_NOT_FOUND)


@pytest.mark.parametrize("whole_stream", [False, True], ids=["topic", "stream"])
async def test_a_purge_forgets_messages_and_offsets(client: IggyClient, stream: str, whole_stream: bool) -> None:
    await make_topic(client, stream, "topic", 2)
    await bounded(client.create_consumer_group(stream, "topic", "group"))
    for partition_id in (0, 1):
        await send(client, stream, "topic", ["a", "b"], partition_id)
        await poll(client, stream, "topic", partition_id=partition_id, auto_commit=True)
    await bounded(client.purge_stream(stream) if whole_stream else client.purge_topic(stream, "topic"))
    topic = await topic_of(client, stream)
    assert (topic.messages_count, topic.size, topic.partitions_count) == (0, 0, 2)
    assert await bounded(client.get_consumer_group(stream, "topic", "group")) is not None
    assert await poll(client, stream, "topic") == []
    assert await send(client, stream, "topic", ["c"], 1) == 0
    assert offsets_of(await poll(client, stream, "topic", partition_id=1)) == [0]


async def test_a_deleted_topic_takes_everything_with_it(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    await bounded(client.create_consumer_group(stream, "topic", "group"))
    await send(client, stream, "topic", ["a"])
    await bounded(client.delete_topic(stream, "topic"))
    await refused(poll(client, stream, "topic"), Status.TOPIC_ID_NOT_FOUND)
    await bounded(client.create_topic(stream, "topic", 1))
    assert await bounded(client.get_consumer_groups(stream, "topic")) == []
    assert await poll(client, stream, "topic") == []
    await bounded(client.delete_stream(stream))
    await refused(poll(client, stream, "topic"), Status.STREAM_ID_NOT_FOUND)


def test_what_is_not_there_is_answered_with_nothing(raw: RawClient) -> None:
    assert raw.ask(streams.GetStream("none")) is None
    assert raw.ask(topics.GetTopic("none", "none")) is None
    assert raw.ask(topics.GetTopics("none")).topics == []


async def test_delete_segments_removes_the_oldest_that_are_full(
    client: IggyClient, stream: str, raw: RawClient
) -> None:
    await bounded(client.create_stream(stream))
    await bounded(client.create_topic(stream, "topic", 1, segment_size=MIB))
    for _ in range(10):
        await send(client, stream, "topic", [bytes([65]) * (MIB // 2)])
    (before,) = (await topic_of(client, stream)).partitions
    assert before.segments_count >= 4
    raw.ask(partitions.DeleteSegments(stream, "topic", 0, 2))
    (after,) = (await topic_of(client, stream)).partitions
    assert after.segments_count == before.segments_count - 2
    first, *_, last = offsets_of(await poll(client, stream, "topic"))
    assert (first > 0, last, after.current_offset) == (True, 9, 9)
    raw.ask(partitions.DeleteSegments(stream, "topic", 0, 1000))
    assert (await topic_of(client, stream)).partitions[0].segments_count == 1
    assert await send(client, stream, "topic", ["on"]) == 10
    assert raw.ask(partitions.DeleteSegments(stream, "topic", 9, 1)).status == Status.PARTITION_NOT_FOUND


async def test_delete_segments_keeps_what_a_consumer_has_not_read(
    client: IggyClient, stream: str, raw: RawClient
) -> None:
    await bounded(client.create_stream(stream))
    await bounded(client.create_topic(stream, "topic", 1, segment_size=MIB))
    for _ in range(6):
        await send(client, stream, "topic", [bytes([65]) * (MIB // 2)])
    await poll(client, stream, "topic", count=1, auto_commit=True)
    raw.ask(partitions.DeleteSegments(stream, "topic", 0, 1000))
    assert offsets_of(await poll(client, stream, "topic")) == list(range(6))
