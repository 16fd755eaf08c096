"""Which wire a peer speaks, by its first bytes: eight are enough. Then the detector is out of the way.

classic   length u32, at least 4 | code u32 of a command it knows
vsr       16 zero bytes, and more
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from struct import Struct
from typing import NoReturn

import msgspec

from .batch import Buffer
from .classic.frames import CODE_SIZE, LENGTH_SIZE
from .classic.wire import BY_CODE
from .errors import Status, WireError
from .inbox import Inbox
from .wire import Receiver, Request, Wire

KNOWN_SIZE = 8

_LENGTH = Struct("<I")
_CODE = Struct("<4xI")
_VSR_SIZE = Struct("<48xI")
_STRANGERS = {
    b"\x16\x03": "a TLS hello: this port has no TLS",
    b"GET ": "an HTTP request: this port has no HTTP",
    b"HEAD": "an HTTP request: this port has no HTTP",
    b"POST": "an HTTP request: this port has no HTTP",
    b"PUT ": "an HTTP request: this port has no HTTP",
    b"OPTI": "an HTTP request: this port has no HTTP",
    b"PRI ": "an HTTP/2 request: this port has no HTTP",
    b"SSH-": "an SSH hello",
}


class Generation(Enum):
    """The wires there are, by their names in the configuration."""

    CLASSIC = "classic"  # Iggy 0.8 and older
    VSR = "vsr"  # Iggy 0.9


def detect(head: memoryview, size_max: int) -> Generation | None:
    """Tell whose frame begins with `head`, None when it is too short to tell. Raises WireError for a stranger's.

    size_max: of the first frame; a peer is sent away as soon as its bytes mean a longer one.
    """
    if len(head) < LENGTH_SIZE:
        return None
    (length,) = _LENGTH.unpack_from(head)
    if length + LENGTH_SIZE > size_max or 0 < length < CODE_SIZE:
        raise _stranger(head)
    if len(head) < KNOWN_SIZE:
        return None
    (code,) = _CODE.unpack_from(head)
    if length and code in BY_CODE:
        return Generation.CLASSIC
    if length or code:
        raise _stranger(head)
    return Generation.VSR


def frame_size(head: Buffer) -> int:
    """Return how long the frame that `head` begins says it is, 0 when that can't be told. Nothing is checked."""
    (length,) = _LENGTH.unpack_from(head) if len(head) >= LENGTH_SIZE else (0,)
    if length:
        return LENGTH_SIZE + length
    return _VSR_SIZE.unpack_from(head)[0] if len(head) >= _VSR_SIZE.size else 0


def _stranger(head: memoryview) -> WireError:
    first = bytes(head[:KNOWN_SIZE])
    what = next((what for start, what in _STRANGERS.items() if first.startswith(start)), first.hex(" "))
    return WireError(0, "the first frame of an Iggy client", what)


class Detector(Receiver):
    """Stands in for a peer's wire until its first bytes say which it is.

    inbox: that of the wire to come, so bytes need not move. wires: of each generation that may come, makes one on an
    inbox. chosen: told the wire once.
    """

    def __init__(
        self,
        inbox: Inbox,
        wires: Mapping[Generation, Callable[[Inbox], Wire]],
        chosen: Callable[[Wire], None],
        *,
        frame_size_max: int,
    ) -> None:
        super().__init__(inbox, frame_size_max)
        self._wires = wires
        self._chosen = chosen

    def requests(self, count_max: int) -> Iterator[Request]:
        """Yield what the chosen wire does, nothing before. Raises WireError when no wire is the peer's."""
        generation = detect(self._inbox.head, self.frame_size_max)
        if generation is None:
            return iter(())
        if generation not in self._wires:
            wanted = " or ".join(known.value for known in self._wires)
            raise WireError(0, f"a client of the {wanted} wire, as configured", f"one of the {generation.value} wire")
        wire = self._wires[generation](self._inbox)
        self._chosen(wire)
        return wire.requests(count_max)

    def reply(self, request: Request, reply: msgspec.Struct | None) -> NoReturn:
        raise AssertionError("there was no request")

    def refuse(self, request: Request, status: Status) -> NoReturn:
        raise AssertionError("there was no request")
