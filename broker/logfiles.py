"""The log on disk: the file that is written, older ones beside it, bounded in size and age; and its lines as JSON."""

import logging
import os
import time
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import msgspec

NAME = "pybroker.log"
TEXT, JSON = "text", "json"
_LINE = "%(asctime)s %(levelname)-7s %(message)s"
# Files kept when nothing bounds them all together.
_FILES_MAX = 1000
_MODE = 0o640


class JsonFormatter(logging.Formatter):
    """A line is an object: time (UTC), level, logger, message, and where there is one exception, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, str] = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


def formatter_of(kind: str) -> logging.Formatter:
    """Return how lines look: TEXT or JSON."""
    return JsonFormatter() if kind == JSON else logging.Formatter(_LINE)


class LogFile(RotatingFileHandler):
    """NAME in a folder; full, it becomes NAME.1, that NAME.2, and so on.

    size_max: bytes of a file. total_max: of all, 0 for no limit. age_max_s: after it an older file is removed. A disk
    that takes no more lines is no reason to stop: they are on the terminal too.
    """

    def __init__(self, folder: Path, *, size_max: int, total_max: int, age_max_s: float) -> None:
        """Raises OSError where the folder can't be made or written to."""
        folder.mkdir(parents=True, exist_ok=True)
        older = max(total_max // size_max - 1, 1) if total_max else _FILES_MAX
        self._age_max_s = age_max_s
        super().__init__(folder / NAME, maxBytes=size_max, backupCount=older, encoding="utf-8")
        self.addFilter(logging.Filter(__name__.partition(".")[0]))
        self._remove_old()

    def doRollover(self) -> None:  # noqa: N802
        super().doRollover()
        self._remove_old()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Let a line go that can't be written."""

    def close(self) -> None:
        with suppress(OSError):  # lines that are still to be written
            super().close()

    def _open(self) -> Any:
        return open(
            self.baseFilename, "a", encoding=self.encoding, opener=lambda path, flags: os.open(path, flags, _MODE)
        )

    def _remove_old(self) -> None:
        path = Path(self.baseFilename)
        before = time.time() - self._age_max_s
        for older in path.parent.glob(f"{NAME}.*"):
            with suppress(OSError):
                if older.stat().st_mtime < before:
                    older.unlink()
