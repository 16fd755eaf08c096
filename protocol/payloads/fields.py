"""The bytes of names, identifiers, options and the other small values. Little-endian, text is UTF-8.

name        size u8 (1-255) | text
identifier  kind u8 | size u8 | value       kind 1: id u32, size 4; kind 2: a name
consumer    kind u8 | identifier
partition   present u8 | u32                five bytes, present or not
strategy    kind u8 | value u64
partitioning kind u8 | size u8 | value      kind 2: id u32, size 4; kind 3: a key, 1-255
option      key kind u8 (2) | key size u32 (1-255) | key | kind u8 | size u32 (1-255) | value
"""

from enum import IntEnum
from typing import TypeVar

from ..errors import Status, WireError
from ..primitives import (
    AckLevel,
    Compression,
    Consumer,
    ConsumerKind,
    Identifier,
    Option,
    Options,
    Partitioning,
    PartitioningKind,
    PollingKind,
    PollingStrategy,
    SnapshotCompression,
    SnapshotKind,
    Transport,
    UserStatus,
    ValueKind,
)
from ..reader import Reader, Writer
from .codec import Codec, sized

NAME_SIZE_MAX = 255
OPTIONS_SIZE_MAX = 100_000
OPTIONS_COUNT_MAX = 1024

E = TypeVar("E", bound=IntEnum)

_NUMERIC = 1
_NAMED = 2


def enum(kind: type[E], status: Status = Status.INVALID_COMMAND) -> Codec[E]:
    """Describe an enumeration in one byte."""

    def read(reader: Reader) -> E:
        value = reader.u8()
        try:
            return kind(value)
        except ValueError:
            raise WireError(reader.position - 1, f"a {kind.__name__}", str(value), status) from None

    return Codec(read, lambda writer, value: writer.u8(value))


def _read_size(reader: Reader, what: str) -> int:
    """Read the size of a value that may not be empty."""
    size = reader.u8()
    if size == 0:
        raise WireError(reader.position - 1, f"a {what} of 1 to {NAME_SIZE_MAX} bytes", "0", Status.INVALID_FORMAT)
    return size


def _read_name(reader: Reader) -> str:
    return reader.text(_read_size(reader, "name"))


def _write_name(writer: Writer, value: str) -> None:
    data = value.encode()
    writer.u8(len(data))
    writer.raw(data)


def _read_short_text(reader: Reader) -> str:
    return reader.text(reader.u8())


def _read_text(reader: Reader) -> str:
    return reader.text(reader.u32())


def _write_text(writer: Writer, value: str) -> None:
    data = value.encode()
    writer.u32(len(data))
    writer.raw(data)


def _read_u32_value(reader: Reader, what: str) -> int:
    """Read a one-byte size that has to be 4, and the number behind it."""
    if (size := reader.u8()) != 4:
        raise WireError(reader.position - 1, f"{what} of 4 bytes", str(size), Status.INVALID_FORMAT)
    return reader.u32()


def _read_identifier(reader: Reader) -> Identifier:
    kind = reader.u8()
    if kind == _NAMED:
        return _read_name(reader)
    if kind == _NUMERIC:
        return _read_u32_value(reader, "a numeric id")
    raise WireError(reader.position - 1, "an identifier's kind", str(kind))


def _write_identifier(writer: Writer, value: Identifier) -> None:
    if isinstance(value, str):
        writer.u8(_NAMED)
        _write_name(writer, value)
    else:
        writer.u8(_NUMERIC)
        writer.u8(4)
        writer.u32(value)


def _read_flag(reader: Reader) -> bool:
    return reader.u8() != 0


def _write_flag(writer: Writer, value: bool) -> None:
    writer.u8(int(value))


def _read_partition(reader: Reader) -> int | None:
    present = reader.u8() == 1
    partition_id = reader.u32()
    return partition_id if present else None


def _write_partition(writer: Writer, value: int | None) -> None:
    writer.u8(int(value is not None))
    writer.u32(value or 0)


def _read_partitioning(reader: Reader) -> Partitioning:
    kind = PARTITIONING_KIND.read(reader)
    if kind is PartitioningKind.PARTITION:
        return Partitioning(kind, _read_u32_value(reader, "a partition id"))
    if kind is PartitioningKind.MESSAGES_KEY:
        return Partitioning(kind, bytes(reader.take(_read_size(reader, "key"), "a key")))
    reader.take(reader.u8())
    return Partitioning(kind)


