"""When requests are due, and what a stall costs."""

import asyncio

import pytest
from pybroker.benchmarks.harness.schedule import Alarm, Schedule, Times, clock_ns
from pybroker.benchmarks.harness.tally import Tally

MS = 1_000_000
TIMEOUT_S = 10


async def due_times(schedule: Schedule, start_ns: int, count_max: int = 100) -> list[int]:
    """Return when requests were due, in ms from the start."""
    times: list[int] = []
    async with asyncio.timeout(TIMEOUT_S):
        while len(times) < count_max and (due_ns := await schedule.next()) is not None:
            times.append((due_ns - start_ns) // MS)
    schedule.close()
    return times


async def test_requests_are_due_at_even_intervals_however_late_they_are() -> None:
    start_ns = clock_ns() - 1000 * MS
    times = Times(start_ns, start_ns, start_ns + 100 * MS)
    assert await due_times(Schedule(times, interval_ns=10 * MS), start_ns) == [*range(0, 100, 10)]


async def test_the_volume_counts_from_the_warm_ups_end() -> None:
    start_ns = clock_ns() - 1000 * MS
    times = Times(start_ns - 30 * MS, start_ns)
    due = await due_times(Schedule(times, interval_ns=10 * MS, measured_max=4), start_ns)
    assert due == [-30, -20, -10, 0, 10, 20, 30]


async def test_a_request_is_not_given_out_before_it_is_due() -> None:
    start_ns = clock_ns()
    schedule = Schedule(Times(start_ns, start_ns, start_ns + 30 * MS), interval_ns=10 * MS)
    async with asyncio.timeout(TIMEOUT_S):
        while (due_ns := await schedule.next()) is not None:
            assert clock_ns() >= due_ns
    schedule.close()


async def test_tasks_that_share_a_schedule_get_each_request_once() -> None:
    start_ns = clock_ns()
    schedule = Schedule(Times(start_ns, start_ns, start_ns + 20 * MS), interval_ns=MS)
    taken: list[int] = []

    async def take() -> None:
        while (due_ns := await schedule.next()) is not None:
            taken.append((due_ns - start_ns) // MS)

    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(take() for _ in range(5)))
    schedule.close()
    assert sorted(taken) == [*range(20)]


async def test_without_a_rate_a_request_is_due_when_it_is_asked_for() -> None:
    before_ns = clock_ns()
    schedule = Schedule(Times(before_ns, before_ns), measured_max=3)
    async with asyncio.timeout(TIMEOUT_S):
        due = [await schedule.next() for _ in range(4)]
    schedule.close()
    assert due[3] is None
    assert all(at is not None and before_ns <= at <= clock_ns() for at in due[:3])


async def test_a_cancelled_wait_leaves_the_alarm_usable() -> None:
    alarm = Alarm()
    waiting = asyncio.create_task(alarm.until(clock_ns() + 10_000 * MS))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    due_ns = clock_ns() + 5 * MS
    async with asyncio.timeout(TIMEOUT_S):
        await alarm.until(due_ns)
    alarm.close()
    assert clock_ns() >= due_ns


def test_a_stall_counts_for_every_request_that_was_due_meanwhile() -> None:
    # Every 10 ms a request of 1 ms; the one at 20 ms takes 100 ms, and those after it go out one after the other.
    tally = Tally("producer 1", 100 * MS)
    tally.begin(Times(0, 0))
    ended_ms = 0
    for number in range(20):
        due_ms = 10 * number
        ended_ms = max(due_ms, ended_ms) + (100 if due_ms == 20 else 1)
        tally.add(due_ms * MS, ended_ms * MS, 1, 100)
    histogram = tally.result().latencies
    assert histogram.maximum == 100 * MS
    late = [100, 91, 82, 73, 64, 55, 46, 37, 28, 19, 10]
    assert histogram.total == (sum(late) + 9) * MS


@pytest.mark.parametrize(("due_ms", "counted"), [(-1, 0), (0, 1), (1, 1)])
def test_what_was_due_before_the_start_is_a_warm_up(due_ms: int, counted: int) -> None:
    tally = Tally("producer 1", 100 * MS)
    tally.begin(Times(-10 * MS, 0))
    tally.add(due_ms * MS, 5 * MS, 7, 700)
    result = tally.result()
    assert (result.requests, result.messages, result.bytes) == (counted, 7 * counted, 700 * counted)
    assert result.messages_total == 7


def test_the_series_holds_everything_by_when_it_ended() -> None:
    tally = Tally("producer 1", 100 * MS)
    tally.begin(Times(0, 0))
    for ended_ms in (0, 99, 100, 350):
        tally.add(0, ended_ms * MS, 10, 1000)
    points = tally.result().points
    assert [point.messages for point in points] == [20, 10, 0, 10]
    assert [point.latency_ns // MS for point in points] == [99, 100, 0, 350]
    assert tally.result().ended_ns == 350 * MS
