"""The tables as one picture: how many times as fast each peer was as pybroker, work by work."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .catalog import OWN, Peer
from .rounds import Results

_WIDTH = 0.8  # of all bars of one work


def draw(path: Path, found: Sequence[tuple[int, Results]], peers: Mapping[str, Peer]) -> None:
    """Draw a PNG of all sizes measured. Raises ImportError without matplotlib."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    plots: Any = import_module("matplotlib.pyplot")
    shown = [name for name, peer in peers.items() if peer.base == OWN[0] and (name == OWN[0] or name not in OWN)]
    figure, all_axes = plots.subplots(len(found), figsize=(9, 3.2 * len(found)), layout="constrained", squeeze=False)
    for (size, results), axes in zip(found, all_axes[:, 0], strict=True):
        _bars(axes, results, shown)
        axes.set_title(f"messages of {size} bytes", fontsize="medium")
    figure.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(path)
    plots.close(figure)


def _bars(axes: Any, results: Results, shown: Sequence[str]) -> None:
    works = list(results)
    width = _WIDTH / len(shown)
    for number, name in enumerate(shown):
        speeds = [results[work][name].ratio_to(results[work][OWN[0]]) for work in works]
        places = [index - _WIDTH / 2 + width * (number + 0.5) for index in range(len(works))]
        bars = axes.bar(places, speeds, width, label=name)
        axes.bar_label(bars, [f"{speed:.2f}" for speed in speeds], fontsize="x-small")
    axes.set_xticks(range(len(works)), [work.title.replace(", ", "\n") for work in works], fontsize="small")
    axes.set_ylabel("speed, pybroker = 1")
