"""The seam under the broker: what any storage engine has to be. It speaks offsets and bytes.

Nothing here says files: an engine may keep logs in memory, in local files or on other machines.
A log is named by an id that is never given out twice, so what is left of a deleted log can never be
taken for a new one. `tests/storage/test_contract.py` is run against every engine.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from ..protocol.batch import Batch

Clock = Callable[[], int]  # microseconds since the epoch


class LogPolicy(msgspec.Struct, frozen=True):
    """How one log is kept.

    segment_size: bytes after which the next append starts a new segment; a batch is never split.
    persisted: acknowledge an append after fdatasync (True) or after write (False); the same for a log's whole life.
    """

    segment_size: int
    persisted: bool = False


class ReadLimit(msgspec.Struct, frozen=True, gc=False):
    """How much one read returns at most. The first record is returned even if it alone passes `bytes`."""

    messages: int
    bytes: int


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """What a log holds: offsets `first` up to but not including `next`, in `size` bytes and `segments` parts.

    messages: how many there are; fewer than `next` - `first` where offsets were skipped after a power failure.
    An emptied log has first == next. `next` goes back only where a power failure took messages, and no offset that was
    seen is given out twice. A log that was never appended to has no segments.
    """

    first: int
    next: int
    size: int
    segments: int
    messages: int


# What a read found: the buffers, the first offset in them and the one behind their last; equal where there are none.
Found = tuple[list[memoryview], int, int]


class Log(Protocol):
    """One partition's records. Owned by one event loop; calls may overlap only where they wait."""

    @property
    def bounds(self) -> Bounds: ...

    @property
    def next(self) -> int:
        """`bounds.next`, in a tenth of the time."""
        ...

    async def append(self, batch: Batch) -> int:
        """Stamp and store a batch; return its base offset, durable as the policy says.

        The record's bytes are no longer needed when this returns. There is no wait between choosing the
        offset and writing. Readers see the batch once it is written, or durable where the policy says so: an
        offset that was once seen is never given to another message, whatever is lost.
        Raises Full (nothing kept), Poisoned.
        """
        ...

    def append_nowait(self, batch: Batch) -> int | None:
        """Do what `append` does if it takes no wait; else do nothing and return None."""
        ...

    async def read(self, offset: int, limit: ReadLimit) -> list[memoryview]:
        """Return whole consecutive records, the first one covering `offset`, each buffer holding one or more.

        Where `offset` was skipped, the first record is the next one there is. Stops with the record that reaches
        `limit.messages` (counted from `offset`), before the one that would pass `limit.bytes`, and before skipped
        offsets. An offset at or after `bounds.next` gives []. Raises OffsetGone before `bounds.first`, Corrupt
        where the bytes are damaged. The buffers stay valid while they are referenced, whatever happens to the log.
        """
        ...

    def read_nowait(self, offset: int, limit: ReadLimit) -> Found | None:
        """Do what `read` does where that is easy; else return None."""
        ...

    async def offset_at(self, timestamp_us: int) -> int:
        """Return the first offset whose record has a base timestamp >= `timestamp_us`, or `bounds.next`."""
        ...

    def last(self, count: int) -> int:
        """Return the offset of the message that `count` - 1 others follow; `bounds.first` if there are fewer."""
        ...

    async def started_at(self) -> int | None:
        """Return the base timestamp of the first record there is, in microseconds; None if there is none."""
        ...

    def cuts(self) -> list[int]:
        """Return the first offsets of the log's segments, ascending: where `trim` can cut. Never empty."""
        ...

    async def trim(self, before: int) -> None:
        """Forget whole segments that hold only offsets < `before`; never the one appended to."""
        ...

    def stored(self, base: int) -> memoryview:
        """Return the bytes of the segment that starts at offset `base` as they are stored, encrypted ones encrypted.

        Only of a segment that is not appended to any more: any of `cuts` but the last. Raises OffsetGone for
        others, Corrupt if it is not there. The bytes stay valid while they are referenced.
        """
        ...

    async def flush(self) -> None:
        """Return when everything appended so far would survive a power failure. Raises Poisoned."""
        ...

    async def close(self) -> None: ...


class Journal(Protocol):
    """An ordered list of small events with a snapshot of what they add up to."""

    def load(self) -> tuple[bytes | None, list[bytes]]:
        """Return the newest snapshot (None if there never was one) and the events after it, in order."""
        ...

    def append(self, event: bytes) -> None:
        """Write an event. It survives the process when this returns, a power failure after `sync`."""
        ...

    def snapshot(self, state: bytes) -> None:
        """Replace everything so far by `state`, durably and in one step: a crash leaves the old or the new."""
        ...

    async def sync(self) -> None: ...

    @property
    def event_count(self) -> int:
        """How many events there are after the snapshot."""
        ...


class Table(Protocol):
    """A map from short keys (at most 64 bytes) to u64 values, all of it in memory, changes written through."""

    def get(self, key: bytes) -> int | None: ...

    def put(self, key: bytes, value: int) -> None:
        """Set a value. It survives the process when this returns, a power failure after `sync`."""
        ...

    def delete(self, keys: Iterable[bytes]) -> None:
        """Forget keys, present or not, in one write."""
        ...

    def keys(self) -> list[bytes]: ...

    async def sync(self) -> None: ...


class Engine(Protocol):
    """Everything that is stored: logs, the catalog's journal, the consumer offsets."""

    @property
    def journal(self) -> Journal: ...

    @property
    def offsets(self) -> Table: ...

    @property
    def is_poisoned(self) -> bool:
        """Whether a write or sync has failed: something takes no more appends until a restart."""
        ...

    def open_log(self, log_id: int, policy: LogPolicy) -> Log:
        """Open a log, recovering it, or begin a new one. A log that is never appended to costs nothing."""
        ...

    def log_ids(self) -> list[int]:
        """Return the ids of the logs that exist in the engine."""
        ...

    async def drop_log(self, log_id: int) -> None:
        """Close and forget a log with all it holds, also one that was never opened or does not exist."""
        ...

    async def close(self) -> None:
        """Flush and close everything."""
        ...
