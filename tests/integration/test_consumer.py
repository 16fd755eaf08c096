"""The client's high-level group consumer: what it is given, what it stores, and who goes on when a member dies."""

import asyncio
import sys
from collections import defaultdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from apache_iggy import (
    AutoCommit,
    AutoCommitAfter,
    AutoCommitWhen,
    IggyClient,
    IggyConsumer,
    PollingStrategy,
    ReceiveMessage,
)
from pybroker.protocol.model import offsets
from pybroker.protocol.primitives import Consumer, ConsumerKind
from support.raw import RawClient
from support.server import Server
from support.wheel import bounded, connect, make_topic, poll, send, until

MEMBER = Path(__file__).with_name("member.py")
MEMBER_BATCH_LENGTH = 10  # as in member.py
POLL_INTERVAL = timedelta(milliseconds=5)
TICK = timedelta(milliseconds=20)
MESSAGES_COUNT = 50
GROUP = Consumer(ConsumerKind.GROUP, "group")


class Mode(NamedTuple):
    """stored: the offset that the client ends at. batch_length: of its polls.

    Where a mode commits less often than once a poll, polls must reach the next commit: until then the client is
    served the same messages again, and passes over what it has seen.
    """

    commit: AutoCommit
    stored: int = MESSAGES_COUNT - 1
    batch_length: int = 7


WHEN: dict[str, Mode] = {
    "polling": Mode(AutoCommit.When(AutoCommitWhen.PollingMessages())),
    "all": Mode(AutoCommit.When(AutoCommitWhen.ConsumingAllMessages())),
    "each": Mode(AutoCommit.When(AutoCommitWhen.ConsumingEachMessage())),
    "every tenth": Mode(AutoCommit.When(AutoCommitWhen.ConsumingEveryNthMessage(10)), 40, 10),
    "interval": Mode(AutoCommit.Interval(TICK)),
    "interval or when polling": Mode(AutoCommit.IntervalOrWhen(TICK, AutoCommitWhen.PollingMessages())),
}
AFTER: dict[str, Mode] = {
    # "all" is all that the partition holds.
    "all": Mode(AutoCommit.After(AutoCommitAfter.ConsumingAllMessages()), batch_length=MESSAGES_COUNT),
    "each": Mode(AutoCommit.After(AutoCommitAfter.ConsumingEachMessage())),
    "every tenth": Mode(AutoCommit.After(AutoCommitAfter.ConsumingEveryNthMessage(10)), 40, 10),
    "interval or after each": Mode(AutoCommit.IntervalOrAfter(TICK, AutoCommitAfter.ConsumingEachMessage())),
}


async def consumer_of(client: IggyClient, stream: str, mode: Mode) -> IggyConsumer:
    return await bounded(
        client.consumer_group(
            "group",
            stream,
            "topic",
            polling_strategy=PollingStrategy.Next(),
            batch_length=mode.batch_length,
            auto_commit=mode.commit,
            poll_interval=POLL_INTERVAL,
        )
    )


async def take(consumer: IggyConsumer, count: int) -> list[ReceiveMessage]:
    """Iterate over `count` messages."""
    found: list[ReceiveMessage] = []
    messages = consumer.iter_messages()
    while len(found) < count:
        found.append(await bounded(anext(messages)))
    return found


def stored(raw: RawClient, stream: str, partition_id: int = 0) -> int | None:
    answer = raw.ask(offsets.GetConsumerOffset(GROUP, stream, "topic", partition_id))
    return None if answer is None else answer.stored_offset


async def stores(raw: RawClient, stream: str, offset: int | None) -> None:
    """Wait until the group's offset is `offset`."""

    async def is_stored() -> bool:
        return stored(raw, stream) == offset

    await until(is_stored)


