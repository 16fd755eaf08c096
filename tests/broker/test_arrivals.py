"""Waiting for messages, and being told."""

import asyncio

from pybroker.broker.arrivals import Arrivals

TOPIC = 1, 2
SOON_S = 0.001
TIMEOUT_S = 20


async def test_a_waiter_is_told_of_its_own_topic_only() -> None:
    arrivals = Arrivals()
    waiter, other = arrivals.join(TOPIC), arrivals.join((1, 3))
    arrivals.note(TOPIC, 5)
    assert await waiter.wait(TIMEOUT_S)
    assert not await other.wait(SOON_S)


async def test_partitions_come_in_the_order_they_were_told_and_once() -> None:
    arrivals = Arrivals()
    waiter = arrivals.join(TOPIC)
    for partition_id in (3, 1, 3, 2):
        arrivals.note(TOPIC, partition_id)
    assert [waiter.take() for _ in range(4)] == [3, 1, 2, None]


async def test_a_note_wakes_who_waits() -> None:
    arrivals = Arrivals()
    waiter = arrivals.join(TOPIC)
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        waiting = group.create_task(waiter.wait(TIMEOUT_S))
        await asyncio.sleep(0)
        assert not waiting.done()
        arrivals.note(TOPIC, 0)
    assert waiting.result()


async def test_what_came_while_nobody_waited_is_not_forgotten() -> None:
    arrivals = Arrivals()
    waiter = arrivals.join(TOPIC)
    arrivals.note(TOPIC, 0)
    assert waiter.take() == 0
    assert not await waiter.wait(SOON_S)
    arrivals.wake(TOPIC)
    assert await waiter.wait(TIMEOUT_S)
    assert waiter.is_changed


async def test_who_has_left_is_told_nothing() -> None:
    arrivals = Arrivals()
    waiter, other = arrivals.join(TOPIC), arrivals.join(TOPIC)
    arrivals.leave(waiter)
    arrivals.note(TOPIC, 0)
    assert (waiter.take(), other.take()) == (None, 0)
    arrivals.leave(other)
    arrivals.wake(TOPIC)
    assert not other.is_changed
