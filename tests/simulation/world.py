"""A machine with one broker's storage on it: it runs, dies, loses power, starts again and is held to its promises."""

import asyncio
import random
from collections import deque
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pybroker.broker.catalog import Catalog, Partition, Topic
from pybroker.broker.logs import Logs
from pybroker.broker.offsets import Offsets
from pybroker.storage.engine import ReadLimit
from pybroker.storage.errors import Corrupt, Full, Poisoned
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.local.log import LocalLog
from support.engines import FakeClock
from support.simdisk import SYNC, Killed, SimDisk, Strike
from support.simpool import StepPool

from .history import RecordingJournal, RecordingTable, catalog_history, table_history
from .keys import KeyChain
from .ledger import LogLedger
from .messages import Record, Violation, records_of
from .tally import Tally

ROOT = Path("/data")
LOGS = ROOT / "logs"
STARTS_MAX = 20
TURNS_MAX = 5000
READS_MAX = 2000
TRACE_LENGTH = 60

T = TypeVar("T")


class Life:
    """What one process has: the engine, and on it what the broker keeps."""

    def __init__(self, world: "World") -> None:
        """Open and load. Raises what the engine raises."""
        self.pool = StepPool()
        self.struck: list[Strike] = []
        keys = world.keys.turn()
        world.tally.counts["starts with keys"] += keys is not None
        self.engine = LocalEngine.open(
            ROOT, world.clock, sync_interval_s=1e9, keys=keys, disk=world.disk, pool=self.pool
        )
        self.table = RecordingTable(self.engine.offsets, world.table_history)
        self.journal = RecordingJournal(self.engine.journal, world.catalog_history)
        self.offsets = Offsets(self.table)
        self.catalog = Catalog(self.journal)
        self.logs = Logs(self.engine, self.offsets)


