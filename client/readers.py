"""Who reads a topic: a consumer by itself, or a member of a consumer group; and which partitions are its own."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from ..protocol.errors import Status
from ..protocol.primitives import Identifier
from .commands import Commands
from .cursors import Cursor
from .errors import BrokerError, ConnectionLost, InvalidRequest, PybrokerError
from .messages import PolledMessages, Start

# How long an assignment is believed, where nobody says that it has changed.
ASSIGNMENT_AGE_MAX_S = 5.0
LEAVE_TIMEOUT_S = 5.0
# How often in a row a connection may break over the same request.
ATTEMPTS_MAX = 5

_GROUP_MISSING = (Status.CONSUMER_GROUP_ID_NOT_FOUND, Status.CONSUMER_GROUP_NAME_NOT_FOUND, Status.RESOURCE_NOT_FOUND)
_NO_MEMBER = (*_GROUP_MISSING, Status.CONSUMER_GROUP_MEMBER_NOT_FOUND)
_NOT_OURS = (Status.CONSUMER_GROUP_PARTITION_NOT_OWNED, Status.PARTITION_NOT_FOUND)


R = TypeVar("R")


class Rejoined(ConnectionLost):
    """We had to join the group anew before a call went out, so nobody knows whether it still makes sense."""


class Assignment(NamedTuple):
    """What to read. generation: grows with every change in the group. joins: how often we had to join it."""

    partitions: Sequence[int]
    generation: int = 0
    joins: int = 0


class Reader(ABC):
    """consumer, group: under which name offsets are kept; group None for a consumer by itself.

    joins: how often we have joined the group. What was polled before the last time another may have had since.
    """

    joins: int = 0

    def __init__(
        self, client: Commands, stream: Identifier, topic: Identifier, *, consumer: Identifier, group: Identifier | None
    ) -> None:
        self._client = client
        self._stream = stream
        self._topic = topic
        self._consumer = consumer
        self.group = group

    async def open(self) -> None:
        """Get ready to be asked. Raises BrokerError for what is missing."""
        await self.assignment()

    async def close(self) -> None:  # noqa: B027
        """Let others have what was ours. Only a group's member has such."""

    @abstractmethod
    async def assignment(self) -> Assignment:
        """Return what to read; the same object as long as nothing is known to have changed. Raises BrokerError."""

    @abstractmethod
    def doubt(self) -> None:
        """Ask the broker anew when the assignment is needed next."""

    async def recover(self, error: BrokerError) -> bool:
        """Put right what a request was refused for; return whether that was possible."""
        self.doubt()
        return error.status in _NOT_OURS

    async def poll(self, partition: int, start: Start, count: int, *, auto_commit: bool) -> PolledMessages:
        return await self._client.poll(
            self._stream,
            self._topic,
            partition=partition,
            consumer=self._consumer,
            group=self.group,
            start=start,
            count=count,
            auto_commit=auto_commit,
        )

    async def refresh(self, cursor: Cursor) -> None:
        """Look up what was committed, by whomever."""
        cursor.joins = self.joins
        found = await self._client.get_offset(
            self._stream, self._topic, partition=cursor.partition_id, consumer=self._consumer, group=self.group
        )
        if found is not None:
            cursor.resume(found.stored_offset)

    async def store(self, partition: int, offset: int) -> None:
        """Commit. Raises ConnectionLost when it may be done, and when others may have committed more meanwhile."""
        await self._client.store_offset(
            self._stream, self._topic, offset, partition=partition, consumer=self._consumer, group=self.group
        )


class Fixed(Reader):
    """One partition."""

    def __init__(
        self, client: Commands, stream: Identifier, topic: Identifier, consumer: Identifier, partition: int
    ) -> None:
        super().__init__(client, stream, topic, consumer=consumer, group=None)
        self._assignment = Assignment((partition,))

    async def assignment(self) -> Assignment:
        return self._assignment

    def doubt(self) -> None:
        pass

    async def recover(self, error: BrokerError) -> bool:
        return False


class Aging(Reader):
    """An assignment that is asked for now and then."""

    _assignment = Assignment(())
    _until = 0.0  # loop time

    def doubt(self) -> None:
        self._until = 0.0

    async def assignment(self) -> Assignment:
        now = asyncio.get_running_loop().time()
        if now >= self._until or not self._assignment.partitions:
            self._until = now + ASSIGNMENT_AGE_MAX_S  # before we ask: a doubt may come up meanwhile
            try:
                found = await self._ask()
            except BaseException:
                self.doubt()
                raise
            if found != self._assignment:
                self._assignment = found
        return self._assignment

    @abstractmethod
    async def _ask(self) -> Assignment: ...


