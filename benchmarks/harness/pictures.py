"""Pictures of a report, by matplotlib, where that is installed."""

from importlib import import_module
from pathlib import Path
from typing import Any

from .report import Group, Report

THROUGHPUT, LATENCY = "throughput.png", "latency.png"
_SIZE_INCHES = (9, 4)
_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw into a folder. Raises ImportError without matplotlib."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    plots: Any = import_module("matplotlib.pyplot")
    paths = [folder / THROUGHPUT, folder / LATENCY]
    for path, fill in zip(paths, (_throughput, _latency), strict=True):
        figure, axes = plots.subplots(figsize=_SIZE_INCHES, layout="constrained")
        fill(axes, report)
        axes.set_title(report.title, fontsize="medium")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path)
        plots.close(figure)
    return paths


def _throughput(axes: Any, report: Report) -> None:
    for group in report.groups:
        speeds, interval_s = group.series.megabytes_per_second, group.series.interval_s
        speeds = speeds[:-1] or speeds  # the last interval was not full
        axes.plot([(index + 0.5) * interval_s for index in range(len(speeds))], speeds, label=f"{group.role}s")
    axes.set_xlabel("seconds")
    axes.set_ylabel("MB/s")
    axes.set_ylim(bottom=0)


def _latency(axes: Any, report: Report) -> None:
    for group in report.groups:
        points = percentiles(group)
        axes.plot([1 / (1 - share) for share, _ in points], [ms for _, ms in points], label=f"{group.role}s")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1 / (1 - share) for share in _SHARES], [f"{100 * share:g} %" for share in _SHARES])
    axes.minorticks_off()
    axes.set_xlabel("share of the requests")
    axes.set_ylabel("ms at most")


def percentiles(group: Group) -> list[tuple[float, float]]:
    """Return which share of the requests took less than or as long as so many milliseconds, but for the last one."""
    total, seen = sum(count for _, count in group.distribution), 0
    points: list[tuple[float, float]] = []
    for ms, count in group.distribution:
        points.append((seen / total, ms))
        seen += count
    return points
