"""Giving up at any moment: whatever is cancelled, the next call gets its own answer."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from pybroker.broker.listeners.peers import Peers
from pybroker.client import Client, ConnectError, Retry
from support.agents import until
from support.cancelling import STEPS_MAX, ask_something, cancel_after, every_moment
from support.scripted import Scripted

from .conftest import drop

FAST = Retry(first_s=0.0001, max_s=0.001)
LARGE = b"x" * 3_000_000


async def send_large(client: Client) -> object:
    return await client.send("s", "t", [LARGE], partition=0)


CALLS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "ping": lambda client: client.ping(),
    "read": lambda client: client.get_streams(),
    "small send": lambda client: client.send("s", "t", [b"x"], partition=0),
    "large send": send_large,
    "large poll": lambda client: client.poll("s", "t", partition=1, start="first", count=2),
    "several": lambda client: asyncio.gather(
        client.get_me(), send_large(client), client.get_stream("s"), client.ping()
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_cancelled_at_any_moment_leaves_its_answer_to_nobody(client: Client, name: str) -> None:
    await client.create_stream("s")
    await client.create_topic("s", "t", 2)
    await client.send("s", "t", [LARGE, LARGE], partition=1)
    async for steps in every_moment(lambda: CALLS[name](client)):
        await ask_something(client, steps)
    assert client.connection_id == 1
    connection = client._ready
    assert connection is not None
    await until(lambda: not connection._asked)
    assert not connection._queue and connection._in_flight == 0


async def test_connecting_cancelled_at_any_moment_leaves_no_connection(url: str, peers: Peers) -> None:
    async def hook() -> None:
        await client.ping()

    client = Client(url, timeout_s=10)
    client.on_connect.append(hook)
    async for steps in every_moment(client.connect):
        if client._open:
            assert steps
            break
        await until(lambda: len(peers) == 0)
        with pytest.raises(ConnectError):
            await client.ping()
    await ask_something(client, 0)
    await client.close()
    await until(lambda: len(peers) == 0)


async def test_closing_cancelled_at_any_moment_can_be_done_again(url: str, peers: Peers) -> None:
    client = Client(url, timeout_s=10)
    for steps in range(20):
        await client.connect()
        await cancel_after(steps, client.close())
        await client.close()
        with pytest.raises(ConnectError):
            await client.ping()
        await until(lambda: len(peers) == 0)
    async with client:
        await ask_something(client, 0)


async def test_a_call_cancelled_while_there_is_no_connection_does_not_end_the_attempts(url: str, peers: Peers) -> None:
    async with Client(url, timeout_s=10, retry=FAST) as client:
        for steps in count():
            assert steps < STEPS_MAX
            drop(peers)
            await until(lambda: client._ready is None)
            is_done = await cancel_after(steps, client.get_streams())
            await ask_something(client, steps)
            if is_done:
                break
        assert client.connection_id > 1


async def test_closing_while_dialling_at_any_moment_ends_it(url: str, peers: Peers) -> None:
    for steps in range(40):
        client = Client(url, timeout_s=10, retry=FAST)
        await client.connect()
        drop(peers)
        await until(lambda client=client: client._ready is None)
        for _ in range(steps):
            await asyncio.sleep(0)
        await client.close()
        assert client._redialling is None and client._ready is None
        await until(lambda: len(peers) == 0)


async def test_a_call_cancelled_before_its_turn_is_never_sent(
    script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pybroker.client.tcp.TcpLink.in_flight_max", 1)
    async with Client(script.url, timeout_s=10) as client:
        first, second, third = (asyncio.create_task(client.get_stream(number)) for number in (1, 2, 3))
        dialogue, request = await script.asked()
        second.cancel()
        await asyncio.wait((second,))
        dialogue.answer(request, None)
        dialogue, request = await script.asked()
        assert request.command is not None and getattr(request.command, "stream") == 3  # noqa: B009
        dialogue.answer(request, None)
        assert [await first, await third] == [None, None]
