"""The producer when connections break: what is sent again, in which order, and when it gives up."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pybroker.client import BrokerError, Client, ConnectError, ConnectionLost, PybrokerError
from pybroker.protocol.errors import Status
from support.agents import new_client, read, texts, until
from support.broker import Broker, text_option
from support.relay import SEND, Relay, relay_to

DEDUPLICATION = text_option("message_deduplication", "true")


@pytest.fixture
async def relay(address: str) -> AsyncIterator[Relay]:
    async with relay_to(address) as relay:
        yield relay


@pytest.fixture
async def behind(relay: Relay) -> AsyncIterator[Client]:
    """A client behind the relay."""
    async with new_client(relay.address) as client:
        yield client


async def connected(client: Client, count: int) -> None:
    """Wait until a client has signed in so often."""
    await until(lambda: client.connection_id >= count)


async def test_a_batch_without_an_answer_is_sent_again_with_the_same_ids(
    broker: Broker, client: Client, relay: Relay, behind: Client
) -> None:
    await broker.create_topic()
    async with asyncio.timeout(10), behind.producer("s", "t", linger_ms=0) as producer:
        relay.lose_answers(SEND)
        deliveries = await asyncio.gather(*(producer.send(str(number)) for number in range(10)))
    found = await read(client)
    assert [delivery.offset for delivery in deliveries] == list(range(10, 20))
    assert texts(found) == [str(number) for number in range(10)] * 2
    assert [message.id for message in found[:10]] == [message.id for message in found[10:]]


async def test_where_the_topic_deduplicates_it_is_stored_once(
    broker: Broker, client: Client, relay: Relay, behind: Client
) -> None:
    await broker.create_topic(3, DEDUPLICATION)
    async with asyncio.timeout(10), behind.producer("s", "t", linger_ms=0, batch_size=4) as producer:
        relay.lose_answers(SEND, 2)
        deliveries = await asyncio.gather(*(producer.send(str(number)) for number in range(10)))
    for partition in range(3):
        expected = {delivery.offset: str(n) for n, delivery in enumerate(deliveries) if delivery.partition == partition}
        assert {message.offset: message.text for message in await read(client, partition)} == expected
    assert {delivery.partition for delivery in deliveries} == {0, 1, 2}


@pytest.mark.parametrize("deduplicates", [False, True])
async def test_the_order_in_each_partition_holds_whenever_connections_break(
    broker: Broker, client: Client, relay: Relay, behind: Client, deduplicates: bool
) -> None:
    await broker.create_topic(3, *([DEDUPLICATION] if deduplicates else []))
    count = 2000

    async def break_now_and_then() -> None:
        for number in range(20):
            await connected(behind, number + 1)
            if number % 2:
                relay.lose_answers(SEND)
            else:
                relay.cut()

    async with asyncio.timeout(30), behind.producer("s", "t", linger_ms=0, batch_size=5, retries=100) as producer:
        breaking = asyncio.create_task(break_now_and_then())
        sending = [await producer.enqueue(str(number), key=str(number % 5)) for number in range(count // 2)]
        while not breaking.done():
            await producer.send("0", key="0")
        sending += [await producer.enqueue(str(number), key=str(number % 5)) for number in range(count // 2, count)]
        await asyncio.gather(*sending)
    assert relay.connections_count > 20
    seen: set[int] = set()
    for partition in range(3):
        numbers = [int(text) for text in texts(await read(client, partition)) if text != "0"]
        once = list(dict.fromkeys(numbers))
        assert once == sorted(once)
        assert not deduplicates or once == numbers
        seen.update(once)
    assert seen == set(range(1, count))


async def test_it_gives_up_after_its_retries_and_goes_on_with_what_follows(
    broker: Broker, client: Client, relay: Relay, behind: Client
) -> None:
    await broker.create_topic()
    async with asyncio.timeout(10), behind.producer("s", "t", linger_ms=0, retries=2) as producer:
        relay.lose_answers(SEND, 3)
        with pytest.raises(ConnectionLost):
            await producer.send("lost")
        delivery = await producer.send("delivered")
        assert (await read(client))[delivery.offset].text == "delivered"
        assert producer.buffered_bytes == 0


async def test_messages_wait_for_a_broker_that_is_away(broker: Broker, client: Client, relay: Relay) -> None:
    await broker.create_topic()
    async with new_client(relay.address) as behind, behind.producer("s", "t", linger_ms=0) as producer:
        relay.is_away = True
        relay.cut()
        delivered = await producer.enqueue("in time")
        await asyncio.sleep(0.02)
        assert not delivered.done()
        relay.is_away = False
        async with asyncio.timeout(10):
            await delivered
    assert texts(await read(client)) == ["in time"]


async def test_messages_fail_when_the_broker_stays_away(broker: Broker, client: Client, relay: Relay) -> None:
    await broker.create_topic()
    async with (
        new_client(relay.address, timeout_s=0.02) as behind,
        behind.producer("s", "t", linger_ms=0, retries=2) as producer,
    ):
        relay.is_away = True
        relay.cut()
        failed = await asyncio.gather(*(producer.send(str(n)) for n in range(3)), return_exceptions=True)
        assert {type(error) for error in failed} <= {ConnectError, ConnectionLost}
        assert all(isinstance(error, PybrokerError) for error in failed)
    assert await read(client) == []


async def test_a_refused_batch_is_not_sent_again(broker: Broker, behind: Client, relay: Relay) -> None:
    await broker.create_topic()
    async with behind.producer("s", "t", linger_ms=0) as producer:
        await producer.send("text")
        await behind.delete_topic("s", "t")
        before = relay.requested_bytes
        with pytest.raises(BrokerError) as refused:
            await producer.send("x" * 1000)
        assert refused.value.status is Status.TOPIC_ID_NOT_FOUND
        assert relay.requested_bytes - before < 2 * 1000
