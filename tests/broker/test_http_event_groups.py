"""Event streams as members of consumer groups, beside each other and beside members of other transports."""

import asyncio

import pytest
from pybroker.broker.groups import GroupKey
from pybroker.broker.listeners.http import eventstream
from pybroker.broker.sweeper import Sweeper
from pybroker.protocol.model.groups import DeleteConsumerGroup, LeaveConsumerGroup
from pybroker.protocol.model.offsets import GetConsumerOffset, StoreConsumerOffset
from pybroker.protocol.model.partitions import CreatePartitions
from pybroker.protocol.primitives import Consumer, ConsumerKind
from support.broker import GROUP, NEXT, Broker, polled_offsets
from support.events import follow
from support.rest import CALL_TIMEOUT_S, Rest

EVENTS = "/streams/s/topics/t/messages/stream"
KEY = GroupKey(0, 0, 0)
PARTITIONS_COUNT = 3


@pytest.fixture
async def broker() -> Broker:
    broker = Broker()
    await broker.create_topic(PARTITIONS_COUNT)
    await broker.create_group()
    return broker


async def send_to_all(broker: Broker) -> None:
    for partition_id in range(PARTITIONS_COUNT):
        await broker.send(b"x", partition_id=partition_id)


async def members_become(broker: Broker, count: int) -> None:
    async with asyncio.timeout(CALL_TIMEOUT_S):
        while len(broker.state.groups.members(KEY)) != count:
            await asyncio.sleep(0.01)


async def test_streams_of_a_group_share_its_partitions(broker: Broker, root: Rest) -> None:
    async with follow(root, EVENTS, group="g") as one, follow(root, EVENTS, group="0") as two:
        for offset in range(3):
            await send_to_all(broker)
            assert sorted(await one.places(2)) == [(0, offset), (1, offset)]
            assert await two.places(1) == [(2, offset)]


async def test_who_comes_gets_nothing_that_another_has_read(broker: Broker, root: Rest) -> None:
    await send_to_all(broker)
    async with follow(root, EVENTS, group="g") as one:
        assert sorted(await one.places(3)) == [(0, 0), (1, 0), (2, 0)]
        async with follow(root, EVENTS, group="g") as two:
            await send_to_all(broker)
            assert await two.places(1) == [(2, 1)]


async def test_who_goes_leaves_its_share_to_the_others(broker: Broker, root: Rest) -> None:
    async with follow(root, EVENTS, group="g") as one:
        async with follow(root, EVENTS, group="g"):
            assert len(broker.state.groups.members(KEY)) == 2
        await members_become(broker, 1)
        await send_to_all(broker)
        assert sorted(await one.places(3)) == [(0, 0), (1, 0), (2, 0)]
    await members_become(broker, 0)
    assert not broker.state.arrivals._waiters


async def test_a_group_goes_on_after_its_stored_offsets(broker: Broker, root: Rest) -> None:
    await send_to_all(broker)
    async with follow(root, EVENTS, group="g", count=1) as one:
        await one.take(3)
        await send_to_all(broker)
        await one.take(1)  # so the first three are stored
        for partition_id in range(PARTITIONS_COUNT):
            stored = await broker.ask(GetConsumerOffset(GROUP, "s", "t", partition_id))
            assert stored is not None
    await members_become(broker, 0)
    await send_to_all(broker)
    async with follow(root, EVENTS, group="g") as two:
        assert all(offset >= 1 for _, offset in await two.places(3))


async def test_a_partition_comes_over_once_its_owner_has_committed(broker: Broker, root: Rest) -> None:
    owner = broker.connect()
    await broker.create_group(owner, name="h")
    await send_to_all(broker)
    consumer = Consumer(ConsumerKind.GROUP, "h")
    polled = await broker.poll(NEXT, consumer=consumer, partition_id=2, session=owner)
    assert polled_offsets(polled) == [0]
    async with follow(root, EVENTS, group="h") as events:
        await broker.send(b"y", partition_id=2)
        await broker.ask(StoreConsumerOffset(consumer, "s", "t", 2, 0), owner)
        assert await events.places(1) == [(2, 1)]
        await broker.ask(LeaveConsumerGroup("s", "t", "h"), owner)
        assert sorted(await events.places(2)) == [(0, 0), (1, 0)]


async def test_partitions_that_come_later_are_shared_too(broker: Broker, root: Rest) -> None:
    async with follow(root, EVENTS, group="g") as events:
        await broker.ask(CreatePartitions("s", "t", 1))
        await broker.send(b"x", partition_id=PARTITIONS_COUNT)
        assert await events.places(1) == [(PARTITIONS_COUNT, 0)]


async def test_a_stream_is_heard_for_as_long_as_its_peer_reads(
    broker: Broker, root: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstream, "KEEP_ALIVE_S", 0.01)
    sweeper = Sweeper(broker.state)
    async with follow(root, EVENTS, group="g") as events:
        for _ in range(5):
            sweeper.sweep(broker.config.heartbeat.interval_us)
            assert await events.block() is None
        await broker.send(b"x")
        assert await events.places(1) == [(0, 0)]


async def test_a_stream_that_lost_its_membership_ends(broker: Broker, root: Rest) -> None:
    sweeper = Sweeper(broker.state)
    async with follow(root, EVENTS, group="g") as events:
        for _ in range(3):
            sweeper.sweep(broker.config.heartbeat.interval_us)
        assert await events.refusal() == "stale_client"


async def test_a_group_that_is_deleted_ends_its_streams(broker: Broker, root: Rest) -> None:
    async with follow(root, EVENTS, group="g") as one, follow(root, EVENTS, group="g", count=1) as two:
        await broker.ask(DeleteConsumerGroup("s", "t", "g"))
        assert await one.refusal() == "consumer_group_id_not_found"
        assert await two.refusal() == "consumer_group_id_not_found"
