"""How far a run is: one line in place on a terminal, elsewhere nothing."""

import sys
import time


class Progress:
    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._shown_at_s = time.monotonic()
        self._messages: dict[str, int] = {}

    def show(self, messages: dict[str, int], size: float) -> None:
        """messages: of each actor so far. size: the mean bytes of one."""
        now_s = time.monotonic()
        passed_s, self._shown_at_s = now_s - self._shown_at_s, now_s
        before, self._messages = self._messages, dict(messages)
        if not self._on_terminal:
            return
        rates = rates_of(before, messages, passed_s)
        parts = [f"{role} {total:,}, {rate * size / 1e6:,.0f} MB/s" for role, (total, rate) in rates.items()]
        print("\r\033[K" + "   ".join(parts), end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        self._messages = {}
        if self._on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def rates_of(before: dict[str, int], now: dict[str, int], passed_s: float) -> dict[str, tuple[int, float]]:
    """Return how many messages there were, and how many a second lately, by the actors' names without their number."""
    rates: dict[str, tuple[int, float]] = {}
    for name, messages in now.items():
        role = name.rpartition(" ")[0]
        total, rate = rates.get(role, (0, 0.0))
        rates[role] = (total + messages, rate + (messages - before.get(name, 0)) / max(passed_s, 1e-9))
    return rates
