"""A broker on the memory engine behind a TCP port in this process, and clients of it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pybroker.broker.listeners.peers import Peers
from pybroker.broker.listeners.tcp import TcpListener
from pybroker.client import Client
from pybroker.protocol.inbox import Pool
from support import listeners
from support.broker import Broker
from support.scripted import Scripted, scripted

LIMITS = replace(listeners.LIMITS, frame_size_max=64 << 20, unread_size_max=1 << 20, requests_per_turn_max=64)


@pytest.fixture
def broker() -> Broker:
    """A broker with the users iggy, who is root, and bob, whose passwords are their names."""
    return Broker()


@pytest.fixture
async def peers(broker: Broker) -> AsyncIterator[Peers]:
    peers = Peers(
        dispatch=broker.dispatch, clients=broker.state.clients, pool=Pool(), limits=LIMITS, connections_max=100
    )
    yield peers
    await peers.close(1)


@pytest.fixture
async def address(peers: Peers) -> AsyncIterator[str]:
    """Where the broker listens, as "host:port"."""
    listener = TcpListener(peers)
    yield await listener.open("127.0.0.1", 0)
    listener.close()


@pytest.fixture
def url(address: str) -> str:
    return f"iggy://iggy:iggy@{address}"


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with Client(url, timeout_s=10) as client:
        yield client


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        yield script


def drop(peers: Peers) -> None:
    """Break every connection, from the server's side."""
    for connection in peers._tasks.values():
        connection._channel.abort()
