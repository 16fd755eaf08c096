"""`pybroker serve` and `pybroker config`."""

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from .. import __version__
from ..protocol.batch import IS_NATIVE
from ..storage.errors import Poisoned
from .app import App, StartError, choose_root
from .config import ConfigError, Loaded, load, to_toml
from .logfiles import formatter_of
from .logtail import TAIL
from .loops import loop_factory

log = logging.getLogger(__name__)

_LEVELS = {"trace": logging.DEBUG, "warn": logging.WARNING, "off": logging.CRITICAL + 1}


def serve(arguments: list[str]) -> int:
    """Run a broker until it is told to stop. Returns the exit status."""
    parser = argparse.ArgumentParser("pybroker serve", description="Run the broker.")
    _add_config(parser)
    parser.add_argument(
        "--with-default-root-credentials", action="store_true", help="name a new server's root user iggy, password iggy"
    )
    parser.add_argument("--fresh", action="store_true", help="delete the data directory's contents first")
    parser.add_argument("--version", action="version", version=f"pybroker {__version__}")
    # Test harnesses written for Iggy start a server with these. There is one node.
    parser.add_argument("--replica-id", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--follower", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        loaded = _load(options.config)
        root = choose_root(loaded.environ, default_credentials=options.with_default_root_credentials)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(App(loaded.config, root, fresh=options.fresh)))
    except (ConfigError, StartError, Poisoned) as error:
        print(f"pybroker: {error}", file=sys.stderr)
        return 1
    return 0


def config(arguments: list[str]) -> int:
    """Show or check the configuration. Returns the exit status."""
    parser = argparse.ArgumentParser("pybroker config", description="Show or check the configuration.")
    actions = parser.add_subparsers(dest="action", required=True)
    _add_config(actions.add_parser("show", help="print what would be in force, secrets left out"))
    _add_config(actions.add_parser("check", help="say what is wrong with it, if anything"))
    options = parser.parse_args(arguments)
    try:
        loaded = load(options.config, os.environ)
    except ConfigError as error:
        print(f"pybroker: {error}", file=sys.stderr)
        return 1
    if options.action == "show":
        print(to_toml(loaded.config), end="")
        return 0
    warnings = [note.message for note in loaded.notes if note.level >= logging.WARNING]
    print("\n".join([*warnings, f"{loaded.path or 'the defaults'}: valid"]))
    return 0


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", "-c", type=Path, metavar="FILE", help="the configuration (default: $IGGY_CONFIG_PATH, or none)"
    )


def _load(path: Path | None) -> Loaded:
    """Load the configuration, begin to log as it says, and log what was noticed."""
    loaded = load(path, os.environ)
    settings = loaded.config.system.logging
    handlers = [logging.StreamHandler(sys.stderr), TAIL]
    for handler in handlers:
        handler.setFormatter(formatter_of(settings.format))
    logging.basicConfig(level=_LEVELS.get(settings.level, settings.level.upper()), handlers=handlers)
    for note in loaded.notes:
        log.log(note.level, "%s", note.message)
    return loaded


async def _serve(app: App) -> None:
    """Start, wait for a signal, close. A second signal ends the process at once."""
    stop = asyncio.Event()
    _on_signals(lambda: os._exit(1) if stop.is_set() else stop.set())
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, app.reload)
    _allow_files()
    gc.disable()  # as when this was imported: what a start makes stays
    try:
        await app.start()
    finally:
        if app.created_root and app.root.generated:  # also if the start failed later: the user exists from here on
            # Printed, not logged: secrets stay out of logs, and nobody can look this one up again.
            print(f"root user: {app.root.username}  password: {app.root.password}  (shown once)", flush=True)
    gc.freeze()
    gc.enable()
    if not IS_NATIVE:
        log.info("batches are verified in Python, which is slower: no C compiler was there when pybroker was installed")
    log.info("pybroker %s is ready", __version__)
    await stop.wait()
    log.info("stopping")
    await app.close()


def _on_signals(act: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)


def _allow_files() -> None:
    """Raise the limit of open files to what the system allows: every connection and active segment is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
