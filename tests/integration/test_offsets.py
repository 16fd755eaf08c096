"""Consumer offsets: stored, looked up, deleted, and by whom."""

import asyncio
from typing import Any

import pytest
from apache_iggy import Consumer, IggyClient, PollingStrategy
from pybroker.protocol.errors import Status
from pybroker.protocol.model import groups
from pybroker.protocol.model import offsets as model
from pybroker.protocol.primitives import AckLevel, ConsumerKind
from pybroker.protocol.primitives import Consumer as WireConsumer
from support.raw import RawClient
from support.server import Server
from support.wheel import bounded, make_topic, offsets_of, poll, send

READER = WireConsumer(ConsumerKind.SINGLE, "reader")
GROUP = WireConsumer(ConsumerKind.GROUP, "group")
MESSAGES = [str(number) for number in range(10)]


async def make_full_topic(client: IggyClient, stream: str) -> None:
    """Create a topic of two partitions, MESSAGES in the first."""
    await make_topic(client, stream, "topic", 2)
    await send(client, stream, "topic", MESSAGES)


def get(raw: RawClient, stream: str, consumer: WireConsumer = READER, partition_id: int | None = 0) -> Any:
    return raw.ask(model.GetConsumerOffset(consumer, stream, "topic", partition_id))


def store(raw: RawClient, stream: str, offset: int, consumer: WireConsumer = READER, partition_id: int = 0) -> Any:
    return raw.ask(model.StoreConsumerOffset(consumer, stream, "topic", partition_id, offset))


def delete(raw: RawClient, stream: str, consumer: WireConsumer = READER, partition_id: int = 0) -> Any:
    return raw.ask(model.DeleteConsumerOffset(consumer, stream, "topic", partition_id))


async def test_a_stored_offset_is_found_and_gone_on_from(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_full_topic(client, stream)
    assert get(raw, stream) is None
    for offset in (4, 9, 2):
        assert store(raw, stream, offset) is None
        assert get(raw, stream) == model.ConsumerOffset(0, 9, offset)
    following = await poll(client, stream, "topic", PollingStrategy.Next(), consumer=Consumer.Single("reader"))
    assert offsets_of(following) == list(range(3, 10))


async def test_no_partition_is_the_first(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_full_topic(client, stream)
    raw.ask(model.StoreConsumerOffset(READER, stream, "topic", None, 3, AckLevel.NO_ACK))
    assert get(raw, stream, partition_id=None) == get(raw, stream) == model.ConsumerOffset(0, 9, 3)


async def test_offsets_of_consumers_and_partitions_are_apart(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_full_topic(client, stream)
    await send(client, stream, "topic", ["other"], 1)
    for consumer, offset in ((READER, 1), (WireConsumer(ConsumerKind.SINGLE, 7), 2)):
        store(raw, stream, offset, consumer)
    store(raw, stream, 0, partition_id=1)
    assert get(raw, stream).stored_offset == 1
    assert get(raw, stream, WireConsumer(ConsumerKind.SINGLE, 7)).stored_offset == 2
    assert get(raw, stream, partition_id=1).stored_offset == 0


async def test_a_deleted_offset_is_gone(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_full_topic(client, stream)
    assert delete(raw, stream).status == Status.CONSUMER_OFFSET_NOT_FOUND
    store(raw, stream, 5)
    assert delete(raw, stream) is None
    assert get(raw, stream) is None
    assert delete(raw, stream).status == Status.CONSUMER_OFFSET_NOT_FOUND


async def test_an_offset_that_was_never_given_out_is_refused(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_full_topic(client, stream)
    for partition_id, offset in ((0, 10), (0, 2**64 - 1), (1, 0)):
        assert store(raw, stream, offset, partition_id=partition_id).status == Status.INVALID_OFFSET
    assert store(raw, stream, 0, partition_id=2).status == Status.PARTITION_NOT_FOUND
    assert get(raw, stream) is None


async def test_offsets_of_what_is_not_there(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_full_topic(client, stream)
    assert get(raw, "none") is None
    assert get(raw, stream, partition_id=2) is None
    assert get(raw, stream, WireConsumer(ConsumerKind.GROUP, "none")) is None
    none = model.StoreConsumerOffset(READER, "none", "topic", 0, 0)
    assert raw.ask(none).status == Status.STREAM_ID_NOT_FOUND
    assert raw.ask(model.StoreConsumerOffset(READER, stream, "none", 0, 0)).status == Status.TOPIC_ID_NOT_FOUND
    gone = WireConsumer(ConsumerKind.GROUP, "none")
    assert store(raw, stream, 0, gone).status == Status.CONSUMER_GROUP_ID_NOT_FOUND


async def test_a_groups_offset_is_stored_by_the_member_that_owns_the_partition(
    server: Server, client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_full_topic(client, stream)
    await send(client, stream, "topic", ["other"], 1)
    raw.ask(groups.CreateConsumerGroup(stream, "topic", "group"))
    assert store(raw, stream, 0, GROUP).status == Status.CONSUMER_GROUP_MEMBER_NOT_FOUND
    raw.ask(groups.JoinConsumerGroup(stream, "topic", "group"))
    assert store(raw, stream, 3, GROUP) is None
    with RawClient(server.port) as other:
        other.login()
        assert get(other, stream, GROUP) == model.ConsumerOffset(0, 9, 3)
        assert delete(other, stream, GROUP).status == Status.CONSUMER_GROUP_MEMBER_NOT_FOUND
        other.ask(groups.JoinConsumerGroup(stream, "topic", "group"))
        refusals = [store(member, stream, 0, GROUP, 1) for member in (raw, other)]
        assert [answer.status for answer in refusals if answer] == [Status.CONSUMER_GROUP_PARTITION_NOT_OWNED]
    assert get(raw, stream, WireConsumer(ConsumerKind.GROUP, 0)).stored_offset == 3


async def test_a_deleted_group_takes_its_offsets_with_it(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_full_topic(client, stream)
    for _ in range(2):
        raw.ask(groups.CreateConsumerGroup(stream, "topic", "group"))
        raw.ask(groups.JoinConsumerGroup(stream, "topic", "group"))
        assert get(raw, stream, GROUP) is None
        store(raw, stream, 3, GROUP)
        raw.ask(groups.LeaveConsumerGroup(stream, "topic", "group"))
        assert get(raw, stream, GROUP).stored_offset == 3
        raw.ask(groups.DeleteConsumerGroup(stream, "topic", "group"))


@pytest.mark.parametrize("durability", ["replicated", "persisted"])
async def test_offsets_of_every_durability_are_kept(
    client: IggyClient, stream: str, raw: RawClient, durability: str
) -> None:
    await bounded(client.create_stream(stream))
    await bounded(client.create_topic(stream, "topic", 1, options={"consumer_offset_durability": durability}))
    await send(client, stream, "topic", MESSAGES)
    await asyncio.to_thread(store, raw, stream, 8)
    assert get(raw, stream).stored_offset == 8
