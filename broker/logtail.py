"""The newest lines of this process's own log, in memory: what a snapshot shows of a server that logs to a terminal."""

import logging
from collections import deque

TAIL_SIZE_MAX = 1024 * 1024
LINE_SIZE_MAX = 16 * 1024


class LogTail(logging.Handler):
    """Keeps what pybroker logs, the oldest dropped first; nothing that libraries log, who may show more than we do."""

    def __init__(self, size_max: int = TAIL_SIZE_MAX) -> None:
        super().__init__()
        self._size_max = size_max
        self._size = 0
        self._lines: deque[bytes] = deque()
        self.addFilter(logging.Filter(__name__.partition(".")[0]))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode(errors="backslashreplace")[:LINE_SIZE_MAX] + b"\n"
        except Exception:
            self.handleError(record)
            return
        self._lines.append(line)
        self._size += len(line)
        while self._size > self._size_max:
            self._size -= len(self._lines.popleft())

    def read(self) -> bytes:
        """Return the lines, UTF-8, at most as many bytes as the tail keeps. From any thread."""
        self.acquire()
        try:
            return b"".join(self._lines)
        finally:
            self.release()


TAIL = LogTail()  # As there is one log a process. `pybroker serve` gives it records; embedded, it stays empty.
