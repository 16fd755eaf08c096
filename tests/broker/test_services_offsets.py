"""Consumer offsets as commands: store, get, delete, and who may."""

import pytest
from msgspec import Struct
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import DeleteConsumerGroup, LeaveConsumerGroup
from pybroker.protocol.model.offsets import (
    ConsumerOffset,
    DeleteConsumerOffset,
    GetConsumerOffset,
    StoreConsumerOffset,
)
from pybroker.protocol.primitives import U64_MAX, AckLevel, Consumer, ConsumerKind
from support.broker import FIRST, GROUP, NEXT, READER, Broker, polled_offsets, text_option

NOBODY = Consumer(ConsumerKind.GROUP, "nobody")


@pytest.fixture
async def broker() -> Broker:
    """Topic "t" with five messages in partition 0, none in 1; group "g" without members."""
    broker = Broker()
    await broker.create_topic(2)
    await broker.create_group()
    await broker.send(b"a", b"b", b"c")
    await broker.send(b"d", b"e")
    return broker


def store(offset: int, consumer: Consumer = READER, partition_id: int | None = 0) -> StoreConsumerOffset:
    return StoreConsumerOffset(consumer, "s", "t", partition_id, offset)


def get(consumer: Consumer = READER, partition_id: int | None = 0) -> GetConsumerOffset:
    return GetConsumerOffset(consumer, "s", "t", partition_id)


def delete(consumer: Consumer = READER, partition_id: int | None = 0) -> DeleteConsumerOffset:
    return DeleteConsumerOffset(consumer, "s", "t", partition_id)


REFUSED = [
    (StoreConsumerOffset(READER, "x", "t", 0, 0), Status.STREAM_ID_NOT_FOUND),
    (StoreConsumerOffset(READER, "s", "x", 0, 0), Status.TOPIC_ID_NOT_FOUND),
    (store(0, partition_id=2), Status.PARTITION_NOT_FOUND),
    (store(5), Status.INVALID_OFFSET),
    (store(U64_MAX), Status.INVALID_OFFSET),
    (store(0, partition_id=1), Status.INVALID_OFFSET),
    (store(0, NOBODY), Status.CONSUMER_GROUP_ID_NOT_FOUND),
    (store(0, GROUP), Status.CONSUMER_GROUP_MEMBER_NOT_FOUND),
    (DeleteConsumerOffset(READER, "x", "t", 0), Status.STREAM_ID_NOT_FOUND),
    (DeleteConsumerOffset(READER, "s", "x", 0), Status.TOPIC_ID_NOT_FOUND),
    (delete(partition_id=2), Status.PARTITION_NOT_FOUND),
    (delete(), Status.CONSUMER_OFFSET_NOT_FOUND),
    (delete(NOBODY), Status.CONSUMER_GROUP_ID_NOT_FOUND),
    (delete(GROUP), Status.CONSUMER_GROUP_MEMBER_NOT_FOUND),
]
ABSENT = [
    GetConsumerOffset(READER, "x", "t", 0),
    GetConsumerOffset(READER, "s", "x", 0),
    get(partition_id=2),
    get(),
    get(GROUP),
    get(NOBODY),
]


@pytest.mark.parametrize(("command", "status"), REFUSED, ids=lambda value: str(value)[:60])
async def test_refused_command_has_iggys_status_and_stores_nothing(
    broker: Broker, command: Struct, status: Status
) -> None:
    assert await broker.status(command) is status
    assert broker.engine.offsets.keys() == []


@pytest.mark.parametrize("command", ABSENT, ids=lambda value: str(value)[:60])
async def test_what_is_not_stored_reads_as_nothing(broker: Broker, command: Struct) -> None:
    assert await broker.ask(command) is None


@pytest.mark.parametrize("offset", [0, 3, 4])
async def test_offset_that_was_given_out_can_be_stored(broker: Broker, offset: int) -> None:
    await broker.ask(store(offset))
    assert await broker.ask(get()) == ConsumerOffset(0, 4, offset)
    assert polled_offsets(await broker.poll(NEXT)) == list(range(offset + 1, 5))


async def test_offset_may_go_back(broker: Broker) -> None:
    for offset in (4, 1):
        await broker.ask(store(offset))
    assert polled_offsets(await broker.poll(NEXT, 1)) == [2]


async def test_no_partition_means_the_first_for_a_single_consumer(broker: Broker) -> None:
    await broker.ask(store(2, partition_id=None))
    assert await broker.ask(get(partition_id=None)) == await broker.ask(get()) == ConsumerOffset(0, 4, 2)
    await broker.ask(delete(partition_id=None))
    assert await broker.ask(get()) is None


