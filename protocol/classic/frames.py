"""The frames of the classic wire (Iggy up to 0.8). Little-endian.

request   length u32 (code and body) | code u32 | body
reply     status u32 | length u32 (body) | body

A reply that says no has no body, and no reply's body has exactly one byte: clients don't read either.
"""

from struct import Struct

from ..errors import Status, WireError

HEAD_SIZE = 8
LENGTH_SIZE = 4
CODE_SIZE = 4
CONTROL_BODY_SIZE_MAX = 10 * 1024 * 1024
SEND_CODE = 101  # the one request that may be larger

_HEAD = Struct("<II")
_LENGTH = Struct("<I")


def measure(block: memoryview, start: int, end: int, size_max: int) -> int:
    """Return the size of the frame whose bytes lie from `start` to `end`, 0 when they are too few. Raises WireError."""
    if end - start < LENGTH_SIZE:
        return 0
    size = LENGTH_SIZE + _LENGTH.unpack_from(block, start)[0]
    if size > size_max:
        raise WireError(0, f"a frame of at most {size_max} bytes", str(size))
    if size > HEAD_SIZE + CONTROL_BODY_SIZE_MAX:
        if end - start < HEAD_SIZE:
            return 0
        code = code_of(block[start:end])
        if code != SEND_CODE:
            raise WireError(0, f"a body of at most {CONTROL_BODY_SIZE_MAX} bytes", f"{size - HEAD_SIZE} of {code}")
    return size


def code_of(frame: memoryview) -> int:
    """Return the code of the command that a frame asks, 0 when it is too short to have one."""
    return _HEAD.unpack_from(frame)[1] if len(frame) >= HEAD_SIZE else 0


def request_head(code: int, size: int) -> bytes:
    """Return what stands before a request's body of `size` bytes."""
    return _HEAD.pack(CODE_SIZE + size, code)


def reply_head(size: int, status: Status = Status.OK) -> bytes:
    """Return what stands before a reply's body of `size` bytes."""
    return _HEAD.pack(status, size)
