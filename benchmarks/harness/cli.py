"""`pybroker bench`: one run, a scenario of runs, or two reports compared."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from ...broker.loops import loop_factory
from ...client import PybrokerError
from .. import wire
from . import files, report, tables
from .crew import BenchError
from .options import OUTPUT, parse, without_secrets
from .params import Params
from .progress import Progress
from .report import Report
from .run import run
from .scenarios import BadScenario, Floor, Scenario, read

_INTERRUPTED = 130


def bench(arguments: list[str]) -> int:
    """Do what the arguments ask for. Returns the exit status."""
    others = {"compare": _compare, "run": _run_scenarios}
    work: Callable[[list[str]], None] = _run_one
    if arguments and arguments[0] in others:
        work, arguments = others[arguments[0]], arguments[1:]
    try:
        work(arguments or ["--help"])
    except (BenchError, BadScenario, PybrokerError, RuntimeError, OSError, msgspec.DecodeError) as error:
        print(f"pybroker bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _run_one(arguments: list[str]) -> None:
    params, output = parse(arguments)
    found = _done(params, arguments)
    print(tables.summary(found))
    if output.folder is not None:
        _write(found, output.folder, params.name)


def _done(params: Params, arguments: list[str]) -> Report:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(run(params, ["pybroker", "bench", *without_secrets(arguments)], Progress()))


def _write(found: Report, folder: Path, name: str) -> None:
    path, said = files.write(found, folder, name)
    print(f"\n{path}" + (f"; {said}" if said else ""), flush=True)


def _compare(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("pybroker bench compare", description="Compare two reports.")
    parser.add_argument("reports", nargs=2, type=Path, metavar="REPORT", help="a report.json, or the folder it is in")
    one, other = parser.parse_args(arguments).reports
    print(tables.comparison(report.read(one), report.read(other)))


def _run_scenarios(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("pybroker bench run", description="Do all runs of some scenarios.")
    parser.add_argument("scenarios", nargs="+", type=Path, metavar="FILE", help="as in benchmarks/scenarios")
    parser.add_argument("-o", "--output-dir", type=Path, default=OUTPUT, help="where folders are made (%(default)s)")
    parser.add_argument("--rounds", type=int, metavar="N", help="in place of what the files say")
    options = parser.parse_args(arguments)
    for scenario in [read(path) for path in options.scenarios]:
        _run_scenario(scenario, max(1, options.rounds or scenario.rounds), options.output_dir / scenario.name)


def _run_scenario(scenario: Scenario, rounds: int, folder: Path) -> None:
    reports: dict[str, list[Report]] = {run.name: [] for run in scenario.runs}
    for number in range(1, rounds + 1):
        for each in scenario.runs:
            _note(f"{number}/{rounds} {each.name}: {' '.join(without_secrets(each.command))}")
            reports[each.name].append(_done(each.params, each.command))
            files.write(reports[each.name][-1], folder, each.name if rounds == 1 else f"{each.name} {number}")
    floor = _floor(scenario.floor) if scenario.floor is not None else None
    beside = {run.name: run.beside for run in scenario.runs if run.beside}
    lines = [scenario.about, tables.origin(reports[scenario.runs[0].name][0])]
    lines += ["", tables.scenario(reports, beside, floor)]
    lines += ["", wire.notes(floor)] if floor is not None else []
    text = "\n".join(lines)
    print(text)
    (folder / "table.txt").write_text(f"{text}\n")


def _floor(floor: Floor) -> wire.Report:
    """Run the wire benchmark, which moves this process to one core."""
    _note("the floor: python -m pybroker.benchmarks.wire")
    usable = os.sched_getaffinity(0)
    try:
        with tempfile.TemporaryDirectory(prefix="pybroker-bench-") as folder:
            return wire.measure(Path(folder), rounds=floor.rounds, seconds=floor.seconds, cores=wire.APART, settings={})
    finally:
        os.sched_setaffinity(0, usable)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
