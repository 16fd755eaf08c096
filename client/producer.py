"""Sends messages to one topic: many of them in a batch, a batch to one partition.

A message's partition is chosen when it is taken: the one that the producer is for, the one of the message's key, or,
without either, the one that is being filled; with every batch the next one is. The client chooses as Iggy's own does,
instead of leaving it to the server: so all keys of a partition share batches, and a batch that is sent again goes where
it went before. `lanes` holds the rule about order.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from types import TracebackType

from xxhash import xxh32_intdigest

from ..protocol.batch import FRAME_HEADER_SIZE, PAYLOAD_SIZE_MAX, Batch
from ..protocol.errors import Status
from ..protocol.model.messages import SendMessages, Sent
from ..protocol.primitives import Identifier, Partitioning, PartitioningKind
from .commands import Commands
from .errors import BrokerError, Closed, ConnectError, ConnectionLost, InvalidRequest, PybrokerError, Timeout
from .lanes import Batching, Delivery, Lane, Load, cut
from .messages import Message, pack_each, pack_message
from .room import Room

# How long the number of a topic's partitions is believed.
PARTITIONS_AGE_MAX_S = 10.0
KEY_SIZE_MAX = 255
# A partition is not there: as pybroker says it, and as Iggy does.
_GONE = (Status.PARTITION_NOT_FOUND, Status.RESOURCE_NOT_FOUND)


class Producer:
    """`async with client.producer("stream", "topic") as producer`. Any number of tasks may use it at once.

    partition: where everything goes; None for what the messages' keys say, and batches in turn for those without one.
    linger_ms: how long a message waits for others, besides the batch before it. batch_size, batch_bytes: what a batch
    has at most; a larger message goes alone. in_flight: how many batches are on their way at once, at most one to each
    partition. buffer_bytes: what waits for delivery; who would exceed that waits first.
    retries: how often a batch is sent again when the connection breaks, or no answer comes in the client's time.
    create: make the stream and the topic where they are missing, the topic with so many `partitions`.
    """

    def __init__(
        self,
        client: Commands,
        stream: Identifier,
        topic: Identifier,
        *,
        partition: int | None = None,
        linger_ms: float = 5,
        batch_size: int = 1000,
        batch_bytes: int = 1_000_000,
        in_flight: int = 8,
        buffer_bytes: int = 32_000_000,
        retries: int = 3,
        create: bool = False,
        partitions: int = 1,
    ) -> None:
        _check("linger_ms", linger_ms, 0)
        _check("batch_size", batch_size, 1)
        _check("batch_bytes", batch_bytes, 1, PAYLOAD_SIZE_MAX)
        _check("in_flight", in_flight, 1)
        _check("retries", retries, 0)
        self._client = client
        self._stream = stream
        self._topic = topic
        self._partition = partition
        self._batching = Batching(linger_ms / 1000, batch_size, batch_bytes)
        self._turns = asyncio.Semaphore(in_flight)
        self._buffer_bytes = buffer_bytes
        self._room = Room(buffer_bytes)
        self._retries = retries
        self._create = partitions if create else None
        self._lanes: dict[int, Lane] = {}
        self._filling: Lane | None = None
        self._partitions_count = 1
        self._partitions_until = 0.0  # loop time
        self._turn = 0
        self._is_open = False

    @property
    def buffered_bytes(self) -> int:
        """How much waits for its delivery."""
        return self._room.taken

    async def __aenter__(self) -> "Producer":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Look the topic up, or create it. Raises BrokerError where it is missing."""
        if self._create is not None:
            await _make_topic(self._client, self._stream, self._topic, self._create)
        if self._partition is None:
            await self._count_partitions()
            self._turn = random.randrange(self._partitions_count)
        self._is_open = True

    async def send(self, message: Message | bytes | str, key: bytes | str | None = None) -> Delivery:
        """Send a message and wait for its delivery; send from many tasks at once, or `enqueue`, to fill batches.

        Raises what `enqueue` does; BrokerError when the broker refuses its batch, and when it got no answer after all
        retries ConnectionLost or Timeout, ConnectError: the message may be in the topic then. Cancelling it does not
        take the message back.
        """
        return await (await self.enqueue(message, key))

    async def enqueue(self, message: Message | bytes | str, key: bytes | str | None = None) -> asyncio.Future[Delivery]:
        """Take a message, once there is room for it. The future is its delivery, or why there is none.

        Raises InvalidRequest for a message that no broker would take, Closed.
        """
        packed = pack_message(message)
        size = FRAME_HEADER_SIZE + len(packed)
        chooser = None if key is None else self._checked(key)
        if not self._is_open or not self._room.try_take(size):
            await self._wait_for_room(size)
        return self._lane_of(chooser, 1, size).add((packed,), size)

    async def send_many(
        self, messages: Iterable[Message | bytes | str], key: bytes | str | None = None
    ) -> list[Delivery]:
        """Send messages, all with the same key or without, and wait for their delivery. Raises as `send` does."""
        return await (await self.enqueue_many(messages, key))

    async def enqueue_many(
        self, messages: Iterable[Message | bytes | str], key: bytes | str | None = None
    ) -> asyncio.Future[list[Delivery]]:
        """Take messages, as there is room for them, for much less than one by one.

        The future is where they are, in their order: a Delivery says so of as many as went out together. It fails with
        the first that fails; the others may be delivered. Raises InvalidRequest when no broker would take one of them,
        and takes none then; Closed, when some may be taken.
        """
        self._check_open()
        packed = pack_each(messages)
        chooser = None if key is None else self._checked(key)
        size_max = min(self._batching.size_max, self._buffer_bytes)
        delivered: list[asyncio.Future[Delivery]] = []
        for run, size in cut(packed, count_max=self._batching.count_max, size_max=size_max):
            if not self._room.try_take(size):
                await self._wait_for_room(size)
            delivered.append(self._lane_of(chooser, len(run), size).add(run, size))
        return asyncio.gather(*delivered)

    async def flush(self) -> None:
        """Wait until what was taken so far is delivered or has failed; none of it waits for more messages."""
        flushed = [settled for lane in self._lanes.values() if (settled := lane.flush())]
        if flushed:
            await asyncio.wait(flushed)

    async def close(self) -> None:
        """Take no more messages, and flush. If that is cancelled, the messages that are left fail with Closed."""
        error = Closed("the producer is closed")
        self._is_open = False
        self._room.shut(error)
        try:
            await self.flush()
        finally:
            await asyncio.gather(*(lane.abandon(error) for lane in self._lanes.values()))

    async def _wait_for_room(self, size: int) -> None:
        """Take room when there is some. Raises Closed."""
        self._check_open()
        await self._room.take(size)
        try:
            self._check_open()
        except Closed:
            self._room.give_back(size)
            raise

    def _check_open(self) -> None:
        if not self._is_open:
            raise Closed("the producer is not open: use `async with`, or open() first")

    def _checked(self, key: bytes | str) -> bytes:
        value = key.encode() if isinstance(key, str) else key
        if self._partition is not None:
            raise InvalidRequest(f"a key chooses the partition, but this producer is for partition {self._partition}")
        if not 1 <= len(value) <= KEY_SIZE_MAX:
            raise InvalidRequest(f"a key of {len(value)} bytes: expected 1 to {KEY_SIZE_MAX}")
        return value

    def _lane_of(self, key: bytes | None, count: int, size: int) -> Lane:
        if self._partition is not None:
            return self._lane(self._partition)
        if key is not None:
            return self._lane(xxh32_intdigest(key) % self._partitions_count)
        return self._next_lane(count, size)

    def _next_lane(self, count: int, size: int) -> Lane:
        """Return where messages without a key go: with those before them, until they are a batch or on their way."""
        if self._filling is None or not self._filling.has_room(count, size):
            self._filling = self._lane(self._turn % self._partitions_count)
            self._turn += 1
        return self._filling

    def _lane(self, partition_id: int) -> Lane:
        lane = self._lanes.get(partition_id)
        if lane is None:
            lane = self._lanes[partition_id] = Lane(partition_id, self._batching, self._turns, self._deliver)
        return lane

    async def _deliver(self, partition_id: int, load: Load) -> None:
        try:
            sent = await self._send(partition_id, load.pack())
        except Exception as error:
            load.fail(error)
        else:
            load.deliver(sent.partition_id, sent.base_offset)
        finally:
            self._room.give_back(self._batching.size_max - load.size_left)
        if self._partition is None and asyncio.get_running_loop().time() > self._partitions_until:
            with suppress(PybrokerError):
                await self._count_partitions()

    async def _send(self, partition_id: int, batch: Batch) -> Sent:
        """Send a batch until it is known to be stored: the same one, with the same ids, as often as need be."""
        for attempt in range(self._retries + 1):
            partitioning = Partitioning(PartitioningKind.PARTITION, partition_id)
            try:
                sent = await self._client.call(SendMessages(self._stream, self._topic, partitioning, batch))
            except (ConnectionLost, ConnectError, Timeout):
                if attempt == self._retries:
                    raise
            except BrokerError as error:
                if error.status not in _GONE or attempt == self._retries:
                    raise
                partition_id = await self._elsewhere(partition_id, error)
            else:
                if isinstance(sent, Sent):
                    return sent
                break
        raise PybrokerError("the server took the messages, but does not say where they are")

    async def _elsewhere(self, partition_id: int, error: BrokerError) -> int:
        """Return where a batch goes whose partition was deleted. Raises `error` if it must go there."""
        if self._partition is not None:
            raise error
        await self._count_partitions()
        if self._partitions_count > partition_id:
            raise error
        return partition_id % self._partitions_count

    async def _count_partitions(self) -> None:
        self._partitions_until = asyncio.get_running_loop().time() + PARTITIONS_AGE_MAX_S
        details = await self._client.get_topic(self._stream, self._topic)
        if details is None:
            raise BrokerError(Status.TOPIC_ID_NOT_FOUND, f"topic {self._topic} of stream {self._stream}")
        self._partitions_count = max(1, details.topic.partitions_count)  # of none the broker says so, at each message


def _check(name: str, value: float, least: float, most: float = math.inf) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{name}={value}: expected {least} or more{f', up to {most}' if most < math.inf else ''}")


async def _make_topic(client: Commands, stream: Identifier, topic: Identifier, partitions: int) -> None:
    """Create what is missing; somebody else may do so at the same time."""
    with suppress(BrokerError):  # there is no such stream; anything else is said when the topic is used
        if await client.get_topic(stream, topic) is not None:
            return
    if not isinstance(stream, str) or not isinstance(topic, str):
        raise InvalidRequest(f"topic {topic} of stream {stream} is missing, and to be created it needs names")
    await _make(client.create_stream(stream), Status.STREAM_NAME_ALREADY_EXISTS)
    await _make(client.create_topic(stream, topic, partitions), Status.TOPIC_NAME_ALREADY_EXISTS)


async def _make(created: Awaitable[object], exists: Status) -> None:
    try:
        await created
    except BrokerError as error:
        if error.status is not exists:
            raise
