"""Layouts as data: one description of a payload both reads and writes it."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from ..errors import WireError
from ..reader import Reader, Writer

T = TypeVar("T")
S = TypeVar("S", bound=Struct)


class Codec(Generic[T]):
    """How one kind of value is read from bytes and written to them. Reading raises WireError, nothing else.

    decode: reads a value from the front of bytes. Bytes behind it are ignored, as Iggy does.
    """

    __slots__ = ("decode", "read", "write")

    def __init__(
        self,
        read: Callable[[Reader], T],
        write: Callable[[Writer, T], None],
        decode: Callable[[memoryview], T] | None = None,
    ) -> None:
        """decode: a faster way for what is only ever a whole payload; `read` else."""
        self.read = read
        self.write = write
        self.decode = decode or self._decode

    def _decode(self, data: memoryview) -> T:
        return self.read(Reader(data))

    def encode(self, value: T) -> bytearray:
        writer = Writer()
        self.write(writer, value)
        return writer.data


U8 = Codec(Reader.u8, Writer.u8)
U16 = Codec(Reader.u16, Writer.u16)
U32 = Codec(Reader.u32, Writer.u32)
U64 = Codec(Reader.u64, Writer.u64)
F32 = Codec(Reader.f32, Writer.f32)


def layout(struct: type[S], **fields: Codec[Any]) -> Codec[S]:
    """Describe a struct as its fields in wire order."""
    if unknown := fields.keys() - set(struct.__struct_fields__):
        raise TypeError(f"{struct.__name__} has no field {', '.join(unknown)}")

    def read(reader: Reader) -> S:
        return struct(**{name: codec.read(reader) for name, codec in fields.items()})

    def write(writer: Writer, value: S) -> None:
        for name, codec in fields.items():
            codec.write(writer, getattr(value, name))

    return Codec(read, write)


def rest(item: Codec[T]) -> Codec[list[T]]:
    """Describe items that go on to the end of the payload."""

    def read(reader: Reader) -> list[T]:
        items: list[T] = []
        while reader.remaining:
            items.append(item.read(reader))
        return items

    def write(writer: Writer, values: Sequence[T]) -> None:
        for value in values:
            item.write(writer, value)

    return Codec(read, write)


def counted(item: Codec[T]) -> Codec[list[T]]:
    """Describe a u32 count and that many items. Every item takes at least a byte, so bytes bound the count."""

    def read(reader: Reader) -> list[T]:
        start = reader.position
        count = reader.u32()
        if count > reader.remaining:
            raise WireError(start, f"{count} items", f"{reader.remaining} bytes")
        return [item.read(reader) for _ in range(count)]

    def write(writer: Writer, values: Sequence[T]) -> None:
        writer.u32(len(values))
        for value in values:
            item.write(writer, value)

    return Codec(read, write)


def few(item: Codec[T]) -> Codec[list[T]]:
    """Describe a u8 count and that many items."""

    def read(reader: Reader) -> list[T]:
        return [item.read(reader) for _ in range(reader.u8())]

    def write(writer: Writer, values: Sequence[T]) -> None:
        writer.u8(len(values))
        for value in values:
            item.write(writer, value)

    return Codec(read, write)


def optional(item: Codec[T]) -> Codec[T | None]:
    """Describe a value that may be absent: a u8 that says whether it follows, and the value."""

    def read(reader: Reader) -> T | None:
        return item.read(reader) if reader.u8() else None

    def write(writer: Writer, value: T | None) -> None:
        writer.u8(int(value is not None))
        if value is not None:
            item.write(writer, value)

    return Codec(read, write)


def fixed(size: int) -> Codec[bytes]:
    """Describe exactly `size` bytes."""
    return Codec(lambda reader: bytes(reader.take(size)), Writer.raw)


def sized(item: Codec[T]) -> Codec[T]:
    """Describe a u32 size and a value that fills exactly that many bytes."""

    def read(reader: Reader) -> T:
        start = reader.position
        inner = Reader(reader.take(reader.u32(), "a sized block"))
        value = item.read(inner)
        if inner.remaining:
            raise WireError(start + 4 + inner.position, "the block's end", f"{inner.remaining} bytes more")
        return value

    def write(writer: Writer, value: T) -> None:
        data = item.encode(value)
        writer.u32(len(data))
        writer.raw(data)

    return Codec(read, write)
