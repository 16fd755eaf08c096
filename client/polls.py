"""How a consumer comes by messages: one partition after the other, each from where it got to."""

import asyncio
from collections import deque

import msgspec

from ..protocol.model.messages import RESYNC_PARTITION
from .cursors import Cursor, Cursors
from .errors import BrokerError, ConnectionLost
from .messages import Offset, PolledMessages, Received, Start, strategy_of
from .readers import ATTEMPTS_MAX, Assignment, Reader, Rejoined

# The first wait after a round of polls that found nothing; each one after it is twice as long.
POLL_INTERVAL_MIN_S = 0.001


class Fetched(msgspec.Struct, eq=False):
    """What is left of a poll. joins: how often we had joined the group before it."""

    cursor: Cursor
    messages: deque[Received]
    joins: int = 0


class Polls:
    """The polls of one consumer, one at a time.

    resumes: go on behind what was committed, where something was; else from `start`.
    commits: as the messages are found.
    """

    def __init__(
        self,
        reader: Reader,
        cursors: Cursors,
        *,
        start: Start,
        count: int,
        interval_s: float,
        commits: bool,
    ) -> None:
        strategy_of(start)  # what is no start is said now
        self._reader = reader
        self._cursors = cursors
        self._resumes = reader.group is not None or start == "next"
        self._start: Start = "first" if start == "next" else start
        self._count = count
        self._interval_s = max(interval_s, POLL_INTERVAL_MIN_S)
        self._commits = commits
        self._assignment = Assignment(())

    async def fetch(self) -> Fetched:
        """Poll until there are messages; after a round that found none wait a little, and longer each time."""
        pause_s, fruitless, lost = POLL_INTERVAL_MIN_S, 0, 0
        while True:
            try:
                fetched, lost = await self._attempt(), 0
            except Rejoined:
                continue
            except ConnectionLost:
                fetched, lost = None, lost + 1
                if lost == ATTEMPTS_MAX:
                    raise
            if fetched is not None:
                return fetched
            fruitless += 1
            if fruitless >= self._cursors.polled_count:
                await asyncio.sleep(pause_s)
                pause_s, fruitless = min(2 * pause_s, self._interval_s), 0

    async def _attempt(self) -> Fetched | None:
        try:
            return await self._poll_next()
        except BrokerError as error:
            if not await self._reader.recover(error):
                raise
            return None

    async def _poll_next(self) -> Fetched | None:
        """Poll the partition whose turn it is."""
        assignment = await self._reader.assignment()
        self._take_over(assignment)
        cursor = self._cursors.next()
        if cursor is None:
            return None
        if not cursor.is_current:
            if self._resumes:
                await self._reader.refresh(cursor)
            cursor.is_current = True
        start, count = self._start, self._count
        if cursor.position is not None:
            start = Offset(cursor.position)
        elif start == "last":
            count = 1
        polled = await self._reader.poll(cursor.partition_id, start, count, auto_commit=self._commits)
        if messages := self._taken(cursor, polled):
            return Fetched(cursor, deque(messages), assignment.joins)
        return None

    def _take_over(self, assignment: Assignment) -> None:
        """Poll what is ours now. After we have joined anew, what another may have had meanwhile is polled again."""
        if assignment is self._assignment:
            return
        if assignment.joins != self._assignment.joins:
            self._cursors.forget_fetched()
        self._cursors.assign(assignment.partitions)
        self._assignment = assignment

    def _taken(self, cursor: Cursor, polled: PolledMessages) -> list[Received]:
        """Go on behind what a poll found."""
        if polled.partition == RESYNC_PARTITION:
            self._reader.doubt()
        elif polled.messages:
            if cursor.position is None:
                cursor.begin(polled.messages[0].offset)
            cursor.position = polled.messages[-1].offset + 1
            return polled.messages
        elif cursor.position is None and self._start == "last":
            cursor.position = 0  # there is none: the first one that comes
        elif cursor.position is not None and polled.current_offset < cursor.position - 1:
            fresh = self._cursors.lose(cursor)  # the partition was emptied, and its offsets begin anew
            fresh.position, fresh.is_current = 0, True
        return []
