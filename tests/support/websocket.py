"""A bare vsr client over WebSocket: every request a message."""

import ssl
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .raw import Answer, RawClient

TIMEOUT_S = 10.0


class WebSocketClient(RawClient):
    """One connection. `messages` is what it speaks in; the rest is as over TCP."""

    def __init__(self, port: int, *, context: ssl.SSLContext | None = None) -> None:
        super().__init__(port, TIMEOUT_S)
        scheme = "wss" if context else "ws"
        self._stack = ExitStack()
        self.messages: ClientConnection = self._stack.enter_context(
            connect(
                f"{scheme}://localhost:{port}/",
                sock=self.socket,
                ssl=context,
                compression=None,
                max_size=None,
                ping_interval=None,
                open_timeout=TIMEOUT_S,
                close_timeout=TIMEOUT_S,
            )
        )
        self._arrived = bytearray()

    def close(self) -> None:
        self._stack.close()

    def exchange(self, frame: bytes) -> Answer:
        self.messages.send(frame)
        return self.receive()

    def _exactly(self, size: int) -> bytes:
        while len(self._arrived) < size:
            try:
                message = self.messages.recv(TIMEOUT_S)
            except ConnectionClosed as closed:
                raise ConnectionError(f"closed after {len(self._arrived)} of {size} bytes") from closed
            assert isinstance(message, bytes)
            self._arrived += message
        data = bytes(self._arrived[:size])
        del self._arrived[:size]
        return data
