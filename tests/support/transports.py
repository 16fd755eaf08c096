"""Every transport of a broker, and who speaks it: a server without TLS beside one with it on every port."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from apache_iggy import HttpConfig, IggyClient

from .certificates import issue, write
from .peers import GENERATIONS, NEWEST
from .server import Server
from .wheel import bounded

TCP, TLS, QUIC, WEBSOCKET, WSS, HTTP, HTTPS = "tcp", "tls", "quic", "websocket", "wss", "http", "https"
GENERATIONS_OF = {
    TCP: GENERATIONS,
    TLS: GENERATIONS[1:],
    QUIC: (NEWEST,),
    WEBSOCKET: GENERATIONS,
    WSS: GENERATIONS,
    HTTP: GENERATIONS[1:],
    HTTPS: (NEWEST,),
}
WITHOUT_GROUPS = {HTTP, HTTPS}  # there is no session that could be a member
_ENCRYPTED = {TLS, WSS, HTTPS}
_SCHEMES = {TLS: TCP, WEBSOCKET: "ws", WSS: "ws", HTTPS: HTTP}


class Transports:
    """Both servers. certificate: of the second, for its clients to trust."""

    def __init__(self, plain: Server, encrypted: Server, certificate: str) -> None:
        self._plain = plain
        self._encrypted = encrypted
        self._certificate = certificate

    def address(self, transport: str) -> str:
        server = self._encrypted if transport in _ENCRYPTED else self._plain
        addresses = {QUIC: server.quic_address, HTTP: server.http_address, "ws": server.websocket_address}
        return addresses.get(_SCHEMES.get(transport, transport), server.address)

    def url(self, transport: str, credentials: str = "iggy:iggy") -> str:
        """Return what a client connects to. There is none for HTTPS."""
        scheme = _SCHEMES.get(transport, transport)
        options = "?tls=true&tls_domain=localhost&tls_ca_file=" + self._certificate if transport in _ENCRYPTED else ""
        return f"iggy+{scheme}://{credentials}@{self.address(transport)}{options}"

    async def connect(self, transport: str, username: str = "iggy", password: str = "iggy") -> IggyClient:
        """Return a newest client that is signed in."""
        if transport in WITHOUT_GROUPS:
            host = self.address(transport).replace("127.0.0.1", "localhost")
            client = IggyClient(HttpConfig(api_url=f"{transport}://{host}", retries=0))
            await bounded(client.connect())
            await bounded(client.login_user(username, password))
        else:
            client = IggyClient.from_connection_string(self.url(transport, f"{username}:{password}"))
            await bounded(client.connect())
        return client


@contextmanager
def transports(folder: Path) -> Generator[Transports]:
    """Run both servers on a folder. Clients of HTTPS find in the environment whom to trust."""
    pair = write(folder, issue("transports"))
    settings: dict[str, str] = {}
    for listener in ("TCP", "WEBSOCKET", "HTTP"):
        table = f"IGGY_{listener}_TLS"
        settings |= {
            f"{table}_ENABLED": "true",
            f"{table}_CERT_FILE": pair.cert_file,
            f"{table}_KEY_FILE": pair.key_file,
        }
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = pair.cert_file
    try:
        with Server(folder / "plain") as plain, Server(folder / "encrypted", settings=settings) as encrypted:
            yield Transports(plain, encrypted, pair.cert_file)
    finally:
        if before is None:
            del os.environ["SSL_CERT_FILE"]
        else:
            os.environ["SSL_CERT_FILE"] = before
