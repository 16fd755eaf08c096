"""Every engine against a plain list, under any order of append, read, trim, roll and reopen.

The local one runs on a simulated disk too, where the process is killed, power fails and stored bytes change.
"""

import asyncio
import random
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pybroker.protocol.batch import read_header
from pybroker.storage.engine import Log, LogPolicy, ReadLimit
from pybroker.storage.errors import Corrupt, OffsetGone
from pybroker.storage.local.engine import LocalEngine
from support.batches import make_batch, payloads_of, split_records
from support.engines import FakeClock, Stage
from support.simdisk import SimDisk
from support.simpool import InlinePool

POLICY = LogPolicy(segment_size=2000)
ROLL = LogPolicy(segment_size=1)
ROOT = Path("/data")

ALL = ReadLimit(messages=1_000_000, bytes=1 << 30)

T = TypeVar("T")
Model = list[tuple[int, int, int, bytes]]  # base offset, timestamp, message count, record


class LogMachine(RuleBasedStateMachine):
    """One log, and the list of what was appended to it."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        self._stage = self._run(self._begin())
        self._log: Log = self._stage.engine.open_log(1, POLICY)
        self._model: Model = []
        self._next = 0
        self._given = 0  # no offset before this one is given out again

    async def _begin(self) -> "Stage | SimStage":
        return Stage(self.kind, Path(self._folder.name))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def teardown(self) -> None:
        self._run(self._stage.engine.close())
        self._loop.close()
        self._folder.cleanup()

    def _expected(self, offset: int, limit: ReadLimit) -> list[bytes]:
        taken: list[bytes] = []
        end: int | None = None
        for base, _, count, record in self._model:
            if base + count <= offset:
                continue
            if end not in (None, base):
                break
            stop = max(offset, self._model_base(offset)) + limit.messages
            end = base + count
            full = base >= stop or sum(map(len, taken)) + len(record) > limit.bytes
            if taken and full:
                break
            taken.append(record)
        return taken

    def _model_base(self, offset: int) -> int:
        """Return where a read from `offset` starts: behind skipped offsets, if it is one."""
        covering = next((row for row in self._model if row[0] + row[2] > offset), None)
        return covering[0] if covering is not None and covering[0] > offset else offset

    @rule(
        sizes=st.lists(st.sampled_from([1, 10, 500, 20_000]), min_size=1, max_size=4),
        later_us=st.integers(-5, 5),
    )
    def append(self, sizes: list[int], later_us: int) -> None:
        self._stage.clock.now_us += later_us
        batch = make_batch([b"x" * size for size in sizes])
        offset = self._run(self._log.append(batch))
        assert offset == self._next or (self.has_lost and offset > self._next)
        assert offset >= self._given
        header = read_header(batch.record)
        self._model.append((offset, header.base_timestamp_us, header.count, bytes(batch.record)))
        self._next = self._given = offset + header.count

    @rule()
    def roll(self) -> None:
        self._log = self._stage.engine.open_log(1, ROLL)
        self.append([10], 0)
        self._log = self._stage.engine.open_log(1, POLICY)

    @rule(
        back=st.integers(0, 30),
        messages=st.integers(1, 30),
        size=st.sampled_from([1, 400, 1000, 5000, 100_000]),
    )
    def read(self, back: int, messages: int, size: int) -> None:
        limit = ReadLimit(messages, size)
        offset = max(self._next - back, 0)
        try:
            buffers = self._run(self._log.read(offset, limit))
        except OffsetGone:
            assert offset < self._log.bounds.first
            return
        except Corrupt as error:
            self.read_refused(offset, error)
            return
        assert [bytes(record) for record in split_records(buffers)] == self._expected(offset, limit)
        payloads_of(buffers)

    def read_refused(self, offset: int, error: Corrupt) -> None:
        raise AssertionError(f"nothing is damaged, and the read from {offset} is refused") from error

    @property
    def is_damaged(self) -> bool:
        """Whether a stored byte is not what was written."""
        return False

    @property
    def has_lost(self) -> bool:
        """Whether power has failed: offsets were skipped, and there may be bytes that are no record."""
        return False

    @precondition(lambda self: bool(self._model) and not self.is_damaged and not self.has_lost)
    @rule(data=st.data())
    def search(self, data: st.DataObject) -> None:
        time = data.draw(st.sampled_from([row[1] for row in self._model])) + data.draw(st.integers(-1, 1))
        expected = next((row[0] for row in self._model if row[1] >= time), self._next)
        assert self._run(self._log.offset_at(time)) == expected

    @rule(back=st.integers(-1, 10))
    def trim(self, back: int) -> None:
        before = self._next - back
        first = max([cut for cut in self._log.cuts() if cut <= before], default=self._log.bounds.first)
        self._run(self._log.trim(before))
        assert self._log.bounds.first == first
        self._model = [row for row in self._model if row[0] >= first]

    @rule()
    def flush(self) -> None:
        self._run(self._log.flush())

    @rule()
    def reopen(self) -> None:
        cuts, bounds = self._log.cuts(), self._log.bounds
        engine = self._run(self._stage.reopen())
        self._log = engine.open_log(1, POLICY)
        assert (self._log.cuts(), self._log.bounds) == (cuts, bounds)

    @invariant()
    def bounds_agree(self) -> None:
        bounds = self._log.bounds
        assert bounds.next == self._next
        if self.has_lost:
            assert not self._model or bounds.first <= self._model[0][0]
            return
        assert bounds.first == (self._model[0][0] if self._model else 0)
        assert bounds.messages == sum(row[2] for row in self._model)
        assert bounds.size == sum(len(row[3]) for row in self._model)
        assert len(self._log.cuts()) == max(bounds.segments, 1)


class LocalLogMachine(LogMachine):
    kind = "local"


class SimStage:
    """A local engine on a simulated disk."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.disk = SimDisk(random.Random(0))
        self.engine = self._open()

    async def reopen(self) -> LocalEngine:
        await self.engine.close()
        self.engine = self._open()
        return self.engine

    async def restart(self, *, power: bool) -> LocalEngine:
        """End the process, or the machine with it, and start again."""
        self.disk.crash(power=power)
        self.engine = self._open()
        return self.engine

    def _open(self) -> LocalEngine:
        return LocalEngine.open(ROOT, self.clock, sync_interval_s=3600, disk=self.disk, pool=InlinePool())


