"""How fast clients of several generations are on one broker, in turns: what speaking an older wire costs in all.

    python -m pybroker.benchmarks.generations [--rounds N] [VERSION...]

Each client is the real wheel of its generation in an environment of its own (`make .venv/clients/0.8.0/ready` makes
one), on one connection, in lock-step, with a topic of its own. A round lets each send and poll the same amount, in
turns, and a ratio is the median of the rounds' ratios to the newest client's. The clients differ too: a newer one makes
checksums itself. The last column says how much of a processor second the broker took for a million messages.
"""

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from ..protocol.model.topics import CreateTopic
from . import servers
from .frames import STREAM

CLIENTS = Path(".venv", "clients")
NEWEST = "0.9.0"
OLDER = ("0.8.0",)
ROUNDS = 9
LOADS = ((1000, 1000, 20), (1000, 100, 40), (1, 100, 500))  # messages a request, bytes, requests a round


class Client:
    """A wheel in a process of its own. seconds, cpu_seconds: of each round, by kind; the second is the broker's."""

    def __init__(self, version: str, address: str, load: tuple[int, int, int], stack: ExitStack) -> None:
        python = sys.executable if version == NEWEST else str(CLIENTS / version / "bin" / "python")
        script = str(Path(__file__).with_name("wheel.py"))
        command = [python, script, address, topic_of(version, load), *map(str, load)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self._process.kill)
        self.seconds: dict[str, list[float]] = {"send": [], "poll": []}
        self.cpu_seconds: dict[str, float] = {"send": 0.0, "poll": 0.0}

    def run(self, kind: str, broker: servers.Broker) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = broker.cpu_seconds
        self._process.stdin.write(f"{kind}\n")
        self._process.stdin.flush()
        self.seconds[kind].append(float(self._process.stdout.readline()))
        self.cpu_seconds[kind] += broker.cpu_seconds - before


def topic_of(version: str, load: tuple[int, int, int]) -> str:
    return f"{version} {load[0]} x {load[1]}"


def measure(versions: list[str], load: tuple[int, int, int], rounds: int, broker: servers.Broker, address: str) -> None:
    """Run one load on every client and print a line for each and kind."""
    count, size, requests = load
    with ExitStack() as stack:
        for version in versions:
            broker.peer.ask(CreateTopic(STREAM, 1, topic_of(version, load)))
        clients = {version: Client(version, address, load, stack) for version in versions}
        for number in range(rounds):
            for version in versions if number % 2 else versions[::-1]:
                for kind in ("send", "poll"):
                    clients[version].run(kind, broker)
    newest = clients[NEWEST].seconds
    for kind in ("send", "poll"):
        for version, client in clients.items():
            ratio = median(base / own for base, own in zip(newest[kind], client.seconds[kind], strict=True))
            rate = requests * count / median(client.seconds[kind])
            cpu = client.cpu_seconds[kind] / (rounds * requests * count) * 1e6
            what = f"{kind} {count} x {size} B"
            print(f"{what:20}{version:8}{rate:12,.0f}/s{rate * size / 1e6:9.1f} MB/s{ratio:8.2f}{cpu:10.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser("pybroker.benchmarks.generations", description="Measure clients by generation.")
    parser.add_argument("versions", nargs="*", default=OLDER, help="older clients (default: 0.8.0)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    options = parser.parse_args()
    versions = [NEWEST, *options.versions]
    print(f"{'':28}{'messages':>12}{'':16}{'ratio':>6}{'CPU/million':>14}")
    with tempfile.TemporaryDirectory() as folder, servers.broker(Path(folder)) as broker:
        address = f"127.0.0.1:{broker.peer.port}"
        for load in LOADS:
            measure(versions, load, options.rounds, broker, address)


if __name__ == "__main__":
    main()
