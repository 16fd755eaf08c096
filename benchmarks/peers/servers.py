"""The peers' servers: each started on loopback, with a temporary directory, and stopped."""

import os
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from .. import servers

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
LOOK_INTERVAL_S = 0.05
LOG = "server.log"
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one in PATH changes the user and the directories


class Server(Struct, frozen=True):
    """Addresses as the drivers take them, by protocol. process_id: None for one that somebody else has started."""

    addresses: dict[str, str]
    process_id: int | None = None


@contextmanager
def pybroker(folder: Path) -> Generator[Server]:
    with servers.broker_process(folder / "data") as process:
        address = f"iggy://iggy:iggy@127.0.0.1:{servers.port_of(process, folder / 'data')}"
        yield Server({"iggy": address}, process.pid)


@contextmanager
def redis(folder: Path, appendfsync: str) -> Generator[Server]:
    """Run Redis with an append-only file, but no snapshots and rewrites, which would fall into some rounds only."""
    port = free_port()
    options = {"bind": "127.0.0.1", "port": str(port), "dir": str(folder), "save": ""}
    options |= {"appendonly": "yes", "appendfsync": appendfsync, "auto-aof-rewrite-percentage": "0"}
    command = ["redis-server", *(word for key, value in options.items() for word in (f"--{key}", value))]
    with _running(command, folder, [port]) as process:
        yield Server({"redis": f"redis://127.0.0.1:{port}"}, process.pid)


@contextmanager
def nats(folder: Path) -> Generator[Server]:
    port = free_port()
    command = ["nats-server", "--addr", "127.0.0.1", "--port", str(port), "--jetstream", "--store_dir", str(folder)]
    with _running(command, folder, [port]) as process:
        yield Server({"nats": f"nats://127.0.0.1:{port}"}, process.pid)


@contextmanager
def rabbitmq(folder: Path) -> Generator[Server]:
    """Run RabbitMQ with a port mapper of its own, which would otherwise be left behind."""
    amqp, stream, mapper = free_port(), free_port(), free_port()
    config = folder / "rabbitmq.conf"
    advertised = f"stream.advertised_host = 127.0.0.1\nstream.advertised_port = {stream}\n"
    config.write_text(f"listeners.tcp.1 = 127.0.0.1:{amqp}\nstream.listeners.tcp.1 = 127.0.0.1:{stream}\n{advertised}")
    plugins = folder / "plugins"
    plugins.write_text("[rabbitmq_stream].\n")
    settings = {"NODENAME": "bench@localhost", "CONFIG_FILE": str(config), "ENABLED_PLUGINS_FILE": str(plugins)}
    settings |= {"MNESIA_BASE": str(folder), "LOG_BASE": str(folder), "DIST_PORT": str(free_port())}
    environment = {f"RABBITMQ_{key}": value for key, value in settings.items()}
    environment |= {"HOME": str(folder), "ERL_EPMD_PORT": str(mapper), "ERL_EPMD_ADDRESS": "127.0.0.1"}
    mapping = ["epmd", "-port", str(mapper), "-address", "127.0.0.1"]
    with (
        _running(mapping, folder, [mapper], log="mapper.log"),
        _running([str(RABBITMQ)], folder, [amqp, stream], environment) as process,
    ):
        addresses = {"amqp": f"amqp://guest:guest@127.0.0.1:{amqp}/"}
        yield Server(addresses | {"stream": f"rabbitmq-stream://guest:guest@127.0.0.1:{stream}"}, process.pid)


@contextmanager
def on_core(core: int | None) -> Generator[None]:
    """Have the processes that are started meanwhile, and all their threads, run on one core; None for any."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def _running(
    command: list[str], folder: Path, ports: Sequence[int], environment: Mapping[str, str] | None = None, log: str = LOG
) -> Generator[subprocess.Popen[bytes]]:
    """Run a server until it is left; it has opened its ports when this yields. Raises RuntimeError if it doesn't."""
    with (folder / log).open("wb") as output:
        inherited = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, cwd=folder, env=inherited, stdout=output, stderr=output)
    with servers.ended(process):
        for port in ports:
            _wait(process, port, folder / log)
        yield process


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(LOOK_INTERVAL_S)
        else:
            return
    said = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the server did not start, exit status {process.poll()}; it said: {said}")
