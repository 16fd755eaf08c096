"""A producer's messages on their way to one partition.

Rule: of one partition at most one batch is on its way, and the next follows when that one's fate is known. So the
order of messages holds however often a batch is sent again, and what comes in meanwhile makes the next batch.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from ..protocol.unpacked import Message


class Delivery(msgspec.Struct, frozen=True):
    """Where a message is."""

    partition: int
    offset: int


class Entry(msgspec.Struct):
    """A message that waits for its delivery. size: the bytes it counts for. key: which chose its partition."""

    message: Message
    size: int
    key: bytes | None
    delivered: asyncio.Future[Delivery]


class Batching(msgspec.Struct, frozen=True):
    """When a batch goes out: with this many messages or bytes, or when its first has waited so long."""

    linger_s: float
    count_max: int
    size_max: int

    def is_full(self, count: int, size: int) -> bool:
        return count >= self.count_max or size >= self.size_max


Deliver = Callable[[int, list[Entry]], Awaitable[None]]
"""Settle every entry of one partition's batch. Raises nothing but CancelledError."""


class Lane:
    """The messages for one partition, in order. There is a task as long as there are any."""

    def __init__(self, partition_id: int, batching: Batching, turns: asyncio.Semaphore, deliver: Deliver) -> None:
        """turns: how many batches of all lanes may be on their way."""
        self.partition_id = partition_id
        self._batching = batching
        self._turns = turns
        self._deliver = deliver
        self._entries: deque[Entry] = deque()
        self._sending: list[Entry] = []
        self._size = 0
        self._added = 0  # messages, ever
        self._settled = 0
        self._urgent = 0  # the messages up to this one wait for no others
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()  # for so many to be settled
        self._go = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_empty(self) -> bool:
        return not self._entries

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._size += entry.size
        self._added += 1
        if self._is_full():
            self._go.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"messages to partition {self.partition_id}")

    def flush(self) -> asyncio.Future[None]:
        """Let what is here wait for no others. The future is done once all of it is delivered or has failed."""
        flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._urgent = self._added
        self._waiting.append((self._added, flushed))
        self._go.set()
        self._tell()
        return flushed

    async def abandon(self, error: Exception) -> None:
        """Fail what is here, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        fail(self._sending, error)
        fail(self._entries, error)
        self._entries.clear()
        self._settled = self._added
        self._tell()

    async def _run(self) -> None:
        try:
            while self._entries:
                await self._linger()
                async with self._turns:
                    self._sending = self._take()
                    await self._deliver(self.partition_id, self._sending)
                self._settled += len(self._sending)
                self._sending = []
                self._tell()
        finally:
            self._task = None

    def _tell(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._settled:
            _, flushed = self._waiting.popleft()
            if not flushed.done():
                flushed.set_result(None)

    async def _linger(self) -> None:
        """Wait for more messages, if that may be."""
        if self._is_full() or self._urgent > self._settled or not self._batching.linger_s:
            return
        self._go.clear()
        timer = asyncio.get_running_loop().call_later(self._batching.linger_s, self._go.set)
        try:
            await self._go.wait()
        finally:
            timer.cancel()

    def _is_full(self) -> bool:
        return self._batching.is_full(len(self._entries), self._size)

    def _take(self) -> list[Entry]:
        """Take the next batch: at least one message, and no more than its limits allow."""
        taken: list[Entry] = []
        size = 0
        while self._entries and len(taken) < self._batching.count_max:
            size += self._entries[0].size
            if taken and size > self._batching.size_max:
                break
            taken.append(self._entries.popleft())
        self._size -= sum(entry.size for entry in taken)
        return taken


def fail(entries: Iterable[Entry], error: Exception) -> None:
    for entry in entries:
        if not entry.delivered.done():
            entry.delivered.set_exception(error)
