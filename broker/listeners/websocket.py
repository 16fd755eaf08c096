"""WebSocket's port. What its connections need, 15 ms and 4 MB, is imported for the first of them."""

from collections.abc import Callable
from functools import cached_property
from ssl import SSLContext

from ...protocol.primitives import Transport
from .peers import AUTO, Peers
from .tcp import Connect, TcpChannel, TcpListener


class WebSocketListener(TcpListener):
    """The port. wire: the name of the generation to take, or AUTO. ssl_context: for wss, and nothing else."""

    transport = Transport.WEBSOCKET

    def __init__(self, peers: Peers, wire: str = AUTO, *, ssl_context: SSLContext | None = None) -> None:
        super().__init__(peers, wire, self._take)
        self._ssl_context = ssl_context

    def _take(self, connect: Connect) -> TcpChannel:
        return self._channels(connect)

    @cached_property
    def _channels(self) -> Callable[[Connect], TcpChannel]:
        from .frames import frame_message
        from .upgraded import websocket_channels

        self.frame = frame_message
        return websocket_channels(self._peers.limits.frame_size_max, self._ssl_context)
