"""The real clients over TLS; and a server whose certificate is made, replaced, missing or spoilt."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_iggy import AutoLogin, IggyClient, TcpConfig, TcpReconnectionConfig
from cryptography.hazmat.primitives.serialization import Encoding
from support.certificates import Issued, issue, shown, trusting, write
from support.peers import NEWEST, PeerError, started
from support.raw import RawClient
from support.rest import Rest
from support.server import Server
from support.websocket import WebSocketClient
from support.wheel import bounded, make_topic, offsets_of, poll, send, texts_of

LARGE = bytes(range(256)) * 40_000  # 10 MB: hundreds of records


@pytest.fixture
def issued(tmp_path: Path) -> Issued:
    issued = issue("first")
    write(tmp_path, issued)
    return issued


def settings(folder: Path, listener: str = "TCP") -> dict[str, str]:
    table = f"IGGY_{listener}_TLS"
    files = {f"{table}_CERT_FILE": str(folder / "server.pem"), f"{table}_KEY_FILE": str(folder / "server.key")}
    return {f"{table}_ENABLED": "true", **files}


@pytest.fixture
def server(tmp_path: Path, issued: Issued) -> Iterator[Server]:
    with Server(tmp_path / "data", settings=settings(tmp_path)) as running:
        yield running


def url(server: Server, authority: Path) -> str:
    return f"{server.url}?tls=true&tls_domain=localhost&tls_ca_file={authority}"


def unverified(server: Server) -> IggyClient:
    """Return a client that takes any certificate."""
    login, once = AutoLogin.username_password("iggy", "iggy"), TcpReconnectionConfig(enabled=False)
    return IggyClient(
        TcpConfig(
            server_address=server.address,
            auto_login=login,
            reconnection=once,
            tls_enabled=True,
            tls_domain="localhost",
            tls_validate_certificate=False,
        )
    )


async def test_the_client_of_0_9_works_over_tls(server: Server, tmp_path: Path, stream: str) -> None:
    client = IggyClient.from_connection_string(url(server, tmp_path / "server.pem"))
    await bounded(client.connect())
    await make_topic(client, stream)
    assert await send(client, stream, "topic", [f"{number}" for number in range(100)]) == 0
    assert await send(client, stream, "topic", [LARGE]) == 100
    messages = await poll(client, stream, "topic")
    assert offsets_of(messages) == list(range(101))
    assert texts_of(messages[:100]) == [f"{number}" for number in range(100)]
    assert messages[100].payload() == LARGE


@pytest.mark.parametrize("generation", ["0.8.0", NEWEST])
async def test_clients_refuse_a_certificate_of_somebody_else(server: Server, tmp_path: Path, generation: str) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(issue("other").pem)
    async with started(generation) as peer:
        with pytest.raises((PeerError, TimeoutError)):
            await peer.call("connect", url=f"{url(server, other)}&reconnection_retries=0")
    lines = server.wait_log(lambda lines: any("TLS failed" in line for line in lines))
    assert not any("Traceback" in line for line in lines)


async def test_a_certificate_made_at_the_start_is_written_nowhere(tmp_path: Path, stream: str) -> None:
    before = {"IGGY_TCP_TLS_ENABLED": "true"}
    with Server(tmp_path / "data", settings=before) as server:
        client = unverified(server)
        await bounded(client.connect())
        await make_topic(client, stream)
        assert "made a self-signed certificate" in server.log()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.log"]
        held = [path for path in server.path.rglob("*") if path.is_file()]
        assert held
        assert not any(b"PRIVATE KEY" in path.read_bytes() for path in held)


async def test_sighup_brings_a_new_certificate_and_drops_nobody(
    server: Server, tmp_path: Path, issued: Issued, stream: str
) -> None:
    client = unverified(server)
    await bounded(client.connect())
    await make_topic(client, stream)
    with RawClient(server.port, tls=trusting(issued.pem)) as old:
        old.login()
        second = issue("second")
        write(tmp_path, second)
        server.signal(signal.SIGHUP)
        server.wait_log(lambda lines: any("new clients see" in line for line in lines))
        seen = await asyncio.to_thread(shown, server.address, trusting(second.pem))
        assert seen == second.certificate.public_bytes(Encoding.DER)
        (tmp_path / "server.key").write_text("spoilt")
        server.signal(signal.SIGHUP)
        server.wait_log(lambda lines: any("the certificate from before stays" in line for line in lines))
        assert await asyncio.to_thread(shown, server.address, trusting(second.pem)) == seen
        assert old.login().status == 0
    assert await send(client, stream, "topic", ["still here"]) == 0


async def test_sighup_brings_a_new_certificate_over_wss_and_https(tmp_path: Path, issued: Issued) -> None:
    with Server(tmp_path / "data", settings=settings(tmp_path, "WEBSOCKET") | settings(tmp_path, "HTTP")) as server:
        first, second = trusting(issued.pem), issue("second")
        port = int(server.websocket_address.rpartition(":")[2])
        old = await asyncio.to_thread(WebSocketClient, port, context=first)
        async with Rest(server.http_address.replace("127.0.0.1", "localhost"), context=first, scheme="https") as rest:
            await rest.login()
            write(tmp_path, second)
            server.signal(signal.SIGHUP)
            server.wait_log(lambda lines: sum("new clients see" in line for line in lines) == 2)
            for address in (server.websocket_address, server.http_address):
                seen = await asyncio.to_thread(shown, address, trusting(second.pem))
                assert seen == second.certificate.public_bytes(Encoding.DER)
            assert (await asyncio.to_thread(old.login)).status == 0
            assert await rest.get("/streams") == []
        old.close()


def test_sighup_without_tls_ends_nothing(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        server.signal(signal.SIGHUP)
        server.wait_log(lambda lines: any("reloading" in line for line in lines))
        with RawClient(server.port) as client:
            assert client.login().status == 0


@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_a_start_with_a_bad_file_ends_with_one_line_that_names_it(tmp_path: Path, issued: Issued, name: str) -> None:
    (tmp_path / name).write_text("spoilt")
    server = Server(tmp_path / "data", settings=settings(tmp_path))
    assert server.spawn().wait(20) == 1
    (line,) = [line for line in server.log().splitlines() if line.startswith("pybroker: ")]
    assert str(tmp_path / name) in line
    assert "Traceback" not in server.log()


def test_a_key_that_may_not_be_read_ends_the_start(tmp_path: Path, issued: Issued) -> None:
    key = tmp_path / "server.key"
    key.unlink()
    key.mkdir()  # root may read every file, and no folder
    server = Server(tmp_path / "data", settings=settings(tmp_path))
    assert server.spawn().wait(20) == 1
    assert f"tcp.tls.key_file {key}: {os.strerror(21)}" in server.log()


async def test_a_tls_client_on_a_port_without_is_closed_and_logged(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        with pytest.raises(RuntimeError):
            await bounded(unverified(server).connect())
        lines = server.wait_log(lambda lines: any("a TLS hello: this port has no TLS" in line for line in lines))
        assert sum("TLS" in line for line in lines) == 1


async def test_a_client_without_tls_on_a_tls_port_is_closed_and_logged(server: Server) -> None:
    client = IggyClient(TcpConfig(server_address=server.address, reconnection=TcpReconnectionConfig(enabled=False)))
    with pytest.raises(RuntimeError):
        await bounded(client.connect())
        await bounded(client.login_user("iggy", "iggy"))
    lines = server.wait_log(lambda lines: any("need a TLS hello" in line for line in lines))
    assert sum("need a TLS hello" in line for line in lines) == 1
