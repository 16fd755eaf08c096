"""Runs brokers in memory and in the directory it is given, and fails if one leaves anything in its process."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

from pybroker.broker.app import LISTENERS, StartError
from pybroker.testing import Broker, broker, running

sys.path.append(str(Path(__file__).parents[1]))

from support.streams import signed_in

SETTINGS = {"system.logging.file_enabled": True, "http.tls.enabled": True}


def traces() -> dict[str, object]:
    """Return what a broker could leave in its process."""
    loggers = [logging.getLogger(), logging.getLogger("pybroker"), logging.getLogger("uvicorn")]
    loop = asyncio.get_running_loop()
    return {
        "tasks": {task.get_name() for task in asyncio.all_tasks()},
        "threads": {thread.name for thread in threading.enumerate()},
        "files": open_files(),
        "handlers": [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers],
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "loop": (loop.get_exception_handler(), loop.get_debug()),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
    }


def open_files() -> list[str]:
    """Return what is open, by its kind for what has no path: sockets have numbers of their own."""
    found: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}").partition(":[")[0])
    return sorted(found)


async def serve(path: Path | None) -> None:
    async with broker(path=path, listeners=LISTENERS, settings=SETTINGS) as served:
        assert await signed_in(served.address)


async def serve_in_thread(path: Path | None) -> None:
    with running(path=path, listeners=LISTENERS, settings=SETTINGS) as served:
        assert await signed_in(served.address)


async def fail(_path: Path | None) -> None:
    async with broker() as served:
        with suppress(StartError):
            await Broker(settings={"tcp.address": served.address}).start()


async def main(folder: Path) -> None:
    for work in (serve, serve_in_thread, fail):
        for path in (None, folder):
            await work(path)  # what is imported and cached with the first one stays
            before = traces()
            assert before["threads"] == {"MainThread"}, f"{work.__name__} {path}: {before}"
            await work(path)
            assert (after := traces()) == before, f"{work.__name__} {path}: {before} became {after}"
            gc.collect()  # warns of what was left to the collector


if __name__ == "__main__":
    warnings.simplefilter("always")
    asyncio.run(main(Path(sys.argv[1])))
