"""Sends and polls on the classic wire.

send    metadata (see `payloads/sends`) | an index entry for each message | messages, back to back
entry   zero u32 | where the message ends u32, counted from the first one's start | zero u64
polled  partition u32 | current offset u64 | messages count u32 | messages, back to back

The messages are drawn in `convert`; those of Iggy 0.6 and older in `old`. Which of the two a peer has, its first send
tells: sizes of headers and payload stand at the same place in both.
"""

from struct import Struct

from ..batch import BadBatch, Buffer
from ..errors import Status, WireError
from ..model.messages import Polled, SendMessages
from ..payloads.codec import Codec
from ..payloads.sends import read_target, write_target
from ..reader import Reader, Writer
from . import old
from .client import records_of, sent_messages_of
from .convert import ENTRY, HEAD_SIZE, RandomBytes, messages_of, record_of

_POLLED = Struct("<IQI")
_ENTRY_END = Struct("<4xI8x")
_SIZES = Struct("<48xII")


def read_send(body: memoryview, random_bytes: RandomBytes) -> tuple[SendMessages, int]:
    """Decode and convert a send; return it and the size of its messages' heads.

    The batch has memory of its own. Raises WireError, with the status the sender is told.
    """
    target, start = read_target(body)
    count = target.messages_count
    if not count:
        raise WireError(start - 4, "messages", "0", Status.INVALID_MESSAGES_COUNT)
    first = start + count * ENTRY.size
    if first > len(body):
        raise WireError(start, f"an index of {count} entries", f"{len(body) - start} bytes", Status.MISSING_INDEX)
    entries, messages = body[start:first], body[first:]
    head_size = _head_size(entries, messages)
    try:
        if head_size == old.HEAD_SIZE:
            messages, entries = old.renewed(messages, entries)
        batch = record_of(messages, entries, random_bytes)
    except BadBatch as error:
        raise WireError(first + error.position, "sound messages", error.what, error.status) from None
    return SendMessages(target.stream, target.topic, target.partitioning, batch), head_size


def _head_size(entries: memoryview, messages: memoryview) -> int:
    """Tell the layout of messages by the first one; HEAD_SIZE also for one that makes no sense."""
    (end,) = _ENTRY_END.unpack_from(entries)
    if not old.HEAD_SIZE <= end <= len(messages):
        return HEAD_SIZE
    return old.HEAD_SIZE if end - sum(_SIZES.unpack_from(messages)) == old.HEAD_SIZE else HEAD_SIZE


def write_polled(reply: Polled, head_size: int = HEAD_SIZE) -> list[Buffer]:
    """Return the body that answers a poll, in parts. Raises BadBatch where a record can't be read."""
    messages = messages_of(reply.records)
    if head_size == old.HEAD_SIZE:
        messages = old.aged(messages)
    return [_POLLED.pack(reply.partition_id, reply.current_offset, reply.messages_count), *messages]


def _read_send(reader: Reader) -> SendMessages:
    """Decode a send, for those who look at one: ids that are 0 stay so."""
    send, _ = read_send(reader.data[reader.position :], bytes)
    reader.position = len(reader.data)
    return send


def _write_send(writer: Writer, command: SendMessages) -> None:
    write_target(writer, command)
    for part in sent_messages_of(command.batch):
        writer.raw(part)


def _read_polled(reader: Reader) -> Polled:
    partition_id, current_offset, count = reader.u32(), reader.u64(), reader.u32()
    start = reader.position
    try:
        records = records_of(reader.take(reader.remaining), partition_id)
    except BadBatch as error:
        raise WireError(start + error.position, "sound messages", error.what, error.status) from None
    return Polled(partition_id, current_offset, count, records)


def _write_polled(writer: Writer, reply: Polled) -> None:
    for part in write_polled(reply):
        writer.raw(part)


SEND_MESSAGES = Codec(_read_send, _write_send)
POLLED = Codec(_read_polled, _write_polled)
