"""Real clients over WebSocket: what they do over TCP, they do here."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pybroker.protocol.model.system import GetMe
from pybroker.protocol.primitives import Transport
from support.certificates import issue, trusting, write
from support.peers import GENERATIONS, PeerError, connected, started
from support.server import Server
from support.websocket import WebSocketClient
from support.wheel import until
from websockets.exceptions import InvalidMessage

every_generation = pytest.mark.parametrize("generation", GENERATIONS)
LARGE_SIZE = 20_000_000  # of a frame, the clients take 16 MiB


def port_of(server: Server) -> int:
    return int(server.websocket_address.rpartition(":")[2])


def url_of(server: Server) -> str:
    return f"iggy+ws://iggy:iggy@{server.websocket_address}"


@pytest.fixture
def secure_server(tmp_path: Path) -> Iterator[Server]:
    """A server that speaks wss."""
    tls = write(tmp_path, issue("websocket"))
    settings = {
        "IGGY_WEBSOCKET_TLS_ENABLED": "true",
        "IGGY_WEBSOCKET_TLS_CERT_FILE": tls.cert_file,
        "IGGY_WEBSOCKET_TLS_KEY_FILE": tls.key_file,
    }
    with Server(tmp_path / "data", settings=settings) as running:
        yield running


@every_generation
async def test_large_message_comes_back(server: Server, stream: str, generation: str) -> None:
    payload = b"x" * LARGE_SIZE
    async with connected(server, generation, url=url_of(server)) as (peer,):
        await peer.make_topic(stream)
        await peer.send(stream, [payload, "after it"])
        large, small = await peer.poll(stream)
    assert large.payload == payload
    assert small.payload == b"after it"


async def test_generations_and_transports_share_the_data(server: Server, stream: str) -> None:
    older, newer = GENERATIONS[-2:]
    async with (
        connected(server, older, newer, url=url_of(server)) as (old, new),
        connected(server, newer) as (over_tcp,),
    ):
        await old.make_topic(stream)
        for peer in (old, new, over_tcp):
            await peer.send(stream, [peer.generation])
        wanted = [older.encode(), newer.encode(), newer.encode()]
        for peer in (old, new, over_tcp):
            assert [message.payload for message in await peer.poll(stream)] == wanted


@pytest.mark.parametrize("generation", GENERATIONS[-2:])  # the older never dial again over WebSocket
async def test_client_dials_again_when_the_server_is_back(fresh_server: Server, stream: str, generation: str) -> None:
    async with connected(fresh_server, generation, url=url_of(fresh_server)) as (peer,):
        await peer.make_topic(stream)
        await peer.send(stream, ["kept"])
        port = port_of(fresh_server)
        assert await asyncio.to_thread(fresh_server.stop) == 0
        again = Server(fresh_server.path, settings={"IGGY_WEBSOCKET_ADDRESS": f"127.0.0.1:{port}"})

        async def found() -> bool:
            """While a client connects again, what it is asked may fail."""
            try:
                return [message.payload for message in await peer.poll(stream)] == [b"kept"]
            except PeerError:
                return False

        with again:
            await until(found)


def test_bare_client_learns_its_transport(server: Server) -> None:
    client = WebSocketClient(port_of(server))
    client.login()
    assert client.ask(GetMe()).client.transport == Transport.WEBSOCKET
    client.close()


@every_generation
async def test_clients_work_over_wss(secure_server: Server, tmp_path: Path, stream: str, generation: str) -> None:
    options = f"tls=true&tls_domain=localhost&tls_ca_file={tmp_path / 'server.pem'}"
    async with started(generation) as peer:
        await peer.call("connect", url=f"{url_of(secure_server)}?{options}")
        await peer.make_topic(stream)
        await peer.send(stream, ["small", b"x" * LARGE_SIZE])
        assert [message.length for message in await peer.poll(stream)] == [5, LARGE_SIZE]


def test_bare_client_works_over_wss(secure_server: Server, tmp_path: Path) -> None:
    context = trusting((tmp_path / "server.pem").read_bytes())
    client = WebSocketClient(port_of(secure_server), context=context)
    client.login()
    assert client.ask(GetMe()).client.transport == Transport.WEBSOCKET
    client.messages.send("text")
    with pytest.raises(ConnectionError):
        client.receive()
    assert client.messages.close_code == 1003
    client.close()


def test_plain_client_of_wss_is_closed_with_a_line_in_the_log(secure_server: Server) -> None:
    with pytest.raises(InvalidMessage):
        WebSocketClient(port_of(secure_server))
    secure_server.wait_log(lambda lines: "this port has TLS only" in lines[-1])
