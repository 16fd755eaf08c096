"""What the broker tests share."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from pybroker.broker.listeners.http.listener import HttpListener
from pybroker.broker.listeners.peers import Peers
from pybroker.protocol.inbox import Pool
from pybroker.storage.errors import Poisoned
from support.broker import Broker
from support.engines import Stage
from support.listeners import ANSWER_SIZE, LIMITS
from support.rest import Rest

# The same examples every time: a failure in CI is one that anybody can repeat.
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture
def broker() -> Broker:
    """A broker without streams."""
    return Broker()


@pytest.fixture
async def filled(broker: Broker) -> Broker:
    """The test's broker, with four messages in one topic that a poll answers with a little over ANSWER_SIZE bytes."""
    await broker.create_topic()
    for _ in range(4):
        await broker.send(b"x" * (ANSWER_SIZE // 4))
    return broker


@pytest.fixture
async def peers(filled: Broker) -> AsyncIterator[Peers]:
    """The connections that a listener in this process takes."""
    peers = Peers(dispatch=filled.dispatch, clients=filled.state.clients, pool=Pool(), limits=LIMITS, connections_max=9)
    yield peers
    await peers.close(1)


@pytest.fixture
async def address(broker: Broker) -> AsyncIterator[str]:
    """Where the test's broker takes HTTP."""
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    yield await listener.open("127.0.0.1", 0)
    await listener.finish(1)


@pytest.fixture
async def anyone(address: str) -> AsyncIterator[Rest]:
    """Who asks the test's broker over HTTP without a credential."""
    async with Rest(address) as rest:
        yield rest


@pytest.fixture
async def root(address: str) -> AsyncIterator[Rest]:
    """Who asks it as its root user."""
    async with Rest(address) as rest:
        await rest.login()
        yield rest


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """An engine on files, whose disk waits and fails as the test says."""
    stage = Stage("local", tmp_path)
    yield stage
    if stage.disk.sync_gate is not None:
        stage.disk.sync_gate.set()
    stage.disk.sync_fault = None
    with suppress(Poisoned):
        await stage.engine.close()
