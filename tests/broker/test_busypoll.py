"""Looking for the next request: for how long, and how long not after looks in vain."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from pybroker.broker.busypoll import VAIN_MAX, BusyPoll
from pybroker.broker.loops import has_cores

WINDOW_S = 5


class Turns:
    """A loop that turns when it is told to, a second each."""

    def __init__(self) -> None:
        self.now_s = 100
        self.poll = BusyPoll(WINDOW_S, call_soon=self._call_soon, clock=lambda: self.now_s)
        self._soon: list[Callable[[], None]] = []

    def _call_soon(self, callback: Callable[[], None]) -> None:
        self._soon.append(callback)

    def turn(self) -> bool:
        """Say whether there was anything to do; a loop with nothing to do sleeps."""
        callbacks, self._soon = self._soon, []
        self.now_s += 1
        for callback in callbacks:
            callback()
        assert len(self._soon) <= 1
        return bool(callbacks)

    def turns_until_sleep(self) -> int:
        return next(count for count in range(100) if not self.turn())

    def looks(self) -> bool:
        """Answer something and say whether it is followed by a look; see that to its end."""
        self.poll.answered()
        return self.turns_until_sleep() > 0


def test_loop_is_kept_awake_for_the_window_after_an_answer() -> None:
    loop = Turns()
    assert not loop.turn()
    loop.poll.answered()
    assert loop.turns_until_sleep() == 5


def test_window_begins_anew_with_each_answer() -> None:
    loop = Turns()
    for _ in range(20):
        loop.poll.answered()
        assert [loop.turn() for _ in range(4)] == [True] * 4
    assert loop.turns_until_sleep() == 1


def test_after_looks_in_vain_twice_as_many_answers_are_followed_by_none() -> None:
    loop = Turns()
    looks = "".join("x" if loop.looks() else "." for _ in range(40))
    assert looks.startswith("xx.x...x.......x...............x")


def test_it_never_gives_up() -> None:
    loop = Turns()
    looks = [number for number in range(4000) if loop.looks()]
    gaps = {after - before for before, after in pairwise(looks)}
    assert max(gaps) == 2**VAIN_MAX
    assert looks[-1] > 4000 - 2**VAIN_MAX


def test_a_look_that_finds_something_makes_all_answers_worth_one() -> None:
    loop = Turns()
    for _ in range(100):
        loop.looks()
    while True:
        loop.poll.answered()
        if loop.turn():
            break
    loop.poll.answered()
    loop.turns_until_sleep()
    assert loop.looks()
    assert not loop.looks()


@pytest.mark.parametrize(("cores", "expected"), [(1, False), (None, False), (2, True), (64, True)])
def test_cores_are_those_of_the_machine(cores: int | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert has_cores() is expected


async def test_real_loop_turns_for_that_long_and_then_sleeps() -> None:
    looks: list[float] = []
    loop = asyncio.get_running_loop()

    def call_soon(callback: Callable[[], None]) -> None:
        looks.append(loop.time())
        loop.call_soon(callback)

    BusyPoll(0.02, call_soon=call_soon).answered()
    await asyncio.sleep(0.2)
    count = len(looks)
    assert count > 1
    await asyncio.sleep(0.05)
    assert len(looks) == count
