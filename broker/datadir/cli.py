"""`pybroker verify`, `pybroker backup` and `pybroker restore`."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ...storage.cipher import Keyring
from ...storage.errors import Corrupt, Full, Locked
from ...storage.local.backup import Restless
from ..config import ConfigError, load
from ..encryption import load_keys
from .backup import Unusable, back_up
from .backup import restore as restore_backup
from .verify import NotData, Totals
from .verify import verify as verify_directory

_TERMINAL_INTERVAL_S = 0.2
_LINE_INTERVAL_S = 10.0
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_INTERRUPTED = 130

_VERIFY = """Verify every byte of a data directory that no server uses, also of a backup.

Each finding is a line on the standard output: the file, the byte, what is wrong, and which offsets of which
partition that concerns. The exit status is 1 if anything is wrong and was not repaired. Encrypted messages are
verified with the keys of the server's configuration, given as for `pybroker serve`; without them only their headers
are."""
_BACKUP = """Copy a data directory, also under a running server, so that a server can start on the copy.

Segments that no longer change are linked, not copied, where DIR and TARGET are on one file system: they take no
room. Encrypted data stays encrypted, and the key is not in the backup: keep it elsewhere."""
_RESTORE = """Make a data directory of a backup, for a server to start on.

The backup is verified first, and stays as it is. Encrypted data stays encrypted, and the key is not in the backup:
the server needs it."""


class Meter:
    """Shows how far something is: in place on a terminal, elsewhere as a line now and then."""

    def __init__(self, verb: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._verb = verb
        self._on_terminal = sys.stderr.isatty()
        self._interval_s = _TERMINAL_INTERVAL_S if self._on_terminal else _LINE_INTERVAL_S
        self._clock = clock
        self._shown_at_s = clock()
        self._is_shown = False

    def progress(self, done: int, total: int) -> None:
        now_s = self._clock()
        if now_s - self._shown_at_s < self._interval_s:
            return
        self._shown_at_s = now_s
        share = 100 * min(done, total) // max(total, 1)
        text = f"{self._verb} {in_units(done)} of {in_units(max(done, total))}, {share} %"
        self._is_shown = self._on_terminal
        print(f"\r\033[K{text}" if self._on_terminal else text, end="" if self._on_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def line(self, text: str) -> None:
        """Print a line of the output, not into what is shown."""
        self.clear()
        print(text, flush=True)

    def clear(self) -> None:
        if self._is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self._is_shown = False


def verify(arguments: list[str]) -> int:
    """Verify a data directory. Returns the exit status."""
    parser = _parser("verify", _VERIFY)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the data directory")
    parser.add_argument(
        "--repair", action="store_true", help="build indexes anew and cut torn tails; changes nothing else"
    )
    _add_config(parser)
    options = parser.parse_args(arguments)
    meter = Meter("verified")

    def run() -> int:
        root: Path = options.directory
        keys = _load_keys(options.config)
        totals = verify_directory(root, report=meter.line, progress=meter.progress, keys=keys, repair=options.repair)
        meter.line(_summary(root, totals))
        return 1 if totals.problems else 0

    return _guarded(meter, run)


def backup(arguments: list[str]) -> int:
    """Back up a data directory. Returns the exit status."""
    parser = _parser("backup", _BACKUP)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the data directory")
    parser.add_argument("target", type=Path, metavar="TARGET", help="the backup, a folder that is empty or missing")
    parser.add_argument("--copy", action="store_true", help="link nothing: share no file and no block with DIR")
    options = parser.parse_args(arguments)
    meter = Meter("copied")

    def run() -> int:
        done = back_up(options.directory, options.target, share=not options.copy, progress=meter.progress)
        ways = f"{done.linked} linked, {done.reflinked} reflinked, {done.copied} copied"
        sizes = f"{done.logs} logs, {done.segments} segments ({ways}), {done.bytes} bytes"
        meter.line(f"{options.target}: a backup of {options.directory}: {sizes}")
        return 0

    return _guarded(meter, run)


def restore(arguments: list[str]) -> int:
    """Restore a backup. Returns the exit status."""
    parser = _parser("restore", _RESTORE)
    parser.add_argument("backup", type=Path, metavar="BACKUP", help="what `pybroker backup` made")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the data directory to be, empty or missing")
    parser.add_argument("--no-verify", action="store_true", help="do not verify the backup first")
    _add_config(parser)
    options = parser.parse_args(arguments)
    meter = Meter("done")

    def run() -> int:
        done = restore_backup(
            options.backup,
            options.directory,
            check=not options.no_verify,
            report=meter.line,
            progress=meter.progress,
            keys=_load_keys(options.config),
        )
        sizes = f"{done.logs} logs, {done.segments} segments, {done.bytes} bytes"
        meter.line(f"{options.directory}: restored from {options.backup}: {sizes}")
        return 0

    return _guarded(meter, run)


def in_units(size: int) -> str:
    """Return a size as a person reads it."""
    value, number = float(size), 0
    while value >= 1024 and number < len(_UNITS) - 1:
        value, number = value / 1024, number + 1
    return f"{value:.1f} {_UNITS[number]}" if number else f"{size} bytes"


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        f"pybroker {command}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", "-c", type=Path, metavar="FILE", help="where the keys are (default: $IGGY_CONFIG_PATH, or none)"
    )


def _load_keys(config: Path | None) -> Keyring | None:
    """Return the keys that the server's configuration names. Raises ConfigError."""
    keys = load_keys(load(config, os.environ).config.system.encryption)
    return Keyring(keys) if keys else None


def _guarded(meter: Meter, run: Callable[[], int]) -> int:
    """Run a command; say in a line what keeps it from being done."""
    try:
        return run()
    except NotData as error:
        return _refuse(meter, str(error), 2)
    except Locked as error:
        return _refuse(meter, f"{error}; stop it first", 1)
    except Corrupt as error:
        return _refuse(meter, f"damaged data: {error}; see `pybroker verify`", 1)
    except (Unusable, ConfigError, Restless, Full, OSError) as error:
        return _refuse(meter, str(error), 1)
    except KeyboardInterrupt:
        return _refuse(meter, "interrupted", _INTERRUPTED)


def _refuse(meter: Meter, text: str, status: int) -> int:
    meter.clear()
    print(f"pybroker: {text}", file=sys.stderr)
    return status


def _summary(root: Path, totals: Totals) -> str:
    """Say in a line what was verified."""
    counts = (
        f"{totals.logs} logs, {totals.segments} segments, {totals.records} records, {totals.messages} messages, "
        f"{totals.size} bytes, {totals.problems} problems"
    )
    repaired = f", {totals.mended} repaired" if totals.mended else ""
    unopened = [
        f"; {count} records are encrypted with key {key}: only their headers were verified"
        for key, count in totals.unopened.items()
    ]
    return f"{root}: {counts}{repaired}{''.join(unopened)}"
