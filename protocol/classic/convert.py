"""From the messages of the classic wire to a batch record and back: the hot path of this wire.

    message, 64 + payload + user headers
    +-----+------------------+----+    The rest is as in a record's frame (see batch.py), but that each message has
    |   0 | checksum         |  8 |    its offset and times whole, and its checksum covers them: XXH3-64 over the
    |   8 | message id       | 16 |    message from byte 8 to its end.
    |  24 | offset           |  8 |
    |  32 | timestamp        |  8 |    A sender leaves checksum, offset and timestamp 0, and the id if it has none.
    |  40 | origin timestamp |  8 |
    |  48 | headers size     |  4 |
    |  52 | payload size     |  4 |
    |  56 | reserved, zero   |  8 |
    |  64 | payload, headers |    |
    +-----+------------------+----+

A record keeps when its messages were made as one time and 32 bits for each message. A send whose messages were made
more than 71 minutes apart doesn't fit. It is taken all the same: the newest keep their time, and those too old for that
get the oldest time that fits. No message is lost, and none gets a time that is newer than all of the send's.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from struct import Struct, error

from xxhash import xxh3_64_intdigest

from ..batch import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    NO_ID,
    PAYLOAD_SIZE_MAX,
    USER_HEADERS_SIZE_MAX,
    BadBatch,
    Batch,
    Buffer,
    Header,
    read_header,
)
from ..errors import Status
from ..primitives import U32_MAX, U64_MAX

HEAD_SIZE = 64

RandomBytes = Callable[[int], bytes]

ENTRY = Struct("<IIQ")  # of a send's index: zero, where the message ends, zero
STORED = Struct("<8x16sIIII8x")  # what of a frame counts: id, deltas of offset and origin timestamp, sizes
MESSAGE = Struct("<16sQQQIIQ")  # a message from byte 8 on
FRAME = Struct("<16sIIIIQ")  # a frame from byte 8 on
_SENT = Struct("<8x16s16xQII8x")  # what of a sent message counts: id, origin timestamp, sizes of headers and payload
_HEADER = Struct("<6QI204x")
_SIZES = Struct("<II")
_TAIL = Struct("<IIQ")  # what a tail begins with: sizes, zero
_U64 = Struct("<Q")
_ID = Struct("16s")
_MESSAGE_SIZES_AT = 48
_FRAME_SIZES_AT = 32

# Messages of one size are unpacked by one iterator and written in place: 0.8 us to send one of 100 bytes and 0.5 us to
# poll it, in batches of 1000; of 1000 bytes 1.1 and 0.7 us. Message by message takes 1.1 and 0.9, 1.5 and 1.2 us.
_ALIKE_COUNT_MIN = 8
# Messages larger than this are sent as they are, not joined with the others of a poll first.
_JOINED_SIZE_MAX = 64 * 1024


def record_of(messages: memoryview, entries: memoryview, random_bytes: RandomBytes) -> Batch:
    """Convert sent messages to a batch that is ready to be stamped, in memory of its own.

    entries: the send's index, a whole number of entries, at least one. random_bytes: makes ids for messages that have
    none. Raises BadBatch; its position is of `messages`.
    """
    count = len(entries) // ENTRY.size
    if count >= _ALIKE_COUNT_MIN and (batch := _record_of_alike(messages, entries, count, random_bytes)):
        return batch
    return _record_of_each(messages, entries, random_bytes)


def _record_of_alike(messages: memoryview, entries: memoryview, count: int, random_bytes: RandomBytes) -> Batch | None:
    """Convert messages of one size; return None where they have not, or something is wrong with them.

    What a message's sizes, its reserved bytes and its body are, is the same in both layouts: its tail.
    """
    size = len(messages) // count
    if size * count != len(messages) or size <= HEAD_SIZE or not _ends_every(size, entries):
        return None
    headers_size, payload_size = _SIZES.unpack_from(messages, _MESSAGE_SIZES_AT)
    if headers_size + payload_size != size - HEAD_SIZE or not 0 < payload_size <= PAYLOAD_SIZE_MAX:
        return None
    if headers_size > USER_HEADERS_SIZE_MAX:
        return None
    tail_size, frame_size = size - _MESSAGE_SIZES_AT, size - HEAD_SIZE + FRAME_HEADER_SIZE
    sizes = _TAIL.pack(headers_size, payload_size, 0)
    origin, deltas = _deltas([time for (time,) in Struct(f"<40xQ{tail_size}x").iter_unpack(messages)])
    fresh = _ID.iter_unpack(random_bytes(_ID.size * count))
    record = bytearray(HEADER_SIZE + frame_size * count)
    _HEADER.pack_into(record, 0, 0, 0, 0, origin, len(record), 0, count)
    checksums: list[int] = []
    pack, digest, keep = Struct(f"<16sII{tail_size}s").pack, xxh3_64_intdigest, checksums.append
    put = Struct(f"<Q{frame_size - 8}s").pack_into
    position = HEADER_SIZE
    for index, (ident, tail) in enumerate(Struct(f"8x16s24x{tail_size}s").iter_unpack(messages)):
        if not tail.startswith(sizes):
            return None
        rest = pack(ident if ident != NO_ID else next(fresh)[0], index, deltas[index], tail)
        checksum = digest(rest)
        put(record, position, checksum, rest)
        keep(checksum)
        position += frame_size
    return Batch(memoryview(record), count, Struct(f"<{count}Q").pack(*checksums))


def _ends_every(size: int, entries: memoryview) -> bool:
    """Say whether a send's index is that of messages of one size."""
    ends = array("I", bytes(len(entries)))
    ends[1::4] = array("I", range(size, size * (len(ends) // 4) + 1, size))
    return ends.tobytes() == entries.tobytes()


def _record_of_each(messages: memoryview, entries: memoryview, random_bytes: RandomBytes) -> Batch:
    """Convert message by message, of any sizes."""
    rows = _rows_of(messages, entries)
    origin, deltas = _deltas([row[1] for row in rows])
    fresh = _ID.iter_unpack(random_bytes(_ID.size * len(rows)))
    size = HEADER_SIZE + len(messages) - len(rows) * (HEAD_SIZE - FRAME_HEADER_SIZE)
    parts: list[Buffer] = [_HEADER.pack(0, 0, 0, origin, size, 0, len(rows))]
    pack, pack_u64, digest, keep = FRAME.pack, _U64.pack, xxh3_64_intdigest, parts.append
    position = 0
    for index, (ident, _, headers_size, payload_size) in enumerate(rows):
        start = position + HEAD_SIZE
        position = start + headers_size + payload_size
        known = ident if ident != NO_ID else next(fresh)[0]
        frame = pack(known, index, deltas[index], headers_size, payload_size, 0) + messages[start:position]
        keep(pack_u64(digest(frame)))
        keep(frame)
    return Batch(memoryview(bytearray().join(parts)), len(rows), b"".join(parts[1::2]))


def _rows_of(messages: memoryview, entries: memoryview) -> list[tuple[bytes, int, int, int]]:
    """Return id, origin timestamp and the sizes of headers and payload of each sent message. Raises BadBatch."""
    rows: list[tuple[bytes, int, int, int]] = []
    start, end_max = 0, len(messages)
    unpack, keep = _SENT.unpack_from, rows.append
    for zero, end, zeros in ENTRY.iter_unpack(entries):
        size = end - start - HEAD_SIZE
        if zero or zeros or size < 0 or end > end_max:
            raise _entry_fault(start, end, end_max, zero=zero, zeros=zeros)
        row = unpack(messages, start)
        _, _, headers_size, payload_size = row
        if (
            headers_size + payload_size != size
            or not 0 < payload_size <= PAYLOAD_SIZE_MAX
            or headers_size > USER_HEADERS_SIZE_MAX
        ):
            raise _size_fault(start, size, headers_size, payload_size)
        keep(row)
        start = end
    if start != end_max:
        raise BadBatch(start, f"{end_max - start} bytes after the last message", Status.INVALID_MESSAGES_SIZE)
    return rows


def _entry_fault(start: int, end: int, end_max: int, *, zero: int, zeros: int) -> BadBatch:
    """Say which rule the index entry of the message at `start` breaks."""
    if zero or zeros:
        status = Status.NON_ZERO_OFFSET if zero else Status.NON_ZERO_TIMESTAMP
        return BadBatch(start, "an index entry with more than an end", status)
    if end < start:
        return BadBatch(start, f"a message that ends at {end}", Status.CANNOT_READ_INDEX_POSITION)
    if end > end_max:
        return BadBatch(start, f"a message that ends at {end} of {end_max}", Status.MISSING_INDEX)
    return BadBatch(start, f"a message of {end - start} bytes", Status.TOO_SMALL_MESSAGE)


def _size_fault(position: int, size: int, headers_size: int, payload_size: int) -> BadBatch:
    """Say which rule the sizes of a message break that has `size` bytes for its payload and headers."""
    if payload_size > PAYLOAD_SIZE_MAX:
        return BadBatch(position, f"a payload of {payload_size} bytes", Status.TOO_BIG_MESSAGE_PAYLOAD)
    if headers_size > USER_HEADERS_SIZE_MAX:
        return BadBatch(position, f"user headers of {headers_size} bytes", Status.TOO_BIG_USER_HEADERS)
    if headers_size + payload_size != size:
        what = f"headers of {headers_size} and a payload of {payload_size} in {size} bytes"
        return BadBatch(position, what, Status.INVALID_MESSAGES_SIZE)
    return BadBatch(position, "an empty payload", Status.EMPTY_MESSAGE_PAYLOAD)  # no record holds one


def messages_of(records: Sequence[Buffer]) -> list[Buffer]:
    """Convert records, as a poll gives them, to messages, back to back.

    records: whole records back to back, cut anywhere between a header and its frames. Raises BadBatch where one can't
    be read.
    """
    messages: list[Buffer] = []
    for header, frames in _records(records):
        alike = _messages_of_alike(header, frames) if header.count >= _ALIKE_COUNT_MIN else None
        messages += [alike] if alike else _messages_of_each(header, frames)
    return messages


def _records(buffers: Sequence[Buffer]) -> Iterator[tuple[Header, memoryview]]:
    """Yield the header and the frames of each record."""
    header: Header | None = None
    for buffer in buffers:
        data, position = memoryview(buffer), 0
        while position < len(data):
            if header is None:
                header = read_header(data, position)
                # Clients may send any time: one at the end of time must not overflow with a delta.
                header.origin_timestamp_us = min(header.origin_timestamp_us, U64_MAX - U32_MAX)
                position += HEADER_SIZE
            if position < len(data):  # else its frames are in the next buffer
                end = position + header.size - HEADER_SIZE
                yield header, data[position:end]
                header, position = None, end
    if header is not None:
        raise BadBatch(HEADER_SIZE, "a header without its frames")


def _messages_of_alike(header: Header, frames: memoryview) -> bytearray | None:
    """Convert frames of one size; return None where they have not."""
    count, base_offset, origin_us = header.count, header.base_offset, header.origin_timestamp_us
    timestamp_us = header.base_timestamp_us
    size = len(frames) // count
    if size * count != len(frames) or size <= FRAME_HEADER_SIZE:
        return None
    headers_size, payload_size = _SIZES.unpack_from(frames, _FRAME_SIZES_AT)
    if headers_size + payload_size != size - FRAME_HEADER_SIZE:
        return None
    tail_size, message_size = size - _FRAME_SIZES_AT, size - FRAME_HEADER_SIZE + HEAD_SIZE
    sizes = _TAIL.pack(headers_size, payload_size, 0)
    messages = bytearray(message_size * count)
    pack, digest = Struct(f"<16sQQQ{tail_size}s").pack, xxh3_64_intdigest
    put = Struct(f"<Q{message_size - 8}s").pack_into
    position = 0
    for ident, offset, time, tail in Struct(f"<8x16sII{tail_size}s").iter_unpack(frames):
        if not tail.startswith(sizes):
            return None
        rest = pack(ident, base_offset + offset, timestamp_us, origin_us + time, tail)
        put(messages, position, digest(rest), rest)
        position += message_size
    return messages


def _messages_of_each(header: Header, frames: memoryview) -> list[Buffer]:
    """Convert frame by frame, of any sizes. Large messages are not copied together."""
    count, base_offset, origin_us = header.count, header.base_offset, header.origin_timestamp_us
    timestamp_us = header.base_timestamp_us
    parts: list[Buffer] = []
    unpack, pack, pack_u64, digest, keep = STORED.unpack_from, MESSAGE.pack, _U64.pack, xxh3_64_intdigest, parts.append
    position = 0
    try:
        for _ in range(count):
            ident, offset, time, headers_size, payload_size = unpack(frames, position)
            start = position + FRAME_HEADER_SIZE
            position = start + headers_size + payload_size
            sizes = (headers_size, payload_size, 0)
            message = pack(ident, base_offset + offset, timestamp_us, origin_us + time, *sizes) + frames[start:position]
            keep(pack_u64(digest(message)))
            keep(message)
    except error:
        raise BadBatch(position, f"{count} messages announced, the bytes end after {len(parts) // 2}") from None
    if position != len(frames):
        raise BadBatch(position, f"{count} messages in {len(frames)} bytes end at {position}")
    return parts if len(frames) > count * _JOINED_SIZE_MAX else [b"".join(parts)]


def _deltas(times: Sequence[int]) -> tuple[int, list[int]]:
    """Return the origin of a record whose messages were made at `times`, and how much later each was."""
    oldest, newest = min(times), max(times)
    if newest - oldest <= U32_MAX:
        return oldest, [time - oldest for time in times]
    oldest = newest - U32_MAX
    return oldest, [max(time - oldest, 0) for time in times]
