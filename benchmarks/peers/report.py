"""Medians of rounds, ratios, and the rows of a table."""

from collections.abc import Mapping, Sequence
from statistics import median

from msgspec import Struct

from .catalog import Peer


class Sample(Struct, frozen=True):
    """What one round took. The processor times are the server's and the client's, in seconds."""

    messages: int
    seconds: float
    server_cpu: float
    client_cpu: float


class Result(Struct):
    """One work on one peer: the rounds in order, `size` bytes a message."""

    size: int
    samples: list[Sample]

    @property
    def rate(self) -> float:
        """Return messages a second: the median of the rounds."""
        return median(sample.messages / sample.seconds for sample in self.samples)

    @property
    def server_cpu(self) -> float:
        return self._per_million([sample.server_cpu for sample in self.samples])

    @property
    def client_cpu(self) -> float:
        return self._per_million([sample.client_cpu for sample in self.samples])

    def ratio_to(self, other: "Result") -> float:
        """Return how many times as fast as `other` it was: the median of the rounds' ratios."""
        rounds = zip(self.samples, other.samples, strict=True)
        return median(theirs.seconds / own.seconds for own, theirs in rounds)

    def _per_million(self, seconds: Sequence[float]) -> float:
        return sum(seconds) / sum(sample.messages for sample in self.samples) * 1e6


HEADS = ("peer", "messages/s", "MB/s", "pybroker is", "CPU s/million: server", "client", "answered when")
WORDS = (0, 6)  # the columns that are not numbers


def rows_of(results: Mapping[str, Result], peers: Mapping[str, Peer]) -> list[list[str]]:
    """Return a row for each peer, with the ratio to its base in the same results."""
    rows: list[list[str]] = []
    for name, own in results.items():
        base = results[peers[name].base]
        ratio = "1" if base is own else f"{base.ratio_to(own):.2f} times"
        speed = [f"{own.rate:,.0f}", f"{own.rate * own.size / 1e6:.1f}", ratio]
        cpu = [f"{own.server_cpu:.2f}" if own.server_cpu else "?", f"{own.client_cpu:.2f}"]
        rows.append([name, *speed, *cpu, peers[name].answered])
    return rows
