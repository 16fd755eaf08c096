"""How fast the broker is on the vsr wire over TCP, beside what the same loop and channel do without it.

    python -m pybroker.benchmarks.wire [--rounds N] [--seconds S] [--cores apart|together|free]
        [--set IGGY_NAME=VALUE]... [--json]

Ten loads: sends and polls of 1000 messages of 1000 bytes, in lock-step and with one request ahead, of 1000 messages of
100 bytes, and of one message of 100 bytes, in lock-step and with 31 ahead. Every round runs each load on the broker and
on the floor (see `floor.py`), one right after the other and in turns who is first; a ratio is the median of the rounds'
ratios, which a noisy machine moves less than either speed. Many short rounds beat few long ones.

Server and load are processes of their own and share one connection. In lock-step the load waits for each answer, as
Iggy's clients do; one request ahead, the next bytes are there when the server comes for them, and it never rests. The
load is a blocking socket, prebuilt frames and one buffer (see `load.py`), so the server is what limits.
In lock-step it matters most where the two run: on a core each, every request wakes a sleeping core twice; on one core
nothing sleeps, speeds are higher and only instructions count, which is the harder test of the ratio. So the load is
kept on one core and the servers on another (`apart`) unless told otherwise; left to the scheduler, rounds mix both.
A poll reads back what the round's sends left, from the start, each asking for the offset after the last.
A ping is an echo by the broker itself: the same connection, wire and dispatch, and nothing to do.
The broker looks for the next request before it sleeps (docs/decisions/0017), the floor does not; to compare without:
`--set IGGY_PYBROKER_BUSY_POLL="0 s"`.
MB/s counts payload bytes (10^6). Data is in a temporary directory, on 127.0.0.1, port 0.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from msgspec import Struct, to_builtins

from ..protocol.batch import Batch, verify, verify_in_python
from ..protocol.model.system import Ping
from ..protocol.vsr.frames import HEADER_SIZE
from . import servers
from .floor import POLLED_HEAD_SIZE, SENT_SIZE
from .frames import poll_command, record_size, send_command
from .load import Load
from .servers import Start, Target

ROUNDS = 15
SECONDS = 0.15
STARTS = 3
APART, TOGETHER, FREE = "apart", "together", "free"
SMALL, SMALL_COUNT, SMALL_SIZE = "1000 x 100 B", 1000, 100
WALKS = 300
RSS_MAX = 60_000_000
START_SECONDS_MAX = 0.5


class Shape(Struct, frozen=True):
    """What one request carries. ratio_min: the part of the floor's speed that is wanted, 0 for no matter."""

    name: str
    count: int
    payload_size: int
    ahead: int
    ratio_min: float


SHAPES = (
    Shape("1000 x 1000 B", count=1000, payload_size=1000, ahead=0, ratio_min=0.7),
    Shape("1000 x 1000 B, ahead", count=1000, payload_size=1000, ahead=1, ratio_min=0),
    Shape(SMALL, count=SMALL_COUNT, payload_size=SMALL_SIZE, ahead=0, ratio_min=0),
    Shape("1 x 100 B", count=1, payload_size=100, ahead=0, ratio_min=0.75),
    Shape("1 x 100 B, pipelined", count=1, payload_size=100, ahead=31, ratio_min=0.6),
)


class Sample(Struct, frozen=True):
    """One load on one server in one round. cpu_seconds: of the server process."""

    requests: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class Row(Struct, frozen=True):
    """One load: medians of all rounds. Pairs are of the broker, then of the floor.

    cpu_s_per_million: processor seconds of the server for a million messages, over all rounds.
    """

    name: str
    megabytes_s: tuple[float, float]
    messages_s: tuple[float, float]
    requests_s: tuple[float, float]
    cpu_s_per_million: tuple[float, float]
    ratio: float
    ratio_min: float


class Report(Struct, frozen=True):
    """verify_s: what it takes to verify one message of SMALL alone: as the broker does, and in Python.

    beside_pings: the speed of single messages, as part of that of pings, by load.
    """

    cores: str
    rows: list[Row]
    first_start: Start
    second_start: Start
    loaded_rss: int
    verify_s: tuple[float, float]
    beside_pings: dict[str, float]


