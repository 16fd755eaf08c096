"""Sending and polling, and the offsets of consumers."""

from collections.abc import Sequence

from ..protocol.model import messages as model
from ..protocol.model import offsets
from ..protocol.model.messages import Sent
from ..protocol.model.offsets import ConsumerOffset
from ..protocol.primitives import Consumer, ConsumerKind, Identifier, Partitioning, PartitioningKind
from .caller import Caller
from .errors import InvalidRequest
from .messages import Message, PolledMessages, Start, pack_messages, strategy_of, unpack_messages

_BALANCED = Partitioning(PartitioningKind.BALANCED)


class MessageCommands(Caller):
    """consumer: a single consumer, by number or name. group: a consumer group that this connection is a member of."""

    async def send(
        self,
        stream: Identifier,
        topic: Identifier,
        messages: Sequence[Message | bytes | str],
        *,
        partition: int | None = None,
        key: bytes | str | None = None,
    ) -> Sent:
        """Send messages as one batch, to one partition: the one named, the one of the key, or the next in turn."""
        command = model.SendMessages(stream, topic, partitioning_of(partition, key), pack_messages(messages))
        return await self._get(command, Sent)

    async def poll(
        self,
        stream: Identifier,
        topic: Identifier,
        *,
        partition: int | None = None,
        consumer: Identifier = 0,
        group: Identifier | None = None,
        start: Start = "next",
        count: int = 100,
        auto_commit: bool = False,
    ) -> PolledMessages:
        """Take up to `count` messages. partition None: 0 for a single consumer, the next of its own for a member.

        auto_commit: store the last offset as the consumer's at once, before anybody has seen the messages.
        """
        who = consumer_of(consumer, group)
        command = model.PollMessages(who, stream, topic, partition, strategy_of(start), count, auto_commit)
        polled = await self._get(command, model.Polled)
        found = unpack_messages(polled.records, polled.partition_id)
        return PolledMessages(polled.partition_id, polled.current_offset, found)

    async def flush(self, stream: Identifier, topic: Identifier, partition: int, *, fsync: bool = True) -> None:
        await self.call(model.FlushUnsavedBuffer(stream, topic, partition, fsync))

    async def get_offset(
        self,
        stream: Identifier,
        topic: Identifier,
        *,
        partition: int | None = None,
        consumer: Identifier = 0,
        group: Identifier | None = None,
    ) -> ConsumerOffset | None:
        """Return the last offset that was stored for a consumer, None when there is none."""
        command = offsets.GetConsumerOffset(consumer_of(consumer, group), stream, topic, partition)
        return await self._find(command, ConsumerOffset)

    async def store_offset(
        self,
        stream: Identifier,
        topic: Identifier,
        offset: int,
        *,
        partition: int | None = None,
        consumer: Identifier = 0,
        group: Identifier | None = None,
    ) -> None:
        """Store the offset of the last message that a consumer is done with; `next` starts behind it."""
        who = consumer_of(consumer, group)
        await self.call(offsets.StoreConsumerOffset(who, stream, topic, partition, offset))

    async def delete_offset(
        self,
        stream: Identifier,
        topic: Identifier,
        *,
        partition: int | None = None,
        consumer: Identifier = 0,
        group: Identifier | None = None,
    ) -> None:
        await self.call(offsets.DeleteConsumerOffset(consumer_of(consumer, group), stream, topic, partition))


def consumer_of(consumer: Identifier, group: Identifier | None) -> Consumer:
    return Consumer(ConsumerKind.SINGLE, consumer) if group is None else Consumer(ConsumerKind.GROUP, group)


def partitioning_of(partition: int | None, key: bytes | str | None) -> Partitioning:
    """Return how a send's partition is chosen. Raises InvalidRequest."""
    if key is None:
        return _BALANCED if partition is None else Partitioning(PartitioningKind.PARTITION, partition)
    value = key.encode() if isinstance(key, str) else key
    if partition is not None or not 1 <= len(value) <= 255:
        raise InvalidRequest("name either a partition or a key, which has 1 to 255 bytes")
    return Partitioning(PartitioningKind.MESSAGES_KEY, value)
