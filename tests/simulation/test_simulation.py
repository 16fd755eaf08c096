"""Seeds of random work, faults, crashes and damage on the real storage, catalog and offsets, on a simulated disk.

Half of the runs encrypt, with keys that change from one start to the next. A run is decided by its seed alone.
`--seeds N` runs N fresh seeds, PYBROKER_SEED=N runs that one.
"""

import os
import random
import signal
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from pybroker.broker import catalog
from pybroker.storage import cipher
from pybroker.storage.local import table

from .actions import ACTIONS
from .messages import Violation
from .tally import Tally
from .world import Killed, World

SEEDS_IN_SUITE = range(1, 301)
ACTIONS_COUNT = 120
STUCK_S = 60  # a loop without an end; a run takes 0.1 s


@contextmanager
def watched() -> Generator[None]:
    """Raise Violation where something under test never comes back: nothing else would get a turn."""

    def give_up(*_: object) -> None:
        raise Violation("the event loop is stuck")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(STUCK_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(seed: int, tally: Tally) -> None:
    """Run one seed. Raises Violation; what happened before it is in its notes."""
    world = World(seed, tally)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cipher, "token_bytes", world.keys.make_nonce)
            live(world)
    except BaseException as error:
        error.add_note("\n".join([*world.trace, f"PYBROKER_SEED={seed}"]))
        raise


def live(world: World) -> None:
    """Start, let this and that happen, and end."""
    names, weights = list(ACTIONS), [weight for weight, _ in ACTIONS.values()]
    world.start()
    for number in range(ACTIONS_COUNT):
        name = world.rng.choices(names, weights)[0]
        world.say(f"{number}: {name}")
        act(world, name)
    world.end()


def act(world: World, name: str) -> None:
    try:
        ACTIONS[name][1](world)
        for _ in range(world.rng.choice((0, 0, 1, 2, 4))):
            world.turn()
        world.reap()
    except Killed:
        world.crash(power=world.rng.random() < 0.5)
        world.start()


@pytest.fixture
def seeds(pytestconfig: pytest.Config) -> list[int]:
    if seed := os.environ.get("PYBROKER_SEED"):
        return [int(seed)]
    count: int = pytestconfig.option.seeds
    start = random.SystemRandom().randrange(2**32)
    return list(range(start, start + count)) if count else list(SEEDS_IN_SUITE)


def test_no_promise_is_broken_whatever_fails(seeds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "EVENTS_BEFORE_SNAPSHOT", 12)
    monkeypatch.setattr(table, "EVENTS_SPARE", 5)
    tally = Tally()
    for seed in seeds:
        with watched():
            run(seed, tally)
    print(f"\n{len(seeds)} seeds from {seeds[0]}\n{tally.table()}")  # noqa: T201
    assert tally.counts["appends acknowledged"]
