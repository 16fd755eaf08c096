"""A whole broker in the loop that calls it: real listeners on 127.0.0.1, data in memory or in a directory."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ..broker.app import DEFAULT_ROOT, LISTENERS, App, Root, clock_us
from ..broker.config import from_settings
from ..broker.passwords import Cost
from ..storage.engine import Engine
from ..storage.memory import MemoryEngine

if TYPE_CHECKING:
    from ..client import Client

ROOT = Root(*DEFAULT_ROOT)
ANY_PORT = "127.0.0.1:0"
# Nobody has to guess these: a login takes 0.4 ms, where a server takes 37 ms to check its password.
PASSWORD_COST = Cost(passes=1, memory_kib=8)
# Where the data directory would be. It is never there, so nothing is said about the disk.
_NOWHERE = "/nonexistent/pybroker"


class Options(TypedDict, total=False):
    """What a broker of a test is like.

    path: the data directory, made if need be, which stays; in memory without. listeners: of "tcp" (the default),
    "http", "quic" and "websocket". settings: any keys of the configuration, "tcp.wire", with their values. clock:
    returns microseconds since the epoch.
    """

    path: Path | str | None
    listeners: Collection[str]
    settings: Mapping[str, object] | None
    clock: Callable[[], int]


class Endpoints:
    """Where a broker is, and how to get there as its root user, iggy with password iggy.

    addresses: each listener's "host:port", by its name.
    """

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self.addresses = addresses

    @property
    def address(self) -> str:
        """The "host:port" of TCP. Raises LookupError where there is none."""
        if "tcp" not in self.addresses:
            raise LookupError('the broker does not listen for TCP: start it, with "tcp" among its listeners')
        return self.addresses["tcp"]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        """What clients connect to over TCP."""
        return f"iggy://{ROOT.username}:{ROOT.password}@{self.address}"

    def client(self, **options: Any) -> "Client":
        """Return a new client that is not connected yet. options: those of `pybroker.client.Client`."""
        from ..client import Client

        return Client(self.url, **options)


class Broker(Endpoints):
    """A broker that `start` starts and `close` ends, in one loop. It may be started again."""

    def __init__(
        self,
        *,
        path: Path | str | None = None,
        listeners: Collection[str] = ("tcp",),
        settings: Mapping[str, object] | None = None,
        clock: Callable[[], int] = clock_us,
    ) -> None:
        """Take what `Options` describes. Raises ConfigError."""
        super().__init__({})
        self._settings = _settings(path, listeners) | dict(settings or {})
        self._config = from_settings(self._settings)
        self._clock = clock
        self._engine: Engine | None = None if path is not None else MemoryEngine(clock)
        self._app: App | None = None

    async def start(self) -> None:
        """Return when it listens. Raises StartError."""
        assert self._app is None, "it runs already"
        app = App(self._config, ROOT, engine=self._engine, clock=self._clock, password_cost=PASSWORD_COST)
        self.addresses = await app.start()
        self._app = app

    async def close(self) -> None:
        """Answer what has arrived and end every connection."""
        app, self._app = self._app, None
        if app is not None:
            await app.close()

    async def restart(self) -> None:
        """Close it and start it on what it has kept, at the same addresses: connections break, groups are empty."""
        await self.close()
        ports = {f"{name}.address": address for name, address in self.addresses.items()}
        self._config = from_settings(self._settings | ports)
        await self.start()


@asynccontextmanager
async def broker(**options: Unpack[Options]) -> AsyncGenerator[Broker]:
    """Run a broker of your own, in the loop that calls. Any number can run at once."""
    served = Broker(**options)
    await served.start()
    try:
        yield served
    finally:
        await served.close()


def _settings(path: Path | str | None, listeners: Collection[str]) -> dict[str, object]:
    settings: dict[str, object] = {f"{name}.address": ANY_PORT for name in LISTENERS}
    settings |= {f"{name}.enabled": name in listeners for name in (*LISTENERS, *listeners)}
    settings["pybroker.busy_poll"] = "0 s"  # its clients share the interpreter
    return settings | {"system.path": _NOWHERE if path is None else path, "system.logging.file_enabled": False}