Samples = dict[tuple[str, str], list[Sample]]  # by load and server


def measure(folder: Path, *, rounds: int, seconds: float, cores: str, settings: Mapping[str, str]) -> Report:
    """Measure everything, with data in `folder`. Moves this process to the core that `cores` says.

    settings: variables of the broker's configuration.
    """
    first, second = _starts(folder)
    samples: Samples = {}
    with ExitStack() as stack:
        ours = stack.enter_context(servers.broker(folder / "data", settings))
        targets: list[Target] = [ours, stack.enter_context(servers.floor(folder))]
        _place(targets, cores)
        for number in range(rounds):
            for shape in SHAPES:
                for target, load, sample in _round(shape, targets[:: -1 if number % 2 else 1], seconds, number):
                    samples.setdefault((f"{load} {shape.name}", target.name), []).append(sample)
                if shape.count == 1:
                    load = Load(ours.peer.frame_of(Ping()), HEADER_SIZE, shape.ahead)
                    samples.setdefault((f"ping {shape.name}", ours.name), []).append(_sample(ours, load, seconds))
        rows = [_row(shape, f"{load} {shape.name}", samples) for shape in SHAPES for load in ("send", "poll")]
        verify_s = (_verify_seconds(verify), _verify_seconds(verify_in_python))
        return Report(cores, rows, first, second, ours.rss, verify_s, _beside_pings(samples))


def _verify_seconds(verify: Callable[[memoryview], Batch]) -> float:
    """Return how long it takes to verify a batch, for each of its messages."""
    record = send_command(SMALL_SIZE, SMALL_COUNT).batch.record
    took: list[float] = []
    for _ in range(WALKS):
        begun = time.perf_counter()
        verify(record)
        took.append(time.perf_counter() - begun)
    return median(took) / SMALL_COUNT


def _place(targets: list[Target], cores: str) -> None:
    """Keep this process on one core, and the servers on another or the same."""
    usable = sorted(os.sched_getaffinity(0))
    if cores == FREE or len(usable) < 2:
        return
    os.sched_setaffinity(0, usable[:1])
    for target in targets:
        target.keep_on(usable[0] if cores == TOGETHER else usable[1])


def _starts(folder: Path) -> tuple[Start, Start]:
    """Return the typical first start in an empty directory, and the start after it."""
    pairs = [
        (servers.start(folder / f"start{number}"), servers.start(folder / f"start{number}")) for number in range(STARTS)
    ]
    first, second = ([pair[index] for pair in pairs] for index in (0, 1))
    return _median_start(first), _median_start(second)


def _median_start(starts: list[Start]) -> Start:
    return Start(median(each.seconds for each in starts), int(median(each.rss for each in starts)))


def _round(shape: Shape, targets: list[Target], seconds: float, number: int) -> Iterator[tuple[Target, str, Sample]]:
    """Send to every target, then poll from every target what was sent, as a consumer that no round had before."""
    size = record_size(shape.payload_size, shape.count)
    replies_max: dict[str, int] = {}
    for target in targets:
        target.empty(poll_size=size)
        frame = target.peer.frame_of(send_command(shape.payload_size, shape.count))
        sample = _sample(target, Load(frame, HEADER_SIZE + SENT_SIZE, shape.ahead), seconds)
        replies_max[target.name] = sample.requests
        yield target, "send", sample
    for target in targets:
        frame = target.peer.frame_of(poll_command(shape.count, consumer_id=number))
        load = Load(frame, HEADER_SIZE + POLLED_HEAD_SIZE + size, shape.ahead, shape.count)
        yield target, "poll", _sample(target, load, seconds, replies_max[target.name])


def _sample(target: Target, load: Load, seconds: float, replies_max: int = 0) -> Sample:
    before = target.cpu_seconds
    done = target.peer.run(load, seconds=seconds, replies_max=replies_max)
    return Sample(done.requests, done.seconds, target.cpu_seconds - before)


