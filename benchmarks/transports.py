"""How fast every transport is beside TCP, in one run: the client 0.9.0 on one connection each, in lock-step.

    python -m pybroker.benchmarks.transports [--rounds N] [TRANSPORT...]

A port has TLS or has none, so there are two brokers: what is encrypted goes to the second, but for QUIC, which always
is. A round lets each transport send and poll the same amount, in turns; a ratio is the median of the rounds' ratios to
TCP's. The times are those of a request, as its client sees them; the last column says how much of a processor second
the broker took for a million messages.
"""

import argparse
import os
import tempfile
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from msgspec import Struct

from ..broker.tls import self_signed
from . import servers
from .clients import KINDS, Client, Load, in_turns
from .markdown import table

ROUNDS = 9
LOADS = (Load(1000, 1000, 20), Load(100, 1000, 50), Load(1, 100, 500))
BASE = "TCP"
COLUMNS = ("load", "transport", "messages/s", "MB/s", "beside TCP", "p50 ms", "p99 ms", "CPU s/million")
_ROOT = "iggy:iggy@"
_PROVEN = "?tls=true&tls_domain=localhost&tls_ca_file={certificate}"


class Transport(Struct, frozen=True):
    """url: where its clients connect to, with the names of listeners in place of their addresses."""

    url: str
    encrypted: bool = False


TRANSPORTS = {
    BASE: Transport(f"iggy+tcp://{_ROOT}{{tcp}}"),
    "TLS": Transport(f"iggy+tcp://{_ROOT}{{tcp}}{_PROVEN}", encrypted=True),
    "WebSocket": Transport(f"iggy+ws://{_ROOT}{{websocket}}"),
    "wss": Transport(f"iggy+ws://{_ROOT}{{websocket}}{_PROVEN}", encrypted=True),
    "HTTP": Transport(f"iggy+http://{_ROOT}{{http}}"),
    "HTTPS": Transport(f"https://{_ROOT}{{http}}", encrypted=True),
    "QUIC": Transport(f"iggy+quic://{_ROOT}{{quic}}"),
}


class Place(Struct, frozen=True):
    """Where a transport's clients connect to, and whose processor time that takes."""

    url: str
    broker: psutil.Process


@contextmanager
def places(names: Iterable[str]) -> Generator[dict[str, Place]]:
    """Run both brokers; say where each transport is."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        certificate = Path(folder, "server.pem")
        certificate.write_bytes(self_signed("127.0.0.1"))
        os.environ["SSL_CERT_FILE"] = str(certificate)  # what clients trust over HTTPS, who can't be told otherwise
        brokers = {
            encrypted: _broker(stack, Path(folder, name), servers.tls_settings(certificate) if encrypted else {})
            for encrypted, name in ((False, "plain"), (True, "encrypted"))
        }
        found: dict[str, Place] = {}
        for name in names:
            process, addresses = brokers[TRANSPORTS[name].encrypted]
            found[name] = Place(TRANSPORTS[name].url.format(**addresses, certificate=certificate), process)
        yield found


def _broker(stack: ExitStack, folder: Path, settings: dict[str, str]) -> tuple[psutil.Process, dict[str, str]]:
    process = stack.enter_context(servers.broker_process(folder, settings))
    return psutil.Process(process.pid), servers.addresses_of(process, folder)


def measure(found: dict[str, Place], load: Load, rounds: int) -> list[list[str]]:
    """Run one load over every transport; return a row for each and kind."""
    with ExitStack() as stack:
        clients = {name: Client(stack, place.url, name, load, place.broker) for name, place in found.items()}
        in_turns(clients, rounds)
    rows: list[list[str]] = []
    for kind in KINDS:
        base = clients[BASE].results[kind]
        for name, client in clients.items():
            own = client.results[kind]
            speed = [f"{own.rate:,.0f}", f"{own.rate * load.size / 1e6:.1f}", f"{own.ratio_to(base):.2f}"]
            times = [f"{own.latency_ms(share):.2f}" for share in (0.5, 0.99)]
            rows.append([f"{kind} {load}", name, *speed, *times, f"{own.cpu_per_million:.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser("pybroker.benchmarks.transports", description="Measure transports beside TCP.")
    others = [name for name in TRANSPORTS if name != BASE]
    parser.add_argument("transports", nargs="*", default=others, help=f"default: {' '.join(others)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    options = parser.parse_args()
    if unknown := set(options.transports) - TRANSPORTS.keys():
        parser.error(f"no such transport: {', '.join(sorted(unknown))}; there are {', '.join(TRANSPORTS)}")
    rows: list[list[str]] = []
    with places(dict.fromkeys((BASE, *options.transports))) as found:
        for load in LOADS:
            rows += measure(found, load, options.rounds)
            print(f"done: {load}", flush=True)
    print(table(COLUMNS, rows, words=(0, 1)))


if __name__ == "__main__":
    main()
