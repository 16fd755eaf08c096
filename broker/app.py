"""The whole broker: the one place that knows every part. Built in order, closed in reverse."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from ..protocol.inbox import Pool
from ..storage.engine import Clock, Engine
from ..storage.errors import Corrupt, Locked, UnknownKey
from ..storage.local.disk import Disk
from ..storage.local.engine import LocalEngine
from ..storage.local.journal import read_journal
from ..storage.memory import MemoryJournal
from ..storage.seal import Keys
from . import events, passwords
from .catalog import Catalog
from .config import Config, to_toml
from .config.schema import Tls
from .connection import Limits
from .counters import Counters
from .datadir.manifest import is_backup
from .dedup import Windows
from .dispatch import Dispatch
from .encryption import load_keys
from .groups import Groups
from .listeners.peers import Peers, Room
from .listeners.quic_port import QuicPort
from .listeners.tcp import TcpChannel, TcpListener
from .listeners.tls import tls_channels
from .listeners.websocket import WebSocketListener
from .logfiles import LogFile, formatter_of
from .logs import Logs
from .loops import has_cores
from .offsets import Offsets
from .passwords import SERVER_COST, Cost, Passwords
from .retention import Archive, Retention
from .session import Clients
from .state import State
from .sweeper import Sweeper
from .throttle import Throttle
from .tls import Certificate, TlsError

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 3.0
CURRENT_CONFIG = Path("runtime", "current_config.toml")
LISTENERS = ("tcp", "quic", "http", "websocket")
_KEY_ADVICE = "put the key into system.encryption.key or a line of .key_file, and .enabled = true"
DEFAULT_ROOT = ("iggy", "iggy")


class Listener(Protocol):
    """What takes connections. open: returns the bound "host:port". close: takes no more."""

    async def open(self, host: str, port: int) -> str: ...

    def close(self) -> None: ...


class StartError(Exception):
    """The broker can't start; the message is one line for the operator."""


class Root(Struct, frozen=True):
    """Who the root user of a new data directory is. generated: the password is shown once."""

    username: str
    password: str
    generated: bool = False


def choose_root(environ: Mapping[str, str], *, default_credentials: bool) -> Root:
    """Take the root user from the environment, the defaults if asked for, or make a password up.

    Raises StartError when only one of the two variables is set, or one has a length that Iggy refuses.
    """
    username, password = environ.get("IGGY_ROOT_USERNAME"), environ.get("IGGY_ROOT_PASSWORD")
    if username is None and password is None:
        return Root(*DEFAULT_ROOT) if default_credentials else Root(DEFAULT_ROOT[0], passwords.random_password(), True)
    if not username or not password:
        raise StartError("set both IGGY_ROOT_USERNAME and IGGY_ROOT_PASSWORD, or neither")
    for name, value, sizes in (
        ("IGGY_ROOT_USERNAME", username, passwords.USERNAME_SIZES),
        ("IGGY_ROOT_PASSWORD", password, passwords.PASSWORD_SIZES),
    ):
        if not sizes[0] <= len(value.encode()) <= sizes[1]:
            raise StartError(f"{name} must have {sizes[0]} to {sizes[1]} bytes, it has {len(value.encode())}")
    return Root(username, password)


def clock_us() -> int:
    return time.time_ns() // 1000