def _row(shape: Shape, name: str, samples: Samples) -> Row:
    ours, floor = samples[name, "pybroker"], samples[name, "floor"]
    rates = (median(each.rate for each in ours), median(each.rate for each in floor))
    # The clock of processor time ticks every 10 ms: add up all rounds.
    cpu = [sum(each.cpu_seconds for each in side) / sum(each.requests for each in side) for side in (ours, floor)]
    megabyte = shape.count * shape.payload_size / 1e6
    return Row(
        name=name,
        megabytes_s=(rates[0] * megabyte, rates[1] * megabyte),
        messages_s=(rates[0] * shape.count, rates[1] * shape.count),
        requests_s=rates,
        cpu_s_per_million=(cpu[0] / shape.count * 1e6, cpu[1] / shape.count * 1e6),
        ratio=median(one.rate / other.rate for one, other in zip(ours, floor, strict=True)),
        ratio_min=shape.ratio_min,
    )


def _beside_pings(samples: Samples) -> dict[str, float]:
    ratios: dict[str, float] = {}
    for shape in SHAPES:
        pings = samples.get((f"ping {shape.name}", "pybroker"), [])
        for name in (f"send {shape.name}", f"poll {shape.name}") if pings else ():
            pairs = zip(samples[name, "pybroker"], pings, strict=True)
            ratios[name] = median(one.rate / other.rate for one, other in pairs)
    return ratios


def table(report: Report) -> str:
    """Return the report as a person reads it."""
    lines = [f"{'pybroker / floor':26}{'MB/s':>15}{'messages/s':>22}{'requests/s':>17}{'CPU s/M':>15}{'ratio':>8}"]
    for row in report.rows:
        cells = (
            _pair(row.megabytes_s, 15, ",.1f"),
            _pair(row.messages_s, 22),
            _pair(row.requests_s, 17),
            _pair(row.cpu_s_per_million, 15, ".2f"),
        )
        wanted = f"  of {row.ratio_min:.2f} wanted" if row.ratio_min else ""
        verdict = "" if row.ratio >= row.ratio_min else "  missed"
        lines.append(f"{row.name:26}{''.join(cells)}{row.ratio:8.2f}{wanted}{verdict}")
    return "\n".join([*lines, "", notes(report)])


def notes(report: Report) -> str:
    """Return what belongs to no load."""
    first, second = report.first_start, report.second_start
    slow = "" if max(first.seconds, second.seconds) <= START_SECONDS_MAX else "  missed"
    large = "" if second.rss <= RSS_MAX else "  missed"
    sending = next(row for row in report.rows if row.name == f"send {SMALL}").cpu_s_per_million[0]
    verifying, in_python = (seconds * 1e6 for seconds in report.verify_s)
    return "\n".join(
        [
            f"{SMALL}      {sending:.2f} us of processor time to take a message; verifying it alone takes "
            f"{verifying:.2f} us, in Python {in_python:.2f} us ({sending / in_python:.1f} times that)",
            f"beside pings      {', '.join(f'{name} {ratio:.2f}' for name, ratio in report.beside_pings.items())}",
            f"cores             load and server {report.cores}",
            f"listening after   {first.seconds:.2f} s in an empty directory, {second.seconds:.2f} s later; "
            f"{START_SECONDS_MAX:.2f} s wanted{slow}",
            f"memory            {second.rss / 1e6:.1f} MB idle; {RSS_MAX / 1e6:.0f} MB wanted{large}; "
            f"{report.loaded_rss / 1e6:.1f} MB after the loads",
        ]
    )


def _pair(values: tuple[float, float], width: int, form: str = ",.0f") -> str:
    return f"{values[0]:{form}} / {values[1]:{form}}".rjust(width)


def main() -> None:
    parser = argparse.ArgumentParser("pybroker.benchmarks.wire", description="Measure the broker beside its floor.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each load runs (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each time (default: %(default)s)")
    parser.add_argument(
        "--cores",
        choices=(APART, TOGETHER, FREE),
        default=APART,
        help="where load and server run (default: %(default)s)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="IGGY_NAME=VALUE", help="configure the broker; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, speeds as [pybroker, floor]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pybroker-bench-") as folder:
        report = measure(
            Path(folder),
            rounds=options.rounds,
            seconds=options.seconds,
            cores=options.cores,
            settings=dict(setting.split("=", 1) for setting in options.set),
        )
    print(json.dumps(to_builtins(report), indent=2) if options.json else table(report))


if __name__ == "__main__":
    main()
