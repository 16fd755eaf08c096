"""Sends and polls on the vsr wire: the batch record travels as it is.

send   metadata size u32 | stream | topic | partitioning | messages count u32 | batch record
sent   confirmations u32 (1) | stream u32 | topic u32 | partition u32 | base offset u64
polled partition u32 | current offset u64 | messages count u32 | batch records
"""

from struct import Struct

from ..batch import BadBatch, verify
from ..errors import WireError
from ..model.messages import Polled, SendMessages, Sent
from ..payloads.codec import Codec
from ..payloads.sends import read_target, write_target
from ..reader import Reader, Writer

_SENT = Struct("<4IQ")
_POLLED = Struct("<IQI")


def _decode_send(body: memoryview) -> SendMessages:
    """Decode and verify a send. The batch views `body`."""
    target, start = read_target(body)
    try:
        batch = verify(body[start:])
    except BadBatch as error:
        raise WireError(start + error.position, "a sound batch", error.what, error.status) from None
    if batch.count != target.messages_count:
        raise WireError(start + 48, f"{target.messages_count} messages", str(batch.count))
    if batch.first_delta:
        raise WireError(start, "offset deltas from 0", f"from {batch.first_delta}")
    return SendMessages(target.stream, target.topic, target.partitioning, batch)


def _read_send(reader: Reader) -> SendMessages:
    return _decode_send(reader.take(reader.remaining))


def _write_send(writer: Writer, command: SendMessages) -> None:
    write_target(writer, command)
    writer.raw(command.batch.record)


def _read_sent(reader: Reader) -> Sent:
    start = reader.position
    if (count := reader.u32()) != 1:
        raise WireError(start, "one confirmation", str(count))
    return Sent(reader.u32(), reader.u32(), reader.u32(), reader.u64())


def sent_body(reply: Sent) -> bytes:
    """Return the body that answers a send."""
    return _SENT.pack(1, reply.stream_id, reply.topic_id, reply.partition_id, reply.base_offset)


def _write_sent(writer: Writer, reply: Sent) -> None:
    writer.raw(sent_body(reply))


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


SEND_MESSAGES = Codec(_read_send, _write_send, _decode_send)
SENT = Codec(_read_sent, _write_sent)
POLLED = Codec(_read_polled, _write_polled)
