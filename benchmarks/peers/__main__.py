"""Measure pybroker beside its peers.

    python -m pybroker.benchmarks.peers [--only redis,nats] [--messages N] [--size 100|1000]
                                        [--iggy iggy://USER:PASSWORD@HOST:PORT] [--kafka HOST:PORT] [--picture PNG]

Every peer gets the same messages through its own Python client, in a process of its own on asyncio and uvloop; a
message counts once it is confirmed, or read and acknowledged. Peers take turns in each round; figures are medians of
the rounds, a ratio is the median of the rounds' ratios. "pybroker is" says how many times as fast pybroker is, with
the durability that comes nearest to the peer's.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Generator as Yields
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..markdown import table
from .catalog import OWN, PEERS, Peer, Serve, iggy_at, kafka_at
from .generator import Generator
from .picture import draw
from .report import HEADS, WORDS, rows_of
from .rounds import Results, measure
from .servers import Server, on_core

MESSAGES = 50_000
SIZES = (100, 1000)
ROUNDS = 5


def cores() -> tuple[int | None, int | None]:
    """Return the core for the servers and the one for the load; None where there are not two to choose from."""
    found = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (found[0], found[1]) if len(found) > 1 else (None, None)


def chosen(only: Sequence[str], *, iggy: str | None = None, kafka: str | None = None) -> dict[str, Peer]:
    """Return the peers to measure, without those that something is missing for; print what.

    only: first words of names, none for all; pybroker itself and the peers with addresses are always among them.
    Raises ValueError for a name that no peer has.
    """
    words = {name.split()[0] for name in PEERS}
    if unknown := set(only) - words:
        raise ValueError(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(sorted(words))}")
    peers = {name: peer for name, peer in PEERS.items() if not only or name in OWN or name.split()[0] in only}
    peers |= {"iggy": iggy_at(iggy)} if iggy else {}
    peers |= {"kafka": kafka_at(kafka)} if kafka else {}
    missing = {name: peer.needs.missing() for name, peer in peers.items()}
    for name in filter(missing.get, missing):
        print(f"{name} is left out: {missing[name]}")
    return {name: peer for name, peer in peers.items() if not missing[name]}


@contextmanager
def loads(peers: dict[str, Peer]) -> Yields[dict[str, Generator]]:
    """Run the servers of the peers, and a load for each."""
    for_servers, for_loads = cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started: dict[Serve, Server] = {}
        generators: dict[str, Generator] = {}
        for name, peer in peers.items():
            if peer.serve not in started:
                place = folder / str(len(started))
                place.mkdir()
                with on_core(for_servers):
                    started[peer.serve] = stack.enter_context(peer.serve(place))
            with on_core(for_loads):
                generators[name] = Generator(name, peer, started[peer.serve])
            stack.callback(generators[name].close)
            print(f"{name}: {generators[name].versions}", flush=True)
        yield generators


def placement() -> str:
    for_servers, for_loads = cores()
    if for_servers is None:
        return "servers and load share the cores"
    return f"every server on core {for_servers}, the load on core {for_loads}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("pybroker.benchmarks.peers", description="Measure pybroker beside its peers.")
    made.add_argument("--only", default="", help="the peers, by the first words of their names: redis,nats")
    made.add_argument("--messages", type=int, default=MESSAGES, help="in a round, in batches (default: %(default)s)")
    made.add_argument("--size", type=int, help=f"bytes of a message (default: {SIZES[0]}, then {SIZES[1]})")
    made.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    made.add_argument("--iggy", metavar="URL", help="also Apache Iggy, at iggy://USER:PASSWORD@HOST:PORT")
    made.add_argument("--kafka", metavar="HOST:PORT", help="also Apache Kafka")
    made.add_argument("--picture", type=Path, metavar="PNG", help="draw the ratios, with matplotlib")
    return made


def main() -> None:
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("stopped"))  # and with it the servers
    options = parser().parse_args()
    try:
        peers = chosen([name for name in options.only.split(",") if name], iggy=options.iggy, kafka=options.kafka)
    except ValueError as error:
        parser().error(str(error))
    print(f"{options.rounds} rounds of {options.messages} messages; {placement()}")
    drawn: list[tuple[int, Results]] = []
    with loads(peers) as generators:
        for size in [options.size] if options.size else SIZES:
            found = measure(generators, messages=options.messages, size=size, rounds=options.rounds)
            drawn.append((size, found))
            for work, results in found.items():
                print(
                    f"\n{work.title}, {size} bytes\n\n{table(HEADS, rows_of(results, peers), words=WORDS)}", flush=True
                )
    if options.picture:
        draw(options.picture, drawn, peers)


if __name__ == "__main__":
    main()
