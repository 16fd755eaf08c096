"""Streams, topics, partitions, groups and users: a fold over journal events.

Rule: `apply` changes the state by an event and nothing else does, and it depends on the event and the state alone.
What a service does is: check, `record` an event, `sync`, answer. An event is written before it is applied.
A crash between an event and what follows it outside the catalog (files to delete, offsets to drop) leaves orphans
that the next start removes; log ids are never given out twice, so an orphan is never mistaken for live data.
"""

from collections.abc import Iterator
from functools import singledispatchmethod
from typing import Generic, TypeVar

import msgspec

from ..protocol.errors import Refused, Status
from ..protocol.primitives import Identifier, Options
from ..storage.engine import Journal
from . import events
from .events import AnyEvent, TopicSettings

EVENTS_BEFORE_SNAPSHOT = 1000


class Named(msgspec.Struct):
    id: int
    name: str


N = TypeVar("N", bound=Named)


class Slab(msgspec.Struct, Generic[N]):
    """Named things with small ids. A freed id is given out again, the one freed last first, as Iggy does."""

    items: dict[int, N] = {}
    ids: dict[str, int] = {}
    free: list[int] = []

    @property
    def next_id(self) -> int:
        return self.free[-1] if self.free else len(self.items)

    def find(self, identifier: Identifier) -> N | None:
        """Return the thing with that id or name."""
        if isinstance(identifier, str):
            found = self.ids.get(identifier)
            return None if found is None else self.items[found]
        return self.items.get(identifier)

    def add(self, item: N) -> None:
        if self.free and self.free[-1] == item.id:
            self.free.pop()
        self.items[item.id] = item
        self.ids[item.name] = item.id

    def rename(self, item: N, name: str) -> None:
        del self.ids[item.name]
        item.name = name
        self.ids[name] = item.id

    def remove(self, identifier: int) -> N:
        item = self.items.pop(identifier)
        del self.ids[item.name]
        self.free.append(identifier)
        return item

    def __iter__(self) -> Iterator[N]:
        return iter([self.items[key] for key in sorted(self.items)])

    def __len__(self) -> int:
        return len(self.items)


class Partition(msgspec.Struct):
    """log_id names the partition's data, consumer offsets included; a purge gives it a new one."""

    id: int
    log_id: int
    created_at_us: int


class Group(Named):
    pass


class Topic(Named):
    created_at_us: int
    settings: TopicSettings
    options: Options
    partitions: list[Partition] = []
    groups: Slab[Group] = msgspec.field(default_factory=Slab[Group])

    def partition(self, partition_id: int) -> Partition:
        if partition_id < len(self.partitions):
            return self.partitions[partition_id]
        raise Refused(Status.PARTITION_NOT_FOUND, f"partition {partition_id} of topic {self.name}")

    def group(self, identifier: Identifier) -> Group:
        if group := self.groups.find(identifier):
            return group
        raise Refused(Status.CONSUMER_GROUP_ID_NOT_FOUND, f"group {identifier!r} of topic {self.name}")


class Stream(Named):
    created_at_us: int
    topics: Slab[Topic] = msgspec.field(default_factory=Slab[Topic])

    def topic(self, identifier: Identifier) -> Topic:
        if topic := self.topics.find(identifier):
            return topic
        raise Refused(Status.TOPIC_ID_NOT_FOUND, f"topic {identifier!r} of stream {self.name}")


class User(Named):
    password_hash: str
    created_at_us: int


class State(msgspec.Struct):
    """All of the catalog, as a snapshot holds it."""

    streams: Slab[Stream] = msgspec.field(default_factory=Slab[Stream])
    users: Slab[User] = msgspec.field(default_factory=Slab[User])
    next_log_id: int = 0


