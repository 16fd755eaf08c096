"""QUIC: every request on a stream of its own. The one module that knows aioquic.

There is one request on its way at a time, as with Iggy's client: streams overtake each other, and a server takes a
command whose number is lower than one that it has had for a repeated one.
"""

import asyncio
import socket
import ssl

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived, StreamReset

from .connection import Connection, Frame
from .errors import ConnectionLost
from .url import Target

IDLE_TIMEOUT_S = 30.0
WINDOW_SIZE = 16 * 1024 * 1024  # what the server may send at first; aioquic grants more as it comes


class QuicLink(QuicConnectionProtocol):
    """One connection, over a socket that is its own."""

    in_flight_max = 1

    def __init__(self, connection: Connection, quic: QuicConnection) -> None:
        super().__init__(quic)  # pyright: ignore[reportUnknownMemberType]
        self._connection = connection
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connection.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.broken(exc)

    def error_received(self, exc: Exception) -> None:
        self._connection.close(ConnectionLost(f"the connection broke: {exc}"))

    def quic_event_received(self, event: QuicEvent) -> None:
        match event:
            case HandshakeCompleted():
                self._connection.begin()
            case StreamDataReceived():
                self._connection.take(event.data)
            case StreamReset():
                self._connection.close(ConnectionLost("the server reset a stream"))
            case ConnectionTerminated():
                why = event.reason_phrase or f"QUIC error {event.error_code:#x}"
                self._connection.close(ConnectionLost(f"the connection ended: {why}"))
            case _:
                pass

    def send(self, frames: list[Frame]) -> None:
        for frame in frames:
            stream_id = self._quic.get_next_available_stream_id()
            self._quic.send_stream_data(stream_id, b"".join(frame), end_stream=True)
        self.transmit()

    def transmit(self) -> None:
        """Send what is to be sent, unless the socket is closed: aioquic's timers outlive it."""
        if not self._is_closed:
            super().transmit()

    def abort(self) -> None:
        if self._is_closed or self._transport is None:
            return
        self._quic.close()
        self.transmit()
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()


async def dial_quic(connection: Connection, target: Target) -> None:
    """Begin to connect. Raises OSError; the rest is told to the connection."""
    configuration = QuicConfiguration(
        is_client=True,
        server_name=target.name,
        idle_timeout=IDLE_TIMEOUT_S,
        max_data=WINDOW_SIZE,
        max_stream_data=WINDOW_SIZE,
        verify_mode=ssl.CERT_REQUIRED if target.tls_verify else ssl.CERT_NONE,
    )
    if target.tls_ca_file:
        configuration.load_verify_locations(cafile=target.tls_ca_file)
    loop = asyncio.get_running_loop()
    address = (await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM))[0][4]
    link = QuicLink(connection, QuicConnection(configuration=configuration))
    await loop.create_datagram_endpoint(lambda: link, remote_addr=(str(address[0]), int(address[1])))
    link.connect(address)
