"""One run, from its parameters to its report."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from ...client import Client
from . import machine, stage
from .crew import BenchError, Crew, Readers
from .params import Params
from .plan import CONSUMER, Actor, Plan, plan_of
from .progress import Progress
from .report import SCHEMA, Report, actors_of, figures_of, groups_of
from .schedule import Times, clock_ns
from .tally import Result
from .watch import Watch

TICK_S = 0.1
LEAD_NS = 50_000_000  # from the starting shot until the first request, so that it reaches everybody
STALL_MAX_S = 30.0


async def run(params: Params, command: Sequence[str], progress: Progress) -> Report:
    """Do a run. Raises BenchError, PybrokerError."""
    plan = plan_of(params)
    with stage.server(params) as server:
        async with Client(server.url) as client:
            await stage.prepare(client, plan, params)
            stats = await client.get_stats()
            watch = await stage.watch(client, server) if params.server_stats else None
            started_at = datetime.now(UTC).isoformat(timespec="seconds")
            results = await _Run(client, server, plan, progress, watch).results()
            total = figures_of(results)
            return Report(
                schema=SCHEMA,
                started_at=started_at,
                command=list(command),
                parameters=params.shown(),
                own_server=server.is_own,
                machine=machine.machine(),
                versions=machine.versions(stats.server_version),
                stored=sum(map(sum, (await stage.stored(client, plan.streams)).values())),
                groups=groups_of(plan.actors, results, params),
                actors=actors_of(plan.actors, results),
                server=None if watch is None else watch.stats(total.messages),
            )


class _Run:
    def __init__(
        self, client: Client, server: stage.Server, plan: Plan, progress: Progress, watch: Watch | None
    ) -> None:
        self._client = client
        self._server = server
        self._plan = plan
        self._progress = progress
        self._watch = watch

    async def results(self) -> list[Result]:
        params = self._server.params
        if self._plan.fill:
            filling = replace(params, rate_limit=None, duration_us=None, warmup_us=0, high_level_api=False, in_flight=1)
            await self._work(self._plan.fill, filling, None)
        return await self._work(self._plan.actors, params, self._watch)

    async def _work(self, actors: list[Actor], params: Params, watch: Watch | None) -> list[Result]:
        """Let actors do their work. watch: looks at the server from the warm-up's end on."""
        async with Crew(actors, params, self._server.url) as crew:
            times = times_of(params)
            crew.go(times)
            await self._follow(crew, Readers(actors), actors, times, watch)
            self._progress.clear()
            return crew.results

    async def _follow(
        self, crew: Crew, readers: Readers, actors: list[Actor], times: Times, watch: Watch | None
    ) -> None:
        """Wait until all are done; stop the consumers when they have read everything."""
        senders = {actor.name for actor in actors if actor.role != CONSUMER}
        stalls, is_counted = _Stalls(), False
        await crew.wait(max(0, times.start_ns - clock_ns()) / 1e9)
        if watch is not None:
            watch.begin()
        while not await crew.wait(TICK_S):
            if watch is not None:
                watch.look()
            if not is_counted and senders <= crew.ended:
                readers.expect(await stage.stored(self._client, readers.streams))
                is_counted = True
            crew.stop(readers.satisfied(crew.messages))
            self._progress.show(crew.messages, self._server.params.message_size.mean)
            stalls.check(crew.messages)
        if watch is not None:
            watch.end()


class _Stalls:
    """Notices when nobody gets on."""

    def __init__(self) -> None:
        self._messages = -1
        self._since_s = 0.0

    def check(self, messages: dict[str, int]) -> None:
        total, now_s = sum(messages.values()), time.monotonic()
        if total != self._messages:
            self._messages, self._since_s = total, now_s
        elif now_s - self._since_s > STALL_MAX_S:
            raise BenchError(f"no message was sent or polled for {STALL_MAX_S:g} s, after {total:,}")


def times_of(params: Params) -> Times:
    begin_ns = clock_ns() + LEAD_NS
    start_ns = begin_ns + params.warmup_us * 1000
    return Times(begin_ns, start_ns, None if params.duration_us is None else start_ns + params.duration_us * 1000)
