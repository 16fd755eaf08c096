"""Reads a topic's messages one after the other, and says how far it has got; `commits` says what that means.

Polls run in a task of their own, so whoever gives up waiting for a message leaves it to the next who asks. While the
application handles a batch the next one is fetched; not where polls commit, for what is fetched then and not handed out
would be gone in a crash.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType

from ..protocol.primitives import Identifier
from .commands import Commands
from .commits import Commit, Commits
from .cursors import Cursor, Cursors
from .errors import Closed, InvalidRequest
from .messages import Received, Start
from .polls import Fetched, Polls
from .readers import Fixed, Member, Reader, Whole


class Consumer:
    """`async with client.consumer("stream", "topic", group="workers") as consumer: async for message in consumer`.

    One task at a time asks it for messages; it may be cancelled while it waits, and none is lost.

    group: share the topic's partitions with the other members of this group, made where it is missing unless
    `create_group` is False. consumer: read alone, under this name; `partition`, or all of them in turn.
    start: "next" goes on behind what was committed, from the first message where nothing was; others begin there
    whatever was committed. A group always goes on where it stopped: there `start` is for partitions without a commit.
    commit: "before" as the broker hands messages out: a crash may lose some, none comes twice. "each" when the
    application comes back for the next message, "batch" for the next batch, Every(seconds) now and then: a crash lets
    what was not committed come again, none is lost. "manual" with `commit()` only.
    batch_size: how many messages a poll takes. poll_interval_ms: the longest wait between two polls of an idle topic.
    """

    def __init__(
        self,
        client: Commands,
        stream: Identifier,
        topic: Identifier,
        *,
        group: Identifier | None = None,
        create_group: bool = True,
        consumer: Identifier | None = None,
        partition: int | None = None,
        start: Start = "next",
        commit: Commit = "batch",
        batch_size: int = 100,
        poll_interval_ms: float = 100,
    ) -> None:
        if group is not None:
            self._reader: Reader = Member(client, stream, topic, group, create=create_group)
        elif consumer is None:
            raise InvalidRequest("name the group, or the consumer, that offsets are kept for")
        elif partition is not None:
            self._reader = Fixed(client, stream, topic, consumer, partition)
        else:
            self._reader = Whole(client, stream, topic, consumer)
        if group is not None and not consumer is partition is None:
            raise InvalidRequest("a member of a group has no consumer name, and the broker gives it its partitions")
        if batch_size < 1:
            raise InvalidRequest(f"batch_size={batch_size}: expected at least 1")
        self._cursors = Cursors()
        self._commits = Commits(self._reader, self._cursors, commit)
        self._polls = Polls(
            self._reader,
            self._cursors,
            start=start,
            count=batch_size,
            interval_s=poll_interval_ms / 1000,
            commits=self._commits.in_polls,
        )
        self._fetched = Fetched(Cursor(0), deque())
        self._fetching: asyncio.Task[Fetched] | None = None
        self._is_open = self._is_closed = False

    async def __aenter__(self) -> "Consumer":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an error what was handed out last is not committed."""
        await self._close(is_handled=kind is None)

    async def open(self) -> None:
        """Join the group, or look up which partitions there are. Raises BrokerError for what is missing."""
        await self._reader.open()
        self._is_open = True

    async def close(self) -> None:
        """Commit what was handed out, unless that is done by hand, and leave the group. Once more does no harm."""
        await self._close(is_handled=True)

    def __aiter__(self) -> "Consumer":
        return self

    async def __anext__(self) -> Received:
        """Return the next message; everything before it is handled. Waits for one as long as it takes.

        Raises BrokerError, ConnectionLost, ConnectError, Timeout; whoever asks again goes on where it was.
        """
        if self._commits.may_fall_due:
            await self._commit_due()
        while (message := self._pop()) is None:
            await self._refill()
        return message

    def batches(self) -> AsyncIterator[list[Received]]:
        """Iterate over batches, each of one partition; a batch is handled when the next is asked for."""
        return _Batches(self)

    async def commit(self, message: Received | None = None) -> None:
        """Commit everything up to a message of its partition; None: everything that was handed out.

        Raises BrokerError, with CONSUMER_GROUP_PARTITION_NOT_OWNED when another member got the partition, and with it
        the message.
        """
        if message is not None:
            cursor = self._cursors.find(message.partition) or Cursor(message.partition)
            await self._commits.commit(cursor, message.offset)
        else:
            self._commits.note_handled(self._fetched.cursor)
            await self._commits.commit_by_hand()

    async def next_batch(self) -> list[Received]:
        """Return what is left of a batch, or the next; at least one message. Raises as asking for one message does."""
        batch = [await anext(self), *self._fetched.messages]
        self._fetched.messages.clear()
        self._fetched.cursor.handed = batch[-1].offset
        return batch

    def _pop(self) -> Received | None:
        """Hand out the next message that is here and not another member's by now; None if there is none."""
        fetched = self._fetched
        messages, cursor = fetched.messages, fetched.cursor
        while messages:
            message = messages.popleft()
            if self._commits.in_polls or not (
                message.offset <= cursor.stored or cursor.is_lost or fetched.joins != self._reader.joins
            ):
                cursor.before, cursor.handed = cursor.handed, message.offset
                return message
        return None

    async def _refill(self) -> None:
        """Wait for a batch, and commit what falls due meanwhile. Raises StopAsyncIteration once closed."""
        fetching = self._fetch()
        await self._commit_due()
        await asyncio.wait((fetching,), timeout=self._commits.due_in_s())
        if not fetching.done() or fetching is not self._fetching:
            return
        self._fetching = None
        if fetching.cancelled():
            raise StopAsyncIteration
        self._fetched = fetching.result()
        if not self._commits.in_polls and self._is_open:
            self._fetch()

    def _fetch(self) -> "asyncio.Task[Fetched]":
        """Return the task that fetches the next batch."""
        if self._is_closed:
            raise StopAsyncIteration
        if not self._is_open:
            raise Closed("the consumer is not open: use `async with`, or open() first")
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._polls.fetch(), name="polls")
        return self._fetching

    async def _commit_due(self) -> None:
        """Take note that the application came back: it is done with what it was handed."""
        await self._commits.commit_due(self._fetched.cursor, is_batch_over=not self._fetched.messages)

    async def _close(self, *, is_handled: bool) -> None:
        self._is_open, self._is_closed = False, True
        try:
            if self._fetching is not None:
                self._fetching.cancel()
                await asyncio.gather(self._fetching, return_exceptions=True)
            self._fetched.messages.clear()
            if not is_handled:
                self._fetched.cursor.take_back()
            self._commits.note_handled(self._fetched.cursor)
            await self._commits.commit_all()
        finally:
            await self._reader.close()


class _Batches:
    """No generator: one of those ends when whoever waits for it is cancelled."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __aiter__(self) -> "_Batches":
        return self

    async def __anext__(self) -> list[Received]:
        return await self._consumer.next_batch()