class Catalog:
    """The state and its journal. Lookups raise Refused with Iggy's status for what is missing."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        snapshot, tail = journal.load()
        self._state = msgspec.msgpack.decode(snapshot, type=State) if snapshot else State()
        for event in tail:
            self.apply(events.decode(event))
        self._recorded = self._durable = 0

    @property
    def streams(self) -> Slab[Stream]:
        return self._state.streams

    @property
    def users(self) -> Slab[User]:
        return self._state.users

    def stream(self, identifier: Identifier) -> Stream:
        if stream := self._state.streams.find(identifier):
            return stream
        raise Refused(Status.STREAM_ID_NOT_FOUND, f"stream {identifier!r}")

    def topic(self, stream: Identifier, topic: Identifier) -> tuple[Stream, Topic]:
        found = self.stream(stream)
        return found, found.topic(topic)

    def topics(self) -> list[Topic]:
        return [topic for stream in self.streams for topic in stream.topics]

    def partitions(self) -> Iterator[tuple[Stream, Topic, Partition]]:
        for stream in self.streams:
            for topic in stream.topics:
                for partition in topic.partitions:
                    yield stream, topic, partition

    def record(self, event: AnyEvent) -> None:
        """Write an event and apply it. It is durable after `sync`."""
        self._journal.append(events.encode(event))
        self._recorded += 1
        self.apply(event)

    @property
    def is_durable(self) -> bool:
        """Whether everything recorded would survive a power failure."""
        return self._durable == self._recorded

    async def sync(self) -> None:
        """Return when everything recorded would survive a power failure; now and then fold the journal."""
        recorded = self._recorded
        await self._journal.sync()
        self._durable = max(self._durable, recorded)
        if self._journal.event_count >= EVENTS_BEFORE_SNAPSHOT:
            self._journal.snapshot(msgspec.msgpack.encode(self._state))

    @singledispatchmethod
    def apply(self, event: AnyEvent) -> None:
        raise TypeError(f"no fold for {event!r}")

    @apply.register
    def _(self, event: events.StreamCreated) -> None:
        self.streams.add(Stream(event.id, event.name, event.created_at_us))

    @apply.register
    def _(self, event: events.StreamRenamed) -> None:
        self.streams.rename(self.streams.items[event.id], event.name)

    @apply.register
    def _(self, event: events.StreamDeleted) -> None:
        self.streams.remove(event.id)

    @apply.register
    def _(self, event: events.StreamPurged) -> None:
        for topic in self.streams.items[event.id].topics:
            self._renew(topic.partitions)

    @apply.register
    def _(self, event: events.TopicCreated) -> None:
        topic = Topic(event.id, event.name, event.created_at_us, event.settings, event.options)
        self._extend(topic, event.partitions_count, event.created_at_us)
        self.streams.items[event.stream_id].topics.add(topic)

    @apply.register
    def _(self, event: events.TopicUpdated) -> None:
        topics = self.streams.items[event.stream_id].topics
        topic = topics.items[event.id]
        topics.rename(topic, event.name)
        topic.settings = event.settings
        topic.options = event.options

    @apply.register
    def _(self, event: events.TopicDeleted) -> None:
        self.streams.items[event.stream_id].topics.remove(event.id)

    @apply.register
    def _(self, event: events.TopicPurged) -> None:
        self._renew(self._topic(event.stream_id, event.id).partitions)

    @apply.register
    def _(self, event: events.PartitionsCreated) -> None:
        self._extend(self._topic(event.stream_id, event.topic_id), event.count, event.created_at_us)

    @apply.register
    def _(self, event: events.PartitionsDeleted) -> None:
        partitions = self._topic(event.stream_id, event.topic_id).partitions
        del partitions[len(partitions) - event.count :]

    @apply.register
    def _(self, event: events.GroupCreated) -> None:
        self._topic(event.stream_id, event.topic_id).groups.add(Group(event.id, event.name))

    @apply.register
    def _(self, event: events.GroupDeleted) -> None:
        self._topic(event.stream_id, event.topic_id).groups.remove(event.id)

    @apply.register
    def _(self, event: events.UserCreated) -> None:
        self.users.add(User(event.id, event.username, event.password_hash, event.created_at_us))

    def _topic(self, stream_id: int, topic_id: int) -> Topic:
        return self.streams.items[stream_id].topics.items[topic_id]

    def _extend(self, topic: Topic, count: int, created_at_us: int) -> None:
        for _ in range(count):
            topic.partitions.append(Partition(len(topic.partitions), self._next_log_id(), created_at_us))

    def _renew(self, partitions: list[Partition]) -> None:
        """Give partitions new, empty logs. Their objects stay the same."""
        for partition in partitions:
            partition.log_id = self._next_log_id()

    def _next_log_id(self) -> int:
        log_id = self._state.next_log_id
        self._state.next_log_id += 1
        return log_id
