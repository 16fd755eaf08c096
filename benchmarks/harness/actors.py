"""Actors on the client's low level: prebuilt batches out, records in as they come. So the server is what is measured.

An actor is prepared (connected, in its group), then run until its schedule is over or it is cancelled. What it has done
is in its tally at any time. A request without a message in its answer counts for nothing.
"""

import asyncio
import os
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TypeVar

import msgspec

from ...client.connection import Connection
from ...client.dial import dial, tls_context
from ...client.errors import BrokerError, PybrokerError
from ...client.messages import pack_messages
from ...client.url import parse
from ...protocol.model.groups import GroupAssignment, JoinConsumerGroup, SyncConsumerGroup
from ...protocol.model.messages import RESYNC_PARTITION, Polled, PollMessages, SendMessages, Sent
from ...protocol.primitives import Consumer, ConsumerKind, Partitioning, PartitioningKind, PollingKind, PollingStrategy
from .params import Params
from .plan import TOPIC, Actor
from .schedule import Schedule, clock_ns
from .tally import Tally

BATCHES_BUILT = 8
SILENCE_MAX_S = 30.0
EMPTY_PAUSE_S = 0.001
_NEXT = PollingStrategy(PollingKind.NEXT)
R = TypeVar("R", bound=msgspec.Struct)


class Load(msgspec.Struct, frozen=True):
    """A prebuilt send. size: the bytes of its payloads."""

    command: SendMessages
    messages: int
    size: int


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Connection]:
    target = parse(url)
    tls = tls_context(target) if target.tls else None
    connection = await dial(target, lambda _connection, _error: None, tls=tls, silence_max_s=SILENCE_MAX_S)
    try:
        yield connection
    finally:
        connection.close(PybrokerError("done"))
        await connection.closed()


async def ask(connection: Connection, command: msgspec.Struct, kind: type[R]) -> R:
    """Return the reply. Raises BrokerError, ConnectionLost, PybrokerError."""
    answer = await connection.ask(command)
    if answer.code:
        raise BrokerError(answer.code, type(command).__name__)
    if not isinstance(answer.reply, kind):
        raise PybrokerError(f"{type(command).__name__}: no {kind.__name__} for an answer, {answer.fault}")
    return answer.reply


def payloads_of(params: Params) -> list[bytes]:
    """Return the payloads of one batch: random bytes of random sizes."""
    sizes = params.message_size
    return [os.urandom(random.randint(sizes.least, sizes.most)) for _ in range(params.messages_per_batch)]


def build(actor: Actor, params: Params) -> list[Load]:
    """Build the batches that an actor sends over and over."""
    partitioning = Partitioning(PartitioningKind.BALANCED)
    if actor.partition is not None:
        partitioning = Partitioning(PartitioningKind.PARTITION, actor.partition)
    loads: list[Load] = []
    for _ in range(min(BATCHES_BUILT, params.message_batches or BATCHES_BUILT)):
        payloads = payloads_of(params)
        command = SendMessages(actor.stream, TOPIC, partitioning, pack_messages(payloads))
        loads.append(Load(command, len(payloads), sum(map(len, payloads))))
    return loads


class Sender(ABC):
    """Sends as often as the schedule says, so many requests at once."""

    def __init__(self, params: Params, tally: Tally) -> None:
        self.tally = tally
        self._in_flight = params.in_flight

    async def run(self, schedule: Schedule) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._in_flight):
                tasks.create_task(self._send(schedule))

    @abstractmethod
    async def _send(self, schedule: Schedule) -> None: ...


class Producer(Sender):
    def __init__(self, actor: Actor, params: Params, connection: Connection, tally: Tally) -> None:
        super().__init__(params, tally)
        self._connection = connection
        self._loads = cycle(build(actor, params))

    async def _send(self, schedule: Schedule) -> None:
        while (due_ns := await schedule.next()) is not None:
            load = next(self._loads)
            await ask(self._connection, load.command, Sent)
            self.tally.add(due_ns, clock_ns(), load.messages, load.size)


