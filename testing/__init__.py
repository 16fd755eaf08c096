"""A whole broker for tests of programs that use one: `broker()` in an event loop, `running()` for tests without.

    async with pybroker.testing.broker() as broker:
        ...  # broker.url is what a client connects to

Nothing is imported before it is used: the pytest plugin is loaded by every run of pytest where pybroker is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server import Broker, Options, broker
    from .thread import RunningBroker, running

__all__ = ["Broker", "Options", "RunningBroker", "broker", "running"]

_MODULES = {name: ".thread" if name in ("RunningBroker", "running") else ".server" for name in __all__}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