class App:
    """One running broker. `start` and `close` are called once each."""

    def __init__(
        self,
        config: Config,
        root: Root,
        *,
        fresh: bool = False,
        engine: Engine | None = None,
        clock: Clock = clock_us,
        password_cost: Cost = SERVER_COST,
    ) -> None:
        """root: the root user, if the data directory has none yet. fresh: delete the data first.

        engine: what keeps everything, in place of the data directory; the caller closes it. No file is written then.
        """
        self._config = config
        self._engine = engine
        self._clock = clock
        self._password_cost = password_cost
        self.root = root
        self._fresh = fresh
        self.created_root = False
        self._certificates: list[Certificate] = []
        self._closing = AsyncExitStack()

    async def start(self) -> dict[str, str]:
        """Open the data, listen, and return the bound addresses by listener. Raises StartError."""
        try:
            return await self._start()
        except BaseException as error:
            await self._closing.aclose()
            if isinstance(error, OSError):
                raise StartError(f"can't use the data directory {self._config.system.path}: {error}") from error
            raise

    async def close(self) -> None:
        """Stop accepting, answer what has arrived, flush. Raises Poisoned when the disk fails."""
        await self._closing.aclose()

    def reload(self) -> None:
        """Read what may change while the broker runs: certificates. What is wrong with them is logged."""
        log.info("reloading %d certificates", len(self._certificates))
        for certificate in self._certificates:
            certificate.reload()

    async def _start(self) -> dict[str, str]:
        config = self._config
        make_dispatch = self._start_telemetry()  # first, so that it is closed last
        counters = Counters()
        engine = self._engine or self._open_directory(counters)
        catalog = _load_catalog(engine)
        offsets = Offsets(engine.offsets)
        state = State(
            config=config,
            clock=self._clock,
            catalog=catalog,
            logs=Logs(engine, offsets),
            offsets=offsets,
            windows=Windows(config.system.message_deduplication),
            groups=Groups(),
            clients=Clients(),
            throttle=Throttle(self._clock),
            passwords=Passwords(self._password_cost),
            started_at_us=self._clock(),
            counters=counters,
        )
        self._closing.callback(state.passwords.close)
        await catalog.sync()  # a killed process may have left changes that nobody had synced
        await state.logs.reconcile(catalog)
        archive = await _open_archive(config)
        await self._create_root(state)
        self._start_retention(state, archive)
        self._run(Sweeper(state).run(), "sweeper")
        addresses = await self._listen(state, make_dispatch(state))
        if self._engine is None:
            _write_current_config(config, addresses)
        for name, address in addresses.items():
            log.info("listening for %s on %s", name, address)
        return addresses

    def _start_telemetry(self) -> Callable[[State], Dispatch]:
        """Export the log and spans if they are wanted; return what makes the dispatch."""
        settings = self._config.telemetry
        if not settings.enabled:
            return Dispatch
        try:
            from .telemetry import Telemetry  # an extra

            telemetry = Telemetry(settings)
        except ImportError as error:
            raise StartError(f"telemetry.enabled needs `pip install pybroker[otel]`: {error}") from error
        except (ValueError, OSError) as error:
            raise StartError(f"telemetry can't start, look at [telemetry] and the OTEL_ variables: {error}") from error
        self._closing.push_async_callback(telemetry.close)
        return telemetry.dispatch

    def _open_directory(self, counters: Counters) -> Engine:
        """Open the data directory, and log to it."""
        engine = _open_engine(self._config, self._clock, fresh=self._fresh)
        self._closing.push_async_callback(engine.close)
        engine.syncer.noted = counters.syncs.note
        self._log_to_files()
        (self._config.system.path / CURRENT_CONFIG).unlink(missing_ok=True)
        return engine

    def _log_to_files(self) -> None:
        """Keep the log in files too; the data directory is ours from here on."""
        settings = self._config.system.logging
        if not settings.file_enabled:
            return
        folder = self._config.system.path / CURRENT_CONFIG.parent / settings.path
        sizes = {"size_max": settings.max_file_size, "total_max": settings.max_total_size}
        try:
            handler = LogFile(folder, **sizes, age_max_s=settings.retention_us / 1e6)
        except OSError as error:
            raise StartError(f"can't write the log, system.logging.path {folder}: {error.strerror or error}") from error
        handler.setFormatter(formatter_of(settings.format))
        ours = logging.getLogger(__name__.partition(".")[0])
        ours.addHandler(handler)
        self._closing.callback(handler.close)
        self._closing.callback(ours.removeHandler, handler)

    async def _create_root(self, state: State) -> None:
        catalog, root = state.catalog, self.root
        if len(catalog.users):
            return
        hashed = await state.passwords.make_hash(root.password)
        catalog.record(events.UserCreated(catalog.users.next_id, root.username, hashed, state.clock()))
        await catalog.sync()
        self.created_root = True

    def _start_retention(self, state: State, archive: Archive | None) -> None:
        if self._config.data_maintenance.messages.cleaner_enabled:
            self._run(Retention(state, archive).run(), "retention")

    def _run(self, work: Coroutine[None, None, None], name: str) -> None:
        """Do what has no end until the broker is closed."""
        self._closing.push_async_callback(_end, asyncio.create_task(work, name=name))

    async def _listen(self, state: State, dispatch: Dispatch) -> dict[str, str]:
        """Open every listener that is switched on; return where each is."""
        config = self._config
        peers = Peers(
            dispatch=dispatch,
            clients=state.clients,
            pool=Pool(),
            limits=_limits(config),
            connections_max=config.pybroker.connections_max,
            busy_poll_s=config.pybroker.busy_poll_us / 1e6 if has_cores() else 0.0,
        )
        self._closing.push_async_callback(peers.close, CLOSE_TIMEOUT_S)
        addresses: dict[str, str] = {}
        if config.tcp.enabled:
            tls = self._certificate("tcp.tls", config.tcp.tls, config.tcp.address)
            channel = tls_channels(tls.context) if tls else TcpChannel
            addresses["tcp"] = await self._open("tcp", TcpListener(peers, config.tcp.wire, channel), config.tcp.address)
        if config.websocket.enabled:
            addresses["websocket"] = await self._open_websocket(peers)
        if config.quic.enabled:
            addresses["quic"] = await self._open_quic(peers)
        if config.http.enabled:
            addresses["http"] = await self._open_http(state, dispatch, peers.room)
        state.ports |= {name: int(address.rpartition(":")[2]) for name, address in addresses.items()}
        return addresses

    async def _open_websocket(self, peers: Peers) -> str:
        settings = self._config.websocket
        certificate = self._certificate("websocket.tls", settings.tls, settings.address)
        context = certificate.context if certificate else None
        listener = WebSocketListener(peers, settings.wire, ssl_context=context)
        return await self._open("websocket", listener, settings.address)

    async def _open_http(self, state: State, dispatch: Dispatch, room: Room) -> str:
        from .listeners.http.listener import HttpListener  # 0.1 s and 16 MB: only for who needs it

        http = self._config.http
        certificate = self._certificate("http.tls", http.tls, http.address)
        tls = certificate.context if certificate else None
        listener = HttpListener(state, dispatch, _limits(self._config), tls, room)
        self._closing.push_async_callback(listener.finish, CLOSE_TIMEOUT_S)
        return await self._open("http", listener, http.address)

    async def _open_quic(self, peers: Peers) -> str:
        quic = self._config.quic
        files = quic.certificate
        tls = Tls(enabled=True, self_signed=files.self_signed, cert_file=files.cert_file, key_file=files.key_file)
        certificate = self._certificate("quic.certificate", tls, quic.address)
        assert certificate is not None
        port = QuicPort(peers, quic, certificate)
        self._closing.push_async_callback(port.finish)
        return await self._open("quic", port, quic.address)

    def _certificate(self, name: str, settings: Tls, address: str) -> Certificate | None:
        """Return what a listener shows its clients, None where it has no TLS. name: the table, "tcp.tls"."""
        if not settings.enabled:
            return None
        try:
            certificate = Certificate(name, settings, address.rpartition(":")[0].strip("[]"))
        except TlsError as error:
            raise StartError(str(error)) from error
        self._certificates.append(certificate)
        return certificate

    async def _open(self, name: str, listener: Listener, address: str) -> str:
        self._closing.callback(listener.close)
        host, _, port = address.rpartition(":")
        try:
            return await listener.open(host.strip("[]"), int(port))
        except OSError as error:
            raise StartError(f"can't listen on {name}.address {address}: {error.strerror or error}") from error


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _open_archive(config: Config) -> Archive | None:
    maintenance = config.data_maintenance
    if not (maintenance.messages.cleaner_enabled and maintenance.archiver.enabled):
        return None
    from .archive import ArchiveError, open_archive

    try:
        return await open_archive(config)
    except ArchiveError as error:
        raise StartError(str(error)) from error


