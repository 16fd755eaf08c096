"""What a run found: `report.json`. Sizes are bytes, MB are 10^6 bytes, times are as their names say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from .histogram import Counts, Histogram, end_of, merged
from .params import Params
from .plan import Actor
from .tally import Point, Result, merged_points
from .watch import ServerStats

SCHEMA = 1
FILE = "report.json"
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99_9", 0.999))


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds of a request. With a rate limit they count from when it was due."""

    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float
    min: float
    mean: float
    deviation: float


class Figures(msgspec.Struct, frozen=True):
    """What was done from the end of the warm-up on. seconds: until the last request ended."""

    messages: int
    bytes: int
    requests: int
    seconds: float
    messages_per_second: float
    megabytes_per_second: float
    latency_ms: Latency


class Series(msgspec.Struct, frozen=True):
    """A figure for each interval from the start on; the last one may not have been full."""

    interval_s: float
    messages_per_second: list[float]
    megabytes_per_second: list[float]
    latency_ms: list[float]


class Group(msgspec.Struct, frozen=True):
    """All actors of one role. distribution: requests by the most milliseconds that they took, in steps of 0.8 %."""

    role: str
    total: Figures
    series: Series
    distribution: list[tuple[float, int]]


class ActorFigures(msgspec.Struct, frozen=True):
    """messages_total: the warm-up's too."""

    name: str
    role: str
    stream: str
    messages_total: int
    figures: Figures


class Machine(msgspec.Struct, frozen=True):
    processor: str
    cores: int
    memory: int
    system: str


class Versions(msgspec.Struct, frozen=True):
    """server: as it says itself. commit: of our own sources, "+" when they were changed since; empty if unknown."""

    pybroker: str
    python: str
    server: str
    commit: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """parameters: those of the run, without secrets. stored: messages in its streams at the end."""

    schema: int
    started_at: str
    command: list[str]
    parameters: dict[str, Any]
    own_server: bool
    machine: Machine
    versions: Versions
    stored: int
    groups: list[Group]
    actors: list[ActorFigures]
    server: ServerStats | None = None

    @property
    def title(self) -> str:
        given = self.parameters
        size = given["message_size"]
        sizes = size["least"] if size["least"] == size["most"] else f"{size['least']}..{size['most']}"
        rate = f", {given['rate_limit'] / 1e6:g} MB/s at most" if given["rate_limit"] else ""
        level = ", Producer and Consumer" if given["high_level_api"] else ""
        batch = f"{given['messages_per_batch']} x {sizes} B"
        carrier = f"{given['transport']}{'+tls' if given['tls'] else ''}"
        return f"{given['kind']}: {batch}{rate}, {carrier}, {given['durability']}{level}"


def groups_of(actors: Sequence[Actor], results: Sequence[Result], params: Params) -> list[Group]:
    by_name = {result.name: result for result in results}
    roles = dict.fromkeys(actor.role for actor in actors)
    return [_group(role, [by_name[each.name] for each in actors if each.role == role], params) for role in roles]


def actors_of(actors: Sequence[Actor], results: Sequence[Result]) -> list[ActorFigures]:
    by_name = {result.name: result for result in results}
    return [
        ActorFigures(
            name=actor.name,
            role=actor.role,
            stream=actor.stream,
            messages_total=by_name[actor.name].messages_total,
            figures=figures_of([by_name[actor.name]]),
        )
        for actor in actors
    ]


def figures_of(results: Sequence[Result]) -> Figures:
    """Return the figures of some actors together, who began at the same time."""
    messages, size = sum(each.messages for each in results), sum(each.bytes for each in results)
    seconds = max((each.ended_ns for each in results), default=0) / 1e9
    return Figures(
        messages=messages,
        bytes=size,
        requests=sum(each.requests for each in results),
        seconds=seconds,
        messages_per_second=messages / seconds if seconds else 0.0,
        megabytes_per_second=size / 1e6 / seconds if seconds else 0.0,
        latency_ms=_latency(merged(each.latencies for each in results)),
    )


def read(path: Path) -> Report:
    """Read a report, or that of a run's folder. Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode((path / FILE if path.is_dir() else path).read_bytes(), type=Report)


def write(report: Report, folder: Path) -> None:
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))


def _group(role: str, results: list[Result], params: Params) -> Group:
    latencies = merged(each.latencies for each in results).counts()
    points = merged_points([each.points for each in results])
    return Group(role, figures_of(results), _series(points, params.sampling_us / 1e6), _distribution(latencies))


def _series(points: list[Point], interval_s: float) -> Series:
    return Series(
        interval_s,
        [point.messages / interval_s for point in points],
        [point.bytes / 1e6 / interval_s for point in points],
        [point.latency_ns / 1e6 / max(point.requests, 1) for point in points],
    )


def _distribution(latencies: Counts) -> list[tuple[float, int]]:
    return [(end_of(index) / 1e6, count) for index, count in latencies.buckets]


def _latency(histogram: Histogram) -> Latency:
    quantiles = [histogram.quantile(share) / 1e6 for _, share in QUANTILES]
    least = histogram.minimum if histogram.count else 0
    rest = (histogram.maximum, least, histogram.mean, histogram.deviation)
    return Latency(*quantiles, *(value / 1e6 for value in rest))
