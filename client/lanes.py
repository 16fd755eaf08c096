"""A producer's messages on their way to one partition.

Rule: of one partition at most one batch is on its way, and the next follows when that one's fate is known. So the
order of messages holds however often a batch is sent again, and what comes in meanwhile makes the next batch.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import accumulate

import msgspec

from ..protocol.batch import FRAME_HEADER_SIZE, Batch
from .messages import Packed, batch_of


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """Where a message is, or the first of `count` that follow each other."""

    partition: int
    offset: int
    count: int = 1


class Batching(msgspec.Struct, frozen=True):
    """When a batch goes out: with this many messages or bytes, or when its first has waited so long."""

    linger_s: float
    count_max: int
    size_max: int


class Load:
    """Messages that go out together.

    count_left, size_left: how many messages and bytes more there is room for; less than none after one that goes alone.
    is_urgent: it waits for no others. settled: when all are delivered or have failed.
    """

    def __init__(self, count_max: int, size_max: int) -> None:
        self.messages: list[Packed] = []  # until they are packed
        self.awaited: list[tuple[asyncio.Future[Delivery], int, int]] = []  # with the first one's index, and how many
        self.count_left = count_max
        self.size_left = size_max
        self.is_urgent = False
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch: Batch | None = None

    @property
    def is_full(self) -> bool:
        return self.count_left <= 0 or self.size_left <= 0

    def pack(self) -> Batch:
        """Return the messages as a batch, always the same one; there can be no more of them."""
        if self._batch is None:
            self._batch = batch_of(self.messages)
            self.messages.clear()
        return self._batch

    def deliver(self, partition: int, base_offset: int) -> None:
        for delivered, index, count in self.awaited:
            if not delivered.done():
                delivered.set_result(Delivery(partition, base_offset + index, count))

    def fail(self, error: Exception) -> None:
        for delivered, _, _ in self.awaited:
            if not delivered.done():
                delivered.set_exception(error)

    def settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)


Deliver = Callable[[int, Load], Awaitable[None]]
"""Deliver one partition's load, or fail it. Raises nothing but CancelledError."""


class Lane:
    """The messages for one partition, in order. There is a task as long as there are any."""

    def __init__(self, partition_id: int, batching: Batching, turns: asyncio.Semaphore, deliver: Deliver) -> None:
        """turns: how many batches of all lanes may be on their way."""
        self.partition_id = partition_id
        self._batching = batching
        self._turns = turns
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._loads: deque[Load] = deque()  # the last is being filled
        self._sending: Load | None = None
        self._go = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def has_room(self, count: int, size: int) -> bool:
        """Whether so many messages would go with others that wait here."""
        return bool(self._loads) and count <= self._loads[-1].count_left and size <= self._loads[-1].size_left

    def add(self, messages: Sequence[Packed], size: int) -> asyncio.Future[Delivery]:
        """Take messages, which go out together: several must not be more than a batch holds. size: theirs."""
        count = len(messages)
        load = self._loads[-1] if self._loads else None
        if load is None or count > load.count_left or size > load.size_left:
            load = self._begin()
        delivered: asyncio.Future[Delivery] = asyncio.Future(loop=self._loop)
        load.awaited.append((delivered, len(load.messages), count))
        load.messages += messages
        load.count_left -= count
        load.size_left -= size
        if load.is_full:
            self._complete()
        return delivered

    def flush(self) -> asyncio.Future[None] | None:
        """Let what is here wait for no others. The future is done once all of it is delivered or has failed."""
        last = self._loads[-1] if self._loads else self._sending
        if last is None:
            return None
        last.is_urgent = True
        self._go.set()
        return last.settled

    async def abandon(self, error: Exception) -> None:
        """Fail what is here, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        for load in (self._sending, *self._loads):
            if load is not None:
                load.fail(error)
                load.settle()
        self._loads.clear()

    def _begin(self) -> Load:
        """Begin another batch; the one before it is complete."""
        load = Load(self._batching.count_max, self._batching.size_max)
        self._loads.append(load)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"messages to partition {self.partition_id}")
        else:
            self._complete()
        return load

    def _complete(self) -> None:
        self._go.set()
        self._pack_next()

    def _pack_next(self) -> None:
        """Pack the batch that goes next, while another is on its way. Of those behind it nothing is copied yet."""
        if self._loads and self._is_complete():
            self._loads[0].pack()

    async def _run(self) -> None:
        try:
            while self._loads:
                await self._linger()
                async with self._turns:
                    self._sending = self._loads.popleft()
                    self._loop.call_soon(self._pack_next)
                    await self._deliver(self.partition_id, self._sending)
                self._sending.settle()
                self._sending = None
        finally:
            self._task = None

    async def _linger(self) -> None:
        """Wait for more messages, if that may be."""
        if self._loads[0].is_urgent or self._is_complete() or not self._batching.linger_s:
            return
        self._go.clear()
        timer = asyncio.get_running_loop().call_later(self._batching.linger_s, self._go.set)
        try:
            await self._go.wait()
        finally:
            timer.cancel()

    def _is_complete(self) -> bool:
        """Whether the first batch gets no more messages."""
        return len(self._loads) > 1 or self._loads[0].is_full


def cut(messages: Sequence[Packed], *, count_max: int, size_max: int) -> Iterator[tuple[Sequence[Packed], int]]:
    """Yield messages, in order, as batches take them, and their sizes; what is larger than `size_max` goes alone."""
    sizes = [FRAME_HEADER_SIZE + len(message) for message in messages]
    ends = list(accumulate(sizes, initial=0))
    start = 0
    while start < len(messages):
        end = bisect_right(ends, ends[start] + size_max) - 1
        end = max(start + 1, min(end, start + count_max))
        yield messages[start:end], ends[end] - ends[start]
        start = end
