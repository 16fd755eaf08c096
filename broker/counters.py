"""Plain counters that the parts add to as they work. `metrics.py` reads them when somebody asks."""

from bisect import bisect_left
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from ..protocol.commands import COMMANDS
from ..protocol.primitives import Transport

# Upper bounds of a histogram's buckets, in seconds; one more is for what takes longer.
BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SHORTEST_S = BUCKETS_S[0]


class Timing(Struct):
    """How often something took how long. counts: by bucket."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    seconds: float = 0.0
    failures: int = 0

    def note(self, seconds: float) -> None:
        self.counts[0 if seconds <= _SHORTEST_S else bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds += seconds

    def failed(self, seconds: float) -> None:
        self.failures += 1
        self.note(seconds)


class Traffic(Struct):
    """What went into a topic and out of it. Bytes are those of records."""

    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0


def _timings() -> dict[type[Struct], dict[Transport, Timing]]:
    return {row.request: {transport: Timing() for transport in Transport} for row in COMMANDS}


@dataclass
class Counters:
    """What went through since the start; unsent: bytes of answers that peers have yet to take.

    requests: by command and transport. traffic: by stream and topic id. syncs: waits for the disk. loop_delays: how
    much too late the event loop did what it should once a second.
    """

    read_bytes: int = 0
    written_bytes: int = 0
    unsent_bytes: int = 0
    http_requests: int = 0
    requests: dict[type[Struct], dict[Transport, Timing]] = field(default_factory=_timings)
    traffic: dict[tuple[int, int], Traffic] = field(default_factory=dict[tuple[int, int], Traffic])
    syncs: Timing = field(default_factory=Timing)
    loop_delays: Timing = field(default_factory=Timing)

    def sent(self, topic: tuple[int, int], messages: int, size: int) -> None:
        """Take note of a batch of `size` bytes that a topic has stored."""
        self.written_bytes += size
        traffic = self.traffic.get(topic) or self.traffic.setdefault(topic, Traffic())
        traffic.messages_in += messages
        traffic.bytes_in += size

    def polled(self, topic: tuple[int, int], messages: int, size: int) -> None:
        self.read_bytes += size
        traffic = self.traffic.get(topic) or self.traffic.setdefault(topic, Traffic())
        traffic.messages_out += messages
        traffic.bytes_out += size

    def forget(self, topic: tuple[int, int]) -> None:
        """Forget a topic that is deleted: its id is given out again."""
        self.traffic.pop(topic, None)
