"""Partitions and segments: more, fewer, and the oldest data away."""

import errno

import pytest
from msgspec import Struct
from pybroker.protocol.errors import Status
from pybroker.protocol.model.messages import FlushUnsavedBuffer
from pybroker.protocol.model.offsets import StoreConsumerOffset
from pybroker.protocol.model.partitions import CreatePartitions, DeletePartitions, DeleteSegments
from pybroker.protocol.model.topics import GetTopic
from pybroker.protocol.primitives import Consumer, ConsumerKind
from support.broker import NEXT, READER, TINY_SEGMENTS, Broker, polled_offsets
from support.engines import Stage

REFUSED = [
    (CreatePartitions("x", "t", 1), Status.STREAM_ID_NOT_FOUND),
    (CreatePartitions("s", "x", 1), Status.TOPIC_ID_NOT_FOUND),
    (CreatePartitions("s", "t", 0), Status.TOO_MANY_PARTITIONS),
    (CreatePartitions("s", "t", 1001), Status.TOO_MANY_PARTITIONS),
    (DeletePartitions("x", "t", 1), Status.STREAM_ID_NOT_FOUND),
    (DeletePartitions("s", "x", 1), Status.TOPIC_ID_NOT_FOUND),
    (DeletePartitions("s", "t", 0), Status.TOO_MANY_PARTITIONS),
    (DeletePartitions("s", "t", 1001), Status.TOO_MANY_PARTITIONS),
    (DeletePartitions("s", "t", 4), Status.INVALID_PARTITIONS_COUNT),
    (DeleteSegments("x", "t", 0, 1), Status.STREAM_ID_NOT_FOUND),
    (DeleteSegments("s", "x", 0, 1), Status.TOPIC_ID_NOT_FOUND),
    (DeleteSegments("s", "t", 3, 1), Status.PARTITION_NOT_FOUND),
    (FlushUnsavedBuffer("x", "t", 0, True), Status.STREAM_ID_NOT_FOUND),
    (FlushUnsavedBuffer("s", "x", 0, True), Status.TOPIC_ID_NOT_FOUND),
    (FlushUnsavedBuffer("s", "t", 3, False), Status.PARTITION_NOT_FOUND),
]


@pytest.fixture
async def segmented() -> Broker:
    """A topic with a partition of six one-message segments."""
    broker = Broker(segment_size=TINY_SEGMENTS)
    await broker.create_topic()
    for number in range(6):
        await broker.send(bytes([number + 1]))
    return broker


async def partition_ids(broker: Broker) -> list[int]:
    return [partition.id for partition in (await broker.ask(GetTopic("s", "t"))).partitions]


@pytest.mark.parametrize(("command", "status"), REFUSED, ids=lambda value: str(value)[:50])
async def test_refused_command_has_iggys_status(broker: Broker, command: Struct, status: Status) -> None:
    await broker.create_topic(3)
    assert await broker.status(command) is status
    assert await partition_ids(broker) == [0, 1, 2]


async def test_partitions_are_added_after_the_highest_and_taken_from_the_top(broker: Broker) -> None:
    await broker.create_topic(2)
    await broker.ask(CreatePartitions("s", "t", 2))
    assert await partition_ids(broker) == [0, 1, 2, 3]
    await broker.ask(DeletePartitions("s", "t", 3))
    assert await partition_ids(broker) == [0]
    await broker.ask(DeletePartitions("s", "t", 1))
    assert await partition_ids(broker) == []
    await broker.ask(CreatePartitions("s", "t", 1))
    assert await partition_ids(broker) == [0]


async def test_deleted_partition_takes_its_data_and_offsets_along(broker: Broker) -> None:
    await broker.create_topic(2)
    for partition_id in (0, 1):
        await broker.send(b"a", partition_id=partition_id)
        await broker.ask(StoreConsumerOffset(READER, "s", "t", partition_id, 0))
    await broker.ask(DeletePartitions("s", "t", 1))
    assert broker.engine.log_ids() == broker.log_ids()
    assert len(broker.engine.offsets.keys()) == 1
    await broker.ask(CreatePartitions("s", "t", 1))
    assert polled_offsets(await broker.poll(NEXT, partition_id=1)) == []


