"""Messages one by one, for doors that don't carry batch records: packed into a record, and taken out of records.

The record's layout is drawn in `batch`. A message's user headers are entries, back to back:

key kind u8 | key size u32 (1-255) | key | value kind u8 | value size u32 (1-255) | value
"""

from collections.abc import Sequence
from struct import Struct, error

import msgspec
from xxhash import xxh3_64_intdigest

from .batch import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    PAYLOAD_SIZE_MAX,
    USER_HEADERS_SIZE_MAX,
    BadBatch,
    Batch,
    Buffer,
    read_header,
)
from .errors import Status
from .primitives import ValueKind

FIELD_SIZE_MAX = 255

_HEADER = Struct("<6QI204x")
_FRAME = Struct("<16sIIIIQ")  # a frame from byte 8 on
_STORED = Struct("<Q16sIIII8x")  # checksum, id, deltas of offset and origin timestamp, sizes of headers and payload
_U64 = Struct("<Q")
_FIELD = Struct("<BI")


class Message(msgspec.Struct, gc=False):
    """A message to send. ident: 16 bytes. user_headers: as on the wire."""

    ident: bytes
    payload: bytes
    user_headers: bytes = b""


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
    if not messages:
        raise BadBatch(48, "no messages", Status.INVALID_MESSAGES_COUNT)
    frames: list[bytes] = []
    position = HEADER_SIZE
    for index, message in enumerate(messages):
        check_sizes(message, position)
        sizes = (len(message.user_headers), len(message.payload), 0)
        rest = _FRAME.pack(message.ident, index, 0, *sizes) + message.payload + message.user_headers
        frames.append(_U64.pack(xxh3_64_intdigest(rest)) + rest)
        position += len(frames[-1])
    record = bytearray().join((bytes(HEADER_SIZE), *frames))
    _HEADER.pack_into(record, 0, 0, 0, 0, origin_timestamp_us, len(record), 0, len(frames))
    return Batch(memoryview(record), len(frames), b"".join(frame[:8] for frame in frames))


def unpack(records: Sequence[Buffer]) -> list[StoredMessage]:
    """Return the messages in whole records, back to back and cut anywhere, in copies. Raises BadBatch."""
    data = b"".join(records)
    messages: list[StoredMessage] = []
    start = 0
    while start < len(data):
        header = read_header(data, start)
        position, start = start + HEADER_SIZE, start + header.size
        try:
            for _ in range(header.count):
                checksum, ident, offset, time, headers_size, payload_size = _STORED.unpack_from(data, position)
                body = position + FRAME_HEADER_SIZE
                position = body + payload_size + headers_size
                messages.append(
                    StoredMessage(
                        checksum=checksum,
                        ident=ident,
                        offset=header.base_offset + offset,
                        timestamp_us=header.base_timestamp_us,
                        origin_timestamp_us=header.origin_timestamp_us + time,
                        payload=data[body : body + payload_size],
                        user_headers=data[body + payload_size : position],
                    )
                )
        except error:
            raise BadBatch(position, "a frame that is cut off") from None
        if position != start or start > len(data):
            raise BadBatch(position, f"frames that do not end with their record, at {start} of {len(data)}")
    return messages


def pack_headers(entries: Sequence[HeaderEntry]) -> bytes:
    """Return user headers as on the wire. Raises BadBatch for a key or a value that is empty or too long."""
    return b"".join(_pack_field(field, is_key) for entry in entries for field, is_key in _fields(entry))


def unpack_headers(data: bytes) -> list[HeaderEntry] | None:
    """Return the entries in user headers, None where there is anything else: who encrypts them sends what it likes."""
    fields: list[HeaderField] = []
    position = 0
    try:
        while position < len(data):
            kind, size = _FIELD.unpack_from(data, position)
            position += _FIELD.size
            if not 1 <= size <= min(FIELD_SIZE_MAX, len(data) - position):
                return None
            fields.append(HeaderField(ValueKind(kind), data[position : position + size]))
            position += size
    except (error, ValueError):
        return None
    if len(fields) % 2:
        return None
    return [HeaderEntry(key, value) for key, value in zip(fields[::2], fields[1::2], strict=True)]


def _fields(entry: HeaderEntry) -> tuple[tuple[HeaderField, bool], tuple[HeaderField, bool]]:
    return (entry.key, True), (entry.value, False)


def _pack_field(field: HeaderField, is_key: bool) -> bytes:
    size = len(field.value)
    if not 1 <= size <= FIELD_SIZE_MAX:
        status = Status.INVALID_HEADER_KEY if is_key else Status.INVALID_HEADER_VALUE
        raise BadBatch(0, f"a header's {'key' if is_key else 'value'} of {size} bytes, expected 1 to 255", status)
    return _FIELD.pack(field.kind, size) + field.value


def check_sizes(message: Message, position: int = 0) -> None:
    """Raise BadBatch for a message that breaks a limit. position: its place in a record."""
    if not message.payload:
        raise BadBatch(position, "an empty payload", Status.EMPTY_MESSAGE_PAYLOAD)
    if len(message.payload) > PAYLOAD_SIZE_MAX:
        raise BadBatch(position, f"a payload of {len(message.payload)} bytes", Status.TOO_BIG_MESSAGE_PAYLOAD)
    if len(message.user_headers) > USER_HEADERS_SIZE_MAX:
        raise BadBatch(position, f"user headers of {len(message.user_headers)} bytes", Status.TOO_BIG_USER_HEADERS)
