"""Sends and polls on the vsr wire: the batch record travels as it is.

send   metadata size u32 | stream | topic | partitioning | messages count u32 | batch record
sent   confirmations u32 (1) | stream u32 | topic u32 | partition u32 | base offset u64
polled partition u32 | current offset u64 | messages count u32 | batch records
"""

from functools import lru_cache
from struct import Struct

import msgspec

from ..batch import BadBatch, read_header, verify
from ..errors import WireError
from ..model.messages import Polled, SendMessages, Sent
from ..payloads.codec import U32, Codec, layout
from ..payloads.fields import IDENTIFIER, PARTITIONING
from ..primitives import Identifier, Partitioning
from ..reader import Reader, Writer

METADATA_SIZE_MAX = 1024

_SENT = Struct("<4IQ")
_POLLED = Struct("<IQI")


class _Target(msgspec.Struct, frozen=True):
    stream: Identifier
    topic: Identifier
    partitioning: Partitioning
    messages_count: int


_TARGET = layout(_Target, stream=IDENTIFIER, topic=IDENTIFIER, partitioning=PARTITIONING, messages_count=U32)


@lru_cache(4096)
def _target(metadata: bytes) -> _Target:
    """Decode where a send goes. A producer repeats it with every batch: 0.1 us remembered, 5.5 us decoded."""
    reader = Reader(memoryview(metadata))
    target = _TARGET.read(reader)
    if reader.remaining:
        raise WireError(reader.position, "the metadata's end", f"{reader.remaining} bytes more")
    return target


def _read_send(reader: Reader) -> SendMessages:
    """Decode and verify a send. The batch views the reader's data."""
    data = reader.data
    size = reader.u32()
    start = 4 + size
    if size > METADATA_SIZE_MAX or start > len(data):
        raise WireError(0, f"metadata of at most {METADATA_SIZE_MAX} bytes, all there", str(size))
    target = _target(data[4:start].tobytes())
    record = data[start:]
    reader.position = len(data)
    try:
        header = read_header(record)
        if header.count != target.messages_count:
            raise WireError(start + 48, f"{target.messages_count} messages", str(header.count))
        batch = verify(record, header)
    except BadBatch as error:
        raise WireError(start + error.position, "a sound batch", error.what, error.status) from None
    if batch.first_delta:
        raise WireError(start, "offset deltas from 0", f"from {batch.first_delta}")
    return SendMessages(target.stream, target.topic, target.partitioning, batch)


def _write_send(writer: Writer, command: SendMessages) -> None:
    metadata = _TARGET.encode(_Target(command.stream, command.topic, command.partitioning, command.batch.count))
    writer.u32(len(metadata))
    writer.raw(metadata)
    writer.raw(command.batch.record)


def _read_sent(reader: Reader) -> Sent:
    start = reader.position
    if (count := reader.u32()) != 1:
        raise WireError(start, "one confirmation", str(count))
    return Sent(reader.u32(), reader.u32(), reader.u32(), reader.u64())


def _write_sent(writer: Writer, reply: Sent) -> None:
    writer.raw(_SENT.pack(1, reply.stream_id, reply.topic_id, reply.partition_id, reply.base_offset))


def polled_head(reply: Polled) -> bytes:
    """Return what stands before a poll's records."""
    return _POLLED.pack(reply.partition_id, reply.current_offset, reply.messages_count)


def _read_polled(reader: Reader) -> Polled:
    head = (reader.u32(), reader.u64(), reader.u32())
    return Polled(*head, [reader.take(reader.remaining)])


def _write_polled(writer: Writer, reply: Polled) -> None:
    writer.raw(polled_head(reply))
    for record in reply.records:
        writer.raw(record)


SEND_MESSAGES = Codec(_read_send, _write_send)
SENT = Codec(_read_sent, _write_sent)
POLLED = Codec(_read_polled, _write_polled)
