"""Waiting for room: in line, and never too much taken."""

import asyncio

import pytest
from pybroker.client.room import IN_A_ROW_SIZE, Room


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_would_take_too_much_waits_in_line() -> None:
    room = Room(10)
    order: list[int] = []

    async def take(number: int, size: int) -> None:
        await room.take(size)
        order.append(number)

    await room.take(8)
    waiting = [asyncio.create_task(take(number, size)) for number, size in enumerate((3, 2, 5))]
    await settle()
    assert (order, room.taken) == ([], 8)  # the second would fit, but it is not its turn
    room.give_back(8)
    await settle()
    assert (order, room.taken) == ([0, 1, 2], 10)
    await asyncio.gather(*waiting)


async def test_what_is_larger_than_the_room_goes_alone() -> None:
    room = Room(10)
    await room.take(1)
    large = asyncio.create_task(room.take(50))
    await settle()
    assert room.taken == 1
    room.give_back(1)
    await large
    assert room.taken == 50


@pytest.mark.parametrize("is_its_turn", [False, True])
async def test_who_gives_up_lets_the_next_one_have_its_turn(is_its_turn: bool) -> None:
    room = Room(10)
    await room.take(10)
    first = asyncio.create_task(room.take(10))
    second = asyncio.create_task(room.take(4))
    await settle()
    if is_its_turn:
        room.give_back(10)  # it is told, but has not run yet
    first.cancel()
    await settle()
    if not is_its_turn:
        assert room.taken == 10
        room.give_back(10)
        await settle()
    assert (first.cancelled(), second.done(), room.taken) == (True, True, 4)


async def test_who_waits_is_told_when_there_will_be_no_room() -> None:
    room = Room(1)
    await room.take(1)
    waiting = asyncio.create_task(room.take(1))
    await settle()
    room.shut(ValueError("closed"))
    with pytest.raises(ValueError, match="closed"):
        await waiting
    assert room.taken == 1


async def test_who_takes_much_in_a_row_has_others_go_first() -> None:
    room = Room(1 << 30)
    assert room.try_take(IN_A_ROW_SIZE + 1)
    assert not room.try_take(1)
    is_others_turn_over = False

    async def other() -> None:
        nonlocal is_others_turn_over
        is_others_turn_over = True

    waiting = asyncio.create_task(other())
    await room.take(1)
    assert is_others_turn_over
    assert room.try_take(1)
    await waiting


async def test_where_there_is_room_nobody_waits_for_it_in_line() -> None:
    room = Room(1 << 30)
    async with asyncio.timeout(10):
        await asyncio.gather(*(room.take(IN_A_ROW_SIZE) for _ in range(50)))
        while room.try_take(IN_A_ROW_SIZE):
            pass
        await asyncio.gather(*(room.take(IN_A_ROW_SIZE) for _ in range(50)))
    assert room.taken == 102 * IN_A_ROW_SIZE
