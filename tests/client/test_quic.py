"""The client over QUIC: a stream for each request, one at a time."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pybroker.broker.config.schema import Quic
from pybroker.broker.listeners.peers import Peers
from pybroker.broker.listeners.quic_port import QuicPort
from pybroker.broker.tls import Certificate
from pybroker.client import Client, ConnectError, ConnectionLost, Retry
from support.agents import until
from support.cancelling import ask_something, every_connect, every_moment
from support.certificates import issue, write

from .conftest import drop

FAST = Retry(first_s=0.001, max_s=0.01)


@pytest.fixture
async def address(peers: Peers, tmp_path: Path) -> AsyncIterator[str]:
    """Where the broker listens. Its certificate, server.pem, is for "localhost"."""
    certificate = Certificate("quic.certificate", write(tmp_path, issue("first")), "127.0.0.1")
    port = QuicPort(peers, Quic(), certificate)
    yield await port.open("127.0.0.1", 0)
    port.close()


@pytest.fixture
def url(address: str, tmp_path: Path) -> str:
    return f"iggy+quic://iggy:iggy@{address}?tls_domain=localhost&tls_ca_file={tmp_path / 'server.pem'}"


async def test_calls_at_once_get_their_own_answers(client: Client) -> None:
    names = [f"stream-{number}" for number in range(30)]
    await asyncio.gather(*(client.create_stream(name) for name in names))
    found = await asyncio.gather(*(client.get_stream(name) for name in names))
    assert [each and each.stream.name for each in found] == names


@pytest.mark.parametrize("size", [1, 1200, 65_536, 1_900_000])
async def test_messages_of_any_size_arrive(client: Client, size: int) -> None:
    await client.create_stream("s")
    await client.create_topic("s", "t")
    await asyncio.gather(*(client.send("s", "t", [b"x" * size]) for _ in range(3)))
    polled = await client.poll("s", "t", start="first")
    assert [message.payload for message in polled.messages] == [b"x" * size] * 3


async def test_a_broken_connection_is_dialled_again(url: str, peers: Peers) -> None:
    async with Client(url, timeout_s=10, retry=FAST) as client:
        drop(peers)
        await until(lambda: client._ready is None)
        assert await client.get_streams() == []
        assert client.connection_id == 2
    await until(lambda: len(peers) == 0)


async def test_a_call_on_its_way_is_lost_with_its_connection(url: str, peers: Peers) -> None:
    async with Client(url, timeout_s=10, retry=FAST) as client:
        creating = asyncio.create_task(client.create_stream("s"))
        await asyncio.sleep(0)
        drop(peers)
        with pytest.raises(ConnectionLost, match="the connection ended"):
            await creating


async def test_a_certificate_has_to_be_known_unless_told_otherwise(address: str, tmp_path: Path) -> None:
    own = f"iggy+quic://iggy:iggy@{address}?tls_ca_file={tmp_path / 'server.pem'}"
    for url in (f"iggy+quic://iggy:iggy@{address}?tls_domain=localhost", f"{own}&tls_domain=elsewhere"):
        with pytest.raises(ConnectError, match=r"the connection ended: .*(certificate|hostname)"):
            await Client(url, timeout_s=10).connect()
    async with Client(f"iggy+quic://iggy:iggy@{address}?validate_certificate=false", timeout_s=10) as client:
        await client.ping()


async def test_where_nobody_listens_there_is_no_connection() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        silent = f"iggy+quic://iggy:iggy@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConnectError, match=r"no answer in 0\.05 s"):
            await Client(silent, timeout_s=0.05).connect()
    with pytest.raises(ConnectError, match="refused"):
        await Client(silent, timeout_s=10).connect()


async def test_a_call_cancelled_at_any_moment_leaves_its_answer_to_nobody(client: Client) -> None:
    async for steps in every_moment(client.get_streams):
        await ask_something(client, steps)
    assert client.connection_id == 1


async def test_connecting_cancelled_at_any_moment_leaves_no_connection(url: str, peers: Peers) -> None:
    await every_connect(url, peers)