async def test_new_partition_takes_messages_at_once(broker: Broker) -> None:
    await broker.create_topic(0)
    await broker.ask(CreatePartitions("s", "t", 1))
    await broker.send(b"a")
    assert polled_offsets(await broker.poll()) == [0]


@pytest.mark.parametrize("change", [CreatePartitions("s", "t", 1), DeletePartitions("s", "t", 1)])
async def test_changed_partitions_are_dealt_to_the_members_anew(broker: Broker, change: Struct) -> None:
    await broker.create_topic(3)
    members = [broker.connect(), broker.connect()]
    await broker.create_group(*members)
    (key,) = broker.state.groups.joined(members[0].client_id)
    generation = broker.state.groups.generation(key)
    await broker.ask(change)
    dealt = [member.partitions for member in broker.state.groups.members(key)]
    assert sorted(partition for share in dealt for partition in share) == await partition_ids(broker)
    assert broker.state.groups.generation(key) == generation + 1


# segments to delete, stored offsets of consumers, and the first offset that is left
DELETED: list[tuple[int, list[int], int]] = [
    (0, [], 0),
    (1, [], 1),
    (3, [], 3),
    (5, [], 5),
    (6, [], 5),
    (2**32 - 1, [], 5),
    (3, [5], 3),
    (3, [1], 2),
    (3, [0], 1),
    (5, [4, 2], 3),
]


@pytest.mark.parametrize(("count", "stored", "first"), DELETED)
async def test_oldest_sealed_segments_go_but_none_that_a_consumer_has_not_read(
    segmented: Broker, count: int, stored: list[int], first: int
) -> None:
    for number, offset in enumerate(stored):
        await segmented.ask(StoreConsumerOffset(Consumer(ConsumerKind.SINGLE, number), "s", "t", 0, offset))
    await segmented.ask(DeleteSegments("s", "t", 0, count))
    assert polled_offsets(await segmented.poll()) == list(range(first, 6))
    (partition,) = (await segmented.ask(GetTopic("s", "t"))).partitions
    assert (partition.current_offset, partition.messages_count, partition.segments_count) == (5, 6 - first, 6 - first)


async def test_segments_of_an_empty_partition_can_be_deleted(broker: Broker) -> None:
    await broker.create_topic()
    assert await broker.status(DeleteSegments("s", "t", 0, 3)) is Status.OK


async def test_offsets_go_on_after_segments_are_deleted(segmented: Broker) -> None:
    await segmented.ask(DeleteSegments("s", "t", 0, 5))
    assert (await segmented.send(b"next")).base_offset == 6


@pytest.mark.parametrize("fsync", [True, False])
async def test_flushed_partition_is_synced_and_no_other(stage: Stage, fsync: bool) -> None:
    broker = Broker(stage=stage)
    await broker.create_topic(2)
    for partition_id in (0, 1):
        await broker.send(b"a", partition_id=partition_id)
    stage.disk.synced.clear()
    assert await broker.ask(FlushUnsavedBuffer("s", "t", 1, fsync)) is None
    synced = list(stage.disk.synced)
    assert {int(path.parent.name) for path in synced} == {broker.log_ids()[1]}
    assert await broker.status(FlushUnsavedBuffer("s", "t", 1, fsync)) is Status.OK
    assert stage.disk.synced == synced  # there was nothing new


async def test_empty_partition_can_be_flushed(broker: Broker) -> None:
    await broker.create_topic()
    assert await broker.status(FlushUnsavedBuffer("s", "t", 0, True)) is Status.OK


async def test_flush_fails_where_the_disk_does(stage: Stage) -> None:
    broker = Broker(stage=stage)
    await broker.create_topic()
    await broker.send(b"a")
    stage.disk.sync_fault = OSError(errno.EIO, "the disk is broken")
    for _ in range(2):
        status = await broker.status(FlushUnsavedBuffer("s", "t", 0, True))
        assert status is Status.CANNOT_SAVE_MESSAGES_TO_SEGMENT
