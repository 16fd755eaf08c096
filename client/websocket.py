"""WebSocket: the same bytes as over TCP, every request a binary message. The one module that knows `websockets`."""

import asyncio

from websockets.client import ClientProtocol
from websockets.frames import Frame as Part
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.protocol import Event
from websockets.uri import parse_uri

from .connection import Connection, Frame
from .errors import ConnectError, ConnectionLost
from .tcp import SocketLink

_DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)


class WebSocketLink(SocketLink, asyncio.Protocol):
    """A socket, plain or under TLS. address: "host:port", for the handshake."""

    def __init__(self, connection: Connection, address: str) -> None:
        super().__init__(connection)
        self._protocol = ClientProtocol(parse_uri(f"ws://{address}/"), max_size=None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connection.made(self)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            self._take(event)
        if (error := self._protocol.handshake_exc or self._protocol.parser_exc) is not None:
            self._connection.close(ConnectError(f"nobody there speaks WebSocket: {error}"))
            self.abort()
        else:
            self._flush()

    def send(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._protocol.send_binary(b"".join(frame))
        self._flush()

    def _take(self, event: Event) -> None:
        if isinstance(event, Response):
            if self._protocol.handshake_exc is None:
                self._connection.begin()
        elif isinstance(event, Part) and event.opcode in _DATA:
            self._connection.take(bytes(event.data))
        elif isinstance(event, Part) and event.opcode is Opcode.CLOSE:
            self._connection.close(ConnectionLost("the server closed the connection"))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
