"""Producers, consumers and group members of pybroker.client at pybroker and at Apache Iggy's own server."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from pybroker.client import Client, Consumer, Every
from pybroker.client.commits import Commit
from pybroker.client.lanes import Delivery
from support.agents import FAST, read, take, texts, until
from support.iggy import IGGY, PARTITIONS_COUNT, PYBROKER, persisted, server_of
from support.relay import relay_to
from support.server import Server, free_port

POLICIES: list[Commit] = ["before", "each", "batch", "manual", Every(0.01)]


async def test_a_producer_says_where_its_messages_are(client: Client, stream: str) -> None:
    async with client.producer(stream, "t", create=True, partitions=PARTITIONS_COUNT, batch_size=50) as producer:
        taken = [await producer.enqueue(str(number), key=str(number % 10)) for number in range(500)]
        taken += [await producer.enqueue(str(number)) for number in range(500, 1000)]
    where: dict[Delivery, str] = {each.result(): str(number) for number, each in enumerate(taken)}
    stored = [await read(client, partition, stream) for partition in range(PARTITIONS_COUNT)]
    assert {Delivery(each.partition, each.offset): each.text for log in stored for each in log} == where
    assert all(log for log in stored) and len(where) == 1000


async def test_a_producer_goes_elsewhere_when_its_partition_is_deleted(client: Client, stream: str, topic: str) -> None:
    async with client.producer(stream, topic, linger_ms=0) as producer:
        before = await asyncio.gather(*(producer.send("x", key=str(number)) for number in range(20)))
        assert {each.partition for each in before} == {0, 1, 2}
        await client.delete_partitions(stream, topic, 2)
        after = await asyncio.gather(*(producer.send("x", key=str(number)) for number in range(20)))
        assert {each.partition for each in after} == {0}


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("group", ["g", None])
async def test_a_consumer_goes_on_behind_what_it_committed(
    client: Client, stream: str, topic: str, policy: Commit, group: str | None
) -> None:
    await send_each(client, stream, topic, range(10))
    consumer = None if group else "mine"
    seen: list[str] = []
    for count in (15, 30):
        async with client.consumer(
            stream, topic, group=group, consumer=consumer, commit=policy, batch_size=5
        ) as consuming:
            seen += texts(await take(consuming, 15))
            if policy == "manual":
                await consuming.commit()
            if policy == "before":
                assert await committed(client, stream, topic, consumer="mine", group=group) == count
        if group is None:
            assert await committed(client, stream, topic, consumer="mine", group=None) == count
    assert sorted(seen) == every_text(range(10))


async def committed(client: Client, stream: str, topic: str, *, consumer: str, group: str | None) -> int:
    """Return how many messages of all partitions lie before what was committed."""
    found = [
        await client.get_offset(stream, topic, partition=partition, consumer=consumer, group=group)
        for partition in range(PARTITIONS_COUNT)
    ]
    return sum(offset.stored_offset + 1 for offset in found if offset is not None)


async def send_each(client: Client, stream: str, topic: str, numbers: range) -> None:
    """Send a message of each number to every partition."""
    for partition in range(PARTITIONS_COUNT):
        await client.send(stream, topic, [f"{partition}.{number}" for number in numbers], partition=partition)


def every_text(numbers: range) -> list[str]:
    return sorted(f"{partition}.{number}" for partition in range(PARTITIONS_COUNT) for number in numbers)


async def test_two_members_share_a_topic(client: Client, server: Server, stream: str, topic: str) -> None:
    created = await client.create_group(stream, topic, "g")
    assert await client.get_groups(stream, topic) == [created.group]
    async with Client(server.url) as other:
        for member in (client, other):
            await member.join_group(stream, topic, "g")
        shares = [await client.sync_group(stream, topic, "g"), await other.sync_group(stream, topic, "g")]
        owned = [share.partitions for share in shares if share is not None]
        assert sorted(map(len, owned)) == [1, 2]
        assert sorted(owned[0] + owned[1]) == [0, 1, 2]
        found = await client.get_group(stream, topic, "g")
        assert found is not None and found.group.members_count == len(found.members) == 2
        await client.send(stream, topic, ["x"], partition=owned[1][0])
        polled = await other.poll(stream, topic, group="g", partition=owned[1][0])
        assert texts(polled.messages) == ["x"]
        await other.store_offset(stream, topic, 0, group="g", partition=owned[1][0])
        await other.leave_group(stream, topic, "g")
    await eventually(client, stream, topic, is_right=lambda partitions: partitions == [0, 1, 2])
    await client.leave_group(stream, topic, "g")
    await client.delete_group(stream, topic, "g")
    assert await client.get_group(stream, topic, "g") is None


async def eventually(client: Client, stream: str, topic: str, *, is_right: Callable[[list[int]], bool]) -> None:
    """Wait until a member of the group g has the right partitions."""
    async with asyncio.timeout(20):
        while (share := await client.sync_group(stream, topic, "g")) is None or not is_right(sorted(share.partitions)):
            await asyncio.sleep(0.01)


async def test_members_come_and_go(client: Client, server: Server, stream: str, topic: str) -> None:
    handled: list[str] = []
    first, second = (Client(server.url, retry=FAST) for _ in range(2))
    async with first, first.consumer(stream, topic, group="g", commit="each", poll_interval_ms=5) as consumer:
        staying = asyncio.create_task(note_handled(consumer, handled))
        await send_each(client, stream, topic, range(10))
        await until(lambda: len(handled) == 30)
        async with second, second.consumer(stream, topic, group="g", commit="each", poll_interval_ms=5) as newcomer:
            going = asyncio.create_task(note_handled(newcomer, theirs := list[str]()))
            await eventually(second, stream, topic, is_right=lambda partitions: len(partitions) == 1)
            await send_each(client, stream, topic, range(10, 20))
            await until(lambda: len(handled) + len(theirs) == 60)
            assert len(theirs) == 10
            going.cancel()
        await send_each(client, stream, topic, range(20, 30))
        await until(lambda: len(handled) + len(theirs) == 90)
        staying.cancel()
    assert sorted(handled + theirs) == every_text(range(30))


async def note_handled(consumer: Consumer, handled: list[str]) -> None:
    async for batch in consumer.batches():
        handled += texts(batch)


async def test_a_member_goes_on_when_its_group_was_deleted(
    client: Client, server: Server, stream: str, topic: str
) -> None:
    """Its commits are refused then; it makes the group again, which has committed nothing."""
    await send_each(client, stream, topic, range(10))
    handled: list[str] = []
    async with Client(server.url) as member, member.consumer(stream, topic, group="g", commit="each") as consumer:
        await take(consumer, 2)
        await client.delete_group(stream, topic, "g")
        working = asyncio.create_task(note_handled(consumer, handled))
        await until(lambda: set(handled) == set(every_text(range(10))))
        working.cancel()


async def test_a_member_goes_on_when_its_connection_breaks(
    client: Client, server: Server, stream: str, topic: str
) -> None:
    seen: list[str] = []
    async with (
        relay_to(server.address) as relay,
        Client(f"iggy://iggy:iggy@{relay.address}", retry=FAST) as member,
        member.consumer(stream, topic, group="g", commit="each") as consumer,
    ):
        for number in range(3):
            await send_each(client, stream, topic, range(number, number + 1))
            seen += texts(await take(consumer, PARTITIONS_COUNT))
            await consumer.commit()
            relay.cut()
    assert sorted(seen) == every_text(range(3))


@pytest.mark.parametrize("kind", [PYBROKER, IGGY])
async def test_everything_goes_on_when_the_server_was_killed(tmp_path: Path, kind: str) -> None:
    """But for groups: Iggy's server keeps the members that it had before, and deals partitions to them."""
    with server_of(kind, tmp_path / "data", port=free_port()) as server:
        async with Client(server.url, retry=FAST) as client, Client(server.url, retry=FAST) as reader:
            await client.create_stream("s")
            await client.create_topic("s", "t", 2, options=await persisted(client))
            async with (
                client.producer("s", "t", retries=10) as producer,
                reader.consumer("s", "t", consumer="mine", commit="each") as consumer,
            ):
                for number in range(3):
                    connections = client.connection_id, reader.connection_id
                    await asyncio.gather(*(producer.send(f"{number}.{each}") for each in range(10)))
                    seen = await take(consumer, 10)
                    assert sorted(texts(seen)) == [f"{number}.{each}" for each in range(10)]
                    await consumer.commit()
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                    await asyncio.gather(client.ping(), reader.ping())
                    assert client.connection_id > connections[0] and reader.connection_id > connections[1]
            stored = [await read(client, partition) for partition in range(2)]
            assert sum(map(len, stored)) == 30
