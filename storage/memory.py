"""An engine that keeps everything in lists, for tests: the broker's and those of its users.

It behaves as the local engine does, segments included, and forgets everything with the object.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..protocol.batch import Batch, stamp
from .engine import Bounds, Clock, Found, LogPolicy, ReadLimit
from .errors import OffsetGone, Poisoned

_NOWHERE = Path("memory")  # what Poisoned says in place of a file


class _Record(msgspec.Struct, gc=False):
    """One stored record: `offset` up to but not including `end`."""

    offset: int
    end: int
    timestamp_us: int
    data: memoryview


class _Segment(msgspec.Struct):
    base: int
    size: int = 0


class MemoryLog:
    """A log in a list. See storage.engine.Log."""

    def __init__(self, clock: Clock, policy: LogPolicy) -> None:
        self.policy = policy
        self._clock = clock
        self._records: list[_Record] = []
        self._segments: list[_Segment] = []
        self._next = 0
        self._last_timestamp = 0
        self._dropped = False

    @property
    def bounds(self) -> Bounds:
        segments = self._segments
        first = segments[0].base if segments else self._next
        size = sum(segment.size for segment in segments)
        return Bounds(first, self._next, size, len(segments), self._next - first)

    @property
    def next(self) -> int:
        return self._next

    async def append(self, batch: Batch) -> int:
        return self.append_nowait(batch)

    def append_nowait(self, batch: Batch) -> int:
        if self._dropped:
            raise Poisoned(_NOWHERE, ValueError("the log is closed"))
        if not self._segments or self._segments[-1].size >= max(self.policy.segment_size, 1):
            self._segments.append(_Segment(self._next))
        offset = self._next
        self._last_timestamp = max(self._clock(), self._last_timestamp)
        stamp(batch, base_offset=offset, base_timestamp_us=self._last_timestamp)
        self._next += batch.count
        data = memoryview(bytes(batch.record))
        self._records.append(_Record(offset, self._next, self._last_timestamp, data))
        self._segments[-1].size += len(data)
        return offset

    async def read(self, offset: int, limit: ReadLimit) -> list[memoryview]:
        return self._read(offset, limit)[0]

    def read_nowait(self, offset: int, limit: ReadLimit) -> Found | None:
        return None if offset < self.bounds.first else self._read(offset, limit)

    def _read(self, offset: int, limit: ReadLimit) -> Found:
        if offset >= self._next or limit.messages < 1:
            return [], offset, offset
        if offset < self.bounds.first:
            raise OffsetGone(f"offset {offset}, the first is {self.bounds.first}")
        taken: list[_Record] = []
        size = 0
        for number in range(bisect_right(self._records, offset, key=_end_of), len(self._records)):
            record = self._records[number]
            size += len(record.data)
            if record.offset >= offset + limit.messages or (taken and size > limit.bytes):
                break
            taken.append(record)
        return [record.data for record in taken], taken[0].offset, taken[-1].end

    async def offset_at(self, timestamp_us: int) -> int:
        number = bisect_left(self._records, timestamp_us, key=_timestamp_of)
        return self._records[number].offset if number < len(self._records) else self._next

    def last(self, count: int) -> int:
        return max(self._next - count, self.bounds.first)

    async def started_at(self) -> int | None:
        return self._records[0].timestamp_us if self._records else None

    def cuts(self) -> list[int]:
        return [segment.base for segment in self._segments] or [self._next]

    async def trim(self, before: int) -> None:
        ends = [segment.base for segment in self._segments[1:]]
        del self._segments[: bisect_right(ends, before)]
        del self._records[: bisect_left(self._records, self.bounds.first, key=_offset_of)]

    def stored(self, base: int) -> memoryview:
        cuts = self.cuts()
        if base not in cuts[:-1]:
            raise OffsetGone(f"no sealed segment starts at offset {base}")
        end = cuts[cuts.index(base) + 1]
        return memoryview(b"".join(record.data for record in self._records if base <= record.offset < end))

    async def flush(self) -> None: ...

    async def close(self) -> None: ...

    def drop(self) -> None:
        """Forget everything; the log takes no more appends."""
        self._dropped = True
        self._records.clear()
        self._segments.clear()


class MemoryJournal:
    """A journal in a list. See storage.engine.Journal."""

    def __init__(self) -> None:
        self._state: bytes | None = None
        self._events: list[bytes] = []

    @property
    def event_count(self) -> int:
        return len(self._events)

    def load(self) -> tuple[bytes | None, list[bytes]]:
        return self._state, list(self._events)

    def append(self, event: bytes) -> None:
        self._events.append(event)

    def snapshot(self, state: bytes) -> None:
        self._state = state
        self._events.clear()

    async def sync(self) -> None: ...


class MemoryTable:
    """A table in a dict. See storage.engine.Table."""

    def __init__(self) -> None:
        self._values: dict[bytes, int] = {}

    def get(self, key: bytes) -> int | None:
        return self._values.get(key)

    def put(self, key: bytes, value: int) -> None:
        self._values[key] = value

    def delete(self, keys: Iterable[bytes]) -> None:
        for key in list(keys):
            self._values.pop(key, None)

    def keys(self) -> list[bytes]:
        return list(self._values)

    async def sync(self) -> None: ...


class MemoryEngine:
    """Everything in memory. See storage.engine.Engine. A log that is closed and opened again has kept all."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logs: dict[int, MemoryLog] = {}
        self._journal = MemoryJournal()
        self._offsets = MemoryTable()

    @property
    def journal(self) -> MemoryJournal:
        return self._journal

    @property
    def offsets(self) -> MemoryTable:
        return self._offsets

    @property
    def is_poisoned(self) -> bool:
        return False

    def open_log(self, log_id: int, policy: LogPolicy) -> MemoryLog:
        log = self._logs.setdefault(log_id, MemoryLog(self._clock, policy))
        log.policy = policy
        return log

    def log_ids(self) -> list[int]:
        return sorted(log_id for log_id, log in self._logs.items() if log.bounds.segments)

    async def drop_log(self, log_id: int) -> None:
        log = self._logs.pop(log_id, None)
        if log is not None:
            log.drop()

    async def close(self) -> None: ...


def _offset_of(record: _Record) -> int:
    return record.offset


def _end_of(record: _Record) -> int:
    return record.end


def _timestamp_of(record: _Record) -> int:
    return record.timestamp_us
