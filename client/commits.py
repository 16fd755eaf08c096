"""What a consumer tells its broker of how far it has got, and when.

A message is *handed* to the application, *handled* when the application comes back for the next, and *committed* when
the broker knows. What is not committed comes again: after a restart, or with another member of the group.
"""

import asyncio
from typing import Literal

import msgspec

from ..protocol.errors import Status
from .cursors import Cursor, Cursors
from .errors import BrokerError, ConnectionLost, InvalidRequest
from .readers import ATTEMPTS_MAX, Reader, Rejoined


class Every(msgspec.Struct, frozen=True):
    """Commit what is handled, at most once in so many seconds."""

    seconds: float


Commit = Literal["before", "each", "batch", "manual"] | Every

# A commit is refused so when the partition, or our place in the group, is another's by now, or the partition is empty.
_OVERTAKEN = frozenset(
    {
        Status.CONSUMER_GROUP_PARTITION_NOT_OWNED,
        Status.CONSUMER_GROUP_MEMBER_NOT_FOUND,
        Status.CONSUMER_GROUP_ID_NOT_FOUND,
        Status.PARTITION_NOT_FOUND,
        Status.RESOURCE_NOT_FOUND,  # Iggy's word for all of these
        Status.INVALID_OFFSET,
    }
)


class Commits:
    """The commits of one consumer."""

    def __init__(self, reader: Reader, cursors: Cursors, policy: Commit) -> None:
        if not isinstance(policy, Every) and policy not in ("before", "each", "batch", "manual"):
            raise InvalidRequest(f"commit={policy!r}: expected before, each, batch, manual or Every(seconds)")
        self._reader = reader
        self._cursors = cursors
        self._policy = policy
        self.in_polls = policy == "before"  # polls commit what they find
        self.may_fall_due = policy == "each" or isinstance(policy, Every)  # before a batch is over
        self._waiting: dict[int, Cursor] = {}  # by partition, where something is handled and not committed
        self._due_at = 0.0  # loop time

    def note_handled(self, cursor: Cursor) -> None:
        """Take note that the application is done with what it was handed of a partition."""
        if cursor.handed > cursor.handled:
            cursor.handled = cursor.handed
            self._waiting[cursor.partition_id] = cursor

    def due_in_s(self) -> float | None:
        """Return when to look again if nobody comes back before, None for never."""
        if not isinstance(self._policy, Every) or not self._waiting:
            return None
        return max(0.0, self._due_at - asyncio.get_running_loop().time())

    async def commit_due(self, cursor: Cursor, *, is_batch_over: bool) -> None:
        """Take note of what is handled, and commit what falls due by it."""
        self.note_handled(cursor)
        if self._waiting and self._is_due(is_batch_over=is_batch_over):
            await self.commit_all()

    async def commit_all(self) -> None:
        """Commit what is handled, unless the application does that; what other members have by now is left to them."""
        if self._policy in ("before", "manual"):
            return
        for cursor in list(self._waiting.values()):
            try:
                await self.commit(cursor, cursor.handled)
            except BrokerError as error:
                if error.status not in _OVERTAKEN:
                    raise
        if isinstance(self._policy, Every):
            self._due_at = asyncio.get_running_loop().time() + self._policy.seconds

    async def commit_by_hand(self) -> None:
        for cursor in list(self._waiting.values()):
            await self.commit(cursor, cursor.handled)

    async def commit(self, cursor: Cursor, offset: int) -> None:
        """Commit one partition. Raises BrokerError, and loses the partition if it is another's now."""
        try:
            await self._store(cursor, offset)
        except BrokerError as error:
            if error.status in _OVERTAKEN:
                self._cursors.lose(cursor)
                self._reader.doubt()
            raise
        finally:
            if cursor.is_lost or cursor.stored >= cursor.handled:
                self._waiting.pop(cursor.partition_id, None)

    async def _store(self, cursor: Cursor, offset: int) -> None:
        """Commit, also over a new connection, but never less than is committed already."""
        lost = 0
        while True:
            if cursor.joins != self._reader.joins:
                await self._reader.refresh(cursor)
            if cursor.is_lost or offset <= cursor.stored:
                return
            try:
                await self._reader.store(cursor.partition_id, offset)
                cursor.stored = max(cursor.stored, offset)
            except Rejoined:
                continue
            except ConnectionLost:
                lost += 1
                if lost == ATTEMPTS_MAX:
                    raise

    def _is_due(self, *, is_batch_over: bool) -> bool:
        match self._policy:
            case "each":
                return True
            case "batch":
                return is_batch_over
            case Every():
                return asyncio.get_running_loop().time() >= self._due_at
            case _:
                return False
