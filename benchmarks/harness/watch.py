"""What a run takes of its server's machine."""

import json
import re
from urllib.request import Request, urlopen

import psutil
from msgspec import Struct

from ..servers import cpu_seconds

_TIMEOUT_S = 10


class ServerStats(Struct, frozen=True):
    """cpu_seconds: in steps of 10 ms, of all threads. Memory is bytes, the most there was; `own` leaves out the pages
    of mapped files, which are the system's cache. syncs: of the disk, None where nobody can be asked."""

    cpu_seconds: float
    cpu_seconds_per_million: float
    memory_max: int
    memory_own_max: int
    syncs: int | None = None
    messages_per_sync: float | None = None


class Metrics:
    """The metrics that a server of ours shows over HTTP."""

    def __init__(self, address: str, username: str, password: str) -> None:
        self._url = f"http://{address}"
        credentials = json.dumps({"username": username, "password": password}).encode()
        answer = json.loads(self._get("/users/login", {"Content-Type": "application/json"}, credentials))
        self._headers = {"Authorization": f"Bearer {answer['access_token']['token']}"}

    def syncs(self) -> int:
        """Return how many times the disk was synced until now."""
        found = re.search(rb"^pybroker_sync_seconds_count (\S+)", self._get("/metrics", self._headers), re.MULTILINE)
        return int(float(found[1])) if found else 0

    def _get(self, path: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
        with urlopen(Request(self._url + path, body, headers), timeout=_TIMEOUT_S) as answer:
            return answer.read()


class Watch:
    def __init__(self, process: psutil.Process, metrics: Metrics | None = None) -> None:
        self._process = process
        self._metrics = metrics
        self._syncs = 0
        self._cpu_seconds = cpu_seconds(process)
        self._memory_max = self._memory_own_max = 0

    def begin(self) -> None:
        """Count from here on."""
        self._syncs = self._metrics.syncs() if self._metrics else 0
        self._cpu_seconds = cpu_seconds(self._process)

    def look(self) -> None:
        memory = self._process.memory_info()
        self._memory_max = max(self._memory_max, memory.rss)
        self._memory_own_max = max(self._memory_own_max, memory.rss - getattr(memory, "shared", 0))

    def end(self) -> None:
        """Count up to here."""
        self.look()
        self._cpu_seconds = cpu_seconds(self._process) - self._cpu_seconds
        if self._metrics:
            self._syncs = self._metrics.syncs() - self._syncs

    def stats(self, messages: int) -> ServerStats:
        """messages: sent and polled between `begin` and `end`."""
        seconds, syncs = self._cpu_seconds, self._syncs
        return ServerStats(
            cpu_seconds=seconds,
            cpu_seconds_per_million=seconds / max(messages, 1) * 1e6,
            memory_max=self._memory_max,
            memory_own_max=self._memory_own_max,
            syncs=syncs if self._metrics else None,
            messages_per_sync=messages / syncs if syncs else None,
        )
