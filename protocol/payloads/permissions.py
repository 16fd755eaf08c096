"""The bytes of permissions.

10 flags u8 | has streams u8 | for each stream, ascending, if it has any:
    stream id u32 | 6 flags u8 | has topics u8 | for each topic, ascending, if it has any:
        topic id u32 | 4 flags u8 | another topic follows u8
    another stream follows u8
"""

from collections.abc import Callable
from typing import TypeVar

from ..errors import WireError
from ..primitives import Permissions, StreamPermissions, TopicPermissions
from ..reader import Reader, Writer
from .codec import Codec, optional, sized

T = TypeVar("T")

_GLOBAL_FLAGS = 10
_STREAM_FLAGS = 6
_TOPIC_FLAGS = 4


def _read_flags(reader: Reader, count: int) -> list[bool]:
    return [byte != 0 for byte in reader.take(count, "permissions")]


def _read_chain(reader: Reader, read: Callable[[Reader], T], what: str) -> dict[int, T]:
    """Read a flag that says whether anything follows, and then an id and a value for as long as one follows."""
    items: dict[int, T] = {}
    while reader.u8():
        start = reader.position
        ident = reader.u32()
        if ident in items:
            raise WireError(start, f"each {what} once", f"{what} {ident} again")
        items[ident] = read(reader)
    return items


def _write_chain(writer: Writer, items: dict[int, T], write: Callable[[Writer, T], None]) -> None:
    for ident in sorted(items):
        writer.u8(1)
        writer.u32(ident)
        write(writer, items[ident])
    writer.u8(0)


def _read_topic(reader: Reader) -> TopicPermissions:
    return TopicPermissions(*_read_flags(reader, _TOPIC_FLAGS))


def _write_topic(writer: Writer, value: TopicPermissions) -> None:
    writer.raw(bytes((value.manage_topic, value.read_topic, value.poll_messages, value.send_messages)))


def _read_stream(reader: Reader) -> StreamPermissions:
    flags = _read_flags(reader, _STREAM_FLAGS)
    return StreamPermissions(*flags, topics=_read_chain(reader, _read_topic, "topic"))


def _write_stream(writer: Writer, value: StreamPermissions) -> None:
    writer.raw(bytes(getattr(value, name) for name in StreamPermissions.__struct_fields__[:_STREAM_FLAGS]))
    _write_chain(writer, value.topics, _write_topic)


def _read(reader: Reader) -> Permissions:
    flags = _read_flags(reader, _GLOBAL_FLAGS)
    return Permissions(*flags, streams=_read_chain(reader, _read_stream, "stream"))


def _write(writer: Writer, value: Permissions) -> None:
    writer.raw(bytes(getattr(value, name) for name in Permissions.__struct_fields__[:_GLOBAL_FLAGS]))
    _write_chain(writer, value.streams, _write_stream)


def _read_shown(reader: Reader) -> Permissions | None:
    permissions = GRANTED.read(reader)
    if permissions is None:
        reader.take(_PADDING_SIZE, "permissions")
    return permissions


def _write_shown(writer: Writer, value: Permissions | None) -> None:
    GRANTED.write(writer, value)
    if value is None:
        writer.raw(bytes(_PADDING_SIZE))


PERMISSIONS = Codec(_read, _write)
GRANTED = optional(sized(PERMISSIONS))  # in a command
# A reply says with four zero bytes that a user has none, where a command says it with one.
_PADDING_SIZE = 3
SHOWN = Codec(_read_shown, _write_shown)
