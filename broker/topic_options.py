"""The options of a topic: what clients may ask for, how it reads, and what holds when they don't.

One row per key; a value comes in the key's own kind, or as text ("2 MiB", "7 days"), as the command lines send it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec.structs import replace

from ..protocol.errors import Refused, Status
from ..protocol.model.system import OptionSpec
from ..protocol.primitives import Compression, Option, Options, ValueKind
from .config import Config
from .events import TopicSettings
from .units import parse_expiry_us, parse_size, parse_topic_size

SEGMENT_SIZE_MIN = 1 << 20
SEGMENT_SIZE_MAX = 1 << 30
MESSAGES_REQUIRED_MAX = 16_777_216
_SIZES = {ValueKind.BOOL: 1, ValueKind.U8: 1, ValueKind.U16: 2, ValueKind.U32: 4, ValueKind.U64: 8}
_DURABILITIES = {"replicated": False, "persisted": True}
_FLAGS = {"true": True, "1": True, "false": False, "0": False, True: True, False: False}


class Row(NamedTuple):
    """One option. parse takes text or a number and raises ValueError, and 0 means the server's default.

    words: what the values of a STRING are called.
    """

    key: str
    fields: tuple[str, ...]
    kind: ValueKind
    parse: Callable[[Any], Any]
    description: str
    updatable: bool = False
    words: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default; nobody changes it


def _number(low: int, high: int, *, step: int = 1) -> Callable[[Any], int]:
    def parse(value: str | int) -> int:
        number = parse_size(value)
        if number and (not low <= number <= high or number % step):
            multiple = f", a multiple of {step}" if step > 1 else ""
            raise ValueError(f"expected {low} to {high}{multiple}")
        return number

    return parse


def _among(values: dict[Any, Any]) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        word = value.strip().lower() if isinstance(value, str) else value
        if word not in values:
            raise ValueError(f"expected one of {', '.join(str(key) for key in values)}")
        return values[word]

    return parse


def _expiry_us(value: str | int) -> int:
    """Read an expiry: a number is microseconds, a text needs its unit."""
    return value if isinstance(value, int) else parse_expiry_us(value)


_COMPRESSIONS = {"none": Compression.NONE, "gzip": Compression.GZIP}

ROWS = (
    Row(
        "compression_algorithm",
        ("compression",),
        ValueKind.STRING,
        _among(_COMPRESSIONS),
        "how clients compress payloads: none or gzip; the server only keeps the word",
        updatable=True,
        words=_COMPRESSIONS,
    ),
    Row(
        "message_expiry",
        ("message_expiry_us",),
        ValueKind.U64,
        _expiry_us,
        "microseconds after which a message may be deleted",
        updatable=True,
    ),
    Row(
        "max_topic_size",
        ("max_topic_size",),
        ValueKind.U64,
        parse_topic_size,
        "bytes after which the oldest messages may be deleted",
        updatable=True,
    ),
    Row(
        "segment_size",
        ("segment_size",),
        ValueKind.U64,
        _number(SEGMENT_SIZE_MIN, SEGMENT_SIZE_MAX, step=512),
        "bytes after which a partition begins a new segment file",
    ),
    Row(
        "durability",
        ("persisted",),
        ValueKind.STRING,
        _among(_DURABILITIES),
        "when a send is acknowledged: replicated (written) or persisted (synced to the disk)",
        words=_DURABILITIES,
    ),
    Row(
        "consumer_offset_durability",
        ("offsets_persisted",),
        ValueKind.STRING,
        _among(_DURABILITIES),
        "when a stored offset is acknowledged: replicated (written) or persisted (synced to the disk)",
        words=_DURABILITIES,
    ),
    Row(
        "messages_required_to_save",
        ("messages_required_to_save",),
        ValueKind.U32,
        _number(1, MESSAGES_REQUIRED_MAX),
        "kept for Iggy's clients: every batch is written before it is acknowledged",
    ),
    Row(
        "size_of_messages_required_to_save",
        ("size_of_messages_required_to_save",),
        ValueKind.U64,
        _number(1, SEGMENT_SIZE_MAX),
        "kept for Iggy's clients: every batch is written before it is acknowledged",
    ),
    Row(
        "preallocate_segments",
        ("preallocate_segments",),
        ValueKind.BOOL,
        _among(_FLAGS),
        "kept for Iggy's clients: segments grow as they are written",
    ),
    Row(
        "message_deduplication",
        ("message_deduplication",),
        ValueKind.BOOL,
        _among(_FLAGS),
        "whether a message is dropped, and acknowledged, if the topic had one with its id lately",
        updatable=True,
    ),
)
# The older spelling of the two durabilities; accepted, never described.
_FSYNC = Row("enforce_fsync", ("persisted", "offsets_persisted"), ValueKind.BOOL, _among(_FLAGS), "")
_BY_KEY = {row.key: row for row in (*ROWS, _FSYNC)}


def defaults(config: Config) -> TopicSettings:
    """Return what a topic gets that asks for nothing."""
    system = config.system
    return TopicSettings(
        compression=Compression.NONE,
        message_expiry_us=system.topic.message_expiry_us,
        max_topic_size=system.topic.max_size,
        segment_size=system.segment.size,
        persisted=system.partition.enforce_fsync,
        offsets_persisted=system.partition.enforce_fsync,
        messages_required_to_save=system.partition.messages_required_to_save,
        size_of_messages_required_to_save=system.partition.size_of_messages_required_to_save,
        preallocate_segments=system.segment.preallocate,
        message_deduplication=system.message_deduplication.enabled,
    )


def resolve(options: Options, base: TopicSettings, server: TopicSettings) -> TopicSettings:
    """Return `base` changed by `options`; a value of 0 takes the server's default. Raises Refused.

    Durability has two spellings, and the client sends "replicated" unasked: where they differ the stronger holds.
    """
    changes: dict[str, object] = {}
    for option in options:
        row = _row(option)
        value: object = _parse(row, option)
        for field in row.fields:
            if isinstance(value, bool):
                changes[field] = value or changes.get(field) is True
            else:
                changes[field] = getattr(server, field) if value == 0 else value
    settings = replace(base, **changes)
    if settings.max_topic_size < settings.segment_size:
        raise Refused(
            Status.INVALID_TOPIC_SIZE, f"{settings.max_topic_size} bytes, a segment has {settings.segment_size}"
        )
    return settings


def updatable(options: Options) -> Options:
    """Return `options`, which change a topic that exists. Raises Refused for those that are set at its creation."""
    for option in options:
        if not _row(option).updatable:
            raise Refused(Status.UNSUPPORTED_OPTION_KEY, f"{option.key} can't be changed")
    return options


def refuse_any(options: Options) -> None:
    """Refuse every option, where Iggy has none: streams and users."""
    for option in options:
        raise Refused(Status.UNSUPPORTED_OPTION_KEY, option.key)


def merged(old: Options, new: Options) -> Options:
    """Return the options a topic shows after an update: the new values in place of the old."""
    options = {option.key: option for option in old} | {option.key: option for option in new}
    return tuple(options.values())


def derived(settings: TopicSettings, explicit: Options) -> Options:
    """Return the settings that nobody asked for, as options."""
    asked = {field for option in explicit for field in _BY_KEY[option.key].fields}
    return tuple(
        Option(row.key, row.kind, _encode(row, getattr(settings, row.fields[0])))
        for row in ROWS
        if row.fields[0] not in asked
    )


def describe(settings: TopicSettings) -> list[OptionSpec]:
    return [
        OptionSpec(row.key, row.kind, _encode(row, getattr(settings, row.fields[0])), row.description) for row in ROWS
    ]


def _row(option: Option) -> Row:
    if row := _BY_KEY.get(option.key):
        return row
    raise Refused(Status.UNSUPPORTED_OPTION_KEY, option.key)


def _parse(row: Row, option: Option) -> Any:
    """Return an option's value. Raises Refused when it is of no use."""
    try:
        if option.kind is ValueKind.STRING:
            return row.parse(str(option.value, "utf-8"))
        if _SIZES.get(option.kind) != len(option.value) or row.kind is ValueKind.STRING:
            raise ValueError(f"kind {option.kind.name}, expected {row.kind.name} or STRING")
        value = int.from_bytes(option.value, "little")  # little-endian, as every number on the wire
        return row.parse(value)
    except ValueError as error:
        raise Refused(Status.INVALID_OPTION_VALUE, f"{option.key}: {error}") from None


def _encode(row: Row, value: int) -> bytes:
    """Return a setting in its option's kind."""
    if row.kind is ValueKind.STRING:
        return next(word for word, meaning in row.words.items() if meaning == value).encode()
    return int(value).to_bytes(_SIZES[row.kind], "little")
