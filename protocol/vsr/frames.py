"""The three 256-byte headers of the vsr wire (Iggy 0.9, protocol 0.11). Little-endian; the rest is zeros.

all       48 size u32 (header + body) | 60 command u8: 5 request, 8 reply, 13 eviction
request   32 cluster 16 | 128 client 16 | 144 body checksum 16 | 168 request u64 | 176 operation u8
          184 session u64 | 196 command code u32, of operation 2 only
reply     32 cluster 16 | 128 body checksum 16 and 160 client 16, as asked | 176 session u64 | 184 commit u64
          200 request u64 and 208 operation u8, as asked | 216 status u32
eviction  128 client 16 | 144 newest and 148 oldest protocol version u32, for reason 14 | 255 reason u8
"""

from enum import IntEnum
from struct import Struct

import msgspec
from xxhash import xxh3_64_intdigest

from ..errors import WireError

HEADER_SIZE = 256
SIZE_END = 52  # bytes after which a frame's size is known

REGISTER = 1
NON_REPLICATED = 2
LOGOUT = 3
OPERATIONS = frozenset({REGISTER, NON_REPLICATED, LOGOUT, *range(128, 150), 160, 161, 162})
# Replies to these begin with a result section: count u32, then index u32 and code u32 for each failure.
FRAMED = frozenset({*range(128, 150), 161, 162} - {138})
# Answered from the session's table when they come twice.
DEDUPLICATED = frozenset(range(128, 150))

_REQUEST = Struct("<32x16sI8xB67x16sQ16xQB7xQ4xI56x")
_REPLY = Struct("<32x16sI8xB67x16s16x16sQQ8xQB7xI36x")
_EVICTION = Struct("<48xI8xB67x16sII103xB")
_START = Struct("<Q40xI")
REQUEST_COMMAND = 5
REPLY_COMMAND = 8
EVICTION_COMMAND = 13
_NOBODY = bytes(16)


class Reason(IntEnum):
    """Why a peer is evicted."""

    NO_SESSION = 1
    SESSION_TOO_LOW = 7
    INVALID_CREDENTIALS = 9
    INVALID_TOKEN = 10
    USER_INACTIVE = 11
    STALE_CLIENT = 13
    INCOMPATIBLE_VERSION = 14
    INVALID_FORMAT = 15


class RequestHeader(msgspec.Struct, gc=False):
    """checksum: XXH3-64 of the body, 0 when the client made none; only its first half is ever used."""

    cluster: bytes
    size: int
    command: int
    client: bytes
    checksum: int
    request: int
    operation: int
    session: int
    code: int


def measure(block: memoryview, start: int, end: int, size_max: int) -> int:
    """Return the size of the frame whose bytes lie from `start` to `end`, 0 when they are too few. Raises WireError."""
    # The first 16 bytes are a checksum that no client makes: anything there is another protocol, and waiting
    # for the rest of a header would leave that peer hanging.
    if end - start >= SIZE_END:
        zeros, size = _START.unpack_from(block, start)
        if HEADER_SIZE <= size <= size_max and not zeros:
            return size
    else:
        zeros, size = any(block[start : min(start + 8, end)]), 0
    if zeros:
        head = block[start : min(start + 8, end)]
        raise WireError(0, "a vsr header, which begins with zeros", head.hex(" "))
    if end - start >= SIZE_END:
        raise WireError(48, f"a frame of {HEADER_SIZE} to {size_max} bytes", str(size))
    return 0


def read_request(frame: memoryview) -> RequestHeader:
    """Read a request's header. Raises WireError for one that no client may send."""
    header = RequestHeader(*_REQUEST.unpack_from(frame))
    if header.command != REQUEST_COMMAND:
        raise WireError(60, f"command {REQUEST_COMMAND}, a request", str(header.command))
    if header.operation not in OPERATIONS:
        raise WireError(176, "an operation", str(header.operation))
    if header.client == _NOBODY:
        raise WireError(128, "a client id", "0")
    return header


class ReplyHeader(msgspec.Struct, gc=False):
    """What a client looks at. operation: may be another than the request's, and says how the body is laid out."""

    size: int
    command: int
    request: int
    operation: int
    status: int


def read_reply(frame: memoryview) -> ReplyHeader:
    """Read the header of a reply; of an eviction, only size and command mean anything."""
    _, size, command, _, _, _, _, request, operation, status = _REPLY.unpack_from(frame)
    return ReplyHeader(size, command, request, operation, status)


def read_eviction(frame: memoryview) -> int:
    """Return the reason's number, which may be none of ours."""
    return _EVICTION.unpack_from(frame)[5]


def request_header(
    *, size: int, client: bytes, request: int, operation: int, session: int = 0, code: int = 0, checksum: int = 0
) -> bytes:
    """Return the header of a request whose body has `size` bytes. client: 16 bytes, not zeros."""
    return _REQUEST.pack(
        _NOBODY, HEADER_SIZE + size, REQUEST_COMMAND, client, checksum, request, operation, session, code
    )


def body_checksum_holds(header: RequestHeader, body: memoryview) -> bool:
    return not header.checksum or header.checksum == xxh3_64_intdigest(body)


def reply_header(asked: RequestHeader, size: int, session: int, commit: int, status: int = 0) -> bytes:
    """Return the header of a reply whose body has `size` bytes."""
    return _REPLY.pack(
        asked.cluster,
        HEADER_SIZE + size,
        REPLY_COMMAND,
        asked.checksum.to_bytes(16, "little") if asked.checksum else _NOBODY,
        asked.client,
        session,
        commit,
        asked.request,
        asked.operation,
        status,
    )


def eviction(asked: RequestHeader, reason: Reason, *, newest: int = 0, oldest: int = 0) -> bytes:
    """Return a whole eviction frame. The versions (packed) go with INCOMPATIBLE_VERSION only."""
    return _EVICTION.pack(HEADER_SIZE, EVICTION_COMMAND, asked.client, newest, oldest, reason)
