"""What a start imports, and what it leaves to whoever needs it: in processes of their own, on all default listeners."""

import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 60
# Prints what is imported once a broker listens.
STARTED = """
import asyncio, sys
from pathlib import Path
from pybroker.broker.app import App, Root
from pybroker.broker.config import from_settings

async def main():
    settings = {f"{name}.address": "127.0.0.1:0" for name in ("tcp", "quic", "http", "websocket")}
    settings |= {f"{name}.enabled": False for name in sys.argv[2:]} | {"system.path": sys.argv[1]}
    app = App(from_settings(settings), Root("iggy", "iggy"))
    await app.start()
    print(*sorted(sys.modules))
    await app.close()

asyncio.run(main())
"""
# Tells whether garbage is collected once a broker is ready, and whether what the start made is left out; stops it.
READY = """
import gc, logging, os, signal, sys
from pybroker.__main__ import main

def tell(record):
    if "is ready" in record.getMessage():
        print(gc.isenabled(), len(gc.get_objects()) < gc.get_freeze_count() / 10)
        os.kill(os.getpid(), signal.SIGTERM)
    return True

logging.getLogger("pybroker.broker.cli").addFilter(tell)
sys.argv[1:] = ["serve"]
sys.exit(main())
"""
FOR_FEW = {
    "aioquic",
    "obstore",
    "opentelemetry",
    "prometheus_client",
    "pybroker.broker.archive",
    "pybroker.broker.listeners.frames",
    "pybroker.broker.listeners.http.openapi",
    "pybroker.broker.listeners.quic",
    "pybroker.broker.listeners.upgraded",
    "pybroker.broker.metrics",
    "pybroker.broker.services.snapshot_files",
    "service_identity",
    "websockets",
}
FOR_HTTP = {"cryptography", "h11", "jwt", "pybroker.broker.listeners.http", "starlette", "uvicorn"}


def run(program: str, *arguments: str, **settings: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=settings or None)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("off", "needless"),
    [((), FOR_FEW), (("http", "quic", "websocket"), FOR_FEW | FOR_HTTP), (("http",), FOR_FEW | FOR_HTTP)],
    ids=["every listener", "TCP alone", "without HTTP"],
)
def test_a_start_imports_nothing_that_only_few_requests_need(
    tmp_path: Path, off: tuple[str, ...], needless: set[str]
) -> None:
    loaded = set(run(STARTED, str(tmp_path / "data"), *off).split())
    assert "pybroker.broker.listeners.tcp" in loaded
    assert loaded & needless == set()


def test_a_broker_that_is_ready_looks_for_garbage_but_not_in_what_its_start_made(tmp_path: Path) -> None:
    addresses = {f"IGGY_{name}_ADDRESS": "127.0.0.1:0" for name in ("TCP", "QUIC", "HTTP", "WEBSOCKET")}
    told = run(READY, IGGY_SYSTEM_PATH=str(tmp_path / "data"), **addresses)
    assert "True True" in told.splitlines()
