"""A WebSocket connection: the same bytes as over TCP, in binary messages.

A client sends each request as a message, but requests may also be spread over messages, or share one. Every answer is
one message. An HTTP request for `/` comes first and is answered by `websockets`, the frames by `frames`.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from ssl import SSLContext
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.frames import Close, CloseCode, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from .frames import BadFrame, Control, FrameReader, frame_control
from .tcp import Connect, TcpChannel
from .tls import FLUSH_SIZE, TlsChannel

log = logging.getLogger(__name__)

PATH = "/"
REQUEST_SIZE_MAX = 8 * 1024
RECEIVE_SIZE = 256 * 1024
# How long a peer that is told to go may take to hear it.
CLOSE_TIMEOUT_S = 1.0
_HEAD_END = b"\r\n\r\n"


def answer_upgrade(head: bytes) -> Response:
    """Return the response to the HTTP request `head`: 101 when the peer may go on in frames."""
    protocol = ServerProtocol()
    protocol.receive_data(head)
    request = next(iter(protocol.events_received()), None)
    if not isinstance(request, Request):
        return protocol.reject(HTTPStatus.BAD_REQUEST, "this is no HTTP request; here is a WebSocket server\n")
    if request.path.partition("?")[0] != PATH:
        return protocol.reject(HTTPStatus.NOT_FOUND, f"the path is {PATH}\n")
    return protocol.accept(request)


class WebSocketChannel(TcpChannel):
    """One WebSocket connection. Its bytes are received into a space that all channels share, and copied once."""

    def __init__(self, connect: Connect, space: memoryview, message_size_max: int, *below: Any) -> None:
        """below: what the class under this one takes besides `connect`."""
        super().__init__(connect, *below)
        self._shared_space = space
        self._message_size_max = message_size_max
        self._head: bytearray | None = bytearray()  # of the HTTP request, as far as it is here; then None
        self._reader: FrameReader | None = None  # from the upgrade on
        self._farewell = Close(CloseCode.GOING_AWAY, "").serialize()
        self._pong: bytes | None = None  # for when the peer reads again
        self._deaf = False  # what else arrives is dropped
        self._peer_ended = False
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire_space, self._wire_received = self._space, self._received
        self._space = self._any_space
        self._received = self._arrived

    def _any_space(self, _hint: int) -> memoryview:
        return self._shared_space

    def _arrived(self, count: int) -> None:
        data = self._shared_space[:count]
        if self._head is not None:
            data = self._upgrade(self._head, data)
        if self._reader is None or self._deaf:
            return
        try:
            for part in self._reader.feed(data):
                if isinstance(part, bytes):
                    self._take(part)
                else:
                    self._control(part)
                if self._deaf:
                    return
        except BadFrame as bad:
            log.warning("closed %s: %s", self.connection.session.address, bad)
            self._end(Close(bad.code, bad.reason).serialize())

    def eof_received(self) -> bool:
        self._peer_ended = True
        if self._closing:
            return False
        return super().eof_received()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pong is not None and not self._closing:
            self.write([frame_control(Opcode.PONG, self._pong)])
        self._pong = None

    def close(self) -> None:
        """Say goodbye. A peer that did not is heard to the end, or a reset would overtake what was sent to it."""
        if self._closing or self._lost:
            return
        self._closing = self._deaf = True
        transport = self._open()
        if self._reader is not None:
            self.write([frame_control(Opcode.CLOSE, self._farewell)])
        if self._peer_ended or transport.is_closing():
            super().close()
            return
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.abort)

    def _upgrade(self, head: bytearray, data: memoryview) -> memoryview:
        """Take bytes of the HTTP request; answer it once it is complete. Return what came behind it."""
        searched = max(0, len(head) + 1 - len(_HEAD_END))
        head += data
        end = head.find(_HEAD_END, searched)
        size = len(head) if end < 0 else end + len(_HEAD_END)
        if end < 0 and size <= REQUEST_SIZE_MAX and head[:1].isalpha():
            return data[:0]
        self._head = None
        if size > REQUEST_SIZE_MAX:
            response = ServerProtocol().reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "")
        else:
            response = answer_upgrade(bytes(head[:size]))
        self.write([response.serialize()])
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self._reader = FrameReader(self._message_size_max)
        else:
            log.warning("closed %s: answered HTTP %d", self.connection.session.address, response.status_code)
            self._end(b"")
        return memoryview(head)[size:]

    def _take(self, payload: bytes) -> None:
        """Copy payload to where the wire wants it."""
        left = memoryview(payload)
        while left:
            space = self._wire_space(len(left))
            count = min(len(left), len(space))
            space[:count] = left[:count]
            left = left[count:]
            self._wire_received(count)

    def _control(self, frame: Control) -> None:
        if frame.opcode == Opcode.PING:
            if self._drained is None:
                self.write([frame_control(Opcode.PONG, frame.payload)])
            else:  # a peer that pings and does not read must not fill the memory
                self._pong = frame.payload
        elif frame.opcode == Opcode.CLOSE:
            self._peer_ended = True
            self._end(_echo(frame.payload))

    def _end(self, farewell: bytes) -> None:
        """Read nothing more, answer what is complete, then close."""
        self._deaf = True
        self._farewell = farewell
        self.connection.ended()


def _echo(payload: bytes) -> bytes:
    """Return what a closing frame is answered with: its own code, unless that is not one to send."""
    try:
        Close.parse(payload)
    except (ProtocolError, UnicodeDecodeError):
        return Close(CloseCode.PROTOCOL_ERROR, "").serialize()
    return payload[:2]


class SecureWebSocketChannel(WebSocketChannel, TlsChannel):
    """One over TLS. below: the context, and where encrypted bytes are received."""


def websocket_channels(message_size_max: int, context: SSLContext | None) -> Callable[[Connect], TcpChannel]:
    """Return what makes the channels of a listener."""
    # What has arrived goes on to the wires before the loop receives for anybody else: all of it can use one place.
    space = memoryview(bytearray(RECEIVE_SIZE))
    if context is None:
        return lambda connect: WebSocketChannel(connect, space, message_size_max)
    arriving = memoryview(bytearray(FLUSH_SIZE))
    return lambda connect: SecureWebSocketChannel(connect, space, message_size_max, context, arriving)