@pytest.mark.parametrize("mode", WHEN)
async def test_iter_messages_yields_every_message_and_commits(
    client: IggyClient, stream: str, raw: RawClient, mode: str
) -> None:
    await make_topic(client, stream)
    await send(client, stream, "topic", map(str, range(MESSAGES_COUNT)))
    consumer = await consumer_of(client, stream, WHEN[mode])
    found = await take(consumer, MESSAGES_COUNT)
    assert [message.payload().decode() for message in found] == [str(number) for number in range(MESSAGES_COUNT)]
    await stores(raw, stream, WHEN[mode].stored)
    assert consumer.get_last_consumed_offset(0) == MESSAGES_COUNT - 1


@pytest.mark.parametrize("mode", AFTER)
async def test_consume_messages_hands_over_every_message_and_commits(
    client: IggyClient, stream: str, raw: RawClient, mode: str
) -> None:
    await make_topic(client, stream)
    await send(client, stream, "topic", map(str, range(MESSAGES_COUNT)))
    consumer = await consumer_of(client, stream, AFTER[mode])
    found: list[str] = []
    enough = asyncio.Event()

    async def handle(message: ReceiveMessage) -> None:
        found.append(message.payload().decode())
        if len(found) == MESSAGES_COUNT:
            enough.set()

    shutdown = asyncio.Event()
    consuming = asyncio.ensure_future(consumer.consume_messages(handle, shutdown))
    await bounded(enough.wait())
    await stores(raw, stream, AFTER[mode].stored)
    shutdown.set()
    await bounded(consuming)
    assert found == [str(number) for number in range(MESSAGES_COUNT)]


