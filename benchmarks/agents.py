"""How fast the client's ways to send and to read are, beside batches that are made before and polls that stay packed.

    python -m pybroker.benchmarks.agents [--rounds N]

One client on one connection, one partition, batches of 1000. In a round every way takes the same messages, in turns, in
an order that turns; a ratio is the median of the rounds' ratios to the first way. The last column is the processor time
that the client's process takes for a message.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from msgspec import Struct

from ..client import Client, Offset
from ..client.consumer import Consumer
from ..client.messages import pack_messages, strategy_of
from ..client.messaging import consumer_of, partitioning_of
from ..client.producer import Producer
from ..protocol.model.messages import PollMessages, SendMessages
from . import servers
from .harness.params import Range
from .markdown import table

ROUNDS = 9
BATCHES = 30
COUNT = 1000
SIZES = (Range(100, 100), Range(50, 150), Range(1000, 1000))
COLUMNS = ("messages", "way", "messages/s", "beside the first", "CPU us")
STREAM, SENT, READ = "agents", "sent", "read"


class Took(Struct, frozen=True):
    """Seconds that a way took in a round."""

    wall: float
    cpu: float


Way = Callable[[], Awaitable[None]]


class Ways:
    """Each sends or reads BATCHES batches."""

    def __init__(self, client: Client, payloads: list[bytes]) -> None:
        self._client = client
        self._payloads = payloads
        self._prebuilt = SendMessages(STREAM, SENT, partitioning_of(0, None), pack_messages(payloads))

    @property
    def sends(self) -> Mapping[str, Way]:
        return {
            "prebuilt": self._send_prebuilt,
            "Client.send": self._send,
            "enqueue_many": self._enqueue_many,
            "enqueue": self._enqueue,
            "gather of send": self._gather,
        }

    @property
    def reads(self) -> Mapping[str, Way]:
        return {
            "packed polls": self._poll_packed,
            "Client.poll": self._poll,
            "batches()": self._batches,
            "async for": self._iterate,
        }

    async def _send_prebuilt(self) -> None:
        for _ in range(BATCHES):
            await self._client.call(self._prebuilt)

    async def _send(self) -> None:
        for _ in range(BATCHES):
            await self._client.send(STREAM, SENT, self._payloads, partition=0)

    async def _enqueue_many(self) -> None:
        async with self._producer() as producer:
            for _ in range(BATCHES):
                await producer.enqueue_many(self._payloads)

    async def _enqueue(self) -> None:
        async with self._producer() as producer:
            for _ in range(BATCHES):
                for payload in self._payloads:
                    await producer.enqueue(payload)

    async def _gather(self) -> None:
        async with self._producer() as producer:
            for _ in range(BATCHES):
                await asyncio.gather(*(producer.send(payload) for payload in self._payloads))

    async def _poll_packed(self) -> None:
        for number in range(BATCHES):
            start = strategy_of(Offset(number * COUNT))
            await self._client.call(PollMessages(consumer_of(0, None), STREAM, READ, 0, start, COUNT, False))

    async def _poll(self) -> None:
        for number in range(BATCHES):
            await self._client.poll(STREAM, READ, partition=0, start=Offset(number * COUNT), count=COUNT)

    async def _batches(self) -> None:
        async with self._consumer() as consumer:
            left = BATCHES * COUNT
            async for batch in consumer.batches():
                left -= len(batch)
                if not left:
                    return

    async def _iterate(self) -> None:
        async with self._consumer() as consumer:
            async for message in consumer:
                if message.offset == BATCHES * COUNT - 1:
                    return

    def _producer(self) -> Producer:
        return self._client.producer(STREAM, SENT, partition=0, batch_size=COUNT, batch_bytes=8_000_000)

    def _consumer(self) -> Consumer:
        return self._client.consumer(STREAM, READ, consumer="reader", partition=0, start="first", batch_size=COUNT)


async def measure(client: Client, size: Range, rounds: int) -> list[list[str]]:
    """Return a row for each way."""
    payloads = [os.urandom(random.randint(size.least, size.most)) for _ in range(COUNT)]
    ways = Ways(client, payloads)
    rows: list[list[str]] = []
    async with _topics(client, payloads):
        for kind in (ways.sends, ways.reads):
            took = await _in_turns(client, kind, rounds)
            base = next(iter(took.values()))
            for name, times in took.items():
                ratio = median(theirs.wall / own.wall for theirs, own in zip(base, times, strict=True))
                rate = BATCHES * COUNT / median(each.wall for each in times)
                cpu_us = min(each.cpu for each in times) / (BATCHES * COUNT) * 1e6
                rows.append([f"{size} B", name, f"{rate:,.0f}", f"{ratio:.2f}", f"{cpu_us:.2f}"])
    return rows


async def _in_turns(client: Client, ways: Mapping[str, Way], rounds: int) -> dict[str, list[Took]]:
    took: dict[str, list[Took]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            start, cpu = time.perf_counter(), time.process_time()
            await ways[name]()
            took[name].append(Took(time.perf_counter() - start, time.process_time() - cpu))
            await client.purge_topic(STREAM, SENT)
    return took


@asynccontextmanager
async def _topics(client: Client, payloads: list[bytes]) -> AsyncGenerator[None]:
    """Make the topic to send to, and the one to read."""
    await client.create_stream(STREAM)
    for topic in (SENT, READ):
        await client.create_topic(STREAM, topic)
    for _ in range(BATCHES):
        await client.send(STREAM, READ, payloads, partition=0)
    yield
    await client.delete_stream(STREAM)


async def _measure_all(url: str, rounds: int) -> list[list[str]]:
    async with Client(url) as client:
        return [row for size in SIZES for row in await measure(client, size, rounds)]


def main() -> None:
    parser = argparse.ArgumentParser("pybroker.benchmarks.agents", description="Measure producers and consumers.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, servers.broker_process(Path(name)) as broker:
        url = f"iggy://iggy:iggy@127.0.0.1:{servers.port_of(broker, Path(name))}"
        print(table(COLUMNS, asyncio.run(_measure_all(url, options.rounds)), words=(0, 1)))


if __name__ == "__main__":
    main()
