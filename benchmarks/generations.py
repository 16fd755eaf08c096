"""How fast clients of several generations are on one broker, in turns: what speaking an older wire costs in all.

    python -m pybroker.benchmarks.generations [--rounds N] [VERSION...]

Each client is the real wheel of its generation in an environment of its own (`make .venv/clients/0.8.0/ready` makes
one), on one connection, in lock-step, with a topic of its own. A round lets each send and poll the same amount, in
turns, and a ratio is the median of the rounds' ratios to the newest client's. The clients differ too: a newer one makes
checksums itself. The last column says how much of a processor second the broker took for a million messages.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil

from . import servers
from .clients import KINDS, NEWEST, Client, Load, in_turns

OLDER = ("0.8.0",)
ROUNDS = 9
LOADS = (Load(1000, 1000, 20), Load(1000, 100, 40), Load(1, 100, 500))


def measure(versions: list[str], load: Load, rounds: int, broker: psutil.Process, url: str) -> None:
    """Run one load on every client and print a line for each and kind."""
    with ExitStack() as stack:
        clients = {version: Client(stack, url, version, load, broker, version) for version in versions}
        in_turns(clients, rounds)
    for kind in KINDS:
        newest = clients[NEWEST].results[kind]
        for version, client in clients.items():
            result = client.results[kind]
            speed = f"{result.rate:12,.0f}/s{result.rate * load.size / 1e6:9.1f} MB/s{result.ratio_to(newest):8.2f}"
            print(f"{f'{kind} {load}':20}{version:8}{speed}{result.cpu_per_million:10.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser("pybroker.benchmarks.generations", description="Measure clients by generation.")
    parser.add_argument("versions", nargs="*", default=OLDER, help="older clients (default: 0.8.0)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    options = parser.parse_args()
    versions = [NEWEST, *options.versions]
    print(f"{'':28}{'messages':>12}{'':16}{'ratio':>6}{'CPU/million':>14}")
    with tempfile.TemporaryDirectory() as name, servers.broker_process(Path(name)) as broker:
        url = f"iggy+tcp://iggy:iggy@127.0.0.1:{servers.port_of(broker, Path(name))}"
        for load in LOADS:
            measure(versions, load, options.rounds, psutil.Process(broker.pid), url)


if __name__ == "__main__":
    main()
