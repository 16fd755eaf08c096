"""The client's high-level producer: direct and in the background."""

from datetime import timedelta

import pytest
from apache_iggy import (
    BackgroundProducerConfig,
    BackpressureMode,
    DirectProducerConfig,
    IggyClient,
    IggyExpiry,
    MaxTopicSize,
    Partitioning,
    ProducerSharding,
    SendMessage,
)
from support.raw import RawClient, read_log
from support.wheel import bounded, make_topic, offsets_of, poll, texts_of, topic_of

MESSAGES_COUNT = 500
LINGER = timedelta(milliseconds=5)

MODES: dict[str, DirectProducerConfig | BackgroundProducerConfig | None] = {
    "default": None,
    "direct": DirectProducerConfig(batch_length=100, linger_time=timedelta(0)),
    "direct, lingering": DirectProducerConfig(batch_length=7, linger_time=LINGER),
    "background": BackgroundProducerConfig(linger_time=LINGER),
    "background, small batches": BackgroundProducerConfig(batch_length=10, batch_size=1000, linger_time=LINGER),
    "background, small buffer": BackgroundProducerConfig(
        linger_time=LINGER, max_buffer_size=100_000, failure_mode=BackpressureMode.block()
    ),
    "background, in order": BackgroundProducerConfig(
        num_shards=3, linger_time=LINGER, max_in_flight=4, sharding=ProducerSharding.ORDERED
    ),
    "background, balanced": BackgroundProducerConfig(
        num_shards=3, linger_time=LINGER, max_in_flight=4, sharding=ProducerSharding.BALANCED
    ),
}
UNORDERED = {"background, balanced"}


def numbered(count: int = MESSAGES_COUNT) -> list[SendMessage]:
    return [SendMessage(str(number), {"number": number}) for number in range(count)]


@pytest.mark.parametrize("mode", MODES)
async def test_a_producer_delivers_every_message_once(
    client: IggyClient, stream: str, raw: RawClient, mode: str
) -> None:
    partitioning = Partitioning.partition_id(1)
    producer = await bounded(
        client.producer(stream, "topic", partitioning=partitioning, mode=MODES[mode], topic_partitions_count=2)
    )
    messages = numbered()
    for start in range(0, MESSAGES_COUNT, 50):
        await bounded(producer.send(messages[start : start + 50]))
    await bounded(producer.send_one(SendMessage("one more")))
    await bounded(producer.shutdown())
    stored = read_log(raw, stream, "topic", 1)
    expected = [*(str(number) for number in range(MESSAGES_COUNT)), "one more"]
    found = [message.payload.decode() for message in stored]
    assert (sorted(found), [message.offset for message in stored]) == (sorted(expected), list(range(len(expected))))
    if mode not in UNORDERED:
        assert found == expected
    assert read_log(raw, stream, "topic", 0) == []


async def test_a_direct_producer_says_where_messages_went(client: IggyClient, stream: str) -> None:
    async with await bounded(
        client.producer(stream, "topic", mode=DirectProducerConfig(batch_length=10, linger_time=timedelta(0)))
    ) as producer:
        response = await bounded(producer.send(numbered(35)))
        places = [(place.partition_id, place.base_offset) for place in response.confirmations]
        assert places == [(0, 0), (0, 10), (0, 20), (0, 30)]


async def test_a_balanced_producer_uses_every_partition(client: IggyClient, stream: str) -> None:
    producer = await bounded(
        client.producer(stream, "topic", partitioning=Partitioning.balanced(), topic_partitions_count=3)
    )
    for number in range(9):
        await bounded(producer.send_one(SendMessage(str(number))))
    topic = await topic_of(client, stream)
    assert [partition.messages_count for partition in topic.partitions] == [3, 3, 3]


async def test_a_producer_creates_the_stream_and_topic_as_told(client: IggyClient, stream: str) -> None:
    await bounded(
        client.producer(
            stream,
            "topic",
            topic_partitions_count=4,
            topic_message_expiry=IggyExpiry.ExpireDuration(timedelta(hours=2)),
            topic_max_size=MaxTopicSize.Custom(4 << 30),
        )
    )
    topic = await topic_of(client, stream)
    assert topic.partitions_count == 4
    assert topic.options.to_scalar_dict()["max_topic_size"] == 4 << 30
    assert topic.options.to_scalar_dict()["message_expiry"] == 2 * 3600 * 10**6


async def test_a_producer_that_must_not_create_fails_without_a_topic(client: IggyClient, stream: str) -> None:
    with pytest.raises(RuntimeError, match="not found"):
        await bounded(
            client.producer(
                stream, "topic", create_stream_if_not_exists=False, create_topic_if_not_exists=False, send_retries=0
            )
        )


async def test_a_producer_sends_elsewhere_when_told(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "topic", 2)
    await bounded(client.create_topic(stream, "other", 2))
    producer = await bounded(client.producer(stream, "topic", partitioning=Partitioning.partition_id(0)))
    await bounded(producer.send_with_partitioning([SendMessage("here")], Partitioning.partition_id(1)))
    await bounded(producer.send_to(stream, "other", [SendMessage("there")], Partitioning.partition_id(1)))
    assert texts_of(await poll(client, stream, "topic", partition_id=1)) == ["here"]
    assert texts_of(await poll(client, stream, "other", partition_id=1)) == ["there"]
    assert offsets_of(await poll(client, stream, "topic", partition_id=0)) == []
