"""Stay awake for the next request: one that comes soon finds the loop looking, and not asleep.

Most clients wait for each answer before they ask again, so between two requests of one client there is nothing to do
for as long as it takes them to ask, 10 us and more. A loop that goes to sleep for that long lets its core sleep, which
takes time both ways and leaves its caches cold: as much as the whole work on a message. So the loop is kept turning for
a moment after each answer, as kernels and databases do where a wait is likely to be short.
"""

from asyncio import get_running_loop
from collections.abc import Callable
from time import perf_counter

VAIN_MAX = 8
"""After so many looks in vain, and more, only every 2**VAIN_MAXth answer is followed by a look."""


class BusyPoll:
    """One loop's. Every turn of it is a look: 2 to 3 us of processor time.

    Who takes longer to ask than the window is not waited for: after each look in vain in a row, twice as many answers
    are followed by none, until a look finds something.
    """

    def __init__(
        self,
        window_s: float,
        *,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """window_s: how long to look. call_soon: of the loop that runs when it is needed first."""
        self._window_s = window_s
        self._call_soon = call_soon
        self._clock = clock
        self._until = 0.0  # when to stop looking; 0 while nobody looks
        self._vain = 0  # looks in a row that found nothing
        self._skip = 0  # how many more answers no look follows

    def answered(self) -> None:
        """Look for another request from now on: one was answered, and no other is there."""
        if self._until:
            self._vain = 0
        elif self._skip:
            self._skip -= 1
            return
        else:
            self._call_soon = self._call_soon or get_running_loop().call_soon
            self._call_soon(self._look)
        self._until = self._clock() + self._window_s

    def _look(self) -> None:
        """Have the loop turn once more, which takes in what has arrived."""
        if self._clock() < self._until:
            assert self._call_soon is not None
            self._call_soon(self._look)
            return
        self._until = 0.0
        self._skip = (1 << self._vain) - 1
        self._vain = min(self._vain + 1, VAIN_MAX)
