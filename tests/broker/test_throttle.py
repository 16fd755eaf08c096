"""What slows guessing down: who waits, for how long, and how much is remembered."""

import asyncio

import pytest
from pybroker.broker import throttle as module
from pybroker.broker.throttle import ADDRESSES_MAX, DELAYS_S, FREE_FAILURES, TRIES_AT_ONCE, Throttle, address_of
from pybroker.protocol.errors import Refused, Status
from support.broker import Waits
from support.engines import FakeClock

ADDRESSES = [
    ("192.168.1.2:8090", "192.168.1.2"),
    ("[::ffff:192.168.1.2]:8090", "192.168.1.2"),
    ("[2001:db8:1:2:3:4:5:6]:8090", "2001:db8:1:2::/64"),
    ("[2001:db8:1:2::1]:1", "2001:db8:1:2::/64"),
    ("[::1]:8090", "::/64"),
    ("[fe80::1%eth0]:8090", "fe80::/64"),
]


@pytest.mark.parametrize(("peer", "address"), ADDRESSES)
def test_peer_counts_under_its_address_whatever_its_port(peer: str, address: str) -> None:
    assert address_of(peer) == address


async def fail(throttle: Throttle, peer: str) -> None:
    with pytest.raises(Refused):
        async with throttle.turn(peer):
            raise Refused(Status.INVALID_CREDENTIALS)


def test_delays_grow_and_stay_below_what_clients_wait() -> None:
    assert sorted(set(DELAYS_S)) == list(DELAYS_S)
    assert DELAYS_S[-1] * 5 < 30


async def test_nobody_is_remembered_who_did_not_fail() -> None:
    throttle = Throttle(FakeClock())
    async with throttle.turn("10.0.0.1:1"):
        assert len(throttle) == 1
    assert len(throttle) == 0


async def test_success_forgets_failures() -> None:
    throttle = Throttle(FakeClock(), Waits().sleep)
    for _ in range(FREE_FAILURES + 2):
        await fail(throttle, "10.0.0.1:1")
    async with throttle.turn("10.0.0.1:2"):
        pass
    assert len(throttle) == 0


async def test_only_refusals_count_as_failures() -> None:
    waits = Waits()
    throttle = Throttle(FakeClock(), waits.sleep)
    for _ in range(FREE_FAILURES + 1):
        with pytest.raises(OSError, match="disk"):
            async with throttle.turn("10.0.0.1:1"):
                raise OSError("disk")
    assert (waits, len(throttle)) == ([], 0)


async def test_memory_is_bounded_and_who_failed_last_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESSES_MAX", 100)
    assert ADDRESSES_MAX >= 1000
    waits = Waits()
    throttle = Throttle(FakeClock(), waits.sleep)
    for _ in range(FREE_FAILURES - 1):
        for number in range(90):
            await fail(throttle, f"10.0.1.{number}:1")
    await fail(throttle, "10.0.1.0:1")  # the first of them all is the last one now
    for number in range(50):
        await fail(throttle, f"10.0.2.{number}:1")
    assert len(throttle) == 100
    await fail(throttle, "10.0.1.0:1")
    assert waits == [DELAYS_S[0]]
    for _ in range(2):
        await fail(throttle, "10.0.1.1:1")  # forgotten, or its second failure here would be one too many
    assert waits == [DELAYS_S[0]]


async def test_an_address_tries_only_so_many_at_once_and_others_do_not_wait_for_it() -> None:
    throttle = Throttle(FakeClock())
    going: list[str] = []
    door = asyncio.Event()

    async def attempt(peer: str) -> None:
        async with throttle.turn(peer):
            going.append(peer)
            await door.wait()

    tasks = [asyncio.create_task(attempt(f"10.0.0.1:{port}")) for port in range(3 * TRIES_AT_ONCE)]
    tasks.append(asyncio.create_task(attempt("10.0.0.2:1")))
    await asyncio.sleep(0)
    assert len(going) == TRIES_AT_ONCE + 1
    assert "10.0.0.2:1" in going
    door.set()
    await asyncio.gather(*tasks)
    assert (len(going), len(throttle)) == (len(tasks), 0)


async def test_tries_at_the_same_time_do_not_get_around_the_delay() -> None:
    """Whoever waits for its turn learns of the failures meanwhile."""
    waits = Waits()
    throttle = Throttle(FakeClock(), waits.sleep)

    async def guess(port: int) -> None:
        with pytest.raises(Refused):
            async with throttle.turn(f"10.0.0.1:{port}"):
                await asyncio.sleep(0)
                raise Refused(Status.INVALID_CREDENTIALS)

    await asyncio.gather(*(guess(port) for port in range(20)))
    assert len(waits) >= 20 - FREE_FAILURES - TRIES_AT_ONCE


async def test_those_that_give_up_waiting_leave_no_trace() -> None:
    throttle = Throttle(FakeClock())

    async def stay() -> None:
        async with throttle.turn("10.0.0.1:1"):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(stay()) for _ in range(TRIES_AT_ONCE + 1)]
    await asyncio.sleep(0)
    assert len(throttle) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(throttle) == 0
