"""Conversion in a client's direction: a batch to the messages it sends, the messages of a poll to records.

A poll's messages say nothing of the records they were in: those that follow each other and have one timestamp are put
into one.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from ..batch import FRAME_HEADER_SIZE, HEADER_SIZE, BadBatch, Batch, Buffer, read_header, stamp
from ..primitives import U32_MAX
from .convert import ENTRY, FRAME, HEAD_SIZE, MESSAGE, STORED

_HEADER = Struct("<6QI204x")
_U64 = Struct("<Q")


class _Message(NamedTuple):
    ident: bytes
    offset: int
    timestamp_us: int
    origin_us: int
    headers_size: int
    payload_size: int
    body: memoryview


def sent_messages_of(batch: Batch) -> list[Buffer]:
    """Convert a batch to its index and its messages, as a client sends them: what the server gives is 0."""
    frames = batch.record[HEADER_SIZE:]
    origin = read_header(batch.record).origin_timestamp_us
    entries: list[Buffer] = []
    messages: list[Buffer] = []
    position = size = 0
    for _ in range(batch.count):
        ident, _, time, headers_size, payload_size = STORED.unpack_from(frames, position)
        start = position + FRAME_HEADER_SIZE
        position = start + headers_size + payload_size
        head = MESSAGE.pack(ident, 0, 0, origin + time, headers_size, payload_size, 0)
        messages += (bytes(8), head, frames[start:position])
        size += HEAD_SIZE + position - start
        entries.append(ENTRY.pack(0, size, 0))
    return [*entries, *messages]


def records_of(data: memoryview, partition_id: int) -> list[Buffer]:
    """Convert the messages of a poll to records. Raises BadBatch where they can't be read."""
    runs: list[list[_Message]] = []
    for message in _messages(data):
        if runs and _continues(runs[-1], message):
            runs[-1].append(message)
        else:
            runs.append([message])
    return [_record(run, partition_id) for run in runs]


def _messages(data: memoryview) -> Iterator[_Message]:
    position = 0
    while position < len(data):
        start = position
        if len(data) - start < HEAD_SIZE:
            raise BadBatch(start, f"a message of {len(data) - start} bytes")
        ident, offset, timestamp_us, origin_us, headers_size, payload_size, _ = MESSAGE.unpack_from(data, start + 8)
        position = start + HEAD_SIZE + headers_size + payload_size
        if position > len(data):
            raise BadBatch(start, f"a message that ends at {position} of {len(data)}")
        body = data[start + HEAD_SIZE : position]
        yield _Message(ident, offset, timestamp_us, origin_us, headers_size, payload_size, body)


def _continues(run: list[_Message], message: _Message) -> bool:
    first = run[0]
    is_next = message.offset == run[-1].offset + 1 and message.timestamp_us == first.timestamp_us
    return is_next and 0 <= message.origin_us - first.origin_us <= U32_MAX


def _record(run: list[_Message], partition_id: int) -> Buffer:
    """Return the record that holds a run of messages."""
    first = run[0]
    parts: list[Buffer] = [b""]
    checksums: list[bytes] = []
    for delta, message in enumerate(run):
        time = message.origin_us - first.origin_us
        frame = FRAME.pack(message.ident, delta, time, message.headers_size, message.payload_size, 0) + message.body
        checksums.append(_U64.pack(xxh3_64_intdigest(frame)))
        parts += (checksums[-1], frame)
    size = HEADER_SIZE + sum(map(len, parts))
    parts[0] = _HEADER.pack(0, 0, 0, first.origin_us, size, 0, len(run))
    batch = Batch(memoryview(bytearray().join(parts)), len(run), b"".join(checksums), partition_id)
    stamp(batch, base_offset=first.offset, base_timestamp_us=first.timestamp_us)
    return batch.record