class World:
    """The machine, and a ledger of what its broker has promised."""

    def __init__(self, seed: int, tally: Tally) -> None:
        self.rng = random.Random(seed)
        self.keys = KeyChain(seed)
        self.tally = tally
        self.clock = FakeClock()
        self.disk = SimDisk(self.rng)
        self.trace: deque[str] = deque(maxlen=TRACE_LENGTH)
        self.ledgers: dict[int, LogLedger] = {}
        self.catalog_history = catalog_history()
        self.table_history = table_history()
        self.next_number = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._life: Life | None = None
        self._struck_count = 0
        self._stray: BaseException | None = None
        self.disk.mkdir(ROOT)
        self.disk.fsync_dir(ROOT.parent)

    @property
    def life(self) -> Life:
        assert self._life is not None, "the process runs"
        return self._life

    def partitions(self) -> list[tuple[Topic, Partition]]:
        topics = self.life.catalog.topics()
        return [(topic, partition) for topic in topics for partition in topic.partitions]

    @property
    def has_doubts(self) -> bool:
        """Whether the next start will take the machine for one that lost power."""
        return any(strike.what.startswith(SYNC) for strike in self.life.struck)

    def pick_log(self) -> int | None:
        """Choose a log of the catalog's."""
        ids = self.open_ids()
        return self.rng.choice(ids) if ids else None

    def new_numbers(self, count: int) -> list[int]:
        self.next_number += count
        return list(range(self.next_number - count, self.next_number))

    def new_name(self) -> str:
        return f"name {self.new_numbers(1)[0]}"

    def add_ledgers(self) -> None:
        """Begin ledgers for the logs that the last change of the catalog brought."""
        for log_id in sorted({partition.log_id for _, partition in self.partitions()} - self.ledgers.keys()):
            ledger = self.ledgers[log_id] = LogLedger(log_id, self.catalog_history.count - 1)
            ledger.in_doubt = self.has_doubts

    def say(self, what: str) -> None:
        self.trace.append(what)

    # Running.

    def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run everything until `work` is done; return what it returns."""
        task = self._loop.create_task(work)
        for _ in range(TURNS_MAX):
            self._check_alive()
            if task.done():
                return task.result()
            self.turn()
            self.step()
        raise Violation(f"{work} never comes to its end")

    def spawn(self, *work: Coroutine[Any, Any, None]) -> None:
        """Begin something that goes on while other things happen."""
        self._tasks += map(self._loop.create_task, work)
        self.turn()

    def settle(self) -> None:
        """Run until nothing is under way."""
        for _ in range(TURNS_MAX):
            self._check_alive()
            if all(task.done() for task in self._tasks) and not self.life.pool.waiting:
                break
            self.turn()
            self.step()
        else:
            raise Violation(f"{self._tasks} never come to their end")
        self.reap()

    def turn(self) -> None:
        self._loop.run_until_complete(asyncio.sleep(0))

    def step(self) -> None:
        """Run one of the jobs that wait for a thread."""
        if self._life is not None and self.life.pool.waiting:
            self.life.pool.step(self.rng.randrange(self.life.pool.waiting))
            self.note_strikes()

    def reap(self) -> None:
        """Raise what went wrong in the tasks that are done. Raises Violation, Killed."""
        self._check_alive()
        done = [task for task in self._tasks if task.done()]
        self._tasks = [task for task in self._tasks if not task.done()]
        for task in done:
            task.result()
        if self._stray is not None:
            raise Violation(f"an exception that nobody catches: {self._stray!r}") from self._stray

    def _check_alive(self) -> None:
        """Nothing that a dying process does counts any more."""
        if self.disk.is_dead:
            raise Killed

    # Faults and what they excuse.

    def note_strikes(self) -> None:
        """Take note of the faults that struck since the last time."""
        fresh = self.disk.strikes[self._struck_count :]
        if not fresh:
            return
        self._struck_count += len(fresh)
        self.tally.strike(fresh)
        if self._life is not None:
            self._life.struck += fresh
        for strike in fresh:
            self.say(f"    {strike.what} strikes {strike.path}{', bytes are lost' if strike.lost else ''}")
            if strike.lost:
                self._shake(strike)
            if strike.what.startswith(SYNC):
                for ledger in self.ledgers.values():
                    ledger.in_doubt = True

    def _shake(self, strike: Strike) -> None:
        """A failed sync lost what was not durable."""
        for ledger in self.ledgers.values():
            if strike.path.is_relative_to(folder_of(ledger.log_id)):
                ledger.shake(self.log_of(ledger.log_id)._segments.next)
        for history, name in ((self.catalog_history, "catalog"), (self.table_history, "offsets")):
            if strike.path.name.startswith(name):
                history.shake()

    def struck_at(self, *folders: Path) -> bool:
        """Say whether a fault in this life explains an error there: in one of these folders, or with those names."""
        self.note_strikes()
        paths = [strike.path for strike in self.life.struck]
        return any(path.is_relative_to(folder) or folder.is_relative_to(path) for path in paths for folder in folders)

    @contextmanager
    def refusals(self, *folders: Path) -> Generator[None]:
        """Let an operation be refused where a fault explains it."""
        try:
            yield
        except (Full, Poisoned, OSError) as error:
            self._check_alive()
            self.note_strikes()
            self.say(f"    {type(error).__name__}: {error}")
            if not self.struck_at(*folders):
                raise Violation(f"refused, and no fault explains it: {error!r}") from error
            self.tally.blame("poisoned" if isinstance(error, Poisoned) else "refused")

    @contextmanager
    def refusals_of(self, ledger: LogLedger) -> Generator[None]:
        """Let an operation on a log be refused where a fault explains it, or because the log is dropped."""
        try:
            with self.refusals(folder_of(ledger.log_id)):
                yield
        except Violation:
            if self.ledgers.get(ledger.log_id) is ledger:
                raise

    # Dying and starting again.

    def crash(self, *, power: bool) -> None:
        """End the process as it is, or the machine with it."""
        self.say("POWER FAILURE" if power else "KILLED")
        self.tally.counts["power failures" if power else "process deaths"] += 1
        self.disk.die()
        self._end_life()
        self.disk.crash(power=power)
        if power:
            self._fear()

    def close(self) -> None:
        """Stop the process cleanly. What it says it has closed is durable."""
        logs = {log_id: self.log_of(log_id) for log_id in self.open_ids()}
        sound = [log_id for log_id, log in logs.items() if log._group.cause is None]
        journals = (self.life.engine.journal, self.life.engine.offsets._journal)
        histories = [
            (history, history.count)
            for history, journal in zip((self.catalog_history, self.table_history), journals, strict=True)
            if journal._group.cause is None
        ]
        with self.refusals(ROOT):
            self.finish(self.life.engine.close())
            for log_id in sound:
                self.ledgers[log_id].make_durable(max(self.ledgers[log_id].held, default=-1) + 1)
            for history, count in histories:
                history.make_durable(count)
        self._end_life()
        self.disk.crash(power=False)

    def lose_power(self) -> None:
        """Let the power fail while no process runs."""
        self.disk.crash(power=True)
        self._fear()

    def end(self) -> None:
        """Stop cleanly, start again and hold everything against the ledger once more."""
        self.disk.disarm()
        self.disk.room = None
        self.settle()
        self.close()
        self.lose_power()
        self.start()
        self.close()

    def _fear(self) -> None:
        """Power failed: nothing that is not durable has to be there."""
        self.catalog_history.lose_power()
        self.table_history.lose_power()
        for ledger in self.ledgers.values():
            ledger.at_risk = True

    def _end_life(self) -> None:
        """Throw away what the process had in memory."""
        self.note_strikes()
        self.tally.absorb()
        for _ in range(TURNS_MAX):
            tasks = asyncio.all_tasks(self._loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.turn()
        self._loop.close()
        self._tasks = []
        self._life = None
        for ledger in self.ledgers.values():
            ledger.is_poisoned = False

    def start(self) -> None:
        """Start the process, again if it dies or fails in between, and hold what is there against the ledger."""
        for _ in range(STARTS_MAX):
            self._loop = asyncio.new_event_loop()
            self._loop.set_exception_handler(self._note_exception)
            try:
                self.finish(self._open())
            except Killed:
                self.crash(power=self.rng.random() < 0.5)
            except (OSError, Full, Poisoned) as error:
                self._give_up_start(error)
            else:
                self.note_strikes()
                return
        raise Violation("the process does not come up")

    def _note_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take note of what went wrong in a callback, where nobody waits for it."""
        if "handle" in context and not self.disk.is_dead:
            self._stray = context["exception"]

    def _give_up_start(self, error: Exception) -> None:
        """A fault struck while the process was starting: the operator mends it and starts again."""
        before = self._struck_count
        self.note_strikes()
        self.say(f"start fails: {error!r}")
        if before == self._struck_count and not (self._life and self._life.struck):
            raise Violation(f"the start fails, and no fault explains it: {error!r}") from error
        self.tally.blame("start refused")
        self.disk.room = None
        self.crash(power=False)

    async def _open(self) -> None:
        self._struck_count = len(self.disk.strikes)
        life = Life(self)
        self._life = life
        lost = self.catalog_history.check(life.catalog)
        values = {key: life.table.get(key) for key in life.table.keys()}  # noqa: SIM118
        lost += self.table_history.check({key: value for key, value in values.items() if value is not None})
        self.tally.counts["unsynced changes lost to power failures"] += lost
        await life.catalog.sync()
        await life.logs.reconcile(life.catalog)
        self._match_ledgers()
        for log_id in self.open_ids():
            await self._check_log(self.ledgers[log_id])

    def _match_ledgers(self) -> None:
        """Keep the ledgers of the logs that the catalog has."""
        present = {partition.log_id for _, partition in self.partitions()}
        for log_id in sorted(self.ledgers.keys() - present):
            ledger = self.ledgers.pop(log_id)
            if ledger.has_promised and ledger.created_by >= self.catalog_history.count:
                ledger.fail("durable messages are gone with a topic whose creation was not durable")
        self.add_ledgers()

    async def _check_log(self, ledger: LogLedger) -> None:
        """Read a log from end to end and hold it against its ledger."""
        log = self.log_of(ledger.log_id)
        if log.policy.persisted:
            await log.flush()
        records, refused = await self._read_all(log, ledger)
        bounds = log.bounds
        if records and bounds.next < records[-1].end:
            ledger.fail(f"{bounds} do not hold {records[-1]}")
        self.tally.counts["acknowledged messages checked after a start"] += len(ledger.held)
        lost = ledger.check_all(records, refused)
        if log.policy.persisted:
            ledger.make_durable(bounds.next)
        self.tally.counts["unsynced messages lost to power failures"] += lost
        self.tally.counts["reads of damaged records refused"] += len(refused)

    async def _read_all(self, log: LocalLog, ledger: LogLedger) -> tuple[list[Record], dict[int, Corrupt]]:
        """Return all records there are, and what was said of those that are damaged."""
        records: list[Record] = []
        refused: dict[int, Corrupt] = {}
        offset = log.bounds.first
        for _ in range(READS_MAX):
            limit = ReadLimit(self.rng.choice((1, 3, 1000)), self.rng.choice((1, 2000, 1 << 20)))
            try:
                found = records_of(ledger.log_id, await log.read(offset, limit))
            except Corrupt as error:
                refused[offset] = error
                damaged = {damage.offsets.start for damage in ledger.damages}
                following = [each for each in ledger.held | damaged if each > offset]
                if not following:
                    break
                offset = min(following)
                continue
            if not found:
                break
            records += [record for record in found if not records or record.base >= records[-1].end]
            offset = found[-1].end
        return records, refused

    def open_ids(self) -> list[int]:
        return sorted({partition.log_id for _, partition in self.partitions()} & self.ledgers.keys())

    def log_of(self, log_id: int) -> LocalLog:
        partition = Partition(0, log_id, 0)
        log = self.life.logs.of(partition)
        assert isinstance(log, LocalLog)
        return log


def folder_of(log_id: int) -> Path:
    return LOGS / f"{log_id:020}"
