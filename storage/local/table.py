"""A map in memory whose changes go to a journal, which is replaced by a snapshot when it gets long.

An event, and the snapshot, is a run of changes (little-endian; sizes in bytes):

    +----+------------------------+------------+
    |  0 | 1: put, 0: delete      |  1         |
    |  1 | key size               |  1         |
    |  2 | value, 0 in a delete   |  8         |
    | 10 | key                    | <= 64      |
    +----+------------------------+------------+
"""

from collections.abc import Iterable
from contextlib import suppress
from struct import Struct

from ..errors import Full
from .journal import LocalJournal

KEY_SIZE_MAX = 64
# A snapshot writes every live key: it has to be worth it, and is not for a small table.
EVENTS_PER_KEY_MAX = 4
EVENTS_SPARE = 10_000

_CHANGE = Struct("<BBQ")
_DELETE, _PUT = 0, 1


class LocalTable:
    """A table over a journal of its own. See storage.engine.Table."""

    def __init__(self, journal: LocalJournal) -> None:
        """Load the table. Raises Corrupt."""
        self._journal = journal
        self._values: dict[bytes, int] = {}
        state, events = journal.load()
        for changes in [state or b"", *events]:
            apply_changes(self._values, changes)

    def get(self, key: bytes) -> int | None:
        return self._values.get(key)

    def put(self, key: bytes, value: int) -> None:
        """See storage.engine.Table. Raises Full (nothing changed), Poisoned."""
        assert len(key) <= KEY_SIZE_MAX, "keys are at most 64 bytes"
        self._journal.append(_CHANGE.pack(_PUT, len(key), value) + key)
        self._values[key] = value
        self._compact_if_due()

    def delete(self, keys: Iterable[bytes]) -> None:
        """See storage.engine.Table. Raises Full (nothing changed), Poisoned."""
        present = [key for key in keys if key in self._values]
        if not present:
            return
        self._journal.append(b"".join(_CHANGE.pack(_DELETE, len(key), 0) + key for key in present))
        for key in present:
            self._values.pop(key, None)
        self._compact_if_due()

    def keys(self) -> list[bytes]:
        return list(self._values)

    async def sync(self) -> None:
        await self._journal.sync()

    async def close(self) -> None:
        await self._journal.close()

    def _compact_if_due(self) -> None:
        if self._journal.event_count > EVENTS_PER_KEY_MAX * len(self._values) + EVENTS_SPARE:
            changes = [_CHANGE.pack(_PUT, len(key), value) + key for key, value in self._values.items()]
            with suppress(Full):  # The change itself is written; the next one tries again.
                self._journal.snapshot(b"".join(changes))


def apply_changes(values: dict[bytes, int], changes: bytes) -> None:
    """Apply a run of changes, which an event or a snapshot is, to the values by key."""
    position = 0
    while position < len(changes):
        kind, size, value = _CHANGE.unpack_from(changes, position)
        position += _CHANGE.size + size
        key = changes[position - size : position]
        if kind == _PUT:
            values[key] = value
        else:
            values.pop(key, None)
