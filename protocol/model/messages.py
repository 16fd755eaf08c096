"""Sending and polling: the hot path."""

from collections.abc import Sequence

import msgspec

from ..batch import Batch, Buffer
from ..primitives import Consumer, Identifier, Partitioning, PollingStrategy


class SendMessages(msgspec.Struct, gc=False):
    """batch: verified, not stamped; its bytes are valid as long as the request."""

    stream: Identifier
    topic: Identifier
    partitioning: Partitioning
    batch: Batch


class Sent(msgspec.Struct, gc=False):
    stream_id: int
    topic_id: int
    partition_id: int
    base_offset: int


class PollMessages(msgspec.Struct, frozen=True, gc=False):
    """partition_id None: 0 for a single consumer, the next one in turn for a group."""

    consumer: Consumer
    stream: Identifier
    topic: Identifier
    partition_id: int | None
    strategy: PollingStrategy
    count: int
    auto_commit: bool


class Polled(msgspec.Struct, gc=False):
    """current_offset: the last offset of the partition, 0 when empty. records: batch records, back to back.

    partition_id is RESYNC_PARTITION, with no records, for a group member that has to ask for its partitions anew.
    """

    partition_id: int
    current_offset: int
    messages_count: int
    records: Sequence[Buffer]


class FlushUnsavedBuffer(msgspec.Struct):
    """Make a partition's messages durable. fsync False asks for less than is always the case."""

    stream: Identifier
    topic: Identifier
    partition_id: int
    fsync: bool


class PollMessagesOnPrimary(PollMessages, frozen=True):
    """A poll whose offsets have to be committed by the server that owns the partition. There is one."""


class GetPollRouting(PollMessages, frozen=True):
    """Ask which server a poll goes to."""


RESYNC_PARTITION = 0xFFFFFFFF
