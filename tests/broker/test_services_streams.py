"""Streams and topics: create, look up, change, empty, delete; and what each refuses."""

import pytest
from msgspec import Struct
from pybroker.broker import events
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import GetConsumerGroup
from pybroker.protocol.model.offsets import GetConsumerOffset, StoreConsumerOffset
from pybroker.protocol.model.partitions import Partition
from pybroker.protocol.model.streams import (
    CreateStream,
    DeleteStream,
    GetStream,
    GetStreams,
    PurgeStream,
    Stream,
    StreamDetails,
    UpdateStream,
)
from pybroker.protocol.model.topics import (
    CreateTopic,
    DeleteTopic,
    GetTopic,
    GetTopics,
    PurgeTopic,
    Topics,
    UpdateTopic,
)
from pybroker.protocol.primitives import U64_MAX, Compression
from support.broker import READER, Broker, number_option, polled_offsets, text_option

NOW_US = 1_000_000
OPTION = text_option("durability", "persisted")

MISSING = [
    (UpdateStream(9, "n"), Status.STREAM_ID_NOT_FOUND),
    (UpdateStream("x", "n"), Status.STREAM_ID_NOT_FOUND),
    (DeleteStream(9), Status.STREAM_ID_NOT_FOUND),
    (DeleteStream("x"), Status.STREAM_ID_NOT_FOUND),
    (PurgeStream(9), Status.STREAM_ID_NOT_FOUND),
    (CreateTopic(9, 1, "n"), Status.STREAM_ID_NOT_FOUND),
    (UpdateTopic("x", "t", "n"), Status.STREAM_ID_NOT_FOUND),
    (UpdateTopic("s", "x", "n"), Status.TOPIC_ID_NOT_FOUND),
    (UpdateTopic("s", 9, "n"), Status.TOPIC_ID_NOT_FOUND),
    (DeleteTopic("x", "t"), Status.STREAM_ID_NOT_FOUND),
    (DeleteTopic("s", "x"), Status.TOPIC_ID_NOT_FOUND),
    (PurgeTopic("x", "t"), Status.STREAM_ID_NOT_FOUND),
    (PurgeTopic("s", 9), Status.TOPIC_ID_NOT_FOUND),
]
WRONG = [
    (CreateStream("s"), Status.STREAM_NAME_ALREADY_EXISTS),
    (CreateStream("n", (OPTION,)), Status.UNSUPPORTED_OPTION_KEY),
    (UpdateStream("s2", "s"), Status.STREAM_NAME_ALREADY_EXISTS),
    (UpdateStream("s", "n", (OPTION,)), Status.UNSUPPORTED_OPTION_KEY),
    (CreateTopic("s", 1, "t"), Status.TOPIC_NAME_ALREADY_EXISTS),
    (CreateTopic("s", 1001, "n"), Status.TOO_MANY_PARTITIONS),
    (CreateTopic("s", 1, "n", (text_option("nonsense", "1"),)), Status.UNSUPPORTED_OPTION_KEY),
    (CreateTopic("s", 1, "n", (text_option("durability", "maybe"),)), Status.INVALID_OPTION_VALUE),
    (CreateTopic("s", 1, "n", (number_option("max_topic_size", 1 << 20),)), Status.INVALID_TOPIC_SIZE),
    (UpdateTopic("s", "t", "t2"), Status.TOPIC_NAME_ALREADY_EXISTS),
    (UpdateTopic("s", "t", "t", (OPTION,)), Status.UNSUPPORTED_OPTION_KEY),
]


@pytest.mark.parametrize(("command", "status"), MISSING + WRONG, ids=lambda value: str(value)[:50])
async def test_refused_command_has_iggys_status_and_changes_nothing(
    broker: Broker, command: Struct, status: Status
) -> None:
    await broker.create_topic()
    await broker.create_topic(name="t2")
    await broker.ask(CreateStream("s2"))
    before = await broker.ask(GetStream("s")), await broker.ask(GetStreams()), broker.engine.journal.event_count
    assert await broker.status(command) is status
    after = await broker.ask(GetStream("s")), await broker.ask(GetStreams()), broker.engine.journal.event_count
    assert before == after


@pytest.mark.parametrize("command", [GetStream(0), GetStream("s"), GetTopic(0, 0), GetTopic("s", "t")])
async def test_looking_for_what_does_not_exist_gives_nothing(broker: Broker, command: Struct) -> None:
    assert await broker.ask(command) is None


