"""How far a consumer is in each partition.

Offsets of one partition, where each is known: stored <= handled <= handed < position. What lies between `handed` and
`position` waits in the consumer's memory, what lies between `stored` and `handled` for its commit.
"""

from collections.abc import Iterable

import msgspec

NONE = -1


class Cursor(msgspec.Struct, eq=False):
    """One partition as one consumer reads it. Offsets are NONE before the first.

    position: where the next poll starts, None while that is not known. handed: the last message that the application
    was given. before: the last one that it was given before those in hand. handled: the last one that it is known to be
    done with. stored: the last offset that the broker is known to have.
    joins: how often we had joined the group when `stored` was asked for. is_current: that was since the partition was
    assigned. is_lost: another member has the partition, or it was emptied; what was polled of it counts no more.
    """

    partition_id: int
    position: int | None = None
    handed: int = NONE
    before: int = NONE
    handled: int = NONE
    stored: int = NONE
    joins: int = 0
    is_current: bool = False
    is_lost: bool = False

    def resume(self, stored: int) -> None:
        """Go on behind an offset that was stored, by us or by another member."""
        self.stored = max(self.stored, stored)
        self.position = max(self.position or 0, stored + 1)

    def begin(self, offset: int) -> None:
        """Begin with this message: whatever lies before it needs no commit."""
        self.handed = self.handled = max(self.handed, offset - 1)

    def take_back(self) -> None:
        """Let the application not be done with what it has in hand."""
        self.handed = max(self.before, self.handled)

    def forget_fetched(self) -> None:
        """Poll again what was not handed out."""
        if self.position is not None:
            self.position = max(self.handed, self.stored) + 1


class Cursors:
    """The cursors of all partitions that a consumer has had to do with, and those that it polls, in turn."""

    def __init__(self) -> None:
        self._known: dict[int, Cursor] = {}
        self._polled: list[Cursor] = []
        self._turn = 0

    @property
    def polled_count(self) -> int:
        return len(self._polled)

    def find(self, partition_id: int) -> Cursor | None:
        return self._known.get(partition_id)

    def assign(self, partitions: Iterable[int]) -> None:
        """Poll these from now on. What is in memory of others still counts: they may wait for its commit."""
        self._polled = [self._known.setdefault(number, Cursor(number)) for number in partitions]
        for cursor in self._polled:
            cursor.is_current = False

    def forget_fetched(self) -> None:
        for cursor in self._known.values():
            cursor.forget_fetched()

    def lose(self, cursor: Cursor) -> Cursor:
        """Begin anew with a partition: what was polled of it counts no more. Return its new cursor."""
        cursor.is_lost = True
        fresh = Cursor(cursor.partition_id)
        self._known[cursor.partition_id] = fresh
        self._polled = [fresh if each is cursor else each for each in self._polled]
        return fresh

    def next(self) -> Cursor | None:
        """Return the one whose turn it is, None if there are none."""
        if not self._polled:
            return None
        self._turn = (self._turn + 1) % len(self._polled)
        return self._polled[self._turn - 1]
