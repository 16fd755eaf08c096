"""Reports as a person reads them on a terminal."""

from collections.abc import Mapping, Sequence
from statistics import median

from .. import wire
from .report import QUANTILES, Figures, Latency, Report

LATENCIES = (*(name for name, _ in QUANTILES), "max")
_HEADS = [name.replace("_", ".") for name in LATENCIES]


def columns(rows: Sequence[Sequence[str]], *, words: int = 1, remarks: int = 0) -> str:
    """Return rows as columns: the first `words` and the last `remarks` of them to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = range(words, len(widths) - remarks)
    lines = [
        "  ".join(text.rjust(widths[at]) if at in numbers else text.ljust(widths[at]) for at, text in enumerate(row))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def summary(report: Report) -> str:
    """Return what a run found: a line for each role, and one for each actor where there are several."""
    heads = ["", "messages", "seconds", "messages/s", "MB/s", *(f"{head} ms" for head in _HEADS)]
    rows = [heads]
    for group in report.groups:
        rows.append([f"{group.role}s", *_cells(group.total)])
        actors = [actor for actor in report.actors if actor.role == group.role]
        rows += [[f"  {actor.name}", *_cells(actor.figures)] for actor in actors if len(actors) > 1]
    lines = [report.title, "", columns(rows)]
    if report.server is not None:
        own, held = report.server.memory_own_max / 1e6, report.server.memory_max / 1e6
        cpu = f"{report.server.cpu_seconds_per_million:.2f} s of processor time a million messages"
        each = f", {report.server.messages_per_sync:,.0f} messages a sync" if report.server.messages_per_sync else ""
        lines += ["", f"server: {cpu}, {own:.0f} MB of memory, {held:.0f} MB with mapped files{each}"]
    return "\n".join(lines)


def comparison(one: Report, other: Report) -> str:
    """Return two reports side by side, the ratio of the second to the first in the last column."""
    rows = [["", "A", "B", "B/A"]]
    others = {group.role: group.total for group in other.groups}
    for group in one.groups:
        if group.role in others:
            rows += _compared(group.role, group.total, others[group.role])
    if one.server is not None and other.server is not None:
        pairs = {
            "server: CPU s/million": (one.server.cpu_seconds_per_million, other.server.cpu_seconds_per_million),
            "server: memory MB": (one.server.memory_own_max / 1e6, other.server.memory_own_max / 1e6),
        }
        rows += [_pair(name, *pair) for name, pair in pairs.items()]
    heads = [
        f"{letter}  {each.started_at}  {each.versions.commit}  {each.title}" for letter, each in _letters(one, other)
    ]
    return "\n".join([*heads, *differences(one, other), "", columns(rows)])


def differences(one: Report, other: Report) -> list[str]:
    """Return in what the runs differ, besides what they found."""
    keys = [key for key in one.parameters if one.parameters[key] != other.parameters.get(key)]
    lines = [f"{key}: {one.parameters[key]} | {other.parameters.get(key)}" for key in keys]
    machines = ("machine", one.machine, other.machine), ("versions", one.versions, other.versions)
    return lines + [f"{name} differs: {left} | {right}" for name, left, right in machines if left != right]


def origin(report: Report) -> str:
    """Return when a report was made, of what, and on what."""
    machine, versions = report.machine, report.versions
    made = f"{report.started_at}, pybroker {versions.pybroker} {versions.commit}, Python {versions.python}"
    return f"{made}, {machine.processor}, {machine.cores} cores"


def scenario(
    rounds: Mapping[str, Sequence[Report]], beside: Mapping[str, str], floor: wire.Report | None = None
) -> str:
    """Return a line for each run and role: of the round that was typical.

    rounds: the reports of each run. beside: which run one is compared with, by messages a second: the median of the
    rounds' ratios. floor: what the wire benchmark found, if it was run.
    """
    rows = [["", "", "messages/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU s/M", "ratio", ""]]
    for name, reports in rounds.items():
        for role in (group.role for group in reports[0].groups):
            base = beside.get(name)
            ratio = "" if base is None else f"{_median_ratio(rounds[base], reports, role):.2f}"
            rows.append(
                [name, role, *_scenario_cells(_typical(reports, role), role), ratio, f"of {base}" if base else ""]
            )
    rows += [_floor_row(row) for row in floor.rows] if floor is not None else []
    return columns(rows, words=2, remarks=1)


def _floor_row(row: wire.Row) -> list[str]:
    """Return the broker's side of a load, and its ratio to the floor's."""
    speed = [f"{row.messages_s[0]:,.0f}", _megabytes(row.megabytes_s[0])]
    wanted = f" (wanted: {row.ratio_min:.2f})" if row.ratio_min else ""
    cpu = f"{row.cpu_s_per_million[0]:.2f}"
    return [row.name, "wire", *speed, "", "", "", cpu, f"{row.ratio:.2f}", f"of the floor{wanted}"]


def _scenario_cells(report: Report, role: str) -> list[str]:
    total = next(group.total for group in report.groups if group.role == role)
    latency = total.latency_ms
    cpu = f"{report.server.cpu_seconds_per_million:.2f}" if report.server is not None else ""
    times = [_ms(value) for value in (latency.p50, latency.p99, latency.p99_9)]
    return [f"{total.messages_per_second:,.0f}", _megabytes(total.megabytes_per_second), *times, cpu]


def _typical(reports: Sequence[Report], role: str) -> Report:
    """Return the report with the median speed, of an even number the faster one."""
    return sorted(reports, key=lambda report: _rate(report, role))[len(reports) // 2]


def _median_ratio(base: Sequence[Report], reports: Sequence[Report], role: str) -> float:
    rates = ((_rate(one, role), _rate(other, role)) for one, other in zip(base, reports, strict=True))
    return median(other / one if one else 0.0 for one, other in rates)


def _compared(role: str, one: Figures, other: Figures) -> list[list[str]]:
    rows = [
        _pair(f"{role}: messages/s", one.messages_per_second, other.messages_per_second),
        _pair(f"{role}: MB/s", one.megabytes_per_second, other.megabytes_per_second),
    ]
    latencies = zip(_values(one.latency_ms), _values(other.latency_ms), strict=True)
    return rows + [_pair(f"{role}: {head} ms", *pair) for head, pair in zip(_HEADS, latencies, strict=True)]


def _letters(one: Report, other: Report) -> tuple[tuple[str, Report], tuple[str, Report]]:
    return ("A", one), ("B", other)


def _pair(name: str, one: float, other: float) -> list[str]:
    return [name, f"{one:,.2f}", f"{other:,.2f}", _ratio(one, other)]


def _ratio(one: float, other: float) -> str:
    return f"{other / one:.2f}" if one else "-"


def _rate(report: Report, role: str) -> float:
    return next((group.total.messages_per_second for group in report.groups if group.role == role), 0.0)


def _cells(figures: Figures) -> list[str]:
    speed = [f"{figures.messages_per_second:,.0f}", _megabytes(figures.megabytes_per_second)]
    return [f"{figures.messages:,}", f"{figures.seconds:.2f}", *speed, *map(_ms, _values(figures.latency_ms))]


def _megabytes(speed: float) -> str:
    return f"{speed:,.1f}" if speed >= 10 else f"{speed:.2f}"


def _values(latency: Latency) -> list[float]:
    return [getattr(latency, name) for name in LATENCIES]


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
