"""The processes that are measured: the broker as users start it, and the floor."""

import os
import socket
import subprocess
import sys
import time
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import psutil
from msgspec import Struct

from ..broker.app import CURRENT_CONFIG, DEFAULT_ROOT, LISTENERS
from ..protocol.model.streams import CreateStream
from ..protocol.model.topics import CreateTopic, DeleteTopic
from ..protocol.vsr.frames import LOGOUT
from .frames import STREAM, TOPIC, request_frame
from .load import Peer

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_LOOK_INTERVAL_S = 0.002
_DEFAULTS: Mapping[str, str] = MappingProxyType({})


class Start(Struct, frozen=True):
    """seconds: from starting the process to a connection it took. rss: bytes of memory it then holds."""

    seconds: float
    rss: int


class Target(ABC):
    """A server that is running, and the connection that loads it."""

    def __init__(self, name: str, process_id: int, port: int) -> None:
        self.name = name
        self.peer = Peer(port)
        self._process = psutil.Process(process_id)

    @property
    def cpu_seconds(self) -> float:
        return cpu_seconds(self._process)

    @property
    def rss(self) -> int:
        return self._process.memory_info().rss

    def keep_on(self, core: int) -> None:
        """Run on this core only; threads to come too."""
        self._process.cpu_affinity([core])

    @abstractmethod
    def empty(self, *, poll_size: int) -> None:
        """Forget everything that was sent. poll_size: how many bytes of records the polls to come will get."""


class Broker(Target):
    """`pybroker serve`. Every load begins in a new topic."""

    def __init__(self, process_id: int, port: int) -> None:
        super().__init__("pybroker", process_id, port)
        self.peer.login(*DEFAULT_ROOT)
        self.peer.ask(CreateStream(STREAM))
        self.peer.ask(CreateTopic(STREAM, 1, TOPIC))

    def empty(self, *, poll_size: int) -> None:
        self.peer.ask(DeleteTopic(STREAM, TOPIC))
        self.peer.ask(CreateTopic(STREAM, 1, TOPIC))


class Floor(Target):
    """`floor.py`, which answers without looking."""

    def __init__(self, process_id: int, port: int) -> None:
        super().__init__("floor", process_id, port)

    def empty(self, *, poll_size: int) -> None:
        body = poll_size.to_bytes(4, "little")
        self.peer.exchange(request_frame(body, operation=LOGOUT, client=self.peer.client))


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process until now, in steps of 10 ms."""
    times = process.cpu_times()
    return times.user + times.system


@contextmanager
def broker(folder: Path, settings: Mapping[str, str] = _DEFAULTS) -> Generator[Broker]:
    """Run a broker on a folder. settings: variables of its configuration, IGGY_..."""
    with broker_process(folder, settings) as process:
        target = Broker(process.pid, port_of(process, folder))
        yield target
        target.peer.close()


@contextmanager
def floor(folder: Path) -> Generator[Floor]:
    command = [sys.executable, "-m", "pybroker.benchmarks.floor", str(folder / "floor.log")]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        target = Floor(process.pid, int(process.stdout.readline()))
        yield target
        target.peer.close()


def start(folder: Path) -> Start:
    """Start a broker, take the time until it accepts a connection, and stop it."""
    (folder / CURRENT_CONFIG).unlink(missing_ok=True)
    begun = time.perf_counter()
    with broker_process(folder) as process:
        socket.create_connection(("127.0.0.1", port_of(process, folder))).close()
        seconds = time.perf_counter() - begun
        return Start(seconds, psutil.Process(process.pid).memory_info().rss)


@contextmanager
def broker_process(folder: Path, settings: Mapping[str, str] = _DEFAULTS) -> Generator[subprocess.Popen[bytes]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IGGY_")}
    environment |= {"IGGY_SYSTEM_PATH": str(folder), "IGGY_TCP_ADDRESS": "127.0.0.1:0"}
    environment |= {"IGGY_WEBSOCKET_ADDRESS": "127.0.0.1:0", "IGGY_QUIC_ADDRESS": "127.0.0.1:0"}
    environment |= {"IGGY_HTTP_ADDRESS": "127.0.0.1:0"}
    environment |= {"IGGY_SYSTEM_LOGGING_LEVEL": "warn"} | dict(settings)
    command = [sys.executable, "-m", "pybroker", "serve", "--with-default-root-credentials"]
    with ended(subprocess.Popen(command, env=environment, cwd=folder.parent)) as process:
        yield process


def tls_settings(certificate: Path) -> dict[str, str]:
    """Return the settings of a broker that encrypts everything with a pair in one file."""
    settings: dict[str, str] = {}
    for listener in ("TCP", "WEBSOCKET", "HTTP"):
        table = f"IGGY_{listener}_TLS"
        settings |= {f"{table}_ENABLED": "true", f"{table}_CERT_FILE": str(certificate)}
        settings[f"{table}_KEY_FILE"] = str(certificate)
    return settings


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """End a process on leaving, whatever happened."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def port_of(process: subprocess.Popen[bytes], folder: Path) -> int:
    """Wait until a broker listens; return its port for TCP."""
    return int(addresses_of(process, folder)["tcp"].rpartition(":")[2])


def addresses_of(process: subprocess.Popen[bytes], folder: Path) -> dict[str, str]:
    """Wait for the file in which a broker says what it bound; return "host:port" by listener."""
    path = folder / CURRENT_CONFIG
    deadline = time.monotonic() + START_TIMEOUT_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the broker did not start, exit status {process.poll()}")
        time.sleep(_LOOK_INTERVAL_S)
    config = tomllib.loads(path.read_text())
    return {name: config[name]["address"] for name in LISTENERS}
