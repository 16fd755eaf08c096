"""What connections cost each other: idle ones, and readers that do not read.

    python -m pybroker.benchmarks.crowd [--idle N] [--rounds N] [--seconds S]

idle        connections that have signed in and ask nothing: the broker's memory for each, and its processor time.
slow        the latency of 8 connections that send one message of 100 bytes each, in lock-step, beside 4 that ask for
            polls of 8 MB and read none of it, and without those, in turns.
steady      the latency of a single connection that sends one message of 100 bytes, then rests 0.2 ms, some 3000 times a
            second; the load is a blocking socket on a core of its own, so that it adds little.

The clients are pybroker's own, in this process; the broker is a process of its own. Data is in a temporary directory.
"""

import argparse
import asyncio
import os
import resource
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median, quantiles

from msgspec import Struct

from ..broker.app import DEFAULT_ROOT
from ..broker.loops import loop_factory
from ..client import BrokerError, Client
from ..protocol.vsr.frames import HEADER_SIZE
from . import servers
from .floor import SENT_SIZE
from .frames import poll_command, send_command
from .load import Load, Peer
from .servers import Broker

IDLE = 1000
ROUNDS = 7
SECONDS = 1.5
STEADY_S = 10.0
REST_S = 0.0002
SENDERS = 8
SLOW_READERS = 4
STREAM = "crowd"
SETTLE_S = 2.5
LARGE_COUNT = 8000  # messages of 1000 bytes
DIALLING_MAX = 100  # at once


class Idle(Struct, frozen=True):
    """bytes_each: of the broker's memory. cpu_percent: of one core, for all of them."""

    count: int
    bytes_each: float
    cpu_percent: float


class Latency(Struct, frozen=True):
    """Seconds."""

    p50: float
    p99: float


async def idle(broker: Broker, count: int) -> Idle:
    """Measure connections that do nothing but stay."""
    async with Client(_url(broker)) as first:
        token = await first.create_token("crowd")
        await asyncio.sleep(SETTLE_S)
        before = broker.rss
        clients = [Client(f"iggy://{token}@127.0.0.1:{broker.peer.port}") for _ in range(count)]
        for start in range(0, count, DIALLING_MAX):
            await asyncio.gather(*(client.connect() for client in clients[start : start + DIALLING_MAX]))
        await asyncio.sleep(SETTLE_S)
        after, busy = broker.rss, broker.cpu_seconds
        await asyncio.sleep(SETTLE_S)
        busy = broker.cpu_seconds - busy
        await asyncio.gather(*(client.close() for client in clients))
        await first.delete_token("crowd")
    return Idle(count, (after - before) / count, busy / SETTLE_S * 100)


async def slow(broker: Broker, rounds: int, seconds: float) -> tuple[Latency, Latency]:
    """Return the latency of senders without slow readers, and beside them."""
    for _ in range(LARGE_COUNT // 1000):
        broker.peer.ask(send_command(1000, 1000))
    quiet: list[Latency] = []
    beside: list[Latency] = []
    async with Client(_url(broker)) as client:
        for _ in range(rounds):
            quiet.append(await _latency(broker, client, seconds))
            readers = [_slow_reader(broker.peer.port) for _ in range(SLOW_READERS)]
            beside.append(await _latency(broker, client, seconds))
            for reader in readers:
                reader.close()
    return _typical(quiet), _typical(beside)


def steady(broker: Broker, seconds: float) -> tuple[float, float, float]:
    """Return p50, p99 and p99.9 of a steady load, in seconds. Moves this process and the broker to a core each."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    broker.keep_on(cores[-1])
    broker.empty(poll_size=0)
    turn = broker.peer.turn(Load(broker.peer.frame_of(send_command(100, 1)), HEADER_SIZE + SENT_SIZE))
    took: list[float] = []
    deadline = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < deadline:
        turn()
        took.append(time.perf_counter() - begun)
        time.sleep(REST_S)
    cuts = quantiles(took, n=1000)
    return cuts[499], cuts[989], cuts[998]


def _slow_reader(port: int) -> Peer:
    """Return a connection that has asked for more than the system takes for it, and reads nothing."""
    reader = Peer(port)
    reader.login(*DEFAULT_ROOT)
    for _ in range(4):
        reader.demand(poll_command(LARGE_COUNT, consumer_id=1))
    return reader


async def _latency(broker: Broker, client: Client, seconds: float) -> Latency:
    with suppress(BrokerError):
        await client.create_stream(STREAM)
    await client.create_topic(STREAM, "small")
    clients = [Client(_url(broker)) for _ in range(SENDERS)]
    await asyncio.gather(*(each.connect() for each in clients))
    took: list[float] = []

    async def send(each: Client) -> None:
        deadline = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < deadline:
            await each.send(STREAM, "small", [bytes(100)], partition=0)
            took.append(time.perf_counter() - begun)

    await asyncio.gather(*(send(each) for each in clients))
    await asyncio.gather(*(each.close() for each in clients))
    await client.delete_topic(STREAM, "small")
    cuts = quantiles(took, n=100)
    return Latency(cuts[49], cuts[98])


def _typical(rounds: list[Latency]) -> Latency:
    return Latency(median(each.p50 for each in rounds), median(each.p99 for each in rounds))


def _url(broker: Broker) -> str:
    username, password = DEFAULT_ROOT
    return f"iggy://{username}:{password}@127.0.0.1:{broker.peer.port}"


def _allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    parser = argparse.ArgumentParser("pybroker.benchmarks.crowd", description="Measure what connections cost others.")
    parser.add_argument("--idle", type=int, default=IDLE, help="how many rest (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the latency (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each (default: %(default)s)")
    options = parser.parse_args()
    _allow_files()
    with tempfile.TemporaryDirectory(prefix="pybroker-bench-") as folder:
        settings = {"IGGY_PYBROKER_CONNECTIONS_MAX": str(options.idle + 100)}
        loop = asyncio.Runner(loop_factory=loop_factory())
        with servers.broker(Path(folder) / "data", settings) as broker, loop as runner:
            rested = runner.run(idle(broker, options.idle))
            quiet, beside = runner.run(slow(broker, options.rounds, options.seconds))
            p50, p99, p999 = steady(broker, STEADY_S)
    each = f"{rested.bytes_each / 1e3:.1f} KB of memory each, {rested.cpu_percent:.1f} % of a core in all"
    print(f"{rested.count} idle connections: {each}")
    for what, latency in (("alone", quiet), (f"beside {SLOW_READERS} that do not read", beside)):
        print(f"{SENDERS} senders {what}: p50 {latency.p50 * 1e3:.2f} ms, p99 {latency.p99 * 1e3:.2f} ms")
    print(
        f"steady: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, p99.9 {p999 * 1e3:.2f} ms, {p999 / p50:.1f} times p50"
    )
    print(f"p99 beside slow readers / alone: {beside.p99 / quiet.p99:.2f}")


if __name__ == "__main__":
    main()