class SimLogMachine(LogMachine):
    """Besides, the process dies, and a byte of a stored record changes and is put back."""

    def __init__(self) -> None:
        super().__init__()
        self._flipped: tuple[Path, int] | None = None
        self._damaged: tuple[int, range] | None = None  # the base offset of the damaged record, and its bytes
        self._durable = 0
        self._has_lost = False

    @property
    def is_damaged(self) -> bool:
        return self._flipped is not None

    @property
    def has_lost(self) -> bool:
        return self._has_lost

    async def _begin(self) -> SimStage:
        self._sim = SimStage()
        return self._sim

    @rule()
    def kill(self) -> None:
        """Nothing that was acknowledged is lost."""
        self._restart(power=False)

    @precondition(lambda self: self._flipped is None)
    @rule()
    def fail_power(self) -> None:
        """Nothing that was durable is lost, and no offset of what is lost is given out again."""
        self._restart(power=True)
        self._has_lost = True
        found = {read_header(record).base_offset for record in self._read_all()}
        lost = [row for row in self._model if row[0] not in found]
        assert all(base >= self._durable for base, _, _, _ in lost)
        self._model = [row for row in self._model if row[0] in found]
        assert self._log.bounds.next >= self._durable
        self._next = self._durable = self._log.bounds.next

    @rule()
    def flush(self) -> None:
        super().flush()
        self._durable = self._next

    @rule()
    def reopen(self) -> None:
        if self.is_damaged or self.has_lost:
            self._run(self._stage.reopen())
            self._log = self._stage.engine.open_log(1, POLICY)
        else:
            super().reopen()
        self._durable = self._next

    def _read_all(self) -> list[memoryview]:
        records: list[memoryview] = []
        offset = self._log.bounds.first
        while buffers := self._run(self._log.read(offset, ALL)):
            records += split_records(buffers)
            header = read_header(records[-1])
            offset = header.base_offset + header.count
        return records

    def _restart(self, *, power: bool) -> None:
        """End the process, or the machine with it, and start again."""
        self._sim.disk.die()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._run(asyncio.sleep(0))
        self._log = self._run(self._sim.restart(power=power)).open_log(1, POLICY)

    @precondition(lambda self: bool(self._model) and self._flipped is None)
    @rule(data=st.data())
    def corrupt(self, data: st.DataObject) -> None:
        base, _, _, record = data.draw(st.sampled_from(self._model))
        offset_in_record = data.draw(st.integers(0, len(record) - 1))
        self._run(self._stage.engine.close())
        path = max(path for path in self._sim.disk.files(ROOT) if path.suffix == ".log" and int(path.stem) <= base)
        start = (self._sim.disk.read_file(path) or b"").index(record)
        self._flipped, self._damaged = (path, start + offset_in_record), (base, range(start, start + len(record) + 1))
        self._sim.disk.flip(*self._flipped)
        self._durable = self._next
        self._restart(power=False)

    @precondition(lambda self: self._flipped is not None)
    @rule()
    def repair(self) -> None:
        assert self._flipped is not None
        self._run(self._stage.engine.close())
        if self._sim.disk.read_file(self._flipped[0]) is not None:  # else it was trimmed
            self._sim.disk.flip(*self._flipped)
        self._flipped = self._damaged = None
        self._durable = self._next
        self._restart(power=False)

    def _expected(self, offset: int, limit: ReadLimit) -> list[bytes]:
        """What is damaged ends a read before it."""
        taken = super()._expected(offset, limit)
        for index, record in enumerate(taken):
            if self._damaged is not None and read_header(record).base_offset == self._damaged[0]:
                return taken[:index]
        return taken

    def read_refused(self, offset: int, error: Corrupt) -> None:
        """Only a read of the damaged record is refused, with the file and a byte of the record."""
        assert self._flipped is not None
        assert self._damaged is not None
        reached = next(base for base, _, count, _ in self._model if base + count > offset)
        assert (reached, error.path) == (self._damaged[0], self._flipped[0])
        assert error.position in self._damaged[1]

    @rule()
    def everything_else_is_there(self) -> None:
        offset = self._log.bounds.first
        for base, _, count, record in self._model:
            if self._damaged is not None and base == self._damaged[0]:
                continue
            (first, *_) = split_records(self._run(self._log.read(base, ReadLimit(1, 1))))
            assert bytes(first) == record
            offset = base + count
        assert offset <= self._next


LogMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
LocalLogMachine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
SimLogMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMemoryLog = LogMachine.TestCase
TestLocalLog = LocalLogMachine.TestCase
TestSimulatedLog = SimLogMachine.TestCase
