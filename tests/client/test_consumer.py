"""The consumer against a broker in this process: where it starts, what it is given, what it commits."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from pybroker.client import BrokerError, Client, InvalidRequest, Offset, PybrokerError, Timestamp
from pybroker.client.commits import Commit, Every
from pybroker.client.errors import Closed
from pybroker.client.messages import Received, Start
from pybroker.protocol.errors import Status
from support.agents import by_partition, new_client, steps, take, texts
from support.broker import Broker
from support.cancelling import cancel_after

COUNT = 25
BATCH_SIZE = 10
POLICIES: list[Commit] = ["before", "each", "batch", Every(0), "manual"]


async def fill(broker: Broker, count: int = COUNT, partition: int = 0) -> None:
    """Send messages whose text is their offset, in batches of three."""
    for start in range(0, count, 3):
        numbers = range(start, min(start + 3, count))
        await broker.send(*(str(number).encode() for number in numbers), partition_id=partition)


async def stored(client: Client, partition: int = 0, consumer: str = "c") -> int | None:
    found = await client.get_offset("s", "t", partition=partition, consumer=consumer)
    return found.stored_offset if found else None


async def test_a_consumer_reads_every_message_of_its_partition(broker: Broker, client: Client) -> None:
    await broker.create_topic(2)
    await fill(broker, partition=1)
    async with client.consumer("s", "t", consumer="c", partition=1, batch_size=BATCH_SIZE) as consumer:
        found = await take(consumer, COUNT)
    assert texts(found) == [str(number) for number in range(COUNT)]
    assert by_partition(found) == {1: list(range(COUNT))}
    assert await stored(client, 1) == COUNT - 1


async def test_without_a_partition_it_reads_all_of_the_topic_also_new_ones(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pybroker.client.readers.ASSIGNMENT_AGE_MAX_S", 0)
    await broker.create_topic(3)
    for partition in range(3):
        await fill(broker, partition=partition)
    async with client.consumer("s", "t", consumer="c", batch_size=BATCH_SIZE) as consumer:
        found = by_partition(await take(consumer, 3 * COUNT))
        assert found == {partition: list(range(COUNT)) for partition in range(3)}
        await client.create_partitions("s", "t", 1)
        await fill(broker, partition=3)
        assert by_partition(await take(consumer, COUNT)) == {3: list(range(COUNT))}
        await client.delete_partitions("s", "t", 2)
        await broker.send(b"after", partition_id=1)
        assert texts(await take(consumer, 1)) == ["after"]


async def test_no_partition_keeps_the_others_waiting(broker: Broker, client: Client) -> None:
    await broker.create_topic(2)
    await fill(broker, 100, 0)
    await fill(broker, 3, 1)
    async with client.consumer("s", "t", consumer="c", batch_size=BATCH_SIZE) as consumer:
        found = by_partition(await take(consumer, 30))
    assert found[1] == [0, 1, 2]


@pytest.mark.parametrize(
    ("start", "first"),
    [("first", 0), ("last", COUNT - 1), ("next", 5), (Offset(7), 7), (Timestamp(0), 0)],
)
async def test_it_starts_where_it_is_told(broker: Broker, client: Client, start: Start, first: int) -> None:
    await broker.create_topic()
    await fill(broker)
    await client.store_offset("s", "t", 4, partition=0, consumer="c")
    async with client.consumer("s", "t", consumer="c", partition=0, start=start, batch_size=4) as consumer:
        found = await take(consumer, COUNT - first)
    assert [message.offset for message in found] == list(range(first, COUNT))


@pytest.mark.parametrize("start", ["first", "last", "next", Offset(3)])
async def test_in_an_empty_partition_it_starts_with_what_comes(broker: Broker, client: Client, start: Start) -> None:
    await broker.create_topic()
    async with client.consumer("s", "t", consumer="c", partition=0, start=start) as consumer:
        waiting = asyncio.create_task(take(consumer, 1))
        await client.ping()
        await steps(100)
        await fill(broker, 3)
        await fill(broker, 3)
        (found,) = await waiting
    assert found.offset == (3 if start == Offset(3) else 0)


async def test_a_group_goes_on_where_it_stopped_and_starts_as_told_elsewhere(broker: Broker, client: Client) -> None:
    await broker.create_topic(2)
    await fill(broker, partition=0)
    await fill(broker, partition=1)
    async with client.consumer("s", "t", group="g", commit="manual", batch_size=BATCH_SIZE) as consumer:
        for message in await take(consumer, COUNT):
            if message.partition == 0 and message.offset == 9:
                await consumer.commit(message)
    async with client.consumer("s", "t", group="g", start="last") as consumer:
        found = by_partition(await take(consumer, COUNT - 10 + 1))
    assert found == {0: list(range(10, COUNT)), 1: [COUNT - 1]}


@pytest.mark.parametrize(
    ("commit", "comes_again"),
    [("before", 20), ("each", 12), ("batch", 10), (Every(3600), 1), ("manual", 0)],
)
async def test_after_a_crash_what_was_not_committed_comes_again(
    broker: Broker, client: Client, address: str, commit: Commit, comes_again: int
) -> None:
    await broker.create_topic()
    await fill(broker)
    async with new_client(address) as crashing:
        consumer = crashing.consumer("s", "t", consumer="c", partition=0, commit=commit, batch_size=BATCH_SIZE)
        await consumer.open()
        await take(consumer, 13)  # the one with offset 12 is in hand
        await crashing.close()
    with suppress(PybrokerError):
        await consumer.close()  # it can tell nobody any more
    async with client.consumer("s", "t", consumer="c", partition=0) as again:
        found = await take(again, COUNT - comes_again)
    assert [message.offset for message in found] == list(range(comes_again, COUNT))


@pytest.mark.parametrize(
    ("commit", "comes_again"),
    [("before", 20), ("each", 13), ("batch", 13), (Every(3600), 13), ("manual", 0)],
)
async def test_closing_commits_what_was_handed_out(
    broker: Broker, client: Client, commit: Commit, comes_again: int
) -> None:
    await broker.create_topic()
    await fill(broker)
    async with client.consumer("s", "t", consumer="c", partition=0, commit=commit, batch_size=BATCH_SIZE) as consumer:
        await take(consumer, 13)
    async with client.consumer("s", "t", consumer="c", partition=0) as again:
        assert (await take(again, 1))[0].offset == comes_again


@pytest.mark.parametrize(
    ("commit", "comes_again"), [("before", 20), ("each", 12), ("batch", 12), (Every(3600), 12), ("manual", 0)]
)
async def test_what_an_application_fails_over_is_not_committed(
    broker: Broker, client: Client, commit: Commit, comes_again: int
) -> None:
    await broker.create_topic()
    await fill(broker)
    consumer = client.consumer("s", "t", consumer="c", partition=0, commit=commit, batch_size=BATCH_SIZE)
    with pytest.raises(ValueError, match="12"):
        async with consumer:
            async for message in consumer:
                if message.offset == 12:
                    raise ValueError(message.text)
    async with client.consumer("s", "t", consumer="c", partition=0) as again:
        assert (await take(again, 1))[0].offset == comes_again


@pytest.mark.parametrize(("taken", "comes_again"), [(0, 0), (1, 1), (4, 4)])
async def test_a_batch_that_an_application_fails_over_comes_again(
    broker: Broker, client: Client, taken: int, comes_again: int
) -> None:
    """What is left of a batch is in hand all at once, and what was handed out before it is handled."""
    await broker.create_topic()
    await fill(broker)
    consumer = client.consumer("s", "t", consumer="c", partition=0, batch_size=BATCH_SIZE)
    with pytest.raises(ValueError, match="unhandled"):
        async with consumer:
            await take(consumer, taken)
            batch = await consumer.next_batch()
            assert [message.offset for message in batch] == list(range(taken, BATCH_SIZE))
            raise ValueError("unhandled")
    async with client.consumer("s", "t", consumer="c", partition=0) as again:
        assert (await take(again, 1))[0].offset == comes_again


async def test_offsets_fall_due_while_it_waits_for_messages(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    await fill(broker)
    async with client.consumer("s", "t", consumer="c", partition=0, commit=Every(0.05)) as consumer:
        await take(consumer, COUNT)
        waiting = asyncio.create_task(take(consumer, 1))
        async with asyncio.timeout(10):
            while await stored(client) != COUNT - 1:
                await asyncio.sleep(0.001)
        assert not waiting.done()
        await broker.send(b"late")
        assert texts(await waiting) == ["late"]


async def test_batches_are_committed_when_the_next_is_asked_for(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    await fill(broker)
    async with asyncio.timeout(10), client.consumer("s", "t", consumer="c", batch_size=BATCH_SIZE) as consumer:
        ends: list[tuple[int, int | None]] = []
        async for batch in consumer.batches():
            ends.append((batch[-1].offset, await stored(client)))
            if batch[-1].offset == COUNT - 1:
                break
    assert ends == [(9, None), (19, 9), (24, 19)]
    assert await stored(client) == 24


async def test_by_hand_it_commits_what_it_is_told(broker: Broker, client: Client) -> None:
    await broker.create_topic(2)
    await fill(broker, partition=0)
    await fill(broker, partition=1)
    async with client.consumer("s", "t", consumer="c", commit="manual", batch_size=BATCH_SIZE) as consumer:
        found = await take(consumer, 15)
        (first, *_), (second, *_) = found[:10], found[10:]
        await consumer.commit(found[4])
        assert (await stored(client, first.partition), await stored(client, second.partition)) == (4, None)
        await consumer.commit()
        assert (await stored(client, first.partition), await stored(client, second.partition)) == (9, 4)
        await consumer.commit(found[0])  # what is committed already stays so
        assert await stored(client, first.partition) == 9


@pytest.mark.parametrize("commit", POLICIES)
async def test_cancelling_at_any_step_loses_no_message_and_doubles_none(
    broker: Broker, client: Client, commit: Commit
) -> None:
    await broker.create_topic(2)
    await fill(broker, 200, 0)
    await fill(broker, 200, 1)
    found: list[Received] = []
    async with (
        asyncio.timeout(20),
        client.consumer("s", "t", group="g", commit=commit, batch_size=3) as consumer,
    ):
        count = 0
        while len(found) < 300:
            waiting = asyncio.ensure_future(anext(consumer))
            await cancel_after(count % 40, waiting)
            if not waiting.cancelled():
                found.append(waiting.result())
            count += 1
        found += await take(consumer, 400 - len(found))
    offsets = by_partition(found)
    assert offsets == {0: list(range(200)), 1: list(range(200))}


async def test_messages_that_come_later_are_handed_out_too(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with client.consumer("s", "t", consumer="c", poll_interval_ms=1) as consumer:
        for number in range(5):
            waiting = asyncio.create_task(take(consumer, 1))
            await steps(20)
            await broker.send(str(number).encode())
            assert texts(await waiting) == [str(number)]


async def test_after_a_purge_it_goes_on_with_the_new_messages(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    await fill(broker)
    async with client.consumer("s", "t", group="g", poll_interval_ms=1) as consumer:
        await take(consumer, COUNT)
        await client.purge_topic("s", "t")
        waiting = asyncio.create_task(take(consumer, 6))
        async with asyncio.timeout(10):
            while (cursor := consumer._cursors.find(0)) is None or cursor.position:
                await asyncio.sleep(0.001)
        await fill(broker, 6)
        assert [message.offset for message in await waiting] == list(range(6))


async def test_closing_ends_whoever_waits(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    consumer = client.consumer("s", "t", consumer="c", partition=0)
    with pytest.raises(Closed, match="open"):
        await anext(consumer)
    await consumer.open()

    async def read() -> list[Received]:
        return [message async for message in consumer]

    reading = asyncio.create_task(read())
    await broker.send(b"text")
    async with asyncio.timeout(10):
        while await stored(client) is None:  # it came back for the next one
            await asyncio.sleep(0.001)
        await consumer.close()
        assert texts(await reading) == ["text"]
        await consumer.close()
    with pytest.raises(StopAsyncIteration):
        await anext(consumer)


async def test_a_refusal_reaches_the_application_and_the_next_call_goes_on(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    async with client.consumer("s", "t", consumer="c", partition=0) as consumer:
        await client.delete_topic("s", "t")
        with pytest.raises(BrokerError) as refused:
            await take(consumer, 1)
        assert refused.value.status is Status.TOPIC_ID_NOT_FOUND
        await broker.create_topic()
        await broker.send(b"text")
        assert texts(await take(consumer, 1)) == ["text"]


async def test_it_says_what_is_wrong_with_its_options(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "name the group"),
        ({"group": "g", "consumer": "c"}, "group"),
        ({"group": "g", "partition": 0}, "group"),
        ({"consumer": "c", "commit": "sometimes"}, "sometimes"),
        ({"consumer": "c", "start": "middle"}, "middle"),
        ({"consumer": "c", "batch_size": 0}, "batch_size"),
    ]
    for options, why in wrong:
        with pytest.raises(InvalidRequest, match=why):
            client.consumer("s", "t", **options)
    with pytest.raises(BrokerError, match="not_found"):
        await client.consumer("s", "missing", consumer="c").open()
    with pytest.raises(BrokerError, match="not_found"):
        await client.consumer("s", "t", group="missing", create_group=False).open()
