"""A real broker process for a test: its own data directory, a free port, stopped whatever happens."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_INTERVAL_S = 0.01
# Below the ports that the system gives to connections: a client that redials 127.0.0.1 from the port it dials
# would connect to itself.
_PORTS = range(20_000, 32_000)


class Server:
    """`pybroker serve` on 127.0.0.1. `path` is its data directory; it may be started again after it ended."""

    def __init__(
        self,
        path: Path,
        *,
        settings: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        default_root: bool = True,
        port: int = 0,
    ) -> None:
        """settings: environment variables (IGGY_...); arguments: of `pybroker serve`, besides the usual."""
        self.path = path
        self.address = ""
        self.websocket_address = ""
        self.quic_address = ""
        self.http_address = ""
        self.output = path.parent / f"{path.name}.log"
        self._settings = {
            "IGGY_SYSTEM_PATH": str(path),
            "IGGY_TCP_ADDRESS": f"127.0.0.1:{port}",
            "IGGY_WEBSOCKET_ADDRESS": "127.0.0.1:0",
            "IGGY_QUIC_ADDRESS": "127.0.0.1:0",
            "IGGY_HTTP_ADDRESS": "127.0.0.1:0",
        } | (settings or {})
        self._arguments = ("--with-default-root-credentials", *arguments) if default_root else arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        """What a client connects to as the root user."""
        return f"iggy+tcp://iggy:iggy@{self.address}"

    @property
    def process_id(self) -> int:
        return self._running.pid

    def start(self) -> "Server":
        """Start and wait until it listens."""
        current = self.path / "runtime" / "current_config.toml"
        current.unlink(missing_ok=True)
        self._process = self.spawn()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (current.exists() and current.stat().st_size):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no start, exit status {self._process.poll()}: {self.log()}")
            time.sleep(_INTERVAL_S)
        listeners = tomllib.loads(current.read_text())
        self.address = listeners["tcp"]["address"]
        self.websocket_address = listeners["websocket"]["address"]
        self.quic_address = listeners["quic"]["address"]
        self.http_address = listeners["http"]["address"]
        return self

    def command(self) -> list[str]:
        """Return what is run."""
        return command("serve", *self._arguments)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and return at once."""
        with self.output.open("ab") as output:
            return subprocess.Popen(
                self.command(),
                stdout=output,
                stderr=output,
                env=environment(self._settings),
                cwd=self.path.parent,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """Ask it to end; return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for its end; return its exit status."""
        return self._running.wait(timeout_s)

    def log(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def wait_log(self, condition: Callable[[list[str]], bool], timeout_s: float = STOP_TIMEOUT_S) -> list[str]:
        """Wait until the lines of the log fulfil `condition`; return them."""
        deadline = time.monotonic() + timeout_s
        while not condition(lines := self.log().splitlines()):
            assert time.monotonic() < deadline, f"not logged in {timeout_s:g} s: {self.log()}"
            time.sleep(_INTERVAL_S)
        return lines

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pybroker", *arguments]


def environment(settings: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with `settings` in place of every variable of Iggy's."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("IGGY_", "RUST_LOG"))} | settings


def run(
    *arguments: str, settings: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `pybroker` with `arguments` to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment(settings or {}),
        cwd=cwd,
        timeout=START_TIMEOUT_S,
        check=False,
    )


def free_port() -> int:
    """Return a port that a server can have again after a restart, whoever dials it meanwhile."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")
