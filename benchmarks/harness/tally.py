"""What an actor has done: how much, how long each request took, and when."""

from msgspec import Struct, field

from .histogram import Counts, Histogram
from .schedule import Times


class Point(Struct, array_like=True):
    """What ended within one sampling interval. latency_ns: the sum of the requests'."""

    messages: int = 0
    bytes: int = 0
    requests: int = 0
    latency_ns: int = 0

    def add(self, other: "Point") -> None:
        self.messages += other.messages
        self.bytes += other.bytes
        self.requests += other.requests
        self.latency_ns += other.latency_ns


class Result(Struct, kw_only=True):
    """What an actor has done after the warm-up. bytes: of payloads. ended_ns: of the last request, from the start.

    messages_total: those of the warm-up too, but for what a rehearsal reads again and again.
    """

    name: str
    messages: int
    bytes: int
    requests: int
    ended_ns: int
    messages_total: int
    latencies: Counts
    points: list[Point] = field(default_factory=list[Point])


class Tally:
    def __init__(self, name: str, sampling_ns: int) -> None:
        self.name = name
        self.messages_total = 0
        self._sampling_ns = sampling_ns
        self._histogram = Histogram()
        self._points: list[Point] = []
        self._start_ns = self._ended_ns = 0

    def begin(self, times: Times) -> None:
        self._start_ns = self._ended_ns = times.start_ns

    def add(self, due_ns: int, ended_ns: int, messages: int, size: int) -> None:
        """Count one request; what was due before the start was a warm-up."""
        self.messages_total += messages
        if due_ns < self._start_ns:
            return
        latency_ns = ended_ns - due_ns
        self._histogram.add(latency_ns)
        self._ended_ns = max(self._ended_ns, ended_ns)
        index = (ended_ns - self._start_ns) // self._sampling_ns
        while len(self._points) <= index:
            self._points.append(Point())
        point = self._points[index]
        point.messages += messages
        point.bytes += size
        point.requests += 1
        point.latency_ns += latency_ns

    def result(self) -> Result:
        return Result(
            name=self.name,
            messages=sum(point.messages for point in self._points),
            bytes=sum(point.bytes for point in self._points),
            requests=self._histogram.count,
            ended_ns=self._ended_ns - self._start_ns,
            messages_total=self.messages_total,
            latencies=self._histogram.counts(),
            points=self._points,
        )


def merged_points(series: list[list[Point]]) -> list[Point]:
    """Return the sums, interval by interval."""
    points = [Point() for _ in range(max(map(len, series), default=0))]
    for each in series:
        for point, other in zip(points, each, strict=False):
            point.add(other)
    return points
