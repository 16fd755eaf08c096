"""A bounds-checked cursor for the payloads of control commands, and its writer twin.

Sends and polls don't go through here: their payloads are unpacked at once where they are used.
"""

from struct import Struct

from .batch import Buffer
from .errors import Status, WireError

_U16 = Struct("<H")
_U32 = Struct("<I")
_U64 = Struct("<Q")
_F32 = Struct("<f")


class Reader:
    """Read little-endian values from a payload, front to back. Every method raises WireError where bytes lack."""

    __slots__ = ("data", "position")

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data = data
        self.position = position

    @property
    def remaining(self) -> int:
        return len(self.data) - self.position

    def take(self, size: int, what: str = "bytes") -> memoryview:
        """Return a view of the next `size` bytes."""
        start = self.position
        if size > len(self.data) - start:
            raise WireError(start, f"{size} bytes of {what}", f"{len(self.data) - start}")
        self.position = start + size
        return self.data[start : self.position]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return self._unpack(_U16)

    def u32(self) -> int:
        return self._unpack(_U32)

    def u64(self) -> int:
        return self._unpack(_U64)

    def f32(self) -> float:
        return _F32.unpack(self.take(4))[0]

    def text(self, size: int) -> str:
        """Read `size` bytes of UTF-8."""
        start = self.position
        try:
            return str(self.take(size, "text"), "utf-8")
        except UnicodeDecodeError as error:
            raise WireError(
                start, "UTF-8 text", f"byte {error.object[error.start]:#04x}", Status.INVALID_UTF8
            ) from None

    def _unpack(self, layout: Struct) -> int:
        start = self.position
        if layout.size > len(self.data) - start:
            raise WireError(start, f"{layout.size} bytes", f"{len(self.data) - start}")
        self.position = start + layout.size
        return layout.unpack_from(self.data, start)[0]


class Writer:
    """Append little-endian values to a bytearray. Values out of range are the caller's bug."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def u8(self, value: int) -> None:
        self.data.append(value)

    def u16(self, value: int) -> None:
        self.data += _U16.pack(value)

    def u32(self, value: int) -> None:
        self.data += _U32.pack(value)

    def u64(self, value: int) -> None:
        self.data += _U64.pack(value)

    def f32(self, value: float) -> None:
        self.data += _F32.pack(value)

    def raw(self, value: Buffer) -> None:
        self.data += value
