"""From a target to a connection that is signed in."""

import asyncio
import ssl

from .connection import Connection, Lost
from .errors import BrokerError, ConnectError
from .tcp import TcpLink
from .url import Target, Transport


async def dial(target: Target, lost: Lost, *, tls: ssl.SSLContext | None, silence_max_s: float) -> Connection:
    """Connect and sign in. Raises ConnectError, or BrokerError for a sign-in that is refused."""
    connection = Connection(lost, heartbeat_s=target.heartbeat_s, silence_max_s=silence_max_s)
    try:
        await _LINKS[target.transport](connection, target, tls)
        answer = await connection.ask(target.login)
        if answer.fault is not None:
            raise ConnectError(f"the answer to the sign-in makes no sense: {answer.fault}")
        if answer.code:
            raise BrokerError(answer.code, f"the sign-in at {target.address} was refused")
    except BaseException as error:
        connection.close(ConnectError("the connection was given up"))
        if isinstance(error, OSError):  # ssl.SSLError and ConnectionLost are too
            raise ConnectError(f"can't connect to {target.address}: {error}") from error
        raise
    return connection


def tls_context(target: Target) -> ssl.SSLContext:
    """Return what checks the server's certificate. Raises ConnectError for a CA file that can't be used."""
    try:
        context = ssl.create_default_context(cafile=target.tls_ca_file or None)
    except OSError as error:
        raise ConnectError(f"tls_ca_file {target.tls_ca_file}: {error}; it has to be a PEM file") from None
    if not target.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _tcp(connection: Connection, target: Target, tls: ssl.SSLContext | None) -> None:
    await _socket(TcpLink(connection), target, tls)


async def _websocket(connection: Connection, target: Target, tls: ssl.SSLContext | None) -> None:
    from .websocket import WebSocketLink

    await _socket(WebSocketLink(connection, target.address), target, tls)


async def _socket(link: asyncio.BaseProtocol, target: Target, tls: ssl.SSLContext | None) -> None:
    name = target.name if tls else None
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: link, target.host, target.port, ssl=tls, server_hostname=name)


async def _quic(connection: Connection, target: Target, _tls: ssl.SSLContext | None) -> None:
    from .quic import dial_quic

    await dial_quic(connection, target)


_LINKS = {Transport.TCP: _tcp, Transport.WEBSOCKET: _websocket, Transport.QUIC: _quic}
