"""A whole broker in a thread with a loop of its own: for tests without a loop, and for those of other libraries."""

import asyncio
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Unpack

from ..broker.cli import loop_factory
from .server import Broker, Endpoints, Options

TIMEOUT_S = 30.0


class RunningBroker(Endpoints):
    """A broker in another thread. Its methods block; any thread may call them, also where a loop runs."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker.addresses)
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()

    def restart(self) -> None:
        """Close it and start it on what it has kept, at the same addresses: connections break, groups are empty."""
        asyncio.run_coroutine_threadsafe(self._broker.restart(), self._loop).result(TIMEOUT_S)

    def stop(self) -> None:
        """Let it end soon."""
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def stopped(self) -> None:
        await self._stopping.wait()


@contextmanager
def running(**options: Unpack[Options]) -> Generator[RunningBroker]:
    """Run a broker of your own, in a thread. Any number can run at once."""
    broker = Broker(**options)
    started: Future[RunningBroker] = Future()
    with ThreadPoolExecutor(1, thread_name_prefix="pybroker-testing") as thread:
        ended = thread.submit(_run, broker, started)
        served = started.result()
        try:
            yield served
        finally:
            served.stop()
            ended.result(TIMEOUT_S)


def _run(broker: Broker, started: Future[RunningBroker]) -> None:
    """Serve until told to stop. Why it could not start goes to who waits for that."""
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(broker, started))
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


async def _serve(broker: Broker, started: Future[RunningBroker]) -> None:
    await broker.start()
    try:
        served = RunningBroker(broker)
        started.set_result(served)
        await served.stopped()
    finally:
        await broker.close()
