"""Streams, topics, partitions, groups, users and their tokens: a fold over journal events.

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
from ..protocol.primitives import Identifier, Options, Permissions, UserStatus
from ..storage.engine import Journal
from . import events, permissions
from .events import AnyEvent, TopicSettings
from .permissions import Grants

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


class Token(msgspec.Struct):
    """A personal access token. digest: of the secret, which is nowhere. expires_at_us: 0 for never."""

    name: str
    digest: bytes
    expires_at_us: int

    def is_expired(self, now_us: int) -> bool:
        return 0 < self.expires_at_us <= now_us


class User(Named):
    """permissions None: none. Root has all of them, whatever is here. tokens: by name."""

    password_hash: str
    created_at_us: int
    status: UserStatus = UserStatus.ACTIVE
    permissions: Permissions | None = None
    tokens: dict[str, Token] = {}


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
        self._grants: dict[int, Grants] = {}  # of users who asked for something since permissions changed
        self._found: dict[tuple[Identifier, Identifier], tuple[Stream, Topic]] = {}  # since anything changed
        self._tokens = {token.digest: (user, token) for user in self.users for token in user.tokens.values()}
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
        """Return a topic and its stream: 0.1 us for one that was looked up before, 0.6 us else."""
        found = self._found.get((stream, topic))
        if found is None:
            holder = self.stream(stream)
            found = self._found[stream, topic] = holder, holder.topic(topic)
        return found

    def user(self, identifier: Identifier) -> User:
        if user := self._state.users.find(identifier):
            return user
        raise Refused(Status.RESOURCE_NOT_FOUND, f"user {identifier!r}")

    def token(self, digest: bytes) -> tuple[User, Token] | None:
        """Return the token whose secret has that digest, and whose it is."""
        return self._tokens.get(digest)

    def grants(self, user_id: int) -> Grants:
        """Return what a user may do; an unknown one, what any user may."""
        grants = self._grants.get(user_id)
        if grants is None:
            user = self.users.items.get(user_id)
            held = permissions.ROOT if user_id == permissions.ROOT_ID else user.permissions if user else None
            grants = self._grants[user_id] = permissions.grants_of(held)
        return grants

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

    def apply(self, event: AnyEvent) -> None:
        self._found.clear()
        self._fold(event)

    @singledispatchmethod
    def _fold(self, event: AnyEvent) -> None:
        raise TypeError(f"no fold for {event!r}")

    @_fold.register
    def _(self, event: events.StreamCreated) -> None:
        self.streams.add(Stream(event.id, event.name, event.created_at_us))

    @_fold.register
    def _(self, event: events.StreamRenamed) -> None:
        self.streams.rename(self.streams.items[event.id], event.name)

    @_fold.register
    def _(self, event: events.StreamDeleted) -> None:
        self.streams.remove(event.id)
        self._revoke(event.id)

    @_fold.register
    def _(self, event: events.StreamPurged) -> None:
        for topic in self.streams.items[event.id].topics:
            self._renew(topic.partitions)

    @_fold.register
    def _(self, event: events.TopicCreated) -> None:
        topic = Topic(event.id, event.name, event.created_at_us, event.settings, event.options)
        self._extend(topic, event.partitions_count, event.created_at_us)
        self.streams.items[event.stream_id].topics.add(topic)

    @_fold.register
    def _(self, event: events.TopicUpdated) -> None:
        topics = self.streams.items[event.stream_id].topics
        topic = topics.items[event.id]
        topics.rename(topic, event.name)
        topic.settings = event.settings
        topic.options = event.options

    @_fold.register
    def _(self, event: events.TopicDeleted) -> None:
        self.streams.items[event.stream_id].topics.remove(event.id)
        self._revoke(event.stream_id, event.id)

    @_fold.register
    def _(self, event: events.TopicPurged) -> None:
        self._renew(self._topic(event.stream_id, event.id).partitions)

    @_fold.register
    def _(self, event: events.PartitionsCreated) -> None:
        self._extend(self._topic(event.stream_id, event.topic_id), event.count, event.created_at_us)

    @_fold.register
    def _(self, event: events.PartitionsDeleted) -> None:
        partitions = self._topic(event.stream_id, event.topic_id).partitions
        del partitions[len(partitions) - event.count :]

    @_fold.register
    def _(self, event: events.GroupCreated) -> None:
        self._topic(event.stream_id, event.topic_id).groups.add(Group(event.id, event.name))

    @_fold.register
    def _(self, event: events.GroupDeleted) -> None:
        self._topic(event.stream_id, event.topic_id).groups.remove(event.id)

    @_fold.register
    def _(self, event: events.UserCreated) -> None:
        user = User(event.id, event.username, event.password_hash, event.created_at_us, event.status, event.permissions)
        self.users.add(user)
        self._grants.pop(event.id, None)

    @_fold.register
    def _(self, event: events.UserUpdated) -> None:
        user = self.users.items[event.id]
        self.users.rename(user, event.username)
        user.status = event.status

    @_fold.register
    def _(self, event: events.UserDeleted) -> None:
        for token in self.users.remove(event.id).tokens.values():
            del self._tokens[token.digest]
        self._grants.pop(event.id, None)

    @_fold.register
    def _(self, event: events.PasswordChanged) -> None:
        self.users.items[event.id].password_hash = event.password_hash

    @_fold.register
    def _(self, event: events.PermissionsUpdated) -> None:
        self.users.items[event.id].permissions = event.permissions
        self._grants.pop(event.id, None)

    @_fold.register
    def _(self, event: events.TokenCreated) -> None:
        user = self.users.items[event.user_id]
        for token in [token for token in user.tokens.values() if token.is_expired(event.created_at_us)]:
            self._drop_token(user, token.name)
        token = user.tokens[event.name] = Token(event.name, event.digest, event.expires_at_us)
        self._tokens[token.digest] = user, token

    @_fold.register
    def _(self, event: events.TokenDeleted) -> None:
        self._drop_token(self.users.items[event.user_id], event.name)

    def _drop_token(self, user: User, name: str) -> None:
        del self._tokens[user.tokens.pop(name).digest]

    def _revoke(self, stream_id: int, topic_id: int | None = None) -> None:
        """Take away what users hold for a stream or topic that is gone: its id will be another's."""
        for user in self.users.items.values():
            if user.permissions:
                user.permissions = permissions.without(user.permissions, stream_id, topic_id)
        self._grants.clear()

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
