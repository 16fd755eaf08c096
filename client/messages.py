"""Messages as a program makes and gets them, and where a poll starts."""

import os
import time
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Literal

import msgspec

from ..protocol.batch import BadBatch, Batch, Buffer, stamp
from ..protocol.primitives import PollingKind, PollingStrategy, ValueKind
from ..protocol.unpacked import (
    HeaderEntry,
    HeaderField,
    StoredMessage,
    check_sizes,
    pack,
    pack_headers,
    unpack,
    unpack_headers,
)
from ..protocol.unpacked import Message as PackedMessage
from .errors import InvalidRequest, PybrokerError

HeaderValue = str | int | float | bool | bytes

_F32 = Struct("<f")
_F64 = Struct("<d")
ID_SIZE = 16
_UNSIGNED = ((1, ValueKind.U8), (2, ValueKind.U16), (4, ValueKind.U32), (8, ValueKind.U64), (16, ValueKind.U128))
_SIGNED = ((1, ValueKind.I8), (2, ValueKind.I16), (4, ValueKind.I32), (8, ValueKind.I64), (16, ValueKind.I128))
_SIGNED_KINDS = frozenset(kind for _, kind in _SIGNED)
_STRING = ValueKind.STRING


class Message(msgspec.Struct):
    """A message to send. id: 1 to 2**128 - 1; None for a random one. headers: keys and values of 1 to 255 bytes."""

    payload: bytes | str
    id: int | None = None
    headers: Mapping[str, HeaderValue] | None = None


class Received(msgspec.Struct, gc=False):
    """A message as it is kept. Times are microseconds since the epoch; origin is the sender's. headers_raw: bytes."""

    payload: bytes
    offset: int
    partition: int
    timestamp_us: int
    origin_timestamp_us: int
    ident: bytes
    headers_raw: bytes

    @property
    def id(self) -> int:
        return int.from_bytes(self.ident, "little")

    @property
    def text(self) -> str:
        return self.payload.decode()

    @property
    def headers(self) -> dict[str, HeaderValue]:
        """Return the headers; none of them where they are not in the usual form, as encrypted ones."""
        entries = unpack_headers(self.headers_raw) or []
        return {str(_value_of(entry.key)): _value_of(entry.value) for entry in entries}


class PolledMessages(msgspec.Struct):
    """What a poll found. current_offset: the last of the partition, 0 when it is empty.

    partition is RESYNC_PARTITION for a group member that has to ask for its partitions anew.
    """

    partition: int
    current_offset: int
    messages: list[Received]


class Offset(msgspec.Struct, frozen=True):
    """Start at this offset."""

    value: int


class Timestamp(msgspec.Struct, frozen=True):
    """Start with what was sent at this time or later: microseconds since the epoch."""

    value: int


Start = Literal["first", "last", "next"] | Offset | Timestamp

_KINDS = {"first": PollingKind.FIRST, "last": PollingKind.LAST, "next": PollingKind.NEXT}


def strategy_of(start: Start) -> PollingStrategy:
    if isinstance(start, Offset):
        return PollingStrategy(PollingKind.OFFSET, start.value)
    if isinstance(start, Timestamp):
        return PollingStrategy(PollingKind.TIMESTAMP, start.value)
    if start not in _KINDS:
        raise InvalidRequest(f"start {start!r}: expected first, last, next, Offset(n) or Timestamp(us)")
    return PollingStrategy(_KINDS[start])


def pack_messages(messages: Sequence[Message | bytes | str]) -> Batch:
    """Return the batch record that holds the messages, in order. Raises InvalidRequest."""
    if isinstance(messages, bytes | str):
        raise InvalidRequest("expected a list of messages, got one")
    fresh = os.urandom(ID_SIZE * len(messages))
    starts = range(0, len(fresh), ID_SIZE)
    return batch_of(
        [pack_message(each, fresh[start : start + ID_SIZE]) for each, start in zip(messages, starts, strict=True)]
    )


def pack_message(message: Message | bytes | str, fresh_id: bytes) -> PackedMessage:
    """Return a message as a batch takes it. fresh_id: 16 bytes, for one without an id. Raises InvalidRequest."""
    ident, headers = fresh_id, b""
    try:
        if isinstance(message, Message):
            ident = fresh_id if message.id is None else _ident(message.id)
            headers = _pack_headers(message.headers) if message.headers else b""
            message = message.payload
        packed = PackedMessage(ident, message.encode() if isinstance(message, str) else message, headers)
        check_sizes(packed)
    except BadBatch as error:
        raise InvalidRequest(f"message: {error.what}") from None
    return packed


def batch_of(messages: Sequence[PackedMessage]) -> Batch:
    """Return the batch record that holds the messages, in order. Raises InvalidRequest."""
    try:
        batch = pack(messages, time.time_ns() // 1000)
    except BadBatch as error:
        raise InvalidRequest(f"message: {error.what}") from None
    stamp(batch, base_offset=0, base_timestamp_us=0)
    return batch


def unpack_messages(records: Sequence[Buffer], partition: int) -> list[Received]:
    """Return the messages in records. Raises PybrokerError where they can't be read."""
    try:
        return [_received(message, partition) for message in unpack(records)]
    except BadBatch as error:
        raise PybrokerError(f"the server sent messages that can't be read: {error}") from None


def _received(message: StoredMessage, partition: int) -> Received:
    return Received(
        message.payload,
        message.offset,
        partition,
        message.timestamp_us,
        message.origin_timestamp_us,
        message.ident,
        message.user_headers,
    )


def _ident(number: int) -> bytes:
    if not 0 < number < 1 << 128:
        raise InvalidRequest(f"message id {number}: expected 1 to 2**128 - 1")
    return number.to_bytes(ID_SIZE, "little")


def _pack_headers(headers: Mapping[str, HeaderValue]) -> bytes:
    return pack_headers(
        [HeaderEntry(HeaderField(_STRING, key.encode()), _field_of(value)) for key, value in headers.items()]
    )


def _field_of(value: HeaderValue) -> HeaderField:
    """Return a value as Iggy's own client sends it: numbers in the smallest form that holds them."""
    match value:
        case bool():
            return HeaderField(ValueKind.BOOL, bytes([value]))
        case int():
            return _integer(value)
        case float():
            data = _F32.pack(value) if abs(value) < _F32_MAX else b""
            is_exact = bool(data) and _F32.unpack(data)[0] == value
            return HeaderField(ValueKind.F32, data) if is_exact else HeaderField(ValueKind.F64, _F64.pack(value))
        case str():
            return HeaderField(_STRING, value.encode())
        case bytes():
            return HeaderField(ValueKind.RAW, value)


_F32_MAX = 3.4e38


def _integer(value: int) -> HeaderField:
    for size, kind in _UNSIGNED if value >= 0 else _SIGNED:
        try:
            return HeaderField(kind, value.to_bytes(size, "little", signed=value < 0))
        except OverflowError:
            continue
    raise InvalidRequest(f"header {value}: an integer has at most 128 bits")


def _value_of(field: HeaderField) -> HeaderValue:
    match field.kind:
        case ValueKind.RAW:
            return field.value
        case ValueKind.STRING:
            return field.value.decode(errors="replace")
        case ValueKind.BOOL:
            return field.value != b"\0"
        case ValueKind.F32 | ValueKind.F64:
            layout = _F32 if field.kind is ValueKind.F32 else _F64
            return layout.unpack(field.value)[0] if len(field.value) == layout.size else field.value
        case _:
            return int.from_bytes(field.value, "little", signed=field.kind in _SIGNED_KINDS)
