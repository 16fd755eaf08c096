"""What an ordered list of changes has promised: after a crash, all of them up to some point are there.

The recorders stand between the broker's code and the engine's journal or table, and write the history.
"""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec
from pybroker.broker import events
from pybroker.broker.catalog import Catalog, State
from pybroker.storage.engine import Journal, Table
from pybroker.storage.errors import Poisoned
from support.simdisk import Killed

from .messages import Violation

S = TypeVar("S")
E = TypeVar("E")
Changes = tuple[tuple[bytes, int | None], ...]


class History(Generic[S, E]):
    """The changes since the last durable state.

    fold: applies a change to a state, in place. image: what tells two states apart; `restore` makes one from it.
    at_risk: a power failure, or a failed sync, may have taken what was not durable.
    is_shaken: a failed sync may have lost changes that are still seen, until power fails: no more of them are promised.
    """

    def __init__(
        self, name: str, start: S, fold: Callable[[S, E], None], image: Callable[[S], object], copy: Callable[[S], S]
    ) -> None:
        self.name = name
        self.at_risk = False
        self.is_shaken = False
        self._durable = start
        self._durable_count = 0
        self._loaded_count = 0
        self._fold = fold
        self._image = image
        self._copy = copy
        self._tail: list[E] = []
        self._doubtful: list[E] = []

    @property
    def count(self) -> int:
        return self._durable_count + len(self._tail)

    def note(self, change: E) -> None:
        """Note a change that was written."""
        if self._doubtful:
            raise Violation(f"{self.name}: took {change!r} after it was poisoned")
        self._tail.append(change)

    def doubt(self, change: E) -> None:
        """Note a change that may have been written."""
        if not self._doubtful:
            self._doubtful.append(change)

    def make_durable(self, count: int) -> None:
        """Note that the first `count` changes survive a power failure."""
        if self.is_shaken:
            return
        gone = count - self._durable_count
        for change in self._tail[: max(gone, 0)]:
            self._fold(self._durable, change)
            self._durable_count += 1
        del self._tail[: max(gone, 0)]

    def replace(self) -> None:
        """Note that the state was written anew, durably."""
        self.is_shaken = False
        self._loaded_count = -1
        self.make_durable(self.count)

    def shake(self) -> None:
        """Note that a sync failed and lost bytes."""
        self.at_risk = self.is_shaken = True

    def lose_power(self) -> None:
        self.at_risk = True
        self.is_shaken = False

    def check(self, found: S) -> int:
        """Hold a state that was loaded against the changes; return how many were lost."""
        state, image = self._copy(self._durable), self._image(found)
        changes = [*self._tail, *self._doubtful]
        needed = 0 if self.at_risk else len(self._tail)
        matching: list[int] = []
        for kept in range(len(changes) + 1):
            if kept >= needed and self._image(state) == image:
                matching.append(kept)
            if kept < len(changes):
                self._fold(state, changes[kept])
        if not matching:
            between = f"{self._durable_count + needed} and {self._durable_count + len(changes)}"
            raise Violation(
                f"{self.name}: {image!r} is no state between changes {between}, {self._image(self._durable)!r}"
            )
        lost = max(len(self._tail) - matching[-1], 0)
        self._tail = changes[: matching[-1]]
        self._doubtful = []
        self._loaded_count = self.count
        self.at_risk = False
        self.is_shaken = False
        return lost


class RecordingJournal:
    """The catalog's journal, with a history of it. See storage.engine.Journal."""

    def __init__(self, journal: Journal, history: "CatalogHistory") -> None:
        self._journal = journal
        self._history = history

    def load(self) -> tuple[bytes | None, list[bytes]]:
        return self._journal.load()

    def append(self, event: bytes) -> None:
        change = events.decode(event)
        try:
            self._journal.append(event)
        except (Poisoned, Killed):
            self._history.doubt(change)
            raise
        self._history.note(change)

    def snapshot(self, state: bytes) -> None:
        self._journal.snapshot(state)
        self._history.replace()

    async def sync(self) -> None:
        count = self._history.count
        await self._journal.sync()
        self._history.make_durable(count)

    @property
    def event_count(self) -> int:
        return self._journal.event_count


class RecordingTable:
    """The consumer offsets, with a history of them. See storage.engine.Table."""

    def __init__(self, table: Table, history: "TableHistory") -> None:
        self._table = table
        self._history = history

    def get(self, key: bytes) -> int | None:
        return self._table.get(key)

    def put(self, key: bytes, value: int) -> None:
        self._write(((key, value),), lambda: self._table.put(key, value))

    def delete(self, keys: Iterable[bytes]) -> None:
        gone = [key for key in keys if self._table.get(key) is not None]
        self._write(tuple((key, None) for key in gone), lambda: self._table.delete(gone))

    def keys(self) -> list[bytes]:
        return self._table.keys()

    async def sync(self) -> None:
        count = self._history.count
        await self._table.sync()
        self._history.make_durable(count)

    def _write(self, changes: Changes, write: Callable[[], None]) -> None:
        try:
            write()
        except (Poisoned, Killed):
            self._history.doubt(changes)
            raise
        if changes:
            self._history.note(changes)


CatalogHistory = History[Catalog, events.AnyEvent]
TableHistory = History[dict[bytes, int], Changes]


class _Snapshot:
    """A journal that holds a state and nothing else, to copy a catalog with."""

    def __init__(self, state: bytes | None) -> None:
        self._state = state

    def load(self) -> tuple[bytes | None, list[bytes]]:
        return self._state, []

    def append(self, event: bytes) -> None:
        raise AssertionError("a copy is changed by folding")

    def snapshot(self, state: bytes) -> None:
        raise AssertionError("a copy is changed by folding")

    async def sync(self) -> None:
        raise AssertionError("a copy is changed by folding")

    @property
    def event_count(self) -> int:
        return 0


def catalog_history() -> CatalogHistory:
    def copy(catalog: Catalog) -> Catalog:
        return Catalog(_Snapshot(_encode(catalog)))

    return History("catalog", Catalog(_Snapshot(None)), lambda catalog, event: catalog.apply(event), _encode, copy)


def table_history() -> TableHistory:
    def fold(values: dict[bytes, int], changes: Changes) -> None:
        for key, value in changes:
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value

    start: dict[bytes, int] = {}
    return History("consumer offsets", start, fold, dict, dict)


def _encode(catalog: Catalog) -> bytes:
    state: State = catalog._state
    return msgspec.msgpack.encode(state)
