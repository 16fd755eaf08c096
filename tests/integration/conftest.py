"""A running broker, and the real client connected to it."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_iggy import IggyClient
from pybroker.testing import RunningBroker, running
from support import wheel
from support.raw import RawClient
from support.server import Server

TEST_TIMEOUT_S = 60.0
ROUND_TIMEOUT_S = 30.0
LOG_LINES = 40
CLIENTS_COUNT = 4
_FOLDER = Path(__file__).parent
PROCESS, MEMORY = "process", "memory"
# What Iggy's client is answered there must not depend on the engine, nor on whose process the broker is in.
IN_MEMORY_TOO = frozenset(
    f"test_{area}" for area in ("consumer", "groups", "messages", "offsets", "producer", "system", "topics", "users")
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames and metafunc.definition.path.stem in IN_MEMORY_TOO:
        metafunc.parametrize("server", (PROCESS, MEMORY), indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let no test of this folder wait for ever."""
    rounds: int = config.option.rounds
    timeout_s = TEST_TIMEOUT_S + ROUND_TIMEOUT_S * rounds
    for item in items:
        if isinstance(item, pytest.Function) and _FOLDER in item.path.parents and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj, timeout_s)


def _bounded(test: Callable[..., Awaitable[None]], timeout_s: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        await asyncio.wait_for(test(*args, **kwargs), timeout_s)

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the server logged with what failed."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and isinstance(server, Server):
        report.sections.append(("server log", "\n".join(server.log().splitlines()[-LOG_LINES:])))
    return report


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server | RunningBroker]:
    """A server that the tests of a module share: each uses a stream named after itself.

    For the modules in IN_MEMORY_TOO also a broker in this process that keeps everything in memory.
    """
    if getattr(request, "param", PROCESS) == MEMORY:
        with running() as broker:
            yield broker
        return
    with Server(tmp_path_factory.mktemp("server") / "data") as process:
        yield process


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, with nothing in it."""
    with Server(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def client(server: Server) -> IggyClient:
    return await wheel.connect(server.address)


@pytest.fixture
async def clients(server: Server) -> list[IggyClient]:
    return [await wheel.connect(server.address) for _ in range(CLIENTS_COUNT)]


@pytest.fixture
def raw(server: Server) -> Iterator[RawClient]:
    """A bare client, signed in."""
    with RawClient(server.port) as bare:
        bare.login()
        yield bare


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return str(request.node.name)[:255]
