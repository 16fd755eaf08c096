"""Real clients under load, each a wheel in a process of its own, in turns, so that what disturbs one disturbs all."""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil
from msgspec import Struct, field

from . import servers

NEWEST = "0.9.0"
KINDS = ("send", "poll")
_CLIENTS = Path(".venv", "clients")


class Load(Struct, frozen=True):
    """What a client does in a round: so many requests of `count` messages, `size` bytes each."""

    count: int
    size: int
    requests: int

    def __str__(self) -> str:
        return f"{self.count} x {self.size} B"


class Result(Struct):
    """requests: seconds of each, by round. cpu_seconds: what the broker took for all of them."""

    load: Load
    requests: list[list[float]] = field(default_factory=list[list[float]])
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Return messages a second: the median of the rounds."""
        return self.load.requests * self.load.count / median(map(sum, self.requests))

    @property
    def cpu_per_million(self) -> float:
        messages = len(self.requests) * self.load.requests * self.load.count
        return self.cpu_seconds / messages * 1e6

    def ratio_to(self, base: "Result") -> float:
        """Return how many times as fast as `base` it was: the median of the rounds' ratios."""
        rounds = zip(base.requests, self.requests, strict=True)
        return median(sum(theirs) / sum(own) for theirs, own in rounds)

    def latency_ms(self, share: float) -> float:
        """Return the time that this share of the requests took at most."""
        times = sorted(seconds for requests in self.requests for seconds in requests)
        return times[min(int(len(times) * share), len(times) - 1)] * 1e3


class Client:
    """One wheel on one connection, with a topic of its own. broker: whose processor time is counted."""

    def __init__(
        self, stack: ExitStack, url: str, name: str, load: Load, broker: psutil.Process, version: str = NEWEST
    ) -> None:
        script = str(Path(__file__).with_name("wheel.py"))
        numbers = map(str, (load.count, load.size, load.requests))
        command = [_python_of(version), script, url, f"{name} {load}", *numbers]
        self._broker = broker
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self._process.kill)
        self.results = {kind: Result(load) for kind in KINDS}

    def run(self, kind: str) -> None:
        """Do the load once. Raises RuntimeError when the client has ended; it has said why."""
        before = servers.cpu_seconds(self._broker)
        seconds = self._ask(kind)
        self.results[kind].requests.append(seconds)
        self.results[kind].cpu_seconds += servers.cpu_seconds(self._broker) - before

    def warm_up(self) -> None:
        for kind in KINDS:
            self._ask(kind)

    def _ask(self, kind: str) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a client ended in {kind}, exit status {self._process.wait()}")
        return json.loads(answer)


def in_turns(clients: Mapping[str, Client], rounds: int) -> None:
    """Let every client do its load in each round, in an order that turns."""
    for client in clients.values():
        client.warm_up()
    for number in range(rounds):
        for client in list(clients.values())[:: 1 if number % 2 else -1]:
            for kind in KINDS:
                client.run(kind)


def _python_of(version: str) -> str:
    return sys.executable if version == NEWEST else str(_CLIENTS / version / "bin" / "python")
