"""Messages as a program makes and gets them, and where a poll starts."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Literal

import msgspec

from ..protocol.batch import PAYLOAD_SIZE_MAX, BadBatch, Batch, Buffer, stamp
from ..protocol.primitives import PollingKind, PollingStrategy, ValueKind
from ..protocol.unpacked import (
    FRESH_SIZE,
    HeaderField,
    check_sizes,
    pack_checked,
    pack_key,
    pack_value,
    unpack_fields,
    unpack_frames,
)
from ..protocol.unpacked import Message as PackedMessage
from .errors import InvalidRequest, PybrokerError

HeaderValue = str | int | float | bool | bytes

_F32 = Struct("<f")
_F64 = Struct("<d")
ID_SIZE = 16
KEYS_KEPT = 1024  # headers' keys, packed
_UNSIGNED = ((1, ValueKind.U8), (2, ValueKind.U16), (4, ValueKind.U32), (8, ValueKind.U64), (16, ValueKind.U128))
_SIGNED = ((1, ValueKind.I8), (2, ValueKind.I16), (4, ValueKind.I32), (8, ValueKind.I64), (16, ValueKind.I128))
_STRING = ValueKind.STRING


class Message(msgspec.Struct):
    """A message to send. id: 1 to 2**128 - 1; None for a random one. headers: keys and values of 1 to 255 bytes."""

    payload: bytes | str
    id: int | None = None
    headers: Mapping[str, HeaderValue] | None = None


Packed = PackedMessage | bytes
"""A message as a batch takes it: bytes are a payload that has no headers and no id yet."""


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
        fields = unpack_fields(self.headers_raw) or []
        return {str(_value_of(key)): _value_of(value) for key, value in zip(fields[::2], fields[1::2], strict=True)}


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
    return batch_of(pack_each(messages))


def pack_each(messages: Iterable[Message | bytes | str]) -> list[Packed]:
    """Return messages as batches take them. Raises InvalidRequest."""
    if isinstance(messages, bytes | str):
        raise InvalidRequest("expected a list of messages, got one")
    return [pack_message(message) for message in messages]


def pack_message(message: Message | bytes | str) -> Packed:
    """Return a message as a batch takes it. Raises InvalidRequest."""
    if isinstance(message, str):
        message = message.encode()
    if isinstance(message, bytes) and 0 < len(message) <= PAYLOAD_SIZE_MAX:
        return message
    return _pack_whole(message if isinstance(message, Message) else Message(message))


def _pack_whole(message: Message) -> Packed:
    payload = message.payload.encode() if isinstance(message.payload, str) else message.payload
    ident = b"" if message.id is None else _ident(message.id)
    try:
        packed = PackedMessage(ident, payload, _pack_headers(message.headers) if message.headers else b"")
        check_sizes(packed)
    except BadBatch as error:
        raise InvalidRequest(f"message: {error.what}") from None
    return packed


def batch_of(messages: Sequence[Packed]) -> Batch:
    """Return the batch record that holds the messages, in order; those without an id have a new one each."""
    try:
        batch = pack_checked(messages, time.time_ns() // 1000, os.urandom(FRESH_SIZE))
    except BadBatch as error:
        raise InvalidRequest(f"message: {error.what}") from None
    stamp(batch, base_offset=0, base_timestamp_us=0)
    return batch


def unpack_messages(records: Sequence[Buffer], partition: int) -> list[Received]:
    """Return the messages in records. Raises PybrokerError where they can't be read."""
    found: list[Received] = []
    try:
        for header, frames in unpack_frames(records):
            base, time_us, origin_us = header.base_offset, header.base_timestamp_us, header.origin_timestamp_us
            found += [
                Received(payload, base + offset, partition, time_us, origin_us + delta_us, ident, headers)
                for _, ident, offset, delta_us, payload, headers in frames
            ]
    except BadBatch as error:
        raise PybrokerError(f"the server sent messages that can't be read: {error}") from None
    return found


def _ident(number: int) -> bytes:
    if not 0 < number < 1 << 128:
        raise InvalidRequest(f"message id {number}: expected 1 to 2**128 - 1")
    return number.to_bytes(ID_SIZE, "little")


def _pack_headers(headers: Mapping[str, HeaderValue]) -> bytes:
    return b"".join([_pack_key(key) + pack_value(_field_of(value)) for key, value in headers.items()])


@lru_cache(KEYS_KEPT)
def _pack_key(key: str) -> bytes:
    return pack_key(HeaderField(_STRING, key.encode()))


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
    return _READERS[field.kind](field.value)


def _float_reader(layout: Struct) -> Callable[[bytes], HeaderValue]:
    return lambda data: layout.unpack(data)[0] if len(data) == layout.size else data


def _read_unsigned(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _read_signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _read_text(data: bytes) -> str:
    return data.decode(errors="replace")


def _read_flag(data: bytes) -> bool:
    return data != b"\0"


_READERS: dict[ValueKind, Callable[[bytes], HeaderValue]] = {
    ValueKind.RAW: bytes,
    ValueKind.STRING: _read_text,
    ValueKind.BOOL: _read_flag,
    ValueKind.F32: _float_reader(_F32),
    ValueKind.F64: _float_reader(_F64),
    **{kind: _read_unsigned for _, kind in _UNSIGNED},
    **{kind: _read_signed for _, kind in _SIGNED},
}
