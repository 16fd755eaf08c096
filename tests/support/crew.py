"""Members of a consumer group at work, for tests: they take note of what they handle."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pybroker.client import PybrokerError
from pybroker.client.commits import Commit, Every

from .agents import new_client, until
from .broker import Broker

PARTITIONS_COUNT = 4
BATCH_SIZE = 5
SAFE: list[Commit] = ["each", "batch", Every(0), Every(0.02)]

Message = tuple[int, int]  # partition and offset


class Worker:
    """A member that takes note of what it handles. pause: what it does with each message."""

    def __init__(self, address: str, pause: Callable[[], Awaitable[None]], **options: Any) -> None:
        self.client = new_client(address)
        self.handled: list[Message] = []
        self.is_ended = False
        self._pause = pause
        self._options: dict[str, Any] = {"poll_interval_ms": 2, "batch_size": BATCH_SIZE} | options
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> "Worker":
        await self.client.connect()
        self.consumer = self.client.consumer("s", "t", group="g", **self._options)
        await self.consumer.open()
        self._task = asyncio.create_task(self._work())
        return self

    async def stop(self) -> None:
        """Finish what is in hand, commit and leave."""
        await self._end()
        await self.consumer.close()
        await self.client.close()

    async def die(self) -> None:
        """End between two messages, and say nothing."""
        await self.client.close()
        await self._end()
        with suppress(PybrokerError):
            await self.consumer.close()

    def check(self) -> None:
        """Raise what it failed with."""
        if self._task is not None and self._task.done() and not self._task.cancelled() and not self.is_ended:
            self._task.result()

    async def _end(self) -> None:
        self.is_ended = True
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError, PybrokerError):
            await self._task

    async def _work(self) -> None:
        async for message in self.consumer:
            self.handled.append((message.partition, message.offset))
            await asyncio.shield(self._pause())


async def no_time() -> None:
    await asyncio.sleep(0)


class Crew:
    """The workers of a test. All of them are stopped at its end."""

    def __init__(self, broker: Broker, address: str) -> None:
        self._broker = broker
        self._address = address
        self.all: list[Worker] = []
        self.sent: set[Message] = set()

    @property
    def at_work(self) -> list[Worker]:
        return [worker for worker in self.all if not worker.is_ended]

    async def hire(self, commit: Commit = "batch", *, address: str = "", **options: Any) -> Worker:
        pause = options.pop("pause", no_time)
        worker = Worker(address or self._address, pause, commit=commit, **options)
        self.all.append(worker)
        return await worker.start()

    async def send(self, count: int) -> None:
        """Send so many messages to each partition."""
        for partition in range(PARTITIONS_COUNT):
            for _ in range(count):
                sent = await self._broker.send(b"text", partition_id=partition)
                self.sent.add((partition, sent.base_offset))

    @property
    def handled(self) -> Counter[Message]:
        for worker in self.all:
            worker.check()
        return Counter(message for worker in self.all for message in worker.handled)

    async def handle(self, count: int) -> None:
        """Wait until so many messages have been handled."""
        await until(lambda: len(self.handled) >= count)

    async def finish(self) -> int:
        """Wait until all is handled; return how often one came again."""
        await until(lambda: self.handled.keys() == self.sent)
        return self.handled.total() - len(self.sent)

    async def settle(self) -> None:
        """Wait until all is handled and committed."""
        await self.finish()
        (key,) = self._broker.state.groups._memberships
        await until(lambda: not any(member.uncommitted for member in self._broker.state.groups.members(key)))


def shares(broker: Broker) -> list[int]:
    (key,) = broker.state.groups._memberships
    return sorted(len(member.owned) for member in broker.state.groups.members(key))