def _write_partitioning(writer: Writer, value: Partitioning) -> None:
    writer.u8(value.kind)
    if isinstance(value.value, bytes):
        writer.u8(len(value.value))
        writer.raw(value.value)
    elif value.kind is PartitioningKind.PARTITION:
        writer.u8(4)
        writer.u32(value.value)
    else:
        writer.u8(0)


def _read_option_part(reader: Reader, what: str) -> memoryview:
    start = reader.position
    size = reader.u32()
    if not 1 <= size <= NAME_SIZE_MAX:
        raise WireError(start, f"{what} of 1 to {NAME_SIZE_MAX} bytes", str(size), Status.INVALID_FORMAT)
    return reader.take(size, what)


def _read_option(reader: Reader) -> Option:
    if (kind := reader.u8()) != ValueKind.STRING:
        raise WireError(reader.position - 1, "a key that is a string", f"kind {kind}", Status.INVALID_FORMAT)
    start = reader.position
    try:
        key = str(_read_option_part(reader, "an option's key"), "utf-8")
    except UnicodeDecodeError:
        raise WireError(start, "UTF-8 text", "an option's key", Status.INVALID_FORMAT) from None
    return Option(key, VALUE_KIND.read(reader), bytes(_read_option_part(reader, "an option's value")))


def _write_option(writer: Writer, option: Option) -> None:
    writer.u8(ValueKind.STRING)
    _write_text(writer, option.key)
    writer.u8(option.kind)
    writer.u32(len(option.value))
    writer.raw(option.value)


def _read_options(reader: Reader) -> Options:
    if reader.remaining > OPTIONS_SIZE_MAX:
        raise WireError(
            reader.position,
            f"options of at most {OPTIONS_SIZE_MAX} bytes",
            str(reader.remaining),
            Status.OPTIONS_BLOCK_TOO_LARGE,
        )
    options: dict[str, Option] = {}
    while reader.remaining:
        start = reader.position
        option = _read_option(reader)
        if option.key in options:
            raise WireError(start, "each option once", repr(option.key), Status.INVALID_FORMAT)
        if len(options) == OPTIONS_COUNT_MAX:
            raise WireError(start, f"at most {OPTIONS_COUNT_MAX} options", "more", Status.OPTIONS_BLOCK_TOO_LARGE)
        options[option.key] = option
    return tuple(options.values())


def _write_options(writer: Writer, options: Options) -> None:
    for option in options:
        _write_option(writer, option)


def _write_strategy(writer: Writer, value: PollingStrategy) -> None:
    writer.u8(value.kind)
    writer.u64(value.value)


def _write_consumer(writer: Writer, value: Consumer) -> None:
    writer.u8(value.kind)
    _write_identifier(writer, value.id)


def _read_bytes(reader: Reader) -> bytes:
    return bytes(reader.take(reader.remaining))


FLAG = Codec(_read_flag, _write_flag)
NAME = Codec(_read_name, _write_name)
SHORT_TEXT = Codec(_read_short_text, _write_name)  # as a name, but it may be empty
TEXT = Codec(_read_text, _write_text)  # size u32 | text
RAW = Codec(_read_bytes, Writer.raw)  # the rest of the payload, untouched
IDENTIFIER = Codec(_read_identifier, _write_identifier)
PARTITION_ID = Codec(_read_partition, _write_partition)
ACK_LEVEL = enum(AckLevel)
COMPRESSION = enum(Compression)
CONSUMER_KIND = enum(ConsumerKind)
PARTITIONING_KIND = enum(PartitioningKind)
POLLING_KIND = enum(PollingKind)
SNAPSHOT_COMPRESSION = enum(SnapshotCompression)
SNAPSHOT_KIND = enum(SnapshotKind)
TRANSPORT = enum(Transport)
USER_STATUS = enum(UserStatus, Status.INVALID_USER_STATUS)
VALUE_KIND = enum(ValueKind, Status.INVALID_HEADER_KIND)
CONSUMER = Codec(lambda reader: Consumer(CONSUMER_KIND.read(reader), _read_identifier(reader)), _write_consumer)
PARTITIONING = Codec(_read_partitioning, _write_partitioning)
STRATEGY = Codec(lambda reader: PollingStrategy(POLLING_KIND.read(reader), reader.u64()), _write_strategy)
OPTIONS = Codec(_read_options, _write_options)  # to the end of the payload
OPTIONS_BLOCK = sized(OPTIONS)
VALUE = sized(RAW)