async def test_without_auto_commit_the_consumer_stores_what_it_is_told(
    client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_topic(client, stream)
    await send(client, stream, "topic", map(str, range(MESSAGES_COUNT)))
    consumer = await consumer_of(client, stream, Mode(AutoCommit.Disabled(), batch_length=MESSAGES_COUNT))
    await take(consumer, 20)
    assert stored(raw, stream) is None
    await bounded(consumer.store_offset(12, 0))
    assert (stored(raw, stream), consumer.get_last_stored_offset(0)) == (12, 12)
    await bounded(consumer.delete_offset(0))
    assert stored(raw, stream) is None


async def test_messages_that_arrive_later_are_delivered_too(client: IggyClient, stream: str, server: Server) -> None:
    await make_topic(client, stream)
    consumer = await consumer_of(await connect(server.address), stream, WHEN["each"])
    waiting = asyncio.ensure_future(take(consumer, 3))
    for text in ("a", "b", "c"):
        await send(client, stream, "topic", [text])
        await poll(client, stream, "topic")
    assert [message.payload() for message in await bounded(waiting)] == [b"a", b"b", b"c"]


async def test_a_group_goes_on_where_its_last_member_stopped(client: IggyClient, stream: str, server: Server) -> None:
    await make_topic(client, stream)
    await send(client, stream, "topic", map(str, range(MESSAGES_COUNT)))
    first_client = await connect(server.address)
    first = await consumer_of(first_client, stream, AFTER["each"])
    shutdown = asyncio.Event()
    found: list[int] = []

    async def handle(message: ReceiveMessage) -> None:
        found.append(message.offset())
        if len(found) == 20:
            shutdown.set()

    await bounded(first.consume_messages(handle, shutdown))
    await bounded(first_client.logout_user())
    second = await consumer_of(await connect(server.address), stream, WHEN["each"])
    (following,) = await take(second, 1)
    rest = [following.offset()]
    rest += [message.offset() for message in await take(second, MESSAGES_COUNT - 1 - rest[0])]
    assert found == list(range(len(found)))
    assert rest == list(range(rest[0], MESSAGES_COUNT))
    # None is skipped; of the last batch, whose offsets are stored in the background, some may come again.
    assert 0 <= len(found) - rest[0] <= AFTER["each"].batch_length


class Member:
    """`member.py`, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.handled: dict[int, list[int]] = defaultdict(list)

    async def run(self) -> None:
        """Take note of what it handled, until it dies."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            partition_id, offset, text = line.decode().split()
            assert text == f"{partition_id}-{offset}"
            self.handled[int(partition_id)].append(int(offset))
        await self.process.wait()


async def start_member(address: str, stream: str, count: int) -> Member:
    arguments = (str(MEMBER), address, stream, "topic", "group", str(count))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await bounded(process.stdout.readline()) == b"joined\n"
    return Member(process)


async def test_a_member_takes_over_from_one_that_dies(client: IggyClient, stream: str, server: Server) -> None:
    partitions_count, per_partition = 4, 100
    await make_topic(client, stream, "topic", partitions_count)
    # Its heartbeat tells a member what it got from another: the client that has it must not be dropped.
    survivors_client = await connect(server.address, heartbeat_interval=timedelta(milliseconds=500))
    survivor = await consumer_of(survivors_client, stream, WHEN["each"])
    handled: dict[int, list[int]] = defaultdict(list)

    async def consume() -> None:
        messages = survivor.iter_messages()
        while True:
            message = await anext(messages)
            assert message.payload().decode() == f"{message.partition_id()}-{message.offset()}"
            handled[message.partition_id()].append(message.offset())

    consuming = asyncio.ensure_future(consume())
    mortal = await start_member(server.address, stream, 30)
    group = await bounded(client.get_consumer_group(stream, "topic", "group"))
    assert group is not None
    assert sorted(len(member.partitions) for member in group.members) == [2, 2]
    dying = asyncio.ensure_future(mortal.run())
    for start in range(0, per_partition, 10):
        for partition_id in range(partitions_count):
            texts = [f"{partition_id}-{offset}" for offset in range(start, start + 10)]
            await send(client, stream, "topic", texts, partition_id)
    await bounded(dying)

    async def all_handled() -> bool:
        assert not consuming.done(), consuming.exception()
        both = (set(handled[number]) | set(mortal.handled[number]) for number in range(partitions_count))
        return all(len(offsets) == per_partition for offsets in both)

    await until(all_handled)
    consuming.cancel()
    await bounded(survivors_client.ping())
    assert sum(map(len, mortal.handled.values())) == 30
    for partition_id in range(partitions_count):
        for offsets_of_one in (handled[partition_id], mortal.handled[partition_id]):
            assert offsets_of_one == sorted(set(offsets_of_one))  # in order, and never twice to the same one
        twice = set(handled[partition_id]) & set(mortal.handled[partition_id])
        # Those that were handled, their offsets not stored yet: the last ones of at most one batch.
        assert twice == set(mortal.handled[partition_id][-len(twice) :] if twice else ())
        assert len(twice) <= MEMBER_BATCH_LENGTH


async def test_members_that_join_take_nothing_that_another_still_handles(
    client: IggyClient, stream: str, server: Server
) -> None:
    partitions_count, per_partition = 4, 60
    await make_topic(client, stream, "topic", partitions_count)
    handled: list[str] = []
    shutdown = asyncio.Event()

    async def handle(message: ReceiveMessage) -> None:
        await asyncio.sleep(0.001)  # so that members join in the midst of a batch
        handled.append(message.payload().decode())

    async def consume() -> None:
        member = await consumer_of(await connect(server.address), stream, AFTER["each"])
        await member.consume_messages(handle, shutdown)

    async def are_handled(count: int) -> bool:
        return len(set(handled)) >= count

    async def is_fair() -> bool:
        group = await bounded(client.get_consumer_group(stream, "topic", "group"))
        assert group is not None
        return sorted(len(member.partitions) for member in group.members) == [1, 1, 2]

    members: list[asyncio.Future[None]] = []
    try:
        for start in range(0, per_partition, 20):
            members.append(asyncio.ensure_future(consume()))
            for partition_id in range(partitions_count):
                texts = [f"{partition_id}-{offset}" for offset in range(start, start + 20)]
                await send(client, stream, "topic", texts, partition_id)
            await until(partial(are_handled, partitions_count * start + 1))
        await until(partial(are_handled, partitions_count * per_partition))
        await until(is_fair)
    finally:
        shutdown.set()  # or the client hangs
        for member in members:
            await bounded(member)
    assert len(handled) == partitions_count * per_partition, "some went to two members"
