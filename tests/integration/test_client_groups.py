"""Producers and group members of pybroker.client: through crashes of a real broker, and beside Iggy's own client."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from apache_iggy import (
    AutoCommit,
    AutoCommitAfter,
    IggyClient,
    Partitioning,
    PollingStrategy,
    ReceiveMessage,
    SendMessage,
)
from pybroker.client import Client, Message
from pybroker.client.lanes import Delivery
from pybroker.client.messages import Received
from support.agents import FAST, read, take, until
from support.programs import programs, run
from support.server import Server, free_port
from support.wheel import bounded, connect, make_topic, poll, read_all, send

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
PARTITIONS_COUNT = 3
KILLS = 3
HEADERS = {"text": "value", "number": 7, "negative": -300, "real": 0.5, "flag": False, "raw": b"\x01"}
PLACE = tuple[int, int]


def client_of(server: Server) -> Client:
    return Client(server.url, retry=FAST, timeout_s=30)


@pytest.fixture
async def ours(server: Server) -> AsyncIterator[Client]:
    async with client_of(server) as client:
        yield client


class Work:
    """A producer and members of a group that go on while their broker is killed."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, Delivery] = {}
        self.handled: dict[int, list[PLACE]] = defaultdict(list)
        self.is_over = False

    async def produce(self, client: Client) -> None:
        async with client.producer("s", "t", linger_ms=1, batch_size=50, buffer_bytes=50_000, retries=10) as producer:
            number = 0
            while not self.is_over:
                delivered = await producer.enqueue(str(number), key=str(number % 10))
                delivered.add_done_callback(lambda done, text=str(number): self._note(text, done))
                number += 1
                await asyncio.sleep(0.0005)

    def _note(self, text: str, delivered: "asyncio.Future[Delivery]") -> None:
        self.acknowledged[text] = delivered.result()

    async def consume(self, client: Client, member: int) -> None:
        async with client.consumer("s", "t", group="g", commit="each", batch_size=20, poll_interval_ms=5) as consumer:
            async for message in consumer:
                self.handled[member].append((message.partition, message.offset))

    @property
    def seen(self) -> Counter[PLACE]:
        return Counter(place for places in self.handled.values() for place in places)


async def kill_now_and_then(server: Server, work: Work) -> None:
    """Kill the broker, each time after it has acknowledged some more."""
    for _ in range(KILLS):
        count = len(work.acknowledged)
        await until(lambda least=count + 100: len(work.acknowledged) >= least)
        server.kill()
        await asyncio.to_thread(server.start)


@pytest.mark.parametrize("deduplicates", [False, True])
async def test_killing_the_broker_loses_nothing_that_was_acknowledged(tmp_path: Path, deduplicates: bool) -> None:
    work = Work()
    with Server(tmp_path / "data", port=free_port()) as server:
        async with client_of(server) as client, client_of(server) as first, client_of(server) as second:
            await client.create_stream("s")
            options = {"message_deduplication": deduplicates}
            await client.create_topic("s", "t", PARTITIONS_COUNT, options=options)
            members = [asyncio.create_task(work.consume(each, n)) for n, each in enumerate((first, second))]
            producing = asyncio.create_task(work.produce(client))
            await kill_now_and_then(server, work)
            work.is_over = True
            await bounded(producing)
            logs = [await read(client, partition) for partition in range(PARTITIONS_COUNT)]
            stored = {(partition, message.offset) for partition, log in enumerate(logs) for message in log}
            await until(lambda: work.seen.keys() >= stored)
            for member in members:
                member.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await member
    check_logs(work, logs, deduplicates=deduplicates)
    check_handled(work, stored)


def check_logs(work: Work, logs: list[list[Received]], *, deduplicates: bool) -> None:
    """Every acknowledged message is where the producer was told, and in order; twice only without deduplication."""
    for text, delivery in work.acknowledged.items():
        assert logs[delivery.partition][delivery.offset].text == text
    for log in logs:
        numbers = [int(message.text) for message in log]
        once = list(dict.fromkeys(numbers))
        assert once == sorted(once)
        assert len({message.id for message in log}) == len(once)
        assert not deduplicates or numbers == once


def check_handled(work: Work, stored: set[PLACE]) -> None:
    """Nothing is left out. What comes again is what members had in hand at a kill."""
    assert work.seen.keys() == stored
    assert work.seen.total() - len(stored) <= KILLS * 2 * PARTITIONS_COUNT
    assert all(work.handled.values())


