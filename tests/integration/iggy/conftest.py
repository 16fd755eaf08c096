"""A broker that pybroker.client is held against: pybroker, and Apache Iggy's own server where there is one.

    PYBROKER_IGGY_SERVER=.../iggy-server pytest tests/integration/iggy

Both are held to the same expectations. Where they differ the test says so.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
from pybroker.client import Client
from support.agents import FAST
from support.iggy import IGGY, PARTITIONS_COUNT, PYBROKER, server_of
from support.server import Server


@pytest.fixture(scope="module", params=[PYBROKER, IGGY])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests share: each uses a stream named after itself."""
    with server_of(request.param, tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, retry=FAST) as client:
        yield client


@pytest.fixture
async def topic(client: Client, stream: str) -> str:
    """The name of a topic of three partitions in the test's own stream."""
    await client.create_stream(stream)
    await client.create_topic(stream, "t", PARTITIONS_COUNT)
    return "t"
