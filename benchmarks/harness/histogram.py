"""Latencies, counted in buckets that grow with the value: as wide as 1/128 of what they hold, so 0.8 % off at most.

Our own because it is this short: the histograms of many processes are added up, and travel as JSON. Adding a value
takes less than a microsecond, which a packaged one does not do from Python.
"""

from array import array
from collections.abc import Iterable
from math import ceil, sqrt

from msgspec import Struct

_PRECISION = 7  # bits
_LINEAR = 2 << _PRECISION  # values below have a bucket each
_HALF = 1 << _PRECISION
VALUE_MAX = (1 << 42) - 1  # 73 minutes in ns; what is more counts as that
_BUCKETS = (VALUE_MAX.bit_length() - _PRECISION) * _HALF + _HALF


class Counts(Struct):
    """A histogram on its way between processes. buckets: index and count of those that hold anything."""

    buckets: list[tuple[int, int]]
    minimum: int
    maximum: int
    total: int
    squares: int


class Histogram:
    """Values are whole and not negative. minimum, maximum, mean and deviation are exact."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * _BUCKETS))
        self.count = 0
        self.minimum = VALUE_MAX
        self.maximum = 0
        self._total = 0
        self._squares = 0

    def add(self, value: int) -> None:
        value = max(0, min(value, VALUE_MAX))
        self._counts[index_of(value)] += 1
        self.count += 1
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)
        self._total += value
        self._squares += value * value

    def merge(self, counts: Counts) -> None:
        for index, count in counts.buckets:
            self._counts[index] += count
            self.count += count
        self.minimum = min(self.minimum, counts.minimum)
        self.maximum = max(self.maximum, counts.maximum)
        self._total += counts.total
        self._squares += counts.squares

    def counts(self) -> Counts:
        held = [(index, count) for index, count in enumerate(self._counts) if count]
        return Counts(held, self.minimum, self.maximum, self._total, self._squares)

    def quantile(self, share: float) -> int:
        """Return the least bucket's end that this share of the values is not above; 0 where there are none."""
        rank, seen = max(1, ceil(share * self.count)), 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(end_of(index), self.maximum)
        return 0

    @property
    def mean(self) -> float:
        return self._total / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        return sqrt(max(0.0, self._squares / self.count - self.mean**2)) if self.count else 0.0


def merged(parts: Iterable[Counts]) -> Histogram:
    histogram = Histogram()
    for counts in parts:
        histogram.merge(counts)
    return histogram


def index_of(value: int) -> int:
    shift = max(value.bit_length() - _PRECISION - 1, 0)
    return (shift << _PRECISION) + (value >> shift)


def end_of(index: int) -> int:
    """Return the largest value of a bucket."""
    if index < _LINEAR:
        return index
    shift = (index >> _PRECISION) - 1
    return ((index - (shift << _PRECISION) + 1) << shift) - 1
