"""What the tests of producers and consumers share."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

from pybroker.client import Client, Retry
from pybroker.client.consumer import Consumer
from pybroker.client.messages import Offset, Received
from pybroker.protocol.batch import HEADER_SIZE, read_header
from pybroker.protocol.primitives import PollingKind, PollingStrategy

from .batches import split_records
from .broker import Broker, join

FAST = Retry(first_s=0.001, max_s=0.01)


def new_client(address: str, *, timeout_s: float = 10) -> Client:
    """Return a client that dials at once again when its connection breaks."""
    return Client(f"iggy://iggy:iggy@{address}", timeout_s=timeout_s, retry=FAST)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def steps(count: int) -> None:
    """Let everything else that is ready run, so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def take(consumer: Consumer, count: int) -> list[Received]:
    async with asyncio.timeout(10):
        return [await anext(consumer) for _ in range(count)]


async def read(client: Client, partition: int = 0, stream: str = "s", topic: str = "t") -> list[Received]:
    """Return all messages of a partition."""
    found: list[Received] = []
    while True:
        position = found[-1].offset + 1 if found else 0
        polled = await client.poll(stream, topic, partition=partition, start=Offset(position), count=1000)
        if not polled.messages:
            return found
        found += polled.messages


async def batch_sizes(broker: Broker, partition: int = 0) -> list[tuple[int, int]]:
    """Return how many messages each record of a partition holds, and the bytes of all of them."""
    polled = await broker.poll(PollingStrategy(PollingKind.FIRST), 100_000, partition_id=partition)
    records = split_records([memoryview(join(polled.records))])
    return [(read_header(record).count, len(record) - HEADER_SIZE) for record in records]


def texts(messages: Iterable[Received]) -> list[str]:
    return [message.text for message in messages]


def by_partition(messages: Iterable[Received]) -> dict[int, list[int]]:
    """Return the offsets of messages, in their order."""
    found: dict[int, list[int]] = defaultdict(list)
    for message in messages:
        found[message.partition].append(message.offset)
    return dict(found)
