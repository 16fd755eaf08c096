"""The bytes that the load sends: built once, before anything is timed."""

import os
from struct import Struct

from msgspec import Struct as Command
from xxhash import xxh3_64_intdigest

from ..protocol.batch import FRAME_HEADER_SIZE, HEADER_SIZE, checksum_of, verify
from ..protocol.commands import BY_REQUEST
from ..protocol.model.messages import PollMessages, SendMessages
from ..protocol.primitives import Consumer, ConsumerKind, Partitioning, PartitioningKind, PollingKind, PollingStrategy
from ..protocol.vsr.frames import NON_REPLICATED
from ..protocol.vsr.overrides import CODECS

STREAM = "bench"
TOPIC = "bench"
# Where a poll's frame says from which offset on, counted from its end: offset u64 | count u32 | auto commit u8.
POLL_OFFSET_FROM_END = 13

_REQUEST = Struct("<48xI8xB67x16s24xQB7xQ4xI56x")  # size, command, client, request, operation, session, code
_REQUEST_COMMAND = 5
_FRAME = Struct("<16xIIIIQ")  # a message's frame from byte 8 on: deltas, headers size, payload size, zero
_RECORD = Struct("<32xQ8xI204x")  # size, count
_U64 = Struct("<Q")


def make_record(payload_size: int, count: int) -> bytearray:
    """Return a batch record as a producer sends it, with random payloads."""
    frames = [_make_frame(os.urandom(payload_size), delta) for delta in range(count)]
    record = bytearray(_RECORD.pack(HEADER_SIZE + sum(map(len, frames)), count)) + b"".join(frames)
    _U64.pack_into(record, 40, checksum_of(memoryview(record), b"".join(frame[:8] for frame in frames)))
    return record


def record_size(payload_size: int, count: int) -> int:
    return HEADER_SIZE + count * (FRAME_HEADER_SIZE + payload_size)


def send_command(payload_size: int, count: int) -> SendMessages:
    """Return a send of `count` messages to partition 0."""
    batch = verify(memoryview(make_record(payload_size, count)))
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


def frame_of(command: Command, *, client: bytes, session: int, request: int) -> bytearray:
    """Return the frame that asks `command`."""
    row = BY_REQUEST[type(command)]
    body = bytes(CODECS[row.request].encode(command))
    operation, code = (NON_REPLICATED, row.code) if row.operation is None else (row.operation, 0)
    return request_frame(body, client=client, session=session, request=request, operation=operation, code=code)


def request_frame(
    body: bytes, *, operation: int, client: bytes, session: int = 0, request: int = 0, code: int = 0
) -> bytearray:
    size = _REQUEST.size + len(body)
    header = _REQUEST.pack(size, _REQUEST_COMMAND, client, request, operation, session, code)
    return bytearray(header + body)


def _make_frame(payload: bytes, offset_delta: int) -> bytes:
    rest = _FRAME.pack(offset_delta, 0, 0, len(payload), 0) + payload
    return _U64.pack(xxh3_64_intdigest(rest)) + rest