async def test_topics_of_a_missing_stream_are_none(broker: Broker) -> None:
    assert await broker.ask(GetTopics("s")) == Topics([])


async def test_created_stream_is_shown_whole(broker: Broker) -> None:
    stream = StreamDetails(Stream(0, NOW_US, 0, 0, 0, "s"), [])
    assert await broker.ask(CreateStream("s")) == stream
    assert await broker.ask(GetStream("s")) == stream
    assert await broker.ask(GetStream(0)) == stream


async def test_ids_start_at_0_and_the_last_freed_comes_back_first(broker: Broker) -> None:
    for name in "abcd":
        await broker.ask(CreateStream(name))
    for name in ("b", "d", "a"):
        await broker.ask(DeleteStream(name))
    await broker.restart()
    assert [(await broker.ask(CreateStream(name))).stream.id for name in ("e", "f", "g", "h")] == [0, 3, 1, 4]
    assert [stream.id for stream in (await broker.ask(GetStreams())).streams] == [0, 1, 2, 3, 4]


async def test_names_are_bytes_exact(broker: Broker) -> None:
    for name in ("orders", "Orders", " orders", "orders ", "0", "🙂", "n" * 255):
        assert (await broker.ask(CreateStream(name))).stream.name == name
    assert (await broker.ask(GetStream("0"))).stream.id == 4
    assert (await broker.ask(GetStream(0))).stream.name == "orders"


async def test_stream_can_be_renamed_also_to_its_own_name(broker: Broker) -> None:
    await broker.create_topic()
    await broker.send(b"kept")
    for name in ("s", "new", "s"):
        await broker.ask(UpdateStream(0, name))
        details = await broker.ask(GetStream(name))
        assert (details.stream.id, details.stream.messages_count) == (0, 1)
    assert await broker.ask(GetStream("new")) is None


async def test_created_topic_is_shown_whole(broker: Broker) -> None:
    await broker.ask(CreateStream("s"))
    broker.clock.now_us = 7
    details = await broker.ask(CreateTopic("s", 2, "t", (OPTION,)))
    topic = details.topic
    assert (topic.id, topic.created_at_us, topic.partitions_count, topic.name) == (0, 7, 2, "t")
    assert (topic.message_expiry_us, topic.max_topic_size) == (U64_MAX, U64_MAX)
    assert (topic.compression, topic.replication_factor) == (Compression.NONE, 1)
    assert (topic.size, topic.messages_count, topic.options) == (0, 0, (OPTION,))
    assert OPTION.key not in {option.key for option in topic.derived}
    assert [partition.id for partition in details.partitions] == [0, 1]
    assert await broker.ask(GetTopic("s", "t")) == details
    assert await broker.ask(GetTopics(0)) == Topics([topic])
    assert (await broker.ask(GetStream("s"))).topics == [topic]


@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_topic_may_have_0_to_1000_partitions(broker: Broker, count: int) -> None:
    await broker.create_topic(count)
    assert len((await broker.ask(GetTopic("s", "t"))).partitions) == count


async def test_sizes_and_counts_add_up_from_partitions_to_the_stream(broker: Broker) -> None:
    await broker.create_topic(2)
    await broker.send(b"abc", b"d")
    await broker.send(b"e", partition_id=1)
    sizes = [256 + 48 + 3 + 48 + 1, 256 + 48 + 1]
    details = await broker.ask(GetTopic("s", "t"))
    assert details.partitions == [
        Partition(0, NOW_US, 1, 1, sizes[0], 2),
        Partition(1, NOW_US, 1, 0, sizes[1], 1),
    ]
    assert (details.topic.size, details.topic.messages_count) == (sum(sizes), 3)
    stream = (await broker.ask(GetStream("s"))).stream
    assert (stream.topics_count, stream.size, stream.messages_count) == (1, sum(sizes), 3)


async def test_empty_partition_shows_one_segment_as_clients_expect(broker: Broker) -> None:
    await broker.create_topic()
    (partition,) = (await broker.ask(GetTopic("s", "t"))).partitions
    assert (partition.current_offset, partition.size, partition.messages_count) == (0, 0, 0)
    assert partition.segments_count >= 1


async def test_topic_update_changes_what_it_names_only(broker: Broker) -> None:
    expiry = text_option("message_expiry", "7 days")
    await broker.create_topic(1, OPTION, expiry)
    await broker.ask(UpdateTopic("s", "t", "renamed", (text_option("compression_algorithm", "gzip"),)))
    topic = (await broker.ask(GetTopic("s", "renamed"))).topic
    assert (topic.compression, topic.message_expiry_us) == (Compression.GZIP, 7 * 86_400_000_000)
    assert {option.key for option in topic.options} == {"durability", "message_expiry", "compression_algorithm"}
    await broker.restart()
    assert (await broker.ask(GetTopic("s", "renamed"))).topic == topic


