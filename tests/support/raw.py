"""A bare vsr client over a blocking socket: for what the real client would never send."""

import socket
import ssl
import struct
import uuid
from typing import Any, NamedTuple

from msgspec import Struct
from pybroker.protocol.batch import FRAME_HEADER_SIZE, read_header, verify
from pybroker.protocol.batch import HEADER_SIZE as BATCH_HEADER_SIZE
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.model.messages import Polled, PollMessages
from pybroker.protocol.primitives import Consumer, ConsumerKind, PollingKind, PollingStrategy
from pybroker.protocol.vsr import client as vsr
from pybroker.protocol.vsr.overrides import CODECS

from .batches import split_records

HEADER_SIZE = 256
REQUEST, REPLY, EVICTION = 5, 8, 13
REGISTER, NON_REPLICATED, LOGOUT = 1, 2, 3
VERSION = 0x2C00  # 0.11.0
POLL_COUNT = 10_000

_FRAME = struct.Struct("<QQQIIII")  # checksum, id in two halves, deltas of offset and time, sizes of headers, payload
_FRAMED = frozenset({*range(128, 150), 161, 162} - {138})


class Answer(NamedTuple):
    """kind: REPLY or EVICTION. status: of the header or the result section. body: without that section."""

    kind: int
    status: int
    body: bytes
    reason: int
    operation: int
    header: bytes


def request_frame(
    body: bytes = b"",
    *,
    operation: int = NON_REPLICATED,
    code: int = 0,
    session: int = 0,
    request: int = 1,
    client: int = 1,
    checksum: int = 0,
    size: int | None = None,
    command: int = REQUEST,
) -> bytes:
    """Build a request; `size` lies about the frame's size."""
    header = bytearray(HEADER_SIZE)
    struct.pack_into("<I", header, 48, HEADER_SIZE + len(body) if size is None else size)
    header[60] = command
    header[128:144] = client.to_bytes(16, "little")
    struct.pack_into("<Q", header, 144, checksum)
    struct.pack_into("<QB", header, 168, request, operation)
    struct.pack_into("<Q", header, 184, session)
    struct.pack_into("<I", header, 196, code)
    return bytes(header) + body


def login_body(username: str = "iggy", password: str = "iggy", *, version: int = VERSION) -> bytes:
    parts = [struct.pack("<I", version)]
    parts += [bytes([len(text)]) + text.encode() for text in ("rust-sdk", "0.11.0", username, password)]
    return b"".join(parts) + bytes(4)


class RawClient:
    """One connection. Every method waits at most `timeout_s`. tls: with which to speak TLS, to "localhost"."""

    def __init__(self, port: int, timeout_s: float = 10.0, *, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost", suppress_ragged_eofs=False)
        self.client = uuid.uuid4().int
        self.session = 0
        self.request = 0

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exchange(self, frame: bytes) -> Answer:
        self.socket.sendall(frame)
        return self.receive()

    def receive(self) -> Answer:
        """Read one frame. Raises ConnectionError when the server closes."""
        header = self._exactly(HEADER_SIZE)
        size = struct.unpack_from("<I", header, 48)[0]
        body = self._exactly(size - HEADER_SIZE)
        operation, status = header[208], struct.unpack_from("<I", header, 216)[0]
        if header[60] == REPLY and status == 0 and (operation in _FRAMED or (operation == REGISTER and body)):
            count = struct.unpack_from("<I", body)[0]
            status, body = (struct.unpack_from("<I", body, 8)[0], b"") if count else (0, body[4:])
        return Answer(header[60], status, body, header[255], operation, header)

    def login(self, username: str = "iggy", password: str = "iggy") -> Answer:
        answer = self.exchange(
            request_frame(login_body(username, password), operation=REGISTER, client=self.client, request=0)
        )
        if answer.kind == REPLY:
            self.session = struct.unpack_from("<Q", answer.body, 4)[0]
        return answer

    def frame_of(self, command: Struct) -> bytes:
        """Build the frame that asks `command` in this session."""
        if BY_REQUEST[type(command)].operation is not None:
            self.request += 1
        client = self.client.to_bytes(16, "little")
        return b"".join(vsr.frame_of(command, client=client, session=self.session, number=self.request or 1))

    def ask(self, command: Struct) -> Any:
        """Ask a command; return its decoded reply, None for an empty one, or the whole Answer if it failed."""
        answer = self.exchange(self.frame_of(command))
        row = BY_REQUEST[type(command)]
        if answer.kind != REPLY or answer.status:
            return answer
        return CODECS[row.reply].decode(memoryview(answer.body)) if row.reply and answer.body else None

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError(f"closed after {len(data)} of {size} bytes")
            data += part
        return bytes(data)


class Stored(NamedTuple):
    """A message as a poll returns it, its checksum and its batch's recomputed."""

    offset: int
    id: int
    payload: bytes
    checksum: int
    timestamp_us: int


def read_log(client: RawClient, stream: str | int, topic: str | int, partition_id: int = 0) -> list[Stored]:
    """Poll a partition from its first message to its end. Raises BadBatch where a checksum is wrong."""
    consumer = Consumer(ConsumerKind.SINGLE, 0)
    found: list[Stored] = []
    while True:
        strategy = PollingStrategy(PollingKind.OFFSET, found[-1].offset + 1 if found else 0)
        polled = client.ask(PollMessages(consumer, stream, topic, partition_id, strategy, POLL_COUNT, False))
        if not isinstance(polled, Polled):
            raise AssertionError(f"poll of {topic}/{partition_id} failed: {polled}")
        if not polled.messages_count:
            return found
        found += messages_of(polled)


def messages_of(polled: Polled) -> list[Stored]:
    """Return the messages of a poll; every record is verified."""
    found: list[Stored] = []
    for record in split_records([memoryview(buffer) for buffer in polled.records]):
        header = read_header(record)
        position = BATCH_HEADER_SIZE
        for _ in range(verify(record).count):
            checksum, low, high, delta, _, headers_size, size = _FRAME.unpack_from(record, position)
            start = position + FRAME_HEADER_SIZE
            payload = bytes(record[start : start + size])
            offset = header.base_offset + delta
            found.append(Stored(offset, high << 64 | low, payload, checksum, header.base_timestamp_us))
            position = start + size + headers_size
    assert len(found) == polled.messages_count
    return found
