"""The pytest plugin: fixtures of a whole broker for any test, with or without an event loop.

    def test_orders_are_published(pybroker_url):
        ...

A test, class or module says what its broker needs by `@pytest.mark.pybroker(listeners=..., settings=...)`, a suite by
`pybroker_listeners` and `pybroker_settings` in its configuration. The broker itself is imported by the first test that
asks for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from .server import Options
    from .thread import RunningBroker

_MARKER = "pybroker(path=, listeners=, settings=, clock=): what the test's broker is like, see pybroker.testing.Options"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("pybroker_listeners", "listeners of the brokers that fixtures start", type="args", default=["tcp"])
    parser.addini("pybroker_settings", "their configuration, lines of `key = value`", type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def pybroker_server(request: pytest.FixtureRequest) -> Iterator["RunningBroker"]:
    """A broker of the test's own, in memory, with nothing in it."""
    from .thread import running

    options = _options(request.config)
    item: pytest.Item = request.node
    for marker in reversed([*item.iter_markers("pybroker")]):  # the closest counts last
        options = _with(options, cast("Options", marker.kwargs))
    with running(**options) as broker:
        yield broker


@pytest.fixture
def pybroker_url(pybroker_server: "RunningBroker") -> str:
    """What clients of the test's own broker connect to."""
    return pybroker_server.url


@pytest.fixture(scope="session")
def pybroker_session_server(request: pytest.FixtureRequest) -> Iterator["RunningBroker"]:
    """A broker that all tests share: let each use a stream of its own."""
    from .thread import running

    with running(**_options(request.config)) as broker:
        yield broker


def _with(options: "Options", wanted: "Options") -> "Options":
    """Return the options with those that are wanted in place of others; the settings of both count."""
    settings = {**(options.get("settings") or {}), **(wanted.get("settings") or {})}
    return {**options, **wanted, "settings": settings}


def _options(config: pytest.Config) -> "Options":
    """Return what the suite's configuration asks of every broker. Raises UsageError."""
    lines: list[str] = config.getini("pybroker_settings")
    if wrong := next((line for line in lines if "=" not in line), None):
        raise pytest.UsageError(f"pybroker_settings: given {wrong!r}, expected lines such as `tcp.wire = vsr`")
    pairs = (line.partition("=") for line in lines)
    settings = {key.strip(): value.strip() for key, _, value in pairs}
    return {"listeners": config.getini("pybroker_listeners"), "settings": settings}
