"""Who does what, and when consumers have read everything."""

import pytest
from pybroker.benchmarks.harness.crew import Readers
from pybroker.benchmarks.harness.options import parse
from pybroker.benchmarks.harness.plan import Actor, Plan, plan_of, split
from pybroker.benchmarks.harness.progress import rates_of


def planned(words: str) -> Plan:
    return plan_of(parse(words.split())[0])


def places(actors: list[Actor]) -> list[tuple[str, str, int | None, str | None]]:
    return [(actor.name, actor.stream[-1], actor.partition, actor.group and actor.group[-1]) for actor in actors]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pp -p 2", [("producer 1", "1", 0, None), ("producer 2", "2", 0, None)]),
        ("pp -p 2 -s 1", [("producer 1", "1", 0, None), ("producer 2", "1", 0, None)]),
        ("pp -p 2 -s 1 -a 2", [("producer 1", "1", 0, None), ("producer 2", "1", 1, None)]),
        ("ppc -p 1 -c 1", [("producer 1", "1", 0, None), ("consumer 1", "1", 0, None)]),
        ("bp -p 1", [("producer 1", "1", None, None)]),
        ("bcg -c 2 -g 2", [("consumer 1", "1", None, "1"), ("consumer 2", "1", None, "2")]),
        ("e2e -p 1", [("producing consumer 1", "1", 0, None)]),
    ],
)
def test_actors_have_their_places(words: str, expected: list[tuple[str, str, int | None, str | None]]) -> None:
    assert places(planned(words).actors) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pc -c 3 -b 5", [("1", 0, 5), ("2", 0, 5), ("3", 0, 5)]),
        ("pc -c 3 -s 1 -b 5", [("1", 0, 5)]),
        ("pc -c 2 -s 1 -a 2 -b 5", [("1", 0, 5), ("1", 1, 5)]),
        ("bcg -c 4 -g 2 -b 5", [("1", None, 10)]),
        ("pc --reuse-streams", []),
        ("ppc", []),
    ],
)
def test_what_is_only_read_is_filled_before(words: str, expected: list[tuple[str, int | None, int]]) -> None:
    assert [(actor.stream[-1], actor.partition, actor.batches) for actor in planned(words).fill] == expected


@pytest.mark.parametrize(("processes", "sizes"), [(1, [5]), (2, [3, 2]), (4, [2, 1, 1, 1]), (9, [1, 1, 1, 1, 1])])
def test_actors_have_a_process_each_as_far_as_that_goes(processes: int, sizes: list[int]) -> None:
    actors = planned("pp -p 5").actors
    shares = split(actors, processes)
    assert [len(share) for share in shares] == sizes
    assert sorted(actor.name for share in shares for actor in share) == [actor.name for actor in actors]


def test_a_consumer_is_done_when_it_has_read_its_partition() -> None:
    readers = Readers(planned("ppc -p 2 -c 2").actors)
    assert readers.satisfied({"consumer 1": 100, "consumer 2": 100}) == []
    readers.expect({"bench-stream-1": [100], "bench-stream-2": [50]})
    assert readers.satisfied({"consumer 1": 99, "consumer 2": 50}) == ["consumer 2"]
    assert readers.satisfied({"consumer 1": 100, "consumer 2": 50}) == ["consumer 1"]
    assert readers.satisfied({"consumer 1": 100, "consumer 2": 50}) == []


def test_a_group_is_done_when_its_members_have_read_everything_together() -> None:
    readers = Readers(planned("bcg -c 4 -g 2").actors)
    readers.expect({"bench-stream-1": [30, 30, 20, 20]})
    assert readers.satisfied({"consumer 1": 99, "consumer 2": 60, "consumer 3": 0, "consumer 4": 40}) == [
        "consumer 2",
        "consumer 4",
    ]


def test_who_begins_again_is_done_when_its_time_is_over() -> None:
    readers = Readers(planned("pc -c 1 --duration 1s").actors)
    readers.expect({})
    assert readers.satisfied({"consumer 1": 1000}) == []


def test_progress_is_by_role() -> None:
    before, now = {"producer 1": 100, "producer 2": 0}, {"producer 1": 300, "producer 2": 50, "consumer 1": 7}
    assert rates_of(before, now, 0.5) == {"producer": (350, 500.0), "consumer": (7, 14.0)}
