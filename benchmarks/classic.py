"""What a message costs the classic wire, beside what it costs the vsr wire, which only verifies it.

    python -m pybroker.benchmarks.classic [--rounds N]

Sends are converted to a batch record, polls from one; the vsr wire verifies the record that it is sent, and polls cost
it nothing. No sockets, no disk. Each round does each once, in turns, and the best round counts: a noisy machine moves a
ratio less than a time. Messages have one size ("alike") or sizes that differ by up to 6 bytes.
"""

import argparse
import os
import struct
import time
from collections.abc import Callable

from ..protocol.batch import stamp, verify
from ..protocol.classic.convert import ENTRY, HEAD_SIZE, messages_of, record_of

ROUNDS = 200
SHAPES = ((1000, 1000), (1000, 100), (100, 100), (1, 100))  # messages, bytes
_HEAD = struct.Struct("<40xQII8x")


def measure(count: int, payload_size: int, *, alike: bool, rounds: int) -> tuple[float, float, float]:
    """Return microseconds for a message: sent, polled, verified."""
    payloads = [os.urandom(payload_size + (0 if alike else index % 7)) for index in range(count)]
    messages = memoryview(b"".join(_HEAD.pack(index, 0, len(data)) + data for index, data in enumerate(payloads)))
    entries, end = bytearray(), 0
    for data in payloads:
        end += HEAD_SIZE + len(data)
        entries += ENTRY.pack(0, end, 0)
    batch = record_of(messages, memoryview(entries), os.urandom)
    stamp(batch, base_offset=0, base_timestamp_us=0)
    works: tuple[Callable[[], object], ...] = (
        lambda: record_of(messages, memoryview(entries), os.urandom),
        lambda: messages_of([batch.record]),
        lambda: verify(batch.record),
    )
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[index] = min(best[index], time.perf_counter() - start)
    sent, polled, verified = (seconds / count * 1e6 for seconds in best)
    return sent, polled, verified


def main() -> None:
    parser = argparse.ArgumentParser("pybroker.benchmarks.classic", description="Measure the classic wire's messages.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is done (default: %(default)s)")
    rounds = parser.parse_args().rounds
    print(f"{'us a message':28}{'sent':>8}{'polled':>8}{'vsr':>8}{'sent/vsr':>10}{'polled/vsr':>12}")
    for count, size in SHAPES:
        for alike in (True, False):
            sent, polled, verified = measure(count, size, alike=alike, rounds=rounds)
            name = f"{count} x {size} B, {'alike' if alike else 'unlike'}"
            ratios = f"{sent / verified:10.1f}{polled / verified:12.1f}"
            print(f"{name:28}{sent:8.2f}{polled:8.2f}{verified:8.2f}{ratios}")


if __name__ == "__main__":
    main()
