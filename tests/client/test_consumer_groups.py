"""Members of a group in this process: who gets which message while they join, leave, die and come back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pybroker.client import BrokerError, Client, InvalidRequest
from pybroker.client.commits import Commit, Every
from pybroker.client.messages import Start
from pybroker.protocol.errors import Status
from support.agents import by_partition, new_client, take, until
from support.broker import Broker
from support.cancelling import cancel_after
from support.crew import BATCH_SIZE, PARTITIONS_COUNT, SAFE, Crew, Worker, shares
from support.relay import STORE_OFFSET, Relay, relay_to


@pytest.fixture
async def crew(broker: Broker, address: str) -> AsyncIterator[Crew]:
    await broker.create_topic(PARTITIONS_COUNT)
    crew = Crew(broker, address)
    yield crew
    for worker in crew.at_work:
        await worker.stop()


@pytest.mark.parametrize("commit", ["before", *SAFE])
async def test_members_that_join_share_the_work_and_no_message_comes_twice(
    broker: Broker, crew: Crew, commit: Commit
) -> None:
    await crew.send(100)
    for count in (1, 2, 3):
        await crew.hire(commit)
        await crew.handle(100 * count)
    assert await crew.finish() == 0
    await crew.send(100)
    assert await crew.finish() == 0
    await until(lambda: shares(broker) == [1, 1, 2])
    assert all(worker.handled for worker in crew.all)


@pytest.mark.parametrize("commit", SAFE)
async def test_when_a_member_leaves_nothing_is_lost_and_little_comes_twice(crew: Crew, commit: Commit) -> None:
    for _ in range(3):
        await crew.hire(commit)
    for worker in crew.all[:2]:
        await crew.send(60)
        await crew.handle(len(crew.sent) - 100)
        await worker.stop()
    # All partitions are dealt anew: what the others had in hand, at most a batch of each partition, moves with them.
    assert await crew.finish() <= 2 * PARTITIONS_COUNT * BATCH_SIZE
    assert all(list(offsets) == sorted(set(offsets)) for offsets in each_ones(crew.all[2]))


def each_ones(worker: Worker) -> list[list[int]]:
    """Return the offsets that a worker had, by partition."""
    return [[offset for number, offset in worker.handled if number == partition] for partition in range(4)]


@pytest.mark.parametrize(("commit", "again_max"), [("each", 1), ("batch", BATCH_SIZE), (Every(3600), 60)])
async def test_when_a_member_dies_another_begins_with_what_was_not_committed(
    crew: Crew, commit: Commit, again_max: int
) -> None:
    await crew.send(60)
    mortal = await crew.hire(commit)
    await crew.handle(50)
    await mortal.die()
    had = Counter(mortal.handled)
    await crew.hire("batch")
    again = await crew.finish()
    assert 0 <= again <= again_max * PARTITIONS_COUNT
    assert set(had) <= crew.sent


async def test_a_member_that_died_before_its_commit_loses_only_what_polls_had_committed(crew: Crew) -> None:
    await crew.send(20)
    mortal = await crew.hire("before")
    await crew.handle(30)
    await mortal.die()
    await crew.hire("before")
    await crew.send(1)
    await until(lambda: {(partition, 20) for partition in range(PARTITIONS_COUNT)} <= crew.handled.keys())
    assert crew.handled.total() == len(crew.handled)
    assert len(crew.sent - crew.handled.keys()) <= BATCH_SIZE


@pytest.mark.parametrize("commit", SAFE)
async def test_a_member_whose_connection_breaks_joins_again_and_gets_nothing_twice(
    broker: Broker, crew: Crew, address: str, commit: Commit
) -> None:
    async with relay_to(address) as relay:
        worker = await crew.hire(commit, address=relay.address)
        for number in range(1, 11):
            await crew.send(10)
            await crew.handle(len(crew.sent) - 20)
            break_connection(relay, number)
            await signed_in_again(worker, times=number)
        assert await crew.finish() == 0
        await until(lambda: shares(broker) == [PARTITIONS_COUNT])
        await worker.stop()


async def signed_in_again(worker: Worker, *, times: int) -> None:
    """Wait for an answer over the next connection: a call that loses four of them in a row is given up."""
    await until(lambda: worker.client.connection_id > times)
    await worker.client.ping()


def break_connection(relay: Relay, number: int) -> None:
    """Break it at once, or in place of the next answer, so that nobody knows what was done."""
    if number % 2:
        relay.cut()
    else:
        relay.lose_answers(STORE_OFFSET)
        relay.cut()


@pytest.mark.parametrize("commit", ["each", "batch"])
async def test_a_member_that_was_away_takes_back_nothing_that_was_committed_meanwhile(
    broker: Broker, client: Client, address: str, commit: Commit
) -> None:
    await broker.create_topic()
    for _ in range(20):
        await broker.send(b"text")
    async with relay_to(address) as relay, new_client(relay.address) as behind:
        options: dict[str, Any] = {"group": "g", "commit": commit, "batch_size": 3}
        async with behind.consumer("s", "t", **options) as away:
            assert [message.offset for message in await take(away, 3)] == [0, 1, 2]
            relay.is_away = True
            relay.cut()
            waiting = asyncio.create_task(take(away, 1))  # it wants to commit first
            await until(lambda: not shares(broker))
            async with client.consumer("s", "t", **options) as other:
                await take(other, 10)
            relay.is_away = False
            (message,) = await waiting
            stored = await client.get_offset("s", "t", partition=0, group="g")
            assert stored is not None
            assert message.offset == stored.stored_offset + 1 >= 10


async def test_what_a_poll_has_committed_is_handed_out_whatever_happens(
    broker: Broker, client: Client, address: str
) -> None:
    await broker.create_topic()
    for _ in range(20):
        await broker.send(b"text")
    async with (
        relay_to(address) as relay,
        new_client(relay.address) as behind,
        behind.consumer("s", "t", group="g", commit="before", batch_size=10) as consumer,
    ):
        await take(consumer, 3)
        relay.is_away = True
        relay.cut()
        await until(lambda: not shares(broker))
        async with client.consumer("s", "t", group="g", commit="before", batch_size=5) as other:
            assert by_partition(await take(other, 5)) == {0: list(range(10, 15))}
        relay.is_away = False
        assert by_partition(await take(consumer, 12)) == {0: [*range(3, 10), *range(15, 20)]}


@pytest.mark.parametrize("start", ["first", "last", "next"])
async def test_who_joins_again_before_the_first_message_misses_none(broker: Broker, address: str, start: Start) -> None:
    await broker.create_topic()
    async with (
        relay_to(address) as relay,
        new_client(relay.address) as behind,
        behind.consumer("s", "t", group="g", start=start, poll_interval_ms=1) as consumer,
    ):
        waiting = asyncio.create_task(take(consumer, 5))
        await until(lambda: (cursor := consumer._cursors.find(0)) is not None and cursor.is_current)
        await asyncio.sleep(0.01)
        relay.is_away = True
        relay.cut()
        for _ in range(5):
            await broker.send(b"text")
        relay.is_away = False
        assert by_partition(await waiting) == {0: list(range(5))}


async def test_two_members_whose_connections_break_lose_nothing(crew: Crew, address: str) -> None:
    async with relay_to(address) as relay:
        workers = [await crew.hire("each", address=relay.address) for _ in range(2)]
        for number in range(1, 11):
            await crew.send(10)
            relay.cut()
            for worker in workers:
                await signed_in_again(worker, times=number)
        # The first to come back gets all partitions, so at each break what both had in hand may come again.
        assert await crew.finish() <= 10 * 2
        for worker in workers:
            await worker.stop()


async def test_a_slow_member_gives_up_what_another_got_after_a_while(broker: Broker, crew: Crew) -> None:
    await crew.send(10)
    let_go = asyncio.Event()
    slow = await crew.hire("batch", batch_size=10, pause=lambda: async_wait(let_go))
    await until(lambda: len(slow.handled) == 1)
    await crew.hire("batch", batch_size=10)
    assert shares(broker)[0] < 4
    broker.state.groups.wait(1, 0)  # as if it had taken too long
    await crew.handle(20)
    let_go.set()
    assert await crew.finish() <= 10  # what it had in hand, and what it handled of it before it was told


async def async_wait(event: asyncio.Event) -> None:
    await event.wait()


async def test_members_beyond_the_partitions_wait_for_their_turn(broker: Broker, crew: Crew) -> None:
    for _ in range(PARTITIONS_COUNT + 1):
        await crew.hire()
    await crew.send(10)
    await crew.finish()
    idle = crew.all[-1]
    assert idle.handled == []
    for worker in crew.all[:-1]:
        await worker.stop()
    await crew.send(10)
    await crew.finish()
    assert len(idle.handled) >= 10 * PARTITIONS_COUNT


async def test_new_partitions_are_dealt_too(crew: Crew, client: Client, broker: Broker) -> None:
    for _ in range(2):
        await crew.hire()
    await crew.send(5)
    await crew.settle()  # all partitions are dealt anew, and what is not committed with them
    await client.create_partitions("s", "t", 2)
    for partition in (4, 5):
        sent = await broker.send(b"new", partition_id=partition)
        crew.sent.add((partition, sent.base_offset))
    assert await crew.finish() == 0


async def test_a_group_that_was_deleted_is_made_anew(crew: Crew, client: Client, broker: Broker) -> None:
    await crew.hire("each")
    await crew.send(5)
    await crew.finish()
    await client.delete_group("s", "t", "g")
    await crew.send(5)
    await crew.finish()
    await until(lambda: shares(broker) == [PARTITIONS_COUNT])


async def test_without_leave_to_make_it_the_application_is_told(broker: Broker, client: Client) -> None:
    await broker.create_topic()
    await client.create_group("s", "t", "g")
    async with client.consumer("s", "t", group="g", create_group=False) as consumer:
        await client.delete_group("s", "t", "g")
        with pytest.raises(BrokerError) as refused:
            await take(consumer, 1)
        assert refused.value.status is Status.CONSUMER_GROUP_ID_NOT_FOUND


async def test_by_hand_a_commit_of_what_another_has_is_refused(broker: Broker, crew: Crew, client: Client) -> None:
    await crew.send(5)
    async with client.consumer("s", "t", group="g", commit="manual", batch_size=5) as consumer:
        messages = await take(consumer, 16)
        assert messages[-1].partition == 3  # the last one: it is the first to go to a newcomer
        await crew.hire()
        broker.state.groups.wait(1, 0)
        await crew.handle(10)
        with pytest.raises(BrokerError) as refused:
            await consumer.commit(messages[-1])
        assert refused.value.status is Status.CONSUMER_GROUP_PARTITION_NOT_OWNED
        await consumer.commit(messages[0])
        await crew.send(5)
        assert by_partition(await take(consumer, 10)).keys() == {0, 1}  # what was left of it is the other's


async def test_a_client_is_one_member_of_a_group(broker: Broker, client: Client, address: str) -> None:
    await broker.create_topic(2)
    async with client.consumer("s", "t", group="g"):
        with pytest.raises(InvalidRequest, match="a client for each member"):
            await client.consumer("s", "t", group="g").open()
        async with client.consumer("s", "t", group="other"), new_client(address) as second:
            async with second.consumer("s", "t", group="g"):
                assert [len(member.partitions) for member in await members(client)] == [1, 1]
            assert [len(member.partitions) for member in await members(client)] == [2]
    async with client.consumer("s", "t", group="g") as consumer:
        assert len(await members(client)) == 1
        await broker.send(b"text", partition_id=1)
        assert by_partition(await take(consumer, 1)) == {1: [0]}


async def members(client: Client) -> list[Any]:
    details = await client.get_group("s", "t", "g")
    assert details is not None
    return details.members


@pytest.mark.parametrize("closes", [False, True])
async def test_cancelling_a_join_or_a_close_at_any_step_leaves_no_member_behind(
    broker: Broker, client: Client, closes: bool
) -> None:
    await broker.create_topic()
    await client.create_group("s", "t", "g")
    is_done, count = False, 0
    while not is_done:
        consumer = client.consumer("s", "t", group="g")
        if closes:
            await consumer.open()
        is_done = await cancel_after(count, consumer.close() if closes else consumer.open())
        if closes or is_done:
            await consumer.close()
        assert (await members(client), client.on_connect) == ([], [])
        count += 1
    assert count > 5
