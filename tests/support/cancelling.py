"""Gives up what a client does, at every moment of it, and sees whether the client still works."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import count

from pybroker.broker.listeners.peers import Peers
from pybroker.client import Client

from .agents import until

STEPS_MAX = 2000


async def cancel_after(steps: int, work: Awaitable[object]) -> bool:
    """Let the loop turn so often, then cancel; say whether the work was done by then. Its own errors count as done."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    is_done = task.done()
    task.cancel()
    await asyncio.wait((task,))
    return is_done


async def every_connect(url: str, peers: Peers) -> None:
    """Connect, cancelled one turn later each time: the server is left with no connection, and the last one works."""
    client = Client(url, timeout_s=10)
    async for _ in every_moment(client.connect):
        if client._open:
            break
        await until(lambda: len(peers) == 0)
    await ask_something(client, 0)
    await client.close()
    await until(lambda: len(peers) == 0)


async def every_moment(work: Callable[[], Awaitable[object]]) -> AsyncGenerator[int]:
    """Do the work again and again, cancelled one turn later each time; yield after each, until it was done in time."""
    for steps in count():
        assert steps < STEPS_MAX
        is_done = await cancel_after(steps, work())
        yield steps
        if is_done:
            return


async def ask_something(client: Client, number: int) -> None:
    """Ask what has an answer that no other call has."""
    name = f"stream-{number}"
    created = await client.create_stream(name)
    found = await client.get_stream(name)
    assert found is not None and found == created and found.stream.name == name
    await client.ping()
    await client.delete_stream(name)
