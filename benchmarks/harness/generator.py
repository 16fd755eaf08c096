"""A load generator: a process with some of a run's actors. It is told what to do on its standard input, by `crew`.

python -m pybroker.benchmarks.harness.generator
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import Protocol

from ...broker.loops import loop_factory
from ...client import Client, PybrokerError
from . import agents
from .actors import Echo, Member, Producer, Single, connected
from .messages import LINE_SIZE_MAX, Done, Failed, Go, Order, Progress, Ready, Report, Stop, Work, line_of, read_order
from .plan import ECHO, PRODUCER, Actor
from .schedule import Schedule, Times
from .tally import Tally

PROGRESS_INTERVAL_S = 0.1


class Runner(Protocol):
    @property
    def tally(self) -> Tally: ...

    async def run(self, schedule: Schedule) -> None: ...


async def prepare(actor: Actor, work: Work, stack: AsyncExitStack) -> Runner:
    """Connect an actor, and make it a member of its group. The stack closes what that opens."""
    params, tally = work.params, Tally(actor.name, work.params.sampling_us * 1000)
    if params.high_level_api:
        client = await stack.enter_async_context(Client(work.url))
        if actor.role == PRODUCER:
            return agents.Producing(
                params, await stack.enter_async_context(agents.producer_of(actor, params, client)), tally
            )
        return agents.Consuming(await stack.enter_async_context(agents.consumer_of(actor, params, client)), tally)
    connection = await stack.enter_async_context(connected(work.url))
    if actor.group is not None:
        member = Member(actor, params, connection, tally)
        await member.join()
        return member
    kind = {PRODUCER: Producer, ECHO: Echo}.get(actor.role, Single)
    return kind(actor, params, connection, tally)


def schedule_of(actor: Actor, work: Work, share: int, times: Times) -> Schedule:
    end_ns = times.end_ns if actor.role in (PRODUCER, ECHO) or actor.wraps else None
    return Schedule(
        Times(times.begin_ns, times.start_ns, end_ns),
        interval_ns=work.params.interval_ns(share),
        measured_max=actor.batches,
    )


class Generator:
    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Do one piece of work. Raises PybrokerError, ConnectionError."""
        work = await self._order()
        assert isinstance(work, Work)
        async with AsyncExitStack() as stack:
            runners = [await prepare(actor, work, stack) for actor in work.actors]
            _tell(Ready())
            go = await self._order()
            assert isinstance(go, Go)
            for actor, share, runner in zip(work.actors, work.shares, runners, strict=True):
                schedule = schedule_of(actor, work, share, go.times)
                self._tasks[actor.name] = asyncio.create_task(_run(runner, schedule))
            await self._watch(runners)
        _tell(Done([runner.tally.result() for runner in runners]))

    async def _watch(self, runners: list[Runner]) -> None:
        """Tell how far everybody is, and stop whom we are told to, until all are done."""
        stopping = asyncio.create_task(self._stop())
        tasks = list(self._tasks.values())
        try:
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(pending, timeout=PROGRESS_INTERVAL_S)
                for task in done:
                    if not task.cancelled():
                        task.result()
                ended = [name for name, task in self._tasks.items() if task.done()]
                _tell(Progress({runner.tally.name: runner.tally.messages_total for runner in runners}, ended))
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)

    async def _stop(self) -> None:
        while True:
            order = await self._order()
            assert isinstance(order, Stop)
            for name in order.names:
                self._tasks[name].cancel()

    async def _order(self) -> Order:
        if line := await self._reader.readline():
            return read_order(line)
        os._exit(1)  # whom we work for is gone


async def _run(runner: Runner, schedule: Schedule) -> None:
    try:
        runner.tally.begin(schedule.times)
        await schedule.begun()
        await runner.run(schedule)
    finally:
        schedule.close()


def _tell(report: Report) -> None:
    sys.stdout.buffer.write(line_of(report))
    sys.stdout.buffer.flush()


async def _main() -> None:
    reader = asyncio.StreamReader(limit=LINE_SIZE_MAX)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    try:
        await Generator(reader).run()
    except* (PybrokerError, OSError) as errors:
        _tell(Failed(_first(errors)))


def _first(error: BaseException) -> str:
    """Say what the first error in a group was."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _first(inner[0]) if inner else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who has started us ends us
    with asyncio.Runner(loop_factory=loop_factory()) as _runner:
        _runner.run(_main())