def _open_engine(config: Config, clock: Clock, *, fresh: bool) -> LocalEngine:
    """Open the data directory. Raises StartError and ConfigError, in words for the operator, and OSError."""
    path = config.system.path
    if is_backup(path):
        raise StartError(f"{path} is a backup: make a data directory of it with `pybroker restore`")
    keys = load_keys(config.system.encryption)
    try:
        if fresh:
            LocalEngine.erase(path)
        return LocalEngine.open(
            path,
            clock,
            sync_interval_s=config.pybroker.sync_interval_us / 1e6,
            keys=_keyring(keys) if keys else None,
            validate=config.system.partition.validate_checksum,
        )
    except Locked as error:
        raise StartError(f"{error}; stop it, or give this server another system.path") from error
    except Corrupt as error:
        raise StartError(f"damaged data: {error}") from error
    except UnknownKey as error:
        where = _partition_of(path, error.path) if error.path else path
        raise StartError(f"{where}: {error}; nothing was changed, {_KEY_ADVICE}") from error


def _keyring(keys: list[bytes]) -> Keys:
    from ..storage.cipher import Keyring  # 7 MB that only who encrypts should need

    return Keyring(keys)


def _partition_of(root: Path, segment: Path) -> str:
    """Say whose segment that is, by what the files of the catalog hold; they are only read."""
    contents = read_journal(Disk(), root / "catalog")
    journal = MemoryJournal()
    if contents.state is not None:
        journal.snapshot(contents.state)
    for event in contents.later:
        journal.append(event.payload)
    log_id = int(segment.parent.name)
    for stream, topic, partition in Catalog(journal).partitions():
        if partition.log_id == log_id:
            return f"partition {partition.id} of topic {topic.name} of stream {stream.name}"
    return f"log {log_id}"