@pytest.mark.parametrize(
    ("stored_as", "read_as", "same"),
    [("name", "name", True), ("name", "Name", False), (7, 7, True), (7, "7", False), ("a", 0x550D7456, True)],
)
async def test_consumers_are_told_apart_by_number_or_name(
    broker: Broker, stored_as: int | str, read_as: int | str, same: bool
) -> None:
    await broker.ask(store(1, Consumer(ConsumerKind.SINGLE, stored_as)))
    found = await broker.ask(get(Consumer(ConsumerKind.SINGLE, read_as)))
    assert (found is not None) == same


async def test_deleted_offset_reads_as_nothing_and_next_starts_over(broker: Broker) -> None:
    await broker.ask(store(3))
    await broker.ask(delete())
    assert await broker.ask(get()) is None
    assert polled_offsets(await broker.poll(NEXT, 1)) == [0]
    assert await broker.status(delete()) is Status.CONSUMER_OFFSET_NOT_FOUND


async def test_only_the_owner_of_a_partition_may_change_its_groups_offset(broker: Broker) -> None:
    owner, other = broker.connect(), broker.connect()
    await broker.create_group(owner, other, name="shared")
    group = Consumer(ConsumerKind.GROUP, "shared")
    assert await broker.status(store(1, group), other) is Status.CONSUMER_GROUP_PARTITION_NOT_OWNED
    assert await broker.status(store(1, group), owner) is Status.OK
    assert await broker.status(delete(group), other) is Status.CONSUMER_GROUP_PARTITION_NOT_OWNED
    assert await broker.ask(get(group), other) == ConsumerOffset(0, 4, 1)
    assert await broker.ask(get(group), broker.connect()) == ConsumerOffset(0, 4, 1)
    assert await broker.status(delete(group), owner) is Status.OK


async def test_member_that_names_no_partition_stores_where_it_polled_last(broker: Broker) -> None:
    """As Iggy does: a store or delete takes the partition whose turn it was, and does not move the turn."""
    member = broker.connect()
    await broker.create_group(member, name="turns")
    group = Consumer(ConsumerKind.GROUP, "turns")
    polled = await broker.poll(FIRST, 2, consumer=group, partition_id=None, session=member)
    assert polled.partition_id == 0
    assert await broker.status(store(1, group, None), member) is Status.OK
    assert await broker.ask(get(group, 0)) == ConsumerOffset(0, 4, 1)
    assert (await broker.poll(FIRST, 2, consumer=group, partition_id=None, session=member)).partition_id == 1


async def test_groups_offset_outlives_its_members(broker: Broker) -> None:
    member = broker.connect()
    await broker.create_group(member, name="g2")
    group = Consumer(ConsumerKind.GROUP, "g2")
    await broker.ask(store(1, group), member)
    await broker.ask(LeaveConsumerGroup("s", "t", "g2"), member)
    assert await broker.ask(get(group)) == ConsumerOffset(0, 4, 1)


async def test_deleted_group_takes_its_offsets_along_and_those_only(broker: Broker) -> None:
    member = broker.connect()
    await broker.create_group(member, name="g2")
    group = Consumer(ConsumerKind.GROUP, "g2")
    await broker.ask(store(1, group), member)
    await broker.ask(store(2))
    await broker.ask(DeleteConsumerGroup("s", "t", "g2"))
    await broker.create_group(member, name="g2")
    assert await broker.ask(get(group)) is None
    assert await broker.ask(get()) == ConsumerOffset(0, 4, 2)


async def test_offsets_survive_a_restart(broker: Broker) -> None:
    await broker.ask(store(3))
    await broker.restart()
    assert await broker.ask(get()) == ConsumerOffset(0, 4, 3)


@pytest.mark.parametrize("ack", AckLevel)
async def test_every_ack_level_is_served(broker: Broker, ack: AckLevel) -> None:
    await broker.ask(StoreConsumerOffset(READER, "s", "t", 0, 1, ack))
    await broker.ask(DeleteConsumerOffset(READER, "s", "t", 0, ack))
    assert await broker.ask(get()) is None


@pytest.mark.parametrize("durability", ["replicated", "persisted"])
async def test_offsets_wait_for_the_disk_where_the_topic_says_so(durability: str) -> None:
    broker = Broker()
    await broker.create_topic(1, text_option("consumer_offset_durability", durability))
    await broker.send()
    synced: list[None] = []

    async def sync() -> None:
        synced.append(None)

    broker.engine.offsets.sync = sync  # type: ignore[method-assign]
    await broker.ask(store(0))
    await broker.poll(FIRST, 1, auto_commit=True)
    await broker.ask(delete())
    assert len(synced) == (3 if durability == "persisted" else 0)
