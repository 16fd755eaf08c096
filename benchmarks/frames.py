"""The bytes that the load sends: built once, before anything is timed."""

import os

from msgspec import Struct

from ..protocol.batch import FRAME_HEADER_SIZE, HEADER_SIZE, NO_ID, stamp
from ..protocol.model.messages import PollMessages, SendMessages
from ..protocol.primitives import Consumer, ConsumerKind, Partitioning, PartitioningKind, PollingKind, PollingStrategy
from ..protocol.unpacked import Message, pack
from ..protocol.vsr import client as vsr
from ..protocol.vsr.frames import request_header

STREAM = "bench"
TOPIC = "bench"
# Where a poll's frame says from which offset on, counted from its end: offset u64 | count u32 | auto commit u8.
POLL_OFFSET_FROM_END = 13


def record_size(payload_size: int, count: int) -> int:
    return HEADER_SIZE + count * (FRAME_HEADER_SIZE + payload_size)


def send_command(payload_size: int, count: int) -> SendMessages:
    """Return a send of `count` messages with random payloads to partition 0."""
    batch = pack([Message(NO_ID, os.urandom(payload_size)) for _ in range(count)], 0)
    stamp(batch, base_offset=0, base_timestamp_us=0)
    return SendMessages(STREAM, TOPIC, Partitioning(PartitioningKind.PARTITION, 0), batch)


def poll_command(count: int, *, consumer_id: int) -> PollMessages:
    """Return a poll of `count` messages of partition 0 from offset 0 on."""
    return PollMessages(
        Consumer(ConsumerKind.SINGLE, consumer_id),
        STREAM,
        TOPIC,
        0,
        PollingStrategy(PollingKind.OFFSET, 0),
        count,
        False,
    )


def frame_of(command: Struct, *, client: bytes, session: int = 0, request: int = 0) -> bytearray:
    """Return the frame that asks `command`, in memory of its own."""
    return bytearray(b"".join(vsr.frame_of(command, client=client, session=session, number=request)))


def request_frame(body: bytes, *, operation: int, client: bytes) -> bytearray:
    """Return a request with any body."""
    return bytearray(request_header(size=len(body), client=client, request=0, operation=operation) + body)
