"""Commands about consumer offsets: the last offset a consumer has processed in a partition."""

import msgspec

from ..primitives import AckLevel, Consumer, Identifier


class GetConsumerOffset(msgspec.Struct):
    consumer: Consumer
    stream: Identifier
    topic: Identifier
    partition_id: int | None


class GetConsumerOffsetRouting(GetConsumerOffset):
    """Ask which server offsets are stored at."""


class StoreConsumerOffset(msgspec.Struct):
    consumer: Consumer
    stream: Identifier
    topic: Identifier
    partition_id: int | None
    offset: int
    ack: AckLevel = AckLevel.QUORUM


class DeleteConsumerOffset(msgspec.Struct):
    consumer: Consumer
    stream: Identifier
    topic: Identifier
    partition_id: int | None
    ack: AckLevel = AckLevel.QUORUM


class ConsumerOffset(msgspec.Struct):
    partition_id: int
    current_offset: int
    stored_offset: int
