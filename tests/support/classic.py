"""The classic wire by hand: messages as bytes, and a bare client over a blocking socket."""

import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from pybroker.protocol.batch import Batch, Buffer, stamp, verify
from pybroker.protocol.classic.overrides import CODECS
from pybroker.protocol.classic.wire import ClassicWire
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.errors import Status
from pybroker.protocol.inbox import Inbox, Pool
from pybroker.protocol.model.messages import Polled, PollMessages, SendMessages
from pybroker.protocol.model.users import Login
from pybroker.protocol.primitives import Consumer, ConsumerKind, PollingKind, PollingStrategy
from pybroker.protocol.wire import Request, Wire
from xxhash import xxh3_64_intdigest

HEAD_SIZE, OLD_HEAD_SIZE = 64, 56
SEND = 101
FRAME_SIZE_MAX = 16 << 20
SINGLE = Consumer(ConsumerKind.SINGLE, 1)
POLL_ONCE = PollMessages(SINGLE, "s", "t", None, PollingStrategy(PollingKind.NEXT), 10, True)


class Message(NamedTuple):
    """A message as the wire has it. The server gives checksum, offset and timestamp, and an id where there is none."""

    payload: bytes
    id: int = 0
    offset: int = 0
    timestamp_us: int = 0
    origin_us: int = 0
    headers: bytes = b""


def polled_bytes(message: Message, head_size: int = HEAD_SIZE) -> bytes:
    """Return a message as a poll has it, with its checksum."""
    rest = _rest(message, head_size)
    return struct.pack("<Q", xxh3_64_intdigest(rest)) + rest


def sent_bytes(message: Message, head_size: int = HEAD_SIZE) -> bytes:
    """Return a message as a client sends it: without a checksum."""
    return bytes(8) + _rest(message, head_size)


def _rest(message: Message, head_size: int) -> bytes:
    sizes = (len(message.headers), len(message.payload))
    times = (message.offset, message.timestamp_us, message.origin_us)
    head = message.id.to_bytes(16, "little") + struct.pack("<QQQII", *times, *sizes)
    return head + bytes(head_size - OLD_HEAD_SIZE) + message.payload + message.headers


def index_of(messages: Sequence[bytes]) -> bytes:
    """Return the index that stands before sent messages."""
    ends = [sum(map(len, messages[: count + 1])) for count in range(len(messages))]
    return b"".join(struct.pack("<IIQ", 0, end, 0) for end in ends)


def send_body(messages: Sequence[bytes], *, stream: int = 0, topic: int = 0, partition_id: int = 0) -> bytes:
    """Return the body of a send to a partition."""
    target = struct.pack("<BBIBBIBBI", 1, 4, stream, 1, 4, topic, 2, 4, partition_id)
    metadata = target + struct.pack("<I", len(messages))
    return struct.pack("<I", len(metadata)) + metadata + index_of(messages) + b"".join(messages)


def messages_of(body: bytes, head_size: int = HEAD_SIZE) -> list[Message]:
    """Return the messages of a poll's body, whose count, ends and checksums have to be right."""
    _, _, count = struct.unpack_from("<IQI", body)
    found: list[Message] = []
    position = 16
    while position < len(body):
        checksum, low, high, offset, timestamp_us, origin_us, headers_size, payload_size = struct.unpack_from(
            "<QQQQQQII", body, position
        )
        start = position + head_size
        end = start + payload_size + headers_size
        assert end <= len(body)
        assert checksum == xxh3_64_intdigest(body[position + 8 : end])
        assert not any(body[position + OLD_HEAD_SIZE : start])
        payload, headers = body[start : start + payload_size], body[start + payload_size : end]
        found.append(Message(payload, high << 64 | low, offset, timestamp_us, origin_us, headers))
        position = end
    assert len(found) == count
    return found


def make_wire() -> ClassicWire:
    return ClassicWire(Inbox(Pool()), frame_size_max=FRAME_SIZE_MAX, random_bytes=os.urandom)


def request_frame(code: int, body: bytes = b"") -> bytes:
    return struct.pack("<II", 4 + len(body), code) + body


def frame_of(command: Struct) -> bytes:
    return request_frame(BY_REQUEST[type(command)].code, bytes(CODECS[type(command)].encode(command)))


class ClassicClient:
    """One connection. Every method waits at most `timeout_s`."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)

    def __enter__(self) -> "ClassicClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def exchange(self, code: int, body: bytes = b"") -> tuple[int, bytes]:
        """Ask; return status and body."""
        self.socket.sendall(request_frame(code, body))
        return self.receive()

    def receive(self) -> tuple[int, bytes]:
        """Read one answer. Raises ConnectionError when the server closes."""
        status, size = struct.unpack("<II", self._exactly(8))
        return status, self._exactly(size)

    def ask(self, command: Struct) -> Any:
        """Ask a command; return its decoded reply, None for an empty one, or the Status if it failed."""
        row = BY_REQUEST[type(command)]
        status, body = self.exchange(row.code, bytes(CODECS[row.request].encode(command)))
        if status:
            assert not body
            return Status(status)
        return CODECS[row.reply].decode(memoryview(body)) if row.reply and body else None

    def login(self, username: str = "iggy", password: str = "iggy") -> None:
        reply = self.ask(Login(username, password, "0.10.0"))
        assert not isinstance(reply, Status), reply

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError(f"closed after {len(data)} of {size} bytes")
            data += part
        return bytes(data)


def feed(wire: Wire, data: bytes) -> None:
    position = 0
    while position < len(data):
        space = wire.space(0)
        count = min(len(space), len(data) - position)
        space[:count] = data[position : position + count]
        wire.filled(count)
        position += count


def receive(wire: Wire, *chunks: bytes) -> list[Request]:
    """Feed chunks one by one; return what comes of them. Messages of sends are in memory of their own."""
    found: list[Request] = []
    for chunk in chunks:
        feed(wire, chunk)
        while taken := list(wire.requests(3)):
            found += taken
    return found


def answer(buffers: list[Buffer]) -> tuple[int, bytes]:
    """Return status and body, which has to be as long as it is said."""
    data = b"".join(buffers)
    status, size = struct.unpack_from("<II", data)
    assert len(data) == 8 + size
    return status, data[8:]


def poll_answer(wire: ClassicWire, reply: Polled) -> bytes:
    status, body = answer(wire.reply(Request(POLL_ONCE, None), reply))
    assert status == 0
    return body


def make_sound(command: SendMessages) -> Batch:
    """Do what a log does with a send, and verify all of it."""
    stamp(command.batch, base_offset=0, base_timestamp_us=0)
    return verify(command.batch.record)
