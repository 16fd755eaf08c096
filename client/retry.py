"""How often and when a lost connection is dialled again."""

import random

import msgspec


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Wait `first_s`, twice as long each time, up to `max_s`; each wait is shortened at random by up to a half.

    attempts_max: how many attempts there are, None for no end; 0 never dials again by itself.
    """

    first_s: float = 0.05
    max_s: float = 5.0
    attempts_max: int | None = None

    def delay_s(self, attempt: int) -> float:
        """Return how long to wait before an attempt, counted from 0."""
        longest = min(self.max_s, self.first_s * 2 ** min(attempt, _DOUBLINGS_MAX))
        return longest * random.uniform(0.5, 1)

    def allows(self, attempt: int) -> bool:
        return self.attempts_max is None or attempt < self.attempts_max


_DOUBLINGS_MAX = 32
