"""WebSocket frames, RFC 6455 section 5, as a server reads and writes them.

Payload is handed on as it arrives and not once its message is whole: a wire has its own buffer and its own limits, so
what a peer leaves unfinished is counted in one place for every transport. Where messages begin and end means nothing.

     0         1         2              2, 4 or 10     + 4
    ┌─────────┬─────────┬──────────────┬──────────────┬─────────
    │ flags,  │ masked, │ size, if the │ mask, from a │ payload
    │ opcode  │ size    │ byte has 126 │ client only  │
    │         │         │ (u16) or 127 │              │
    │         │         │ (u64)        │              │
    └─────────┴─────────┴──────────────┴──────────────┴─────────
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from websockets.frames import CloseCode, Opcode

from ...protocol.batch import Buffer

try:
    from websockets.speedups import apply_mask
except ImportError:  # a build without its C part: the same, at a seventh of the speed or less
    from websockets.utils import apply_mask

# The Iggy client takes messages of 64 MiB, but no frame over this.
FRAME_SIZE_MAX = 16 * 1024 * 1024

_FINAL = 0x80
_RESERVED = 0x70
_OPCODE = 0x0F
_MASKED = 0x80
_SIZE = 0x7F
# Plain numbers: comparing with an IntEnum costs 0.1 us each time.
_CONT, _TEXT, _BINARY = map(int, (Opcode.CONT, Opcode.TEXT, Opcode.BINARY))
_CONTROL = 0x08
_CONTROLS = frozenset(map(int, (Opcode.CLOSE, Opcode.PING, Opcode.PONG)))
_CONTROL_SIZE_MAX = 125
_SHORT_HEAD_SIZE = 2
_MASK_SIZE = 4
_U16, _U64 = 126, 127
_EXTENDED = {_U16: Struct(">H"), _U64: Struct(">Q")}
_HEAD = Struct(">BB")
_HEAD_U16 = Struct(">BBH")
_HEAD_U64 = Struct(">BBQ")


class BadFrame(Exception):
    """The peer sent what it must not; `code` is what the closing frame tells it."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Control(NamedTuple):
    """A ping, a pong or a close, whole."""

    opcode: int
    payload: bytes


class FrameReader:
    """Takes a client's bytes apart. `message_size_max`: bytes of a message, all its fragments together."""

    def __init__(self, message_size_max: int) -> None:
        self._message_size_max = message_size_max
        self._message_size = 0  # so far
        self._in_message = False  # the next data frame goes on with the last one's message
        self._left = 0  # bytes of the frame's payload that have not arrived
        self._mask = b""  # turned to the next byte of the payload
        self._rest = b""  # of a head or a control frame that is not complete

    def feed(self, data: memoryview) -> Iterator[bytes | Control]:
        """Yield the payload of messages, in pieces, and control frames as they come. Raises BadFrame.

        data: any number of bytes; copied. After BadFrame there is no going on.
        """
        if self._rest:
            data = memoryview(self._rest + data)
        position = 0
        while position < len(data):
            if self._left:
                payload = data[position : position + self._left]
                position += len(payload)
                yield self._unmask(payload)
                continue
            head = self._head(data, position)
            if head is None:
                break
            opcode, size, start = head
            if not opcode & _CONTROL:
                self._begin(data[position], size, data[start - _MASK_SIZE : start])
                position = start
                continue
            if len(data) < start + size:
                break
            position = start + size
            yield Control(opcode, apply_mask(data[start:position], bytes(data[start - _MASK_SIZE : start])))
        self._rest = bytes(data[position:])

    def _head(self, data: memoryview, position: int) -> tuple[int, int, int] | None:
        """Return opcode, size and position of the payload, None while the head is not complete."""
        if len(data) < position + _SHORT_HEAD_SIZE:
            return None
        flags, size = data[position], data[position + 1]
        self._check(flags, size)
        size &= _SIZE
        start = position + _SHORT_HEAD_SIZE + _MASK_SIZE
        extended = _EXTENDED.get(size)
        if extended is not None:
            start += extended.size
        if len(data) < start:
            return None
        if extended is not None:
            (size,) = extended.unpack_from(data, position + _SHORT_HEAD_SIZE)
        return flags & _OPCODE, size, start

    def _check(self, flags: int, size: int) -> None:
        """Look at the first two bytes of a frame. Raises BadFrame."""
        opcode = flags & _OPCODE
        if not size & _MASKED:
            raise BadFrame(CloseCode.PROTOCOL_ERROR, "a client's frames must be masked")
        if flags & _RESERVED:
            raise BadFrame(CloseCode.PROTOCOL_ERROR, "no extension was agreed on")
        if opcode == _TEXT:
            raise BadFrame(CloseCode.UNSUPPORTED_DATA, "requests are binary messages, not text")
        if opcode in _CONTROLS:
            if not flags & _FINAL or size & _SIZE > _CONTROL_SIZE_MAX:
                raise BadFrame(CloseCode.PROTOCOL_ERROR, f"a control frame has at most {_CONTROL_SIZE_MAX} bytes")
        elif opcode != (_CONT if self._in_message else _BINARY):
            raise BadFrame(CloseCode.PROTOCOL_ERROR, f"a frame of kind {opcode} has no place here")

    def _begin(self, flags: int, size: int, mask: memoryview) -> None:
        self._message_size = self._message_size + size if self._in_message else size
        if self._message_size > self._message_size_max:
            what = f"a message has at most {self._message_size_max} bytes, this one {self._message_size}"
            raise BadFrame(CloseCode.MESSAGE_TOO_BIG, what)
        self._in_message = not flags & _FINAL
        self._left = size
        self._mask = bytes(mask)

    def _unmask(self, payload: memoryview) -> bytes:
        mask = self._mask
        self._left -= len(payload)
        turn = len(payload) % _MASK_SIZE
        self._mask = mask[turn:] + mask[:turn]
        return apply_mask(payload, mask)


def frame_message(buffers: list[Buffer]) -> list[Buffer]:
    """Return `buffers` as one message, in fragments where it is larger than FRAME_SIZE_MAX. No payload is copied."""
    size = sum(map(len, buffers))
    if size <= FRAME_SIZE_MAX:
        return [_frame_head(_FINAL | _BINARY, size), *buffers]
    framed: list[Buffer] = []
    opcode, room = _BINARY, 0
    for buffer in map(memoryview, buffers):
        while len(buffer):
            if not room:
                room = min(FRAME_SIZE_MAX, size)
                size -= room
                framed.append(_frame_head(opcode if size else _FINAL | opcode, room))
                opcode = _CONT
            framed.append(buffer[:room])
            taken = len(framed[-1])
            buffer = buffer[taken:]  # noqa: PLW2901 - what is left of it
            room -= taken
    return framed


def frame_control(opcode: Opcode, payload: bytes) -> bytes:
    """Return a ping, a pong or a close."""
    return _frame_head(_FINAL | int(opcode), len(payload)) + payload


def _frame_head(flags: int, size: int) -> bytes:
    if size < _U16:
        return _HEAD.pack(flags, size)
    if size < 1 << 16:
        return _HEAD_U16.pack(flags, _U16, size)
    return _HEAD_U64.pack(flags, _U64, size)
