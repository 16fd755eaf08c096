"""Messages one by one, for clients and for doors without batch records: packed into a record, taken out of records.

The record's layout is drawn in `batch`. A message's user headers are entries, back to back:

key kind u8 | key size u32 (1-255) | key | value kind u8 | value size u32 (1-255) | value
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct, error, iter_unpack
from struct import pack as pack_values
from typing import TypeGuard

import msgspec
from xxhash import xxh3_64_intdigest

from .batch import (
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
from .errors import Status
from .primitives import ValueKind

FIELD_SIZE_MAX = 255

FRESH_SIZE = 12

Frame = tuple[int, bytes, int, int, bytes, bytes]
"""Checksum, id, deltas of offset and origin timestamp, payload, user headers."""

_HEADER = Struct("<6QI204x")
_NO_HEADER = bytes(HEADER_SIZE)
_FRAME = Struct("<12s5IQ")  # a frame from byte 8 on: an id in two parts, deltas, sizes of headers and payload, zero
_REST = Struct("<4IQ")  # and from byte 24 on
_STORED = Struct("<Q16s4I8x")  # checksum, id, deltas, sizes
_SIZES = Struct("<32xII")
_U32 = Struct("<I")
_U64 = Struct("<Q")
_KINDS = {kind.value: kind for kind in ValueKind}
_ALIKE_COUNT_MIN = 32  # from where on frames of one size are faster all together
_WORD_SIZE = 4
_FIELD = Struct("<BI")
_FIELD_SIZE = _FIELD.size


class Message(msgspec.Struct, gc=False):
    """A message to send. ident: 16 bytes, or none for a new one. user_headers: as on the wire."""

    ident: bytes
    payload: bytes
    user_headers: bytes = b""

    def __len__(self) -> int:
        """Return the bytes that it takes besides its frame's header, as a payload alone does."""
        return len(self.payload) + len(self.user_headers)


class StoredMessage(msgspec.Struct, gc=False):
    """A message as a log has it. Timestamps are microseconds since the epoch; origin is the sender's."""

    checksum: int
    ident: bytes
    offset: int
    timestamp_us: int
    origin_timestamp_us: int
    payload: bytes
    user_headers: bytes


class HeaderField(msgspec.Struct, frozen=True):
    """A key or a value of a user header, little-endian."""

    kind: ValueKind
    value: bytes


class HeaderEntry(msgspec.Struct, frozen=True):
    key: HeaderField
    value: HeaderField


def pack(messages: Sequence[Message], origin_timestamp_us: int) -> Batch:
    """Return a batch, ready to be stamped, in memory of its own. Raises BadBatch where a limit is broken."""
    position = HEADER_SIZE
    for message in messages:
        check_sizes(message, position)
        position += FRAME_HEADER_SIZE + len(message)
    return pack_checked(messages, origin_timestamp_us, NO_ID[:FRESH_SIZE])


def pack_checked(messages: Sequence[Message | bytes], origin_timestamp_us: int, fresh: bytes) -> Batch:
    """Return a batch as `pack` does, of messages whose sizes are known to be right.

    A payload alone is a message without headers. The id of what has none is `fresh`, FRESH_SIZE bytes, and its index.
    A payload of 100 bytes takes 0.2 us among many of its size, else 0.35 us.
    """
    if not messages:
        raise BadBatch(48, "no messages", Status.INVALID_MESSAGES_COUNT)
    record, checksums = _lay_out_alike(messages, fresh) if _have_one_size(messages) else _lay_out_each(messages, fresh)
    _HEADER.pack_into(record, 0, 0, 0, 0, origin_timestamp_us, len(record), 0, len(messages))
    return Batch(memoryview(record), len(messages), checksums)


def _lay_out_each(messages: Sequence[Message | bytes], fresh: bytes) -> tuple[bytearray, bytes]:
    """Return a record without its header, and its checksums."""
    parts: list[bytes] = [_NO_HEADER]
    lay_out, digest, lay_out_checksum, add = _FRAME.pack, xxh3_64_intdigest, _U64.pack, parts.append
    for index, message in enumerate(messages):
        if isinstance(message, bytes):
            frame = lay_out(fresh, index, index, 0, 0, len(message), 0) + message
        else:
            frame = _frame_of(message, index, fresh)
        add(lay_out_checksum(digest(frame)))
        add(frame)
    return bytearray().join(parts), b"".join(parts[1::2])


def _have_one_size(messages: Sequence[Message | bytes]) -> TypeGuard[Sequence[bytes]]:
    """Say whether there are only payloads, of one size that makes whole words, and enough of them."""
    if len(messages) < _ALIKE_COUNT_MIN:
        return False
    sizes = {len(message) if isinstance(message, bytes) else 1 for message in messages}
    return len(sizes) == 1 and sizes.pop() % _WORD_SIZE == 0


def _lay_out_alike(payloads: Sequence[bytes], fresh: bytes) -> tuple[bytearray, bytes]:
    """Do as `_lay_out_each` for payloads of one size, field by field over all of them."""
    count, payload_size = len(payloads), len(payloads[0])
    size = FRAME_HEADER_SIZE + payload_size
    head = bytes(8) + _FRAME.pack(fresh, 0, 0, 0, 0, payload_size, 0)
    record = bytearray(head).join((_NO_HEADER, *payloads))
    frames = memoryview(record)[HEADER_SIZE:]
    words, step = frames.cast("I"), size // _WORD_SIZE  # fields are columns of this table, a frame is a row
    indexes = memoryview(pack_values(f"<{count}I", *range(count))).cast("I")
    words[5::step] = indexes
    words[6::step] = indexes
    bodies = iter_unpack(f"8x{size - 8}s", frames)
    checksums = pack_values(f"<{count}Q", *[xxh3_64_intdigest(body) for (body,) in bodies])
    halves = memoryview(checksums).cast("I")
    words[0::step] = halves[0::2]
    words[1::step] = halves[1::2]
    return record, checksums


