"""QUIC: a UDP socket, and the channel of each connection that it takes. The one module that knows aioquic.

A request comes on a stream that the client opens for it, whole once the client has finished its half; the answer goes
back on that stream and finishes it. A connection reads frames in a row and writes answers that do not say whose they
are, so it is handed one request at a time, in the order in which they became whole: what it writes next is the answer
to that one. So one wire serves all streams, and what it remembers (the sign-in, replies to repeat) outlives each.

aioquic gives flow control away as fast as bytes arrive, and keeps what came out of order. `_held` counts all that a
peer has made us keep, and is looked at before more is granted.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.retry import QuicRetryTokenHandler
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from msgspec import Struct

from ...protocol.batch import Buffer
from ...protocol.detect import frame_size
from ...protocol.primitives import Transport
from ..config.schema import Quic
from ..connection import Connection, Limits
from ..tls import Certificate
from .peers import Peers

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 10.0
# With so many handshakes under way a newcomer first has to show that its address is its own, for a while; a sender of
# made-up addresses costs no keys then. With so many more, newcomers wait until some are done.
UNPROVEN_MAX = 64
HANDSHAKES_MAX = 512
RETRY_S = 10.0
# With the one stream of Iggy's own configuration a request waits until the client, in its own time, acknowledges the
# answer before: a ping takes 28 ms, with 16 it takes 1.6.
STREAMS_MIN = 16
WINDOW_SIZE = 1024 * 1024  # what a peer may send at first, in all and on one stream; aioquic grants more as it comes

_LONG_HEADER = 0x80
_ID_POSITION = 6


class Rules(Struct, frozen=True):
    """What a listener tells its channels: the limits, and how long a quiet peer is left before it is pinged."""

    limits: Limits
    streams_max: int
    keep_alive_s: float
    connect: Callable[["QuicChannel", str], Connection]
    ended: Callable[["QuicChannel"], None]


class QuicChannel(QuicConnectionProtocol):
    """One QUIC connection. It has a Connection once the handshake is done."""

    def __init__(self, quic: QuicConnection, rules: Rules) -> None:
        super().__init__(quic)
        _limit_streams(quic, rules.streams_max)
        self.connection: Connection | None = None
        self._rules = rules
        self._arriving: dict[int, bytearray] = {}
        self._whole: deque[tuple[int, bytearray]] = deque()
        self._answering: int | None = None  # the stream whose request the connection has
        self._taken = 0  # bytes that are not kept any more
        self._used = 0  # bytes that had arrived at the last look for a stall
        self._caught_up: asyncio.Future[None] | None = None
        self._finishing = False
        self._ended = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._later(HANDSHAKE_TIMEOUT_S, self._shut)

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        """Take a datagram in. Those of one turn of the loop are acknowledged together, and with the answer."""
        assert isinstance(data, bytes)
        self._quic.receive_datagram(data, addr, now=self._loop.time())
        self._process_events()
        self._transmit_soon()

    def quic_event_received(self, event: QuicEvent) -> None:
        if self._ended:
            return
        match event:
            case HandshakeCompleted():
                self._begin()
            case StreamDataReceived():
                self._arrive(event)
            case StreamReset():
                self._give_up(event.stream_id, self._arriving.pop(event.stream_id, bytearray()))
            case ConnectionTerminated():
                self._end()
            case _:
                pass

    @property
    def unsent(self) -> int:
        return sum(len(stream.sender._buffer) for stream in self._quic._streams.values())

    def write(self, buffers: list[Buffer]) -> None:
        if self._ended or not buffers:
            return
        stream_id, self._answering = self._answering, None
        assert stream_id is not None
        if self._wants_answer(stream_id):
            self._quic.send_stream_data(stream_id, b"".join(buffers), end_stream=True)
        self._hand_over()
        self._transmit_soon()

    @property
    def is_writable(self) -> bool:
        return not self._ended and self.unsent <= self._rules.limits.unread_size_max

    async def drained(self) -> None:
        if not self._ended and not self.is_writable:
            self._caught_up = self._loop.create_future()
            await self._caught_up
        if self._ended:
            raise ConnectionResetError("the peer is gone")

    def pause(self) -> None:
        """Do nothing: the connection gets a request when it has answered the one before."""

    def resume(self) -> None:
        """Do nothing, as `pause`."""

    def expect_more(self) -> None:
        """Do nothing: QUIC acknowledges in its own time, and nobody waits for it."""

    def close(self, error_code: int = QuicErrorCode.NO_ERROR, reason_phrase: str = "") -> None:
        """Close once the peer has everything, or is too slow to take it."""
        self._finishing = True
        if self._ended or not self.unsent:
            self._shut()
        else:
            self._later(self._rules.limits.write_timeout_s, self._shut)

    def abort(self) -> None:
        self._loop.call_soon(self._shut)

    def _process_events(self) -> None:
        super()._process_events()
        if self._ended or self.connection is None:
            return
        if self._held > self.connection.wire.frame_size_max + self._rules.limits.unread_size_max:
            self._refuse(f"{self._held} bytes of requests that are not answered")
        elif self._caught_up is not None and self.unsent <= self._rules.limits.unread_size_max:
            self._let_go()
        elif self._finishing and not self.unsent:
            self._shut()

    @property
    def _held(self) -> int:
        """How many bytes it has sent that the connection has not got, gaps between them included."""
        return self._quic._local_max_data.used - self._taken

    def _begin(self) -> None:
        host, port, *_ = self._quic.get_peer_address() or ("?", 0)
        self._stop_timers()
        self._later(self._rules.keep_alive_s, self._ping)
        self._later(self._rules.limits.login_timeout_s, self._look)
        self.connection = self._rules.connect(self, f"{host}:{port}")

    def _arrive(self, event: StreamDataReceived) -> None:
        data = self._arriving.setdefault(event.stream_id, bytearray())
        data += event.data
        if event.end_stream:
            self._whole.append((event.stream_id, self._arriving.pop(event.stream_id)))
            self._hand_over()

    def _hand_over(self) -> None:
        """Let the connection have the next whole request, unless it is at one."""
        while self._whole and self._answering is None and not self._finishing:
            stream_id, data = self._whole.popleft()
            size = frame_size(data)
            if len(data) < size or not size:
                self._give_up(stream_id, data)
            elif len(data) > size:
                self._refuse(f"a stream of {len(data)} bytes, where its frame has {size}")
                return
            else:
                self._answering = stream_id
                self._taken += size
                assert self.connection is not None
                _receive(self.connection, data)

    def _give_up(self, stream_id: int, data: bytearray) -> None:
        """Forget a request that its client has cut short, as clients do with a call that is cancelled."""
        stream = self._quic._streams.get(stream_id)
        self._taken += stream.receiver.highest_offset if stream is not None else len(data)
        self._quic.reset_stream(stream_id, QuicErrorCode.NO_ERROR)

    def _wants_answer(self, stream_id: int) -> bool:
        """Say whether a stream can still carry an answer: its client may have asked to stop, or be done with it."""
        stream = self._quic._streams.get(stream_id)
        return stream is not None and stream.sender._reset_error_code is None

    def _ping(self) -> None:
        if self._rules.keep_alive_s:
            self._quic.send_ping(0)
            self.transmit()
            self._later(self._rules.keep_alive_s, self._ping)

    def _look(self) -> None:
        """Refuse a peer that has begun a request and sends no more of it."""
        used = self._quic._local_max_data.used
        waits = self._held and not self._whole and self._answering is None
        if waits and used == self._used:
            self._refuse(f"an unfinished frame for {self._rules.limits.login_timeout_s:g} s")
            return
        self._used = used
        self._later(self._rules.limits.login_timeout_s, self._look)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call once. There is one timer for each method."""
        self._timers[call.__name__] = self._loop.call_later(delay_s, call)

    def _refuse(self, why: str) -> None:
        assert self.connection is not None
        log.warning("closed %s: %s", self.connection.session.address, why)
        self._shut()

    def _shut(self) -> None:
        if not self._ended:
            self._quic.close(error_code=QuicErrorCode.NO_ERROR)
            self.transmit()
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_timers()
        self._arriving.clear()
        self._whole.clear()
        self._let_go()
        if self.connection is not None:
            self.connection.lost()
        self._rules.ended(self)

    def _let_go(self) -> None:
        """Wake who waits for the peer to catch up."""
        if self._caught_up is not None and not self._caught_up.done():
            self._caught_up.set_result(None)
        self._caught_up = None

    def _stop_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class QuicListener:
    """Who serves the port. A certificate that was read anew is shown to who comes after that."""

    def __init__(self, peers: Peers, settings: Quic, certificate: Certificate) -> None:
        self._peers = peers
        self._certificate = certificate
        self._pem = b""
        self._configuration = QuicConfiguration(
            is_client=False,
            idle_timeout=settings.max_idle_timeout_us / 1e6,
            max_data=WINDOW_SIZE,
            max_stream_data=WINDOW_SIZE,
        )
        self._rules = Rules(
            limits=peers.limits,
            streams_max=max(settings.max_concurrent_bidi_streams, STREAMS_MIN),
            keep_alive_s=settings.keep_alive_interval_us / 1e6,
            connect=self._connect,
            ended=self._ended,
        )
        self._port: _Port | None = None
        logging.getLogger("quic").setLevel(logging.WARNING)  # aioquic would tell of every connection
        self._use_certificate()

    async def serve(self, port: socket.socket) -> None:
        """Take what arrives at `port`, which is bound and does not block; it is closed with the listener."""
        _, self._port = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Port(self._configuration, self._accept), sock=port
        )

    def close(self) -> None:
        """Take no more connections. Those there are stay; the last one to go closes the port."""
        if self._port is not None:
            self._port.refuse_all()

    def _accept(self, quic: QuicConnection) -> QuicChannel:
        self._use_certificate()
        return QuicChannel(quic, self._rules)

    def _use_certificate(self) -> None:
        """Take the certificate over, where it is a new one: handshakes that begin from now on show it."""
        if self._pem is not self._certificate.pem:
            self._pem = self._certificate.pem
            chain = load_pem_x509_certificates(self._pem)
            self._configuration.certificate, *self._configuration.certificate_chain = chain
            self._configuration.private_key = load_pem_private_key(self._pem, None)

    def _connect(self, channel: QuicChannel, address: str) -> Connection:
        if self._port is not None:
            self._port.shook_hands(channel)
        return self._peers.connect(channel, Transport.QUIC, address)

    def _ended(self, channel: QuicChannel) -> None:
        if self._port is not None:
            self._port.ended(channel)


