"""Messages of Iggy 0.6 and older, which lack two things: a head's reserved bytes, and kinds of user header keys.

They are converted to messages as 0.7 and 0.8 have them (see `convert`) and from these back: such clients are rare.
A send shows which kind its client has. One that only polls is guessed at (`Guess`).

head     as in `convert`, without its last 8 bytes
headers  pairs of key and value: key size u32 | key | value kind u8 | value size u32 | value
since    a kind stands before each key's size, too; keys of these clients are strings
"""

from collections.abc import Iterator, Sequence
from struct import Struct as Layout
from struct import error

from msgspec import Struct
from xxhash import xxh3_64_intdigest

from ..batch import BadBatch, Buffer
from ..errors import Status
from ..model.messages import PollMessages
from ..model.system import Ping
from ..model.users import Login
from ..primitives import ValueKind

HEAD_SIZE = 56
_NEW_HEAD_SIZE = 64

_ENTRY = Layout("<IIQ")
_HEAD = Layout("<48sII")  # what stays as it is, sizes of headers and payload
_RESERVED = bytes(_NEW_HEAD_SIZE - HEAD_SIZE)
_SIZE = Layout("<I")
_U64 = Layout("<Q")
_OLD_MINOR_MAX = 8
_FIRST_COMMANDS = 4  # after a sign-in, a look at the cluster, and one that overtook the ping
_STRING = bytes([ValueKind.STRING])


class Guess:
    """Tells the messages of a client that has sent none, by what it asks before its first poll.

    Clients name their SDK's version when they sign in, but 0.8 is an old one of Rust, which Python's is made of, and a
    new one of Go and of C#. Rust's pings as soon as it is connected, Go's after 5 s; C#'s names itself. One of Rust's
    that connects again and polls at once can't be told from Go's: it is taken for new.
    """

    def __init__(self) -> None:
        self._version = ""
        self._has_pinged = False
        self._commands_count = 0

    def learn(self, command: Struct) -> int | None:
        """Take note of a command; return the size of its client's heads when that can be told."""
        self._commands_count += 1
        match command:
            case Ping() if self._commands_count <= _FIRST_COMMANDS:
                self._has_pinged = True
            case Login():
                self._version = "" if command.context else command.version
            case PollMessages():
                return HEAD_SIZE if self._has_pinged and _is_old(self._version) else _NEW_HEAD_SIZE
            case _:
                pass
        return None


def _is_old(version: str) -> bool:
    """Tell the versions of Rust's SDK up to 0.8, which Python 0.6 is made of."""
    parts = version.split(".")[:2]
    return len(parts) == 2 and parts[0] == "0" and parts[1].isdecimal() and int(parts[1]) <= _OLD_MINOR_MAX


def renewed(messages: memoryview, entries: memoryview) -> tuple[memoryview, memoryview]:
    """Convert sent messages and their index to those of 0.8. Raises BadBatch; its position is of `messages`."""
    parts: list[Buffer] = []
    ends: list[bytes] = []
    start = size = 0
    for zero, end, zeros in _ENTRY.iter_unpack(entries):
        if not start + HEAD_SIZE <= end <= len(messages):
            raise BadBatch(start, f"a message that ends at {end}", Status.TOO_SMALL_MESSAGE)
        front, headers_size, payload_size = _HEAD.unpack_from(messages, start)
        if end - start != HEAD_SIZE + headers_size + payload_size:
            raise BadBatch(start, f"a message of {end - start} bytes", Status.INVALID_MESSAGES_SIZE)
        payload = messages[start + HEAD_SIZE : end - headers_size]
        headers = _renewed_headers(messages[end - headers_size : end], end - headers_size)
        parts += (_HEAD.pack(front, len(headers), payload_size), _RESERVED, payload, headers)
        size += _NEW_HEAD_SIZE + payload_size + len(headers)
        ends.append(_ENTRY.pack(zero, size, zeros))
        start = end
    parts.append(messages[start:])  # what is too much stays too much
    return memoryview(b"".join(parts)), memoryview(b"".join(ends))


def aged(messages: Sequence[Buffer]) -> list[Buffer]:
    """Convert messages of a poll to those of 0.6. User headers that such a client can't know are left out."""
    data = memoryview(b"".join(messages))
    parts: list[Buffer] = []
    position = 0
    while position < len(data):
        front, headers_size, payload_size = _HEAD.unpack_from(data, position)
        start = position + _NEW_HEAD_SIZE
        position = start + payload_size + headers_size
        headers = _aged_headers(data[start + payload_size : position])
        head = _HEAD.pack(front, len(headers), payload_size)
        message = b"".join((head[8:], data[start : start + payload_size], headers))
        parts += (_U64.pack(xxh3_64_intdigest(message)), message)
    return [b"".join(parts)]


def _renewed_headers(headers: memoryview, position: int) -> bytes:
    """Give the keys of `headers` the kind they have now. Raises BadBatch."""
    parts: list[Buffer] = []
    start = 0
    try:
        while start < len(headers):
            key_end = _part_end(headers, start)
            value_end = _part_end(headers, key_end + 1)
            parts += (_STRING, headers[start:value_end])
            start = value_end
    except (error, IndexError):
        raise BadBatch(position + start, "user headers", Status.CANNOT_READ_HEADERS_PAYLOAD) from None
    return b"".join(parts)


def _aged_headers(headers: memoryview) -> bytes:
    """Leave out what 0.6 has no bytes for: keys that are no strings, and all of it where it makes no sense."""
    try:
        return b"".join(_aged_pairs(headers))
    except (error, IndexError):
        return b""


def _aged_pairs(headers: memoryview) -> Iterator[memoryview]:
    start = 0
    while start < len(headers):
        key_end = _part_end(headers, start + 1)
        value_end = _part_end(headers, key_end + 1)
        if headers[start] == ValueKind.STRING:
            yield headers[start + 1 : value_end]
        start = value_end


def _part_end(headers: memoryview, start: int) -> int:
    """Return where the sized bytes end that start at `start`. Raises IndexError where they aren't all there."""
    end = start + _SIZE.size + _SIZE.unpack_from(headers, start)[0]
    if end > len(headers):
        raise IndexError(end)
    return end