@pytest.mark.parametrize("purge", [PurgeTopic("s", "t"), PurgeStream("s")], ids=["topic", "stream"])
async def test_purge_forgets_messages_and_offsets_and_keeps_the_rest(broker: Broker, purge: Struct) -> None:
    await broker.create_topic(2)
    member = broker.connect()
    await broker.create_group(member)
    await broker.send(b"a", b"b")
    await broker.ask(StoreConsumerOffset(READER, "s", "t", 0, 1))
    old = broker.log_ids()
    await broker.ask(purge)
    assert set(old).isdisjoint(broker.log_ids())
    assert set(broker.engine.log_ids()).isdisjoint(old)
    assert await broker.ask(GetConsumerOffset(READER, "s", "t", 0)) is None
    assert broker.engine.offsets.keys() == []
    details = await broker.ask(GetTopic("s", "t"))
    assert [(partition.current_offset, partition.messages_count) for partition in details.partitions] == [(0, 0)] * 2
    assert (await broker.ask(GetConsumerGroup("s", "t", "g"))).group.members_count == 1
    assert (await broker.send(b"new")).base_offset == 0
    assert polled_offsets(await broker.poll()) == [0]


@pytest.mark.parametrize("purge", [PurgeTopic("s", "t"), PurgeStream("s")], ids=["topic", "stream"])
async def test_purge_survives_a_restart(broker: Broker, purge: Struct) -> None:
    await broker.create_topic()
    await broker.send(b"old")
    await broker.ask(purge)
    await broker.restart()
    assert polled_offsets(await broker.poll()) == []


async def test_purge_of_one_topic_leaves_the_others_alone(broker: Broker) -> None:
    await broker.create_topic()
    await broker.create_topic(name="other")
    await broker.send(b"a")
    await broker.send(b"b", topic="other")
    await broker.ask(PurgeTopic("s", "other"))
    assert polled_offsets(await broker.poll()) == [0]


@pytest.mark.parametrize("delete", [DeleteTopic("s", "t"), DeleteStream("s")], ids=["topic", "stream"])
async def test_delete_takes_logs_offsets_and_memberships_along(broker: Broker, delete: Struct) -> None:
    await broker.create_topic(2)
    member = broker.connect()
    await broker.create_group(member)
    await broker.send(b"a")
    await broker.send(b"b", partition_id=1)
    await broker.ask(StoreConsumerOffset(READER, "s", "t", 0, 0))
    await broker.ask(delete)
    assert broker.engine.log_ids() == []
    assert broker.engine.offsets.keys() == []
    assert broker.state.groups.joined(member.client_id) == []
    assert await broker.ask(GetTopic("s", "t")) is None


async def test_topic_made_after_a_deleted_one_has_its_id_and_none_of_its_data(broker: Broker) -> None:
    await broker.create_topic()
    await broker.create_group(broker.connect())
    await broker.send(b"a")
    await broker.ask(DeleteTopic("s", "t"))
    await broker.create_topic()
    assert (await broker.ask(GetTopic("s", "t"))).topic.id == 0
    assert polled_offsets(await broker.poll()) == []
    assert await broker.ask(GetConsumerGroup("s", "t", "g")) is None


async def test_start_removes_what_a_crash_left_of_deleted_topics(broker: Broker) -> None:
    """The topic is gone from the journal; its log and its consumers' offsets were not dropped any more."""
    await broker.create_topic()
    await broker.send(b"a")
    await broker.ask(StoreConsumerOffset(READER, "s", "t", 0, 0))
    broker.state.catalog.record(events.TopicDeleted(0, 0))
    await broker.restart()
    assert broker.engine.log_ids() == []
    assert broker.engine.offsets.keys() == []


async def test_everything_is_there_after_a_restart(broker: Broker) -> None:
    await broker.create_topic(3, OPTION)
    await broker.create_group()
    await broker.send(b"a", b"b")
    before = await broker.ask(GetStream("s")), await broker.ask(GetTopic("s", "t"))
    await broker.restart()
    assert (await broker.ask(GetStream("s")), await broker.ask(GetTopic("s", "t"))) == before
    assert polled_offsets(await broker.poll()) == [0, 1]