class Whole(Aging):
    """All partitions of a topic, also those that are added."""

    def __init__(self, client: Commands, stream: Identifier, topic: Identifier, consumer: Identifier) -> None:
        super().__init__(client, stream, topic, consumer=consumer, group=None)

    async def _ask(self) -> Assignment:
        details = await self._client.get_topic(self._stream, self._topic)
        if details is None:
            raise BrokerError(Status.TOPIC_ID_NOT_FOUND, f"topic {self._topic} of stream {self._stream}")
        return Assignment(tuple(range(details.topic.partitions_count)))


class Member(Aging):
    """A group's member: it joins at once, and again after each sign-in. A connection is one member of a group."""

    def __init__(
        self, client: Commands, stream: Identifier, topic: Identifier, group: Identifier, *, create: bool
    ) -> None:
        """create: make the group where it is missing."""
        super().__init__(client, stream, topic, consumer=0, group=group)
        self._name = group
        self._create = create
        self._calls: set[asyncio.Task[Any]] = set()
        self._has_left = False

    @property
    def target(self) -> tuple[Identifier, Identifier, Identifier]:
        return self._stream, self._topic, self._name

    async def open(self) -> None:
        """Join. Raises InvalidRequest on a client that is a member already: it would get its own messages twice."""
        others = (getattr(hook, "__self__", None) for hook in self._client.on_connect)
        if any(isinstance(other, Member) and other.target == self.target for other in others):
            raise InvalidRequest(f"this client is a member of group {self._name} already; use a client for each member")
        self._client.on_connect.append(self._rejoin)
        try:
            await self._join()
        except BaseException:
            await self.close()  # the broker may have taken us for a member all the same
            raise

    async def close(self) -> None:
        """Leave, so that the others get our partitions now. A broker that can't be told notices by itself."""
        if self._rejoin in self._client.on_connect:
            self._client.on_connect.remove(self._rejoin)
        if self.joins and not self._has_left:
            with suppress(PybrokerError, TimeoutError):
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await self._client.leave_group(*self.target)
            self._has_left = True

    async def recover(self, error: BrokerError) -> bool:
        if error.status in _NO_MEMBER:
            await self._join()
            return True
        return await super().recover(error)

    async def poll(self, partition: int, start: Start, count: int, *, auto_commit: bool) -> PolledMessages:
        return await self._as_this_member(super().poll(partition, start, count, auto_commit=auto_commit))

    async def store(self, partition: int, offset: int) -> None:
        await self._as_this_member(super().store(partition, offset))

    async def _as_this_member(self, call: Coroutine[Any, Any, R]) -> R:
        """Make a call, unless we have to join anew before it goes out: others may have read and committed meanwhile."""
        calling = asyncio.create_task(call)
        self._calls.add(calling)
        try:
            await asyncio.wait((calling,))
        finally:
            self._calls.discard(calling)
            calling.cancel()
        if calling.cancelled():
            raise Rejoined("the group was joined anew")
        return calling.result()

    async def _rejoin(self) -> None:
        for calling in self._calls:
            calling.cancel()
        with suppress(BrokerError):  # the next poll is told so too, and tells the application
            await self._join()

    async def _join(self) -> None:
        self.joins += 1
        self.doubt()
        try:
            await self._client.join_group(*self.target)
        except BrokerError as error:
            if error.status not in _GROUP_MISSING or not self._create or not isinstance(self._name, str):
                raise
            await self._make_group(self._name)
            await self._client.join_group(*self.target)

    async def _make_group(self, name: str) -> None:
        try:
            await self._client.create_group(self._stream, self._topic, name)
        except BrokerError as error:
            if error.status is not Status.CONSUMER_GROUP_NAME_ALREADY_EXISTS:
                raise

    async def _ask(self) -> Assignment:
        joins = self.joins
        found = await self._client.sync_group(*self.target)
        if found is None:
            await self._join()
            joins = self.joins
            found = await self._client.sync_group(*self.target)
        return Assignment(tuple(found.partitions) if found else (), found.generation if found else 0, joins)
