"""The load: one blocking socket that sends prebuilt frames and receives into one buffer.

It does so little - a send, a receive and one look at the reply's header - that the server is what is measured.
"""

import secrets
import socket
import struct
import time
from collections.abc import Callable

import msgspec

from ..protocol.model.users import Login
from ..protocol.vsr.frames import HEADER_SIZE
from .frames import POLL_OFFSET_FROM_END, frame_of

TIMEOUT_S = 10
REPLY_SIZE_MAX = 8 * 1024 * 1024
WARM_UP_REQUESTS = 5

_REPLY = struct.Struct("<48xI8xB155xI")  # size, command, status
_REPLY_COMMAND = 8
_U64 = struct.Struct("<Q")


class Load(msgspec.Struct, frozen=True):
    """One kind of request, over and over.

    reply_size: of every reply, its header included. ahead: how many requests are on their way besides the one that
    is waited for; 0 is lock-step. step: by how much a poll's offset grows with each request; a send has none.
    """

    frame: bytearray
    reply_size: int
    ahead: int = 0
    step: int = 0


class Done(msgspec.Struct, frozen=True):
    requests: int
    seconds: float


class Peer:
    """A connection. Nothing waits longer than TIMEOUT_S."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = secrets.token_bytes(16)
        self.session = 0
        self._requests = 0
        self._socket = socket.create_connection(("127.0.0.1", port))
        # The kernel's timeouts, because Python's own make the socket non-blocking and double its system calls.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", TIMEOUT_S, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reply = memoryview(bytearray(REPLY_SIZE_MAX))

    def close(self) -> None:
        self._socket.close()

    def login(self, username: str, password: str) -> None:
        reply = self.exchange(frame_of(Login(username, password, "benchmark/0.1.0"), client=self.client))
        self.session = _U64.unpack_from(reply, 4 + 4)[0]

    def ask(self, command: msgspec.Struct) -> bytes:
        """Ask a command; return the body of its reply."""
        self._requests += 1
        return self.exchange(self.frame_of(command))

    def frame_of(self, command: msgspec.Struct) -> bytearray:
        return frame_of(command, client=self.client, session=self.session, request=self._requests)

    def demand(self, command: msgspec.Struct) -> None:
        """Ask a command and leave its reply unread."""
        self._requests += 1
        self._socket.sendall(self.frame_of(command))

    def exchange(self, frame: bytearray) -> bytes:
        """Send a frame; return the body of its reply."""
        self._socket.sendall(frame)
        self._receive(0, HEADER_SIZE)
        size, command, status = _REPLY.unpack_from(self._reply)
        if command != _REPLY_COMMAND or status:
            raise RuntimeError(f"status {status}, reply command {command}")
        self._receive(HEADER_SIZE, size)
        return bytes(self._reply[HEADER_SIZE:size])

    def run(self, load: Load, *, seconds: float, replies_max: int = 0) -> Done:
        """Send a load for some time. replies_max: after how many polls to begin at offset 0 again."""
        turn = self.turn(load, replies_max)
        for _ in range(WARM_UP_REQUESTS):
            turn()
        for _ in range(load.ahead):
            self._socket.sendall(load.frame)
        start = time.perf_counter()
        deadline, requests = start + seconds, 0
        while time.perf_counter() < deadline:
            turn()
            requests += 1
        elapsed = time.perf_counter() - start
        for _ in range(load.ahead):
            self._receive(0, load.reply_size)
        return Done(requests, elapsed)

    def turn(self, load: Load, replies_max: int = 0) -> Callable[[], None]:
        """Return what sends one more request and receives one reply. replies_max: as of `run`."""
        send, receive, reply = self._socket.sendall, self._socket.recv_into, self._reply
        frame, size, step = load.frame, load.reply_size, load.step
        at, end, offset = len(frame) - POLL_OFFSET_FROM_END, (replies_max or 1) * step, 0

        def turn() -> None:
            nonlocal offset
            if step:
                _U64.pack_into(frame, at, offset)
                offset = (offset + step) % end
            send(frame)
            received = receive(reply, size, socket.MSG_WAITALL)
            if received != size or _REPLY.unpack_from(reply) != (size, _REPLY_COMMAND, 0):
                raise RuntimeError(f"{received} of {size} bytes: {bytes(reply[: min(received, HEADER_SIZE)]).hex()}")

        return turn

    def _receive(self, start: int, end: int) -> None:
        """Receive the bytes of the reply from `start` to `end`."""
        while start < end:
            count = self._socket.recv_into(self._reply[start:end])
            if not count:
                raise ConnectionError(f"closed after {start} of {end} bytes")
            start += count
