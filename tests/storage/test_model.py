"""Both engines against a plain list, under any order of append, read, trim, roll and reopen."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pybroker.protocol.batch import read_header
from pybroker.storage.engine import Log, LogPolicy, ReadLimit
from pybroker.storage.errors import OffsetGone
from support.batches import make_batch, payloads_of, split_records
from support.engines import Stage

POLICY = LogPolicy(segment_size=2000)
ROLL = LogPolicy(segment_size=1)

Model = list[tuple[int, int, int, bytes]]  # base offset, timestamp, message count, record


class LogMachine(RuleBasedStateMachine):
    """One log, and the list of what was appended to it."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        self._stage = self._loop.run_until_complete(self._begin())
        self._log: Log = self._stage.engine.open_log(1, POLICY)
        self._model: Model = []
        self._cuts: list[int] = []
        self._next = 0

    async def _begin(self) -> Stage:
        return Stage(self.kind, Path(self._folder.name))

    def teardown(self) -> None:
        self._loop.run_until_complete(self._stage.engine.close())
        self._loop.close()
        self._folder.cleanup()

    def _expected(self, offset: int, limit: ReadLimit) -> list[bytes]:
        taken: list[bytes] = []
        for base, _, count, record in self._model:
            if base + count <= offset:
                continue
            full = base >= offset + limit.messages or sum(map(len, taken)) + len(record) > limit.bytes
            if taken and full:
                break
            taken.append(record)
        return taken

    @rule(
        sizes=st.lists(st.sampled_from([1, 10, 500, 20_000]), min_size=1, max_size=4),
        later_us=st.integers(-5, 5),
    )
    def append(self, sizes: list[int], later_us: int) -> None:
        self._stage.clock.now_us += later_us
        batch = make_batch([b"x" * size for size in sizes])
        assert self._loop.run_until_complete(self._log.append(batch)) == self._next
        header = read_header(batch.record)
        self._model.append((self._next, header.base_timestamp_us, header.count, bytes(batch.record)))
        self._next += header.count

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
            buffers = self._loop.run_until_complete(self._log.read(offset, limit))
        except OffsetGone:
            assert offset < self._log.bounds.first
            return
        assert [bytes(record) for record in split_records(buffers)] == self._expected(offset, limit)
        payloads_of(buffers)

    @precondition(lambda self: bool(self._model))
    @rule(data=st.data())
    def search(self, data: st.DataObject) -> None:
        time = data.draw(st.sampled_from([row[1] for row in self._model])) + data.draw(st.integers(-1, 1))
        expected = next((row[0] for row in self._model if row[1] >= time), self._next)
        assert self._loop.run_until_complete(self._log.offset_at(time)) == expected

    @rule(back=st.integers(-1, 10))
    def trim(self, back: int) -> None:
        before = self._next - back
        first = max([cut for cut in self._log.cuts() if cut <= before], default=self._log.bounds.first)
        self._loop.run_until_complete(self._log.trim(before))
        assert self._log.bounds.first == first
        self._model = [row for row in self._model if row[0] >= first]

    @rule()
    def flush(self) -> None:
        self._loop.run_until_complete(self._log.flush())

    @rule()
    def reopen(self) -> None:
        cuts, bounds = self._log.cuts(), self._log.bounds
        engine = self._loop.run_until_complete(self._stage.reopen())
        self._log = engine.open_log(1, POLICY)
        assert (self._log.cuts(), self._log.bounds) == (cuts, bounds)

    @invariant()
    def bounds_agree(self) -> None:
        bounds = self._log.bounds
        assert bounds.first == (self._model[0][0] if self._model else 0)
        assert bounds.next == self._next
        assert bounds.size == sum(len(row[3]) for row in self._model)
        assert len(self._log.cuts()) == max(bounds.segments, 1)


class LocalLogMachine(LogMachine):
    kind = "local"


LogMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
LocalLogMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMemoryLog = LogMachine.TestCase
TestLocalLog = LocalLogMachine.TestCase