def _load_catalog(engine: Engine) -> Catalog:
    """Fold the journal. Raises StartError where that would lose data."""
    try:
        catalog = Catalog(engine.journal)
    except Corrupt as error:
        raise StartError(f"damaged data: {error}") from error
    if engine.log_ids() and not len(catalog.users):
        # Logs that no catalog knows are removed as leftovers; all of them at once are not that.
        raise StartError("there are messages but no catalog of them: put catalog.journal and catalog.snapshot back")
    return catalog


def _write_current_config(config: Config, addresses: Mapping[str, str]) -> None:
    """Say what is in force, where test harnesses look for the bound ports. Listeners that aren't there are off."""
    off = {name: replace(getattr(config, name), enabled=False) for name in LISTENERS if name not in addresses}
    path = config.system.path / CURRENT_CONFIG
    path.parent.mkdir(exist_ok=True)
    whole = path.with_suffix(".new")
    whole.write_text(to_toml(replace(config, **off), addresses=addresses))
    whole.replace(path)


def _limits(config: Config) -> Limits:
    ours = config.pybroker
    return Limits(
        frame_size_max=ours.frame_size_max,
        frame_size_max_before_login=ours.frame_size_max_before_login,
        unread_size_max=ours.unread_size_max,
        requests_per_turn_max=ours.requests_per_turn_max,
        login_timeout_s=ours.login_timeout_us / 1e6,
        write_timeout_s=ours.write_timeout_us / 1e6,
    )