def _frame_of(message: Message, index: int, fresh: bytes) -> bytes:
    """Return a frame from byte 8 on."""
    payload, headers = message.payload, message.user_headers
    ident = message.ident or fresh + _U32.pack(index)
    return b"".join((ident, _REST.pack(index, 0, len(headers), len(payload), 0), payload, headers))


def unpack(records: Sequence[Buffer]) -> list[StoredMessage]:
    """Return the messages in whole records, back to back and cut anywhere, in copies. Raises BadBatch."""
    return [
        StoredMessage(
            checksum=checksum,
            ident=ident,
            offset=header.base_offset + offset,
            timestamp_us=header.base_timestamp_us,
            origin_timestamp_us=header.origin_timestamp_us + time,
            payload=payload,
            user_headers=user_headers,
        )
        for header, frames in unpack_frames(records)
        for checksum, ident, offset, time, payload, user_headers in frames
    ]


def unpack_frames(records: Sequence[Buffer]) -> Iterator[tuple[Header, Iterable[Frame]]]:
    """Yield each record's header and frames, in copies: 0.1 us for one of many frames of one size, else 0.35 us.

    records: whole, back to back, and cut anywhere. Raises BadBatch.
    """
    data = b"".join(records)
    start = 0
    while start < len(data):
        header = read_header(data, start)
        end = start + header.size
        if end > len(data):
            raise BadBatch(start, f"a record of {header.size} bytes that is cut off after {len(data) - start}")
        frames = memoryview(data)[start + HEADER_SIZE : end]
        yield header, _frames_alike(frames, header.count) or _frames_each(data, start, header)
        start = end


def _frames_alike(frames: memoryview, count: int) -> Iterator[Frame] | None:
    """Return frames whose headers have one size, and payloads too; None where they don't."""
    size = len(frames) // count
    if count < _ALIKE_COUNT_MIN or size * count != len(frames):
        return None
    headers_size, payload_size = _SIZES.unpack_from(frames)
    if FRAME_HEADER_SIZE + headers_size + payload_size != size:
        return None
    for at in range(_SIZES.size - 8, _SIZES.size):
        if frames[at::size].tobytes() != frames[at : at + 1].tobytes() * count:
            return None
    return iter_unpack(f"<Q16sII16x{payload_size}s{headers_size}s", frames)


def _frames_each(data: bytes, start: int, header: Header) -> list[Frame]:
    """Return the frames of the record at `start`, one by one."""
    found: list[Frame] = []
    end, position = start + header.size, start + HEADER_SIZE
    lay_open, add = _STORED.unpack_from, found.append
    try:
        for _ in range(header.count):
            checksum, ident, offset, time, headers_size, payload_size = lay_open(data, position)
            body = position + FRAME_HEADER_SIZE
            tail = body + payload_size
            position = tail + headers_size
            add((checksum, ident, offset, time, data[body:tail], data[tail:position] if headers_size else b""))
    except error:
        raise BadBatch(position, "a frame that is cut off") from None
    if position != end:
        raise BadBatch(position, f"frames that do not end with their record, at {end}")
    return found


def pack_headers(entries: Sequence[HeaderEntry]) -> bytes:
    """Return user headers as on the wire. Raises BadBatch for a key or a value that is empty or too long."""
    return b"".join([pack_key(entry.key) + pack_value(entry.value) for entry in entries])


def pack_key(key: HeaderField) -> bytes:
    return _pack_field(key, "key", Status.INVALID_HEADER_KEY)


def pack_value(value: HeaderField) -> bytes:
    return _pack_field(value, "value", Status.INVALID_HEADER_VALUE)


def _pack_field(field: HeaderField, what: str, status: Status) -> bytes:
    size = len(field.value)
    if not 1 <= size <= FIELD_SIZE_MAX:
        raise BadBatch(0, f"a header's {what} of {size} bytes, expected 1 to 255", status)
    return _FIELD.pack(field.kind, size) + field.value


def unpack_headers(data: bytes) -> list[HeaderEntry] | None:
    """Return the entries in user headers, None where there is anything else: who encrypts them sends what it likes."""
    fields = unpack_fields(data)
    return None if fields is None else [HeaderEntry(*pair) for pair in zip(fields[::2], fields[1::2], strict=True)]


def unpack_fields(data: bytes) -> list[HeaderField] | None:
    """Return keys and values in turns, None as `unpack_headers` does."""
    fields: list[HeaderField] = []
    position, end = 0, len(data)
    try:
        while position < end:
            kind, size = _FIELD.unpack_from(data, position)
            start = position + _FIELD_SIZE
            position = start + size
            if not 1 <= size <= FIELD_SIZE_MAX or position > end:
                return None
            fields.append(HeaderField(_KINDS[kind], data[start:position]))
    except (error, KeyError):
        return None
    return None if len(fields) % 2 else fields


def check_sizes(message: Message, position: int = 0) -> None:
    """Raise BadBatch for a message that breaks a limit. position: its place in a record."""
    if not message.payload:
        raise BadBatch(position, "an empty payload", Status.EMPTY_MESSAGE_PAYLOAD)
    if len(message.payload) > PAYLOAD_SIZE_MAX:
        raise BadBatch(position, f"a payload of {len(message.payload)} bytes", Status.TOO_BIG_MESSAGE_PAYLOAD)
    if len(message.user_headers) > USER_HEADERS_SIZE_MAX:
        raise BadBatch(position, f"user headers of {len(message.user_headers)} bytes", Status.TOO_BIG_USER_HEADERS)