class _Port(QuicServer):
    """Tells datagrams of connections that there are from those of newcomers, and bounds these."""

    def __init__(self, configuration: QuicConfiguration, accept: Callable[[QuicConnection], QuicChannel]) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            configuration=configuration, create_protocol=self._create
        )
        self._accept = accept
        self._channels: set[QuicChannel] = set()
        self._shaking_hands: set[QuicChannel] = set()
        self._tokens = QuicRetryTokenHandler()
        self._retry_until = 0.0
        self._is_refusing = False

    def refuse_all(self) -> None:
        self._is_refusing = True
        self._close_if_done()

    def shook_hands(self, channel: QuicChannel) -> None:
        self._shaking_hands.discard(channel)

    def ended(self, channel: QuicChannel) -> None:
        self._shaking_hands.discard(channel)
        self._channels.discard(channel)
        self._close_if_done()

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        assert isinstance(data, bytes)
        if self._is_newcomer(data) and not self._may_come():
            return
        super().datagram_received(data, addr)

    def _create(self, quic: QuicConnection, **_: object) -> QuicChannel:
        channel = self._accept(quic)
        self._channels.add(channel)
        self._shaking_hands.add(channel)
        return channel

    def _is_newcomer(self, data: bytes) -> bool:
        """Tell whether a datagram begins a connection: it has a long header, and an id that nobody has yet."""
        is_long = len(data) > _ID_POSITION and data[0] & _LONG_HEADER
        return bool(is_long) and data[_ID_POSITION : _ID_POSITION + data[_ID_POSITION - 1]] not in self._protocols

    def _may_come(self) -> bool:
        """Say whether there is room for one more, and whether it has to prove its address."""
        count = len(self._shaking_hands)
        now = self._loop.time()
        if count >= UNPROVEN_MAX:
            self._retry_until = now + RETRY_S
        self._retry = self._tokens if now < self._retry_until else None
        return count < HANDSHAKES_MAX and not self._is_refusing

    def _close_if_done(self) -> None:
        if self._is_refusing and not self._channels and self._transport is not None:
            self._transport.close()


def _limit_streams(quic: QuicConnection, count: int) -> None:
    """Let a client have `count` requests open at a time, and no streams that carry none. aioquic has no setting."""
    for limit, value in ((quic._local_max_streams_bidi, count), (quic._local_max_streams_uni, 0)):
        limit.value = limit.sent = value


def _receive(connection: Connection, data: bytearray) -> None:
    """Put a whole request where the connection's wire wants it."""
    rest = memoryview(data)
    while rest:
        space = connection.wire.space(len(rest))
        count = min(len(space), len(rest))
        space[:count] = rest[:count]
        connection.received(count)
        rest = rest[count:]
