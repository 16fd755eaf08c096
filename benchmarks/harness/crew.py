"""The load generators of a run, from their start to their results."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType

from msgspec import Struct

from .messages import (
    LINE_SIZE_MAX,
    Done,
    Failed,
    Go,
    Order,
    Progress,
    Ready,
    Report,
    Stop,
    Work,
    line_of,
    read_report,
)
from .params import Params
from .plan import CONSUMER, Actor, peers_of, split
from .schedule import Times
from .tally import Result

READY_TIMEOUT_S = 60.0
_MODULE = "pybroker.benchmarks.harness.generator"


class BenchError(Exception):
    """A run that can't be done, in words for who asked for it."""


class Process:
    """One load generator."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> "Process":
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", _MODULE)
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=LINE_SIZE_MAX))

    def tell(self, order: Order) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line_of(order))

    async def hear(self) -> Report:
        """Return what it says next. Raises BenchError when it has failed or ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise BenchError(f"a load generator ended, exit status {await self._process.wait()}")
        report = read_report(line)
        if isinstance(report, Failed):
            raise BenchError(report.why)
        return report

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Crew:
    """All actors of a run. messages: of each so far. ended: who is done. results: of who is, in no order."""

    def __init__(self, actors: Sequence[Actor], params: Params, url: str) -> None:
        self.messages = {actor.name: 0 for actor in actors}
        self.ended: set[str] = set()
        self.results: list[Result] = []
        self._actors = actors
        self._params = params
        self._url = url
        self._processes: list[Process] = []
        self._hearing: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Crew":
        """Start, and wait until everybody is ready. Raises BenchError."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._start()
        except TimeoutError:
            await self._stack.aclose()
            raise BenchError(f"the load generators were not ready in {READY_TIMEOUT_S:g} s") from None
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._hearing:
            task.cancel()
        await asyncio.gather(*self._hearing, return_exceptions=True)
        await self._stack.aclose()

    def go(self, times: Times) -> None:
        for process in self._processes:
            process.tell(Go(times))
            self._hearing.append(asyncio.create_task(self._hear(process)))

    def stop(self, names: Sequence[str]) -> None:
        for process, actors in zip(self._processes, self._shares(), strict=True):
            if known := [actor.name for actor in actors if actor.name in names]:
                process.tell(Stop(known))

    async def wait(self, timeout_s: float) -> bool:
        """Wait a while; return whether all are done. Raises BenchError."""
        done, pending = await asyncio.wait(self._hearing, timeout=timeout_s)
        for task in done:
            task.result()
        return not pending

    def _shares(self) -> list[list[Actor]]:
        return split(self._actors, self._params.processes)

    async def _start(self) -> None:
        for actors in self._shares():
            process = await Process.start()
            self._stack.push_async_callback(process.kill)
            self._processes.append(process)
            process.tell(Work(self._params, self._url, actors, [peers_of(self._actors, actor) for actor in actors]))
        for process in self._processes:
            if not isinstance(await process.hear(), Ready):
                raise BenchError("a load generator does not make sense")

    async def _hear(self, process: Process) -> None:
        while not isinstance(report := await process.hear(), Done):
            assert isinstance(report, Progress)
            self.messages |= report.messages
            self.ended.update(report.ended)
        self.results += report.results


class Unit(Struct):
    """Consumers who read something together: a group, or one alone. wanted: messages in all, once that is known."""

    names: list[str]
    stream: str
    partition: int | None
    wanted: int | None = None


class Readers:
    """Knows when consumers have read everything: nobody can tell them how much that is before it is sent."""

    def __init__(self, actors: Sequence[Actor]) -> None:
        units: dict[str, Unit] = {}
        for actor in actors:
            if actor.role == CONSUMER and not actor.wraps:
                unit = units.setdefault(actor.group or actor.name, Unit([], actor.stream, actor.partition))
                unit.names.append(actor.name)
        self._units = list(units.values())
        self._stopped: set[str] = set()

    @property
    def streams(self) -> set[str]:
        return {unit.stream for unit in self._units}

    def expect(self, stored: dict[str, list[int]]) -> None:
        """stored: how many messages there are to read, by stream, in each of its topic's partitions."""
        for unit in self._units:
            counts = stored[unit.stream]
            unit.wanted = sum(counts) if unit.partition is None else counts[unit.partition]

    def satisfied(self, messages: dict[str, int]) -> list[str]:
        """Return who has just read everything. messages: by consumer."""
        names = [
            name
            for unit in self._units
            if unit.wanted is not None and sum(messages[name] for name in unit.names) >= unit.wanted
            for name in unit.names
            if name not in self._stopped
        ]
        self._stopped.update(names)
        return names