async def test_iggys_client_reads_what_the_producer_sends(client: IggyClient, ours: Client, stream: str) -> None:
    await make_topic(client, stream, "topic", 2)
    async with ours.producer(stream, "topic", partition=1) as producer:
        await producer.enqueue(Message("with headers", id=99, headers=HEADERS))
        for number in range(100):
            await producer.enqueue(str(number))
    first, *others = await read_all(client, stream, "topic", 1)
    headers = first.user_headers()
    assert headers is not None
    assert (first.payload(), int(first.id()), headers.to_scalar_dict()) == (b"with headers", 99, HEADERS)
    assert [message.payload().decode() for message in others] == [str(number) for number in range(100)]


async def test_the_consumer_reads_what_iggys_client_sends(client: IggyClient, ours: Client, stream: str) -> None:
    await make_topic(client, stream, "topic", 2)
    await send(client, stream, "topic", [SendMessage("with headers", HEADERS)], 1)
    await send(client, stream, "topic", map(str, range(100)), 1)
    async with ours.consumer(stream, "topic", group="group") as consumer:
        first, *others = await take(consumer, 101)
    assert (first.text, first.headers, first.partition) == ("with headers", HEADERS, 1)
    assert [message.text for message in others] == [str(number) for number in range(100)]


async def test_keys_go_where_iggys_client_puts_them(client: IggyClient, ours: Client, stream: str) -> None:

    await make_topic(client, stream, "topic", 3)
    async with ours.producer(stream, "topic", linger_ms=0) as producer:
        for key in map(str, range(20)):
            delivery = await producer.send(key, key=key)
            await send(client, stream, "topic", [key], Partitioning.messages_key(key.encode()))
            found = await poll(
                client, stream, "topic", PollingStrategy.Last(), count=1, partition_id=delivery.partition
            )
            assert found[0].offset() > delivery.offset
            assert found[0].payload().decode() == key


async def consume_with_iggys(server: Server, stream: str, handled: list[PLACE], shutdown: asyncio.Event) -> None:
    client = await connect(server.address, heartbeat_interval=timedelta(milliseconds=200))
    each = AutoCommit.After(AutoCommitAfter.ConsumingEachMessage())
    interval = timedelta(milliseconds=5)
    member = await bounded(
        client.consumer_group("group", stream, "topic", batch_length=10, auto_commit=each, poll_interval=interval)
    )

    async def handle(message: ReceiveMessage) -> None:
        handled.append((message.partition_id(), message.offset()))

    await member.consume_messages(handle, shutdown)


async def consume_with_ours(ours: Client, stream: str, handled: list[PLACE]) -> None:
    async with ours.consumer(stream, "topic", group="group", commit="each", batch_size=10) as consumer:
        async for message in consumer:
            await asyncio.sleep(0)
            handled.append((message.partition, message.offset))


async def test_a_member_shares_its_group_with_iggys_client(
    client: IggyClient, ours: Client, stream: str, server: Server
) -> None:
    await make_topic(client, stream, "topic", 4)
    handled: tuple[list[PLACE], list[PLACE]] = ([], [])
    shutdown = asyncio.Event()
    here = asyncio.create_task(consume_with_ours(ours, stream, handled[0]))
    there = asyncio.create_task(consume_with_iggys(server, stream, handled[1], shutdown))
    try:
        async with asyncio.timeout(20):
            while await shares(ours, stream) != [2, 2]:
                await asyncio.sleep(0.01)
        for start in range(0, 50, 10):
            for partition in range(4):
                await send(client, stream, "topic", map(str, range(start, start + 10)), partition)
        await until(lambda: sum(map(len, handled)) >= 200)
    finally:
        shutdown.set()
        await bounded(there)
        here.cancel()
        await asyncio.wait((here,))
    assert [len(set(places)) for places in handled] == [len(places) for places in handled] == [100, 100]


async def shares(ours: Client, stream: str) -> list[int]:
    details = await ours.get_group(stream, "topic", "group")
    return [len(member.partitions) for member in details.members] if details else []


def test_the_program_with_a_producer_and_a_consumer_runs_as_printed(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        assert run(programs(PAGE)[1], server) == "True\n1001\n"
