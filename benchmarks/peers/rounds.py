"""The same works on every peer, in turns, so that what disturbs one disturbs all."""

import os
import secrets
from collections.abc import Mapping

from msgspec import Struct

from .generator import Generator
from .jobs import Job, Kind
from .report import Result, Sample

BATCH = 1000
CONNECTIONS = 16
SINGLES_SHARE = 10  # one message in so many is sent one by one, as each then takes a round trip
WARM_UP_SHARE = 10


class Work(Struct, frozen=True):
    """What is measured; `share`: of the messages, one in so many."""

    title: str
    kind: Kind
    batch: int
    connections: int = 1
    share: int = 1

    def job(self, topic: str, messages: int, size: int) -> Job:
        return Job(self.kind, topic, self.count(messages), self.batch, size, self.connections)

    def count(self, messages: int) -> int:
        """Return how many messages that is: what all connections share evenly in batches, at least one each."""
        step = self.batch * self.connections
        return max(messages // self.share // step, 1) * step


WORKS = (
    Work(f"produce in batches of {BATCH}", "send", BATCH),
    Work(f"consume in batches of {BATCH}", "receive", BATCH),
    Work("produce one by one, 1 connection", "send", 1, 1, SINGLES_SHARE),
    Work(f"produce one by one, {CONNECTIONS} connections", "send", 1, CONNECTIONS, SINGLES_SHARE),
)

Results = dict[Work, dict[str, Result]]


def measure(generators: Mapping[str, Generator], *, messages: int, size: int, rounds: int) -> Results:
    """Do all works on every peer in each round, in an order that turns, after a short round that is not counted."""
    names = list(generators)
    results: Results = {work: {name: Result(size, []) for name in names} for work in WORKS}
    for name in names:
        _round(generators[name], messages // WARM_UP_SHARE, size)
    for number in range(rounds):
        for name in names[:: 1 if number % 2 else -1]:
            for work, sample in _round(generators[name], messages, size).items():
                results[work][name].samples.append(sample)
    return results


def _round(generator: Generator, messages: int, size: int) -> dict[Work, Sample]:
    """Do all works in a topic of their own; what others have written is on the disk first."""
    os.sync()
    topic = secrets.token_hex(8)
    generator.run(Job("create", topic))
    samples: dict[Work, Sample] = {}
    for work in WORKS:
        samples[work] = generator.run(work.job(topic, messages, size))
    generator.run(Job("delete", topic))
    return samples
