"""The producer against a broker in this process: batches, partitions, limits."""

import asyncio
from typing import Any

import pytest
from pybroker.client import BrokerError, Client, InvalidRequest, Message
from pybroker.client.errors import Closed
from pybroker.client.lanes import Delivery
from pybroker.client.room import IN_A_ROW_SIZE
from pybroker.protocol.batch import FRAME_HEADER_SIZE
from pybroker.protocol.errors import Status
from support.agents import batch_sizes, new_client, read, steps, texts
from support.broker import Broker
from support.cancelling import cancel_after
from support.relay import relay_to

FOREVER_MS = 3_600_000


async def test_a_delivery_says_where_its_message_is(broker: Broker, client: Client) -> None:
    await broker.create_topic(3)
    async with client.producer("s", "t") as producer:
        deliveries = await asyncio.gather(*(producer.send(str(number), key=str(number % 7)) for number in range(200)))
        deliveries += await asyncio.gather(*(producer.send(str(number)) for number in range(200, 300)))
    found = {
        Delivery(partition, message.offset): message.text
        for partition in range(3)
        for message in await read(client, partition)
    }
    assert [found[delivery] for delivery in deliveries] == [str(number) for number in range(300)]


async def test_batches_without_a_key_go_to_the_partitions_in_turn(broker: Broker, client: Client) -> None:
    await broker.create_topic(3)
    async with client.producer("s", "t", linger_ms=FOREVER_MS, batch_size=10) as producer:
        deliveries = await asyncio.gather(*(producer.send(str(number)) for number in range(60)))
    first = deliveries[0].partition
    assert [delivery.partition for delivery in deliveries] == [(first + number // 10) % 3 for number in range(60)]
    assert [[count for count, _ in await batch_sizes(broker, partition)] for partition in range(3)] == [[10, 10]] * 3


async def test_a_key_goes_where_the_broker_would_put_it_and_keys_share_batches(broker: Broker, client: Client) -> None:
    await broker.create_topic(4)
    keys = [f"key {number}" for number in range(50)]
    async with client.producer("s", "t", linger_ms=FOREVER_MS) as producer:
        sending = [await producer.enqueue("of the producer", key) for key in keys]
        await producer.flush()
        chosen = [(await delivered).partition for delivered in sending]
    assert [len(await batch_sizes(broker, partition)) for partition in range(4)] == [1] * 4
    assert chosen == [(await client.send("s", "t", ["of the broker"], key=key)).partition_id for key in keys]


async def test_a_producer_for_one_partition_keeps_the_order(broker: Broker, client: Client) -> None:
    await broker.create_topic(2)
    async with client.producer("s", "t", partition=1, batch_size=7, linger_ms=0) as producer:
        for number in range(500):
            await producer.enqueue(str(number))
            if number % 11 == 0:
                await asyncio.sleep(0)
    assert texts(await read(client, 1)) == [str(number) for number in range(500)]
    assert await read(client, 0) == []


def spread(deliveries: list[Delivery]) -> list[Delivery]:
    """Return where each message is."""
    return [Delivery(each.partition, each.offset + index) for each in deliveries for index in range(each.count)]


@pytest.mark.parametrize("key", [None, "key"])
async def test_many_messages_at_once_are_where_their_deliveries_say(
    broker: Broker, client: Client, key: str | None
) -> None:
    await broker.create_topic(3)
    sent = [str(number) for number in range(250)]
    async with client.producer("s", "t", batch_size=100) as producer:
        first, single, second = await asyncio.gather(
            producer.send_many(sent[:100], key), producer.send(sent[100], key), producer.send_many(sent[101:], key)
        )
        assert await producer.send_many([]) == []
    found = {
        Delivery(partition, message.offset): message.text
        for partition in range(3)
        for message in await read(client, partition)
    }
    assert [found[place] for place in (*spread(first), single, *spread(second))] == sent
    assert [len(each) for each in (first, second)] == [1, 2]


async def test_many_messages_keep_their_order_and_the_limits_of_a_batch(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    sizes = [10, 900, 30, 40, 5000, 10, 10, 10, 10, 10]
    size_max = 1000 + FRAME_HEADER_SIZE
    async with client.producer("s", "t", partition=0, batch_size=4, batch_bytes=size_max) as producer:
        deliveries = await producer.send_many([b"x" * size for size in sizes])
        assert producer.buffered_bytes == 0
    assert spread(deliveries) == [Delivery(0, offset) for offset in range(len(sizes))]
    assert [len(message.payload) for message in await read(client)] == sizes
    batches = await batch_sizes(broker)
    assert all(count <= 4 and (size <= size_max or count == 1) for count, size in batches)
    assert [each.count for each in deliveries] == [count for count, _ in batches]


async def test_many_messages_fill_the_batch_that_waits_for_more(broker: Broker, client: Client) -> None:
    await broker.create_topic(2)
    async with client.producer("s", "t", linger_ms=FOREVER_MS, batch_size=50) as producer:
        sending = [await producer.enqueue("first")]
        many = await producer.enqueue_many([str(number) for number in range(10)])
        sending.append(await producer.enqueue("last"))
        await producer.flush()
        places = [await sending[0], *spread(await many), await sending[1]]
    assert places == [Delivery(places[0].partition, offset) for offset in range(12)]


async def test_of_many_messages_none_is_taken_when_one_is_wrong(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with client.producer("s", "t") as producer:
        for wrong in ([b"right", b""], "a text", [Message("text", id=0)]):
            with pytest.raises(InvalidRequest):
                await producer.send_many(wrong)
        with pytest.raises(InvalidRequest, match="key of 0 bytes"):
            await producer.send_many([b"right"], key="")
        assert producer.buffered_bytes == 0
    assert await read(client) == []
    with pytest.raises(Closed):
        await producer.send_many([b"too late"])


async def test_many_messages_wait_for_room_and_for_the_broker(broker: Broker, client: Client, address: str) -> None:
    await broker.create_topic()
    size, bound = 1000 + FRAME_HEADER_SIZE, 10_000
    async with (
        relay_to(address) as relay,
        new_client(relay.address) as behind,
        behind.producer("s", "t", buffer_bytes=bound, linger_ms=0) as producer,
    ):
        relay.mute()
        sending = asyncio.create_task(producer.send_many([b"x" * 1000] * 50))
        await steps(200)
        assert (producer.buffered_bytes, sending.done()) == (bound // size * size, False)
        relay.speak()
        async with asyncio.timeout(10):
            deliveries = await sending
    assert spread(deliveries) == [Delivery(0, offset) for offset in range(50)]


async def test_a_refusal_reaches_who_sent_many(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with client.producer("s", "t", partition=5, batch_size=10) as producer:
        with pytest.raises(BrokerError) as refused:
            await producer.send_many([b"x"] * 35)
        assert refused.value.status is Status.PARTITION_NOT_FOUND
        await producer.flush()
        assert producer.buffered_bytes == 0


async def test_who_takes_no_break_leaves_others_their_turns(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    async with client.producer("s", "t", linger_ms=FOREVER_MS) as producer:
        turns = 0
        for _ in range(40):
            await producer.enqueue(b"x" * IN_A_ROW_SIZE)
        assert turns >= 20
        counting.cancel()


async def test_messages_keep_their_ids_and_headers_and_others_get_one(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    message = Message("with headers", id=7, headers={"number": 1, "text": "a"})
    async with client.producer("s", "t") as producer:
        await asyncio.gather(producer.send(message), *(producer.send(b"plain") for _ in range(99)))
    found = await read(client)
    assert (found[0].id, found[0].headers) == (7, {"number": 1, "text": "a"})
    assert len({message.id for message in found}) == 100
    assert all(message.id for message in found)


async def test_a_batch_has_no_more_messages_or_bytes_than_it_may(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    sizes = [10, 900, 30, 40, 5000, 10, 10, 10, 10, 10]
    size_max = 1000 + FRAME_HEADER_SIZE
    async with client.producer("s", "t", batch_size=4, batch_bytes=size_max, linger_ms=FOREVER_MS) as producer:
        sending = [await producer.enqueue(b"x" * size) for size in sizes]
        await producer.flush()
        assert [(await delivered).offset for delivered in sending] == list(range(len(sizes)))
    batches = await batch_sizes(broker)
    assert [len(message.payload) for message in await read(client)] == sizes
    assert all(count <= 4 and (size <= size_max or count == 1) for count, size in batches)
    assert (1, 5000 + FRAME_HEADER_SIZE) in batches  # what is larger than a batch goes alone
    assert max(count for count, _ in batches) == 4


async def test_messages_wait_for_others_until_a_flush(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with client.producer("s", "t", linger_ms=FOREVER_MS) as producer:
        sending = [await producer.enqueue(str(number)) for number in range(5)]
        await client.ping()
        assert not any(delivered.done() for delivered in sending)
        await producer.flush()
        assert all(delivered.done() for delivered in sending)
        await producer.flush()  # of nothing
    assert [count for count, _ in await batch_sizes(broker)] == [5]


async def test_messages_do_not_wait_longer_than_they_may(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with asyncio.timeout(10), client.producer("s", "t", linger_ms=20) as producer:
        deliveries = await asyncio.gather(*(producer.send(str(number)) for number in range(5)))
    assert [delivery.offset for delivery in deliveries] == list(range(5))
    assert [count for count, _ in await batch_sizes(broker)] == [5]


async def test_a_flush_waits_only_for_what_was_taken_before(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with client.producer("s", "t", batch_size=10, linger_ms=0) as producer:
        is_over = False

        async def go_on() -> None:
            while not is_over:
                await producer.enqueue("more")
                await asyncio.sleep(0)

        sender = asyncio.create_task(go_on())
        async with asyncio.timeout(10):
            sending = [await producer.enqueue(str(number)) for number in range(25)]
            await producer.flush()
        assert all(delivered.done() for delivered in sending)
        is_over = True
        await sender


@pytest.mark.parametrize(
    ("message", "key", "why"),
    [
        (b"", None, "empty payload"),
        (Message("text", id=0), None, "id 0"),
        (Message("text", headers={"": 1}), None, "key"),
        (Message("text", headers={f"key {number}": "x" * 255 for number in range(500)}), None, "headers"),
        ("text", b"", "key of 0 bytes"),
        ("text", "k" * 256, "key of 256 bytes"),
    ],
)
async def test_a_message_that_no_broker_would_take_hurts_no_other(
    broker: Broker, client: Client, message: Message | bytes | str, key: str | None, why: str
) -> None:
    await broker.create_topic()
    async with client.producer("s", "t", linger_ms=FOREVER_MS) as producer:
        before = await producer.enqueue("before")
        with pytest.raises(InvalidRequest, match=why):
            await producer.send(message, key)
        after = await producer.enqueue("after")
        await producer.flush()
        assert ((await before).offset, (await after).offset, producer.buffered_bytes) == (0, 1, 0)


async def test_a_producer_for_one_partition_takes_no_keys(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with client.producer("s", "t", partition=0) as producer:
        with pytest.raises(InvalidRequest, match="partition 0"):
            await producer.send("text", key="key")


async def test_a_refusal_reaches_every_message_of_the_batch(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with client.producer("s", "t", partition=5) as producer:
        refused = await asyncio.gather(*(producer.send(str(number)) for number in range(10)), return_exceptions=True)
        assert {error.status for error in refused if isinstance(error, BrokerError)} == {Status.PARTITION_NOT_FOUND}
        assert (len(refused), producer.buffered_bytes) == (10, 0)


async def test_a_missing_topic_is_said_at_once_or_created(client: Client) -> None:
    with pytest.raises(BrokerError, match="not_found"):
        await client.producer("s", "t").open()
    for _ in range(2):
        async with client.producer("s", "t", create=True, partitions=3) as producer:
            await producer.send("text")
    details = await client.get_topic("s", "t")
    assert details is not None
    assert (details.topic.partitions_count, details.topic.messages_count) == (3, 2)
    with pytest.raises(InvalidRequest, match="needs names"):
        await client.producer(0, 99, create=True).open()


async def test_many_producers_may_create_the_same_topic_at_once(client: Client) -> None:
    producers = [client.producer("s", "t", create=True) for _ in range(5)]
    await asyncio.gather(*(producer.open() for producer in producers))
    assert len(await client.get_topics("s")) == 1
    for producer in producers:
        await producer.close()


async def test_what_waits_stays_within_the_bound(broker: Broker, client: Client, address: str) -> None:
    await broker.create_topic(2)
    size, bound = 1000 + FRAME_HEADER_SIZE, 10_000
    async with (
        relay_to(address) as relay,
        new_client(relay.address) as behind,
        behind.producer("s", "t", buffer_bytes=bound, batch_size=3, linger_ms=0) as producer,
    ):
        relay.mute()
        sending = [asyncio.create_task(producer.send(b"x" * 1000)) for _ in range(50)]
        await steps(200)
        assert producer.buffered_bytes == bound // size * size
        assert not any(task.done() for task in sending)
        relay.speak()
        async with asyncio.timeout(10):
            for task in asyncio.as_completed(sending):
                await task
                assert producer.buffered_bytes <= bound
    assert len(await read(client, 0)) + len(await read(client, 1)) == 50


async def test_closing_flushes_and_takes_no_more(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    producer = client.producer("s", "t", linger_ms=FOREVER_MS)
    with pytest.raises(Closed, match="open"):
        await producer.send("too early")
    async with producer:
        sending = [await producer.enqueue(str(number)) for number in range(10)]
    assert [(await delivered).offset for delivered in sending] == list(range(10))
    with pytest.raises(Closed):
        await producer.send("too late")


async def test_who_cancels_closing_leaves_no_message_without_an_answer(broker: Broker, address: str) -> None:
    await broker.create_topic()
    async with relay_to(address) as relay, new_client(relay.address) as client:
        producer = client.producer("s", "t", batch_size=2, buffer_bytes=300)
        await producer.open()
        relay.mute()
        sending = [asyncio.create_task(producer.send(b"x" * 30)) for _ in range(8)]
        flushing = asyncio.create_task(producer.flush())
        await steps(50)
        closing = asyncio.create_task(producer.close())
        await steps(50)
        closing.cancel()
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*sending, return_exceptions=True)
            await flushing
        assert {type(answer) for answer in answers} == {Closed}


async def test_cancelling_a_send_at_any_step_leaves_the_producer_usable(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with asyncio.timeout(30), client.producer("s", "t", buffer_bytes=200, linger_ms=0) as producer:
        is_done, count = False, 0
        while not is_done:
            full = asyncio.create_task(producer.send(b"y" * 100))
            is_done = await cancel_after(count, producer.send(b"x" * 100))
            delivery = await producer.send(str(count).zfill(100))
            assert (await read(client))[delivery.offset].text == str(count).zfill(100)
            await full
            count += 1
        await producer.flush()
        assert producer.buffered_bytes == 0


async def test_cancelling_at_any_step_who_sends_many_leaves_the_producer_usable(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with asyncio.timeout(30), client.producer("s", "t", buffer_bytes=500, linger_ms=0) as producer:
        is_done, count = False, 0
        while not is_done:
            is_done = await cancel_after(count, producer.send_many([b"x" * 100] * 10))
            (delivery,) = await producer.send_many([str(count).zfill(100)])
            assert (await read(client))[delivery.offset].text == str(count).zfill(100)
            count += 1
        await producer.flush()
        assert producer.buffered_bytes == 0


async def test_a_topic_without_partitions_takes_messages_once_it_has_some(broker: Broker, client: Client) -> None:
    await broker.create_topic(1)
    await client.delete_partitions("s", "t", 1)
    async with client.producer("s", "t", linger_ms=0) as producer:
        with pytest.raises(BrokerError) as refused:
            await producer.send("too early")
        assert refused.value.status is Status.PARTITION_NOT_FOUND
        await client.create_partitions("s", "t", 1)
        assert await producer.send("in time") == Delivery(0, 0)


async def test_new_partitions_are_used_and_deleted_ones_given_up(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pybroker.client.producer.PARTITIONS_AGE_MAX_S", 0)
    await broker.create_topic(2)
    async with client.producer("s", "t", linger_ms=0) as producer:
        await producer.send("two")
        await client.create_partitions("s", "t", 2)
        await producer.send("it asks after this one")
        await steps(20)
        assert {(await producer.send(str(number))).partition for number in range(8)} == {0, 1, 2, 3}
    monkeypatch.undo()
    async with client.producer("s", "t", linger_ms=0) as producer:
        await client.delete_partitions("s", "t", 3)
        assert {(await producer.send(str(number))).partition for number in range(8)} == {0}
        await client.delete_partitions("s", "t", 1)
        with pytest.raises(BrokerError):
            await producer.send("nowhere")


@pytest.mark.parametrize(
    "option", [{"linger_ms": -1}, {"batch_size": 0}, {"batch_bytes": 1 << 26}, {"in_flight": 0}, {"retries": -1}]
)
def test_it_says_what_is_wrong_with_its_options(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(option))):
        Client("iggy://iggy:iggy@127.0.0.1").producer("s", "t", **option)