class Echo:
    """Sends a batch, and polls until it has it all back."""

    def __init__(self, actor: Actor, params: Params, connection: Connection, tally: Tally) -> None:
        self.tally = tally
        self._connection = connection
        self._actor = actor
        self._loads = cycle(build(actor, params))

    async def run(self, schedule: Schedule) -> None:
        while (due_ns := await schedule.next()) is not None:
            load = next(self._loads)
            sent = await ask(self._connection, load.command, Sent)
            await self._read(sent.base_offset, load.messages)
            self.tally.add(due_ns, clock_ns(), load.messages, load.size)

    async def _read(self, offset: int, count: int) -> None:
        end = offset + count
        while offset < end:
            polled = await ask(self._connection, poll_at(self._actor, 0, offset, end - offset), Polled)
            offset += polled.messages_count


class Single:
    """A consumer of one partition, from offset to offset."""

    def __init__(self, actor: Actor, params: Params, connection: Connection, tally: Tally) -> None:
        self.tally = tally
        self._connection = connection
        self._actor = actor
        self._params = params
        self._consumer = random.randrange(1, 1 << 31)

    async def run(self, schedule: Schedule) -> None:
        offset, start_ns = 0, schedule.times.start_ns
        count, size = self._params.messages_per_batch, self._params.message_size.mean
        while (due_ns := await schedule.next()) is not None:
            polled = await ask(self._connection, poll_at(self._actor, self._consumer, offset, count), Polled)
            if self._actor.rehearses and due_ns < start_ns:
                continue
            if polled.messages_count:
                self.tally.add(due_ns, clock_ns(), polled.messages_count, round(polled.messages_count * size))
                offset += polled.messages_count
            elif self._actor.wraps and offset:
                offset = 0
            else:
                await asyncio.sleep(EMPTY_PAUSE_S)


class Member:
    """A group's member: polls its partitions in turn, and each poll commits."""

    def __init__(self, actor: Actor, params: Params, connection: Connection, tally: Tally) -> None:
        self.tally = tally
        self._connection = connection
        self._actor = actor
        self._params = params
        self._partitions: list[int] = []

    async def join(self) -> None:
        answer = await self._connection.ask(JoinConsumerGroup(self._actor.stream, TOPIC, self._group))
        if answer.code:
            raise BrokerError(answer.code, "JoinConsumerGroup")

    async def run(self, schedule: Schedule) -> None:
        turn, empty, size = 0, 0, self._params.message_size.mean
        await self._sync()
        while (due_ns := await schedule.next()) is not None:
            is_rehearsal = self._actor.rehearses and due_ns < schedule.times.start_ns
            turn += 1
            polled = await ask(self._connection, self._poll(turn, is_rehearsal), Polled)
            if polled.partition_id == RESYNC_PARTITION:
                await self._sync()
            elif is_rehearsal:
                continue
            elif polled.messages_count:
                empty = 0
                self.tally.add(due_ns, clock_ns(), polled.messages_count, round(polled.messages_count * size))
            else:
                empty += 1
                if empty >= len(self._partitions):
                    await asyncio.sleep(EMPTY_PAUSE_S)

    @property
    def _group(self) -> str:
        assert self._actor.group is not None
        return self._actor.group

    async def _sync(self) -> None:
        """Learn which partitions are ours; there is at least one, as `options` sees to. Raises PybrokerError."""
        command = SyncConsumerGroup(self._actor.stream, TOPIC, self._group)
        self._partitions = (await ask(self._connection, command, GroupAssignment)).partitions
        if not self._partitions:
            raise PybrokerError(f"{self._actor.name} was given no partition")

    def _poll(self, turn: int, is_rehearsal: bool) -> PollMessages:
        partition = self._partitions[turn % len(self._partitions)]
        consumer = Consumer(ConsumerKind.GROUP, self._group)
        count = self._params.messages_per_batch
        if is_rehearsal:
            strategy = PollingStrategy(PollingKind.OFFSET, 0)
            return PollMessages(consumer, self._actor.stream, TOPIC, partition, strategy, count, False)
        return PollMessages(consumer, self._actor.stream, TOPIC, partition, _NEXT, count, True)


def poll_at(actor: Actor, consumer: int, offset: int, count: int) -> PollMessages:
    who = Consumer(ConsumerKind.SINGLE, consumer)
    return PollMessages(
        who, actor.stream, TOPIC, actor.partition, PollingStrategy(PollingKind.OFFSET, offset), count, False
    )
