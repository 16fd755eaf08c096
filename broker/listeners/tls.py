"""TLS over TCP: a channel that decrypts what arrives and encrypts what goes, in memory.

The loops' own TLS keeps encrypted answers where neither the limit of unsent bytes nor the check for stalled peers sees
them, up to a poll of 63 MiB a connection. Here both count what the socket has not taken, as without TLS. The time for
a handshake is that of a login: until one, no byte counts as received.
"""

import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from ...protocol.batch import Buffer
from .tcp import Connect, TcpChannel

log = logging.getLogger(__name__)

RECORD_SIZE = 16 * 1024
# What is encrypted goes to the socket in such pieces: OpenSSL keeps the room for the largest as long as the connection.
FLUSH_SIZE = 4 * RECORD_SIZE
_HELLO = 0x16
_SHOWN = 8


class TlsChannel(TcpChannel):
    """One TCP connection with TLS. arriving: where encrypted bytes are received, shared by all connections."""

    def __init__(self, connect: Connect, context: ssl.SSLContext, arriving: memoryview) -> None:
        super().__init__(connect)
        self._arriving = arriving
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._greeted = False
        self._agreed = False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._arriving

    def buffer_updated(self, nbytes: int) -> None:
        self.expect_more()  # what is left of a record the connection can't see
        arrived = self._arriving[:nbytes]
        if not self._greeted and arrived[0] != _HELLO:
            start = arrived[:_SHOWN].hex(" ")
            self._refuse(f"need a TLS hello, have {start}: this port has TLS only, connect with tls=true")
            return
        self._greeted = True
        self._incoming.write(arrived)
        try:
            self._agreed = self._agreed or self._shake_hands()
            if self._agreed:
                self._decrypt()
        except ssl.SSLError as error:
            self._refuse(f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}")

    def write(self, buffers: list[Buffer]) -> None:
        if self._lost:
            return
        if sum(map(len, buffers)) <= RECORD_SIZE:
            buffers = [b"".join(buffers)]
        for buffer in buffers:
            rest = memoryview(buffer)
            while rest:
                rest = rest[self._tls.write(rest) :]
                if self._outgoing.pending >= FLUSH_SIZE:
                    self._flush()
        self._flush()

    def close(self) -> None:
        if self._agreed and not self._lost:
            with suppress(ssl.SSLError):  # it wants to wait for the peer's farewell
                self._tls.unwrap()
            self._flush()
        super().close()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is done. Raises SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()
        return True

    def _decrypt(self) -> None:
        """Bring what is complete where the wire wants it. Raises SSLError."""
        try:
            while True:
                space = self._space(0)
                count = cast(int, self._tls.read(len(space), space))  # the stubs forget the buffer
                if not count:
                    self.connection.ended()
                    return
                self._received(count)
        except ssl.SSLWantReadError:
            self._flush()  # what TLS itself has to answer, such as a new key

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._open().write(self._outgoing.read())

    def _refuse(self, why: str) -> None:
        log.warning("closed %s: %s", self.connection.session.address, why)
        self._lost = True  # nothing can be encrypted any more
        self.connection.lost()
        super().close()


def tls_channels(context: ssl.SSLContext) -> Callable[[Connect], TlsChannel]:
    """Return what makes the channels of a listener whose handshakes use `context`."""
    # Bytes are decrypted before the loop receives for anybody else, so all of them can arrive in one place.
    arriving = memoryview(bytearray(FLUSH_SIZE))
    return lambda connect: TlsChannel(connect, context, arriving)
