"""The catalog: any valid commands against a plain model, and a replay that gives the same, snapshots or not."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Struct
from pybroker.broker import catalog as catalog_module
from pybroker.broker import events
from pybroker.broker.catalog import Catalog, Named, Slab
from pybroker.broker.topic_options import defaults
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.model.groups import CreateConsumerGroup, DeleteConsumerGroup
from pybroker.protocol.model.partitions import CreatePartitions, DeletePartitions
from pybroker.protocol.model.streams import CreateStream, DeleteStream, PurgeStream, UpdateStream
from pybroker.protocol.model.topics import CreateTopic, DeleteTopic, PurgeTopic, UpdateTopic
from pybroker.protocol.primitives import Permissions, StreamPermissions, TopicPermissions, UserStatus
from pybroker.storage.memory import MemoryJournal
from support.broker import Broker, text_option

NAMES = st.sampled_from(["a", "b", "c", "ü", "0"])
OPTIONS = st.sampled_from([(), (text_option("durability", "persisted"),), (text_option("message_expiry", "1 d"),)])


@dataclass
class Things:
    """Ids and names of one kind: the plain way to say that the last freed id comes back first."""

    by_id: dict[int, Any] = field(default_factory=dict[int, Any])
    freed: list[int] = field(default_factory=list[int])

    def add(self, thing: Any) -> int:
        identifier = self.freed.pop() if self.freed else len(self.by_id)
        assert identifier not in self.by_id
        self.by_id[identifier] = thing
        return identifier

    def remove(self, identifier: int) -> None:
        del self.by_id[identifier]
        self.freed.append(identifier)

    def named(self, name: str) -> bool:
        return any(thing.name == name for thing in self.by_id.values())


@dataclass
class Thing:
    """A stream (its topics below), a topic (its groups below) or a group."""

    name: str
    below: Things = field(default_factory=Things)
    partitions: int = 0


class CatalogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.broker = Broker()
        self.streams = Things()
        self.log_ids: set[int] = set()

    def teardown(self) -> None:
        self.loop.close()

    def ask(self, command: Struct) -> Any:
        return self.loop.run_until_complete(self.broker.ask(command))

    def pick(self, data: st.DataObject, depth: int) -> list[int]:
        """Draw the ids of a stream, and with depth 2 or 3 of a topic and a group in it; fewer where there are none."""
        path: list[int] = []
        things = self.streams
        while len(path) < depth and things.by_id:
            path.append(data.draw(st.sampled_from(sorted(things.by_id))))
            things = things.by_id[path[-1]].below
        return path

    def topic_at(self, path: list[int]) -> Thing:
        return self.streams.by_id[path[0]].below.by_id[path[1]]

    def seen(self, path: list[int]) -> list[int]:
        """Return the log ids of a topic."""
        topic = self.broker.state.catalog.topic(path[0], path[1])[1]
        return [partition.log_id for partition in topic.partitions]

    def fresh(self, log_ids: list[int]) -> None:
        """Check that log ids are new to this run."""
        assert self.log_ids.isdisjoint(log_ids)
        self.log_ids.update(log_ids)

    @rule(name=NAMES)
    def create_stream(self, name: str) -> None:
        if not self.streams.named(name):
            created = self.ask(CreateStream(name)).stream
            assert created.id == self.streams.add(Thing(name))

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data(), name=NAMES)
    def rename_stream(self, data: st.DataObject, name: str) -> None:
        (identifier,) = self.pick(data, 1)
        stream = self.streams.by_id[identifier]
        if stream.name == name or not self.streams.named(name):
            self.ask(UpdateStream(identifier, name))
            stream.name = name

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data())
    def delete_stream(self, data: st.DataObject) -> None:
        (identifier,) = self.pick(data, 1)
        self.ask(DeleteStream(identifier))
        self.streams.remove(identifier)

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data())
    def purge_stream(self, data: st.DataObject) -> None:
        (identifier,) = self.pick(data, 1)
        self.ask(PurgeStream(identifier))
        for topic_id in self.streams.by_id[identifier].below.by_id:
            self.fresh(self.seen([identifier, topic_id]))

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data(), name=NAMES, partitions=st.integers(0, 3), options=OPTIONS)
    def create_topic(self, data: st.DataObject, name: str, partitions: int, options: Any) -> None:
        (stream_id,) = self.pick(data, 1)
        topics = self.streams.by_id[stream_id].below
        if not topics.named(name):
            created = self.ask(CreateTopic(stream_id, partitions, name, options)).topic
            assert created.id == topics.add(Thing(name, partitions=partitions))
            self.fresh(self.seen([stream_id, created.id]))

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data(), name=NAMES)
    def update_topic(self, data: st.DataObject, name: str) -> None:
        path = self.pick(data, 2)
        if len(path) == 2:
            topic, topics = self.topic_at(path), self.streams.by_id[path[0]].below
            if topic.name == name or not topics.named(name):
                self.ask(UpdateTopic(path[0], path[1], name, (text_option("message_expiry", "2 d"),)))
                topic.name = name

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data())
    def delete_topic(self, data: st.DataObject) -> None:
        path = self.pick(data, 2)
        if len(path) == 2:
            self.ask(DeleteTopic(path[0], path[1]))
            self.streams.by_id[path[0]].below.remove(path[1])

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data())
    def purge_topic(self, data: st.DataObject) -> None:
        path = self.pick(data, 2)
        if len(path) == 2:
            self.ask(PurgeTopic(path[0], path[1]))
            self.fresh(self.seen(path))

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data(), count=st.integers(1, 3))
    def create_partitions(self, data: st.DataObject, count: int) -> None:
        path = self.pick(data, 2)
        if len(path) == 2:
            self.ask(CreatePartitions(path[0], path[1], count))
            self.topic_at(path).partitions += count
            self.fresh(self.seen(path)[-count:])

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data(), count=st.integers(1, 3))
    def delete_partitions(self, data: st.DataObject, count: int) -> None:
        path = self.pick(data, 2)
        if len(path) == 2 and count <= self.topic_at(path).partitions:
            self.ask(DeletePartitions(path[0], path[1], count))
            self.topic_at(path).partitions -= count

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data(), name=NAMES)
    def create_group(self, data: st.DataObject, name: str) -> None:
        path = self.pick(data, 2)
        if len(path) == 2 and not self.topic_at(path).below.named(name):
            created = self.ask(CreateConsumerGroup(path[0], path[1], name)).group
            assert created.id == self.topic_at(path).below.add(Thing(name))

    @precondition(lambda self: self.streams.by_id)
    @rule(data=st.data())
    def delete_group(self, data: st.DataObject) -> None:
        path = self.pick(data, 3)
        if len(path) == 3:
            self.ask(DeleteConsumerGroup(path[0], path[1], path[2]))
            self.topic_at(path).below.remove(path[2])

    @rule()
    def snapshot(self) -> None:
        with mock.patch.object(catalog_module, "EVENTS_BEFORE_SNAPSHOT", 0):
            self.loop.run_until_complete(self.broker.state.catalog.sync())
        assert self.broker.engine.journal.event_count == 0

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.broker.restart())

    @invariant()
    def catalog_is_as_the_model(self) -> None:
        assert shape(self.broker.state.catalog) == {
            (stream.name, stream_id): {
                (topic.name, topic_id): (
                    list(range(topic.partitions)),
                    {(group.name, group_id) for group_id, group in topic.below.by_id.items()},
                )
                for topic_id, topic in stream.below.by_id.items()
            }
            for stream_id, stream in self.streams.by_id.items()
        }

    @invariant()
    def replay_gives_an_equal_catalog(self) -> None:
        replayed = Catalog(self.broker.engine.journal)
        assert replayed._state == self.broker.state.catalog._state

    @invariant()
    def log_ids_are_given_once(self) -> None:
        held = [partition.log_id for topic in self.broker.state.catalog.topics() for partition in topic.partitions]
        assert len(held) == len(set(held))


def shape(catalog: Catalog) -> dict[tuple[str, int], Any]:
    """Return names and ids, found by iteration; and check that each is found by both."""
    found: dict[tuple[str, int], Any] = {}
    for stream in catalog.streams:
        assert catalog.stream(stream.name) is catalog.stream(stream.id) is stream
        topics: dict[tuple[str, int], Any] = {}
        for topic in stream.topics:
            assert stream.topic(topic.name) is stream.topic(topic.id) is topic
            groups = {(group.name, group.id) for group in topic.groups}
            topics[topic.name, topic.id] = ([partition.id for partition in topic.partitions], groups)
        found[stream.name, stream.id] = topics
    return found


TestCatalogMachine = CatalogMachine.TestCase
TestCatalogMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True)


def test_ids_are_the_lowest_first_and_the_last_freed_before_them() -> None:
    slab: Slab[Named] = Slab()
    for name in "abcd":
        slab.add(Named(slab.next_id, name))
    for identifier in (0, 2, 1):
        slab.remove(identifier)
    assert [slab.free, slab.next_id, len(slab)] == [[0, 2, 1], 1, 1]
    slab.add(Named(1, "e"))
    assert [item.id for item in slab] == [1, 3]
    assert slab.next_id == 2


def test_renamed_thing_is_found_by_its_new_name_only() -> None:
    slab: Slab[Named] = Slab()
    item = Named(0, "old")
    slab.add(item)
    slab.rename(item, "new")
    assert (slab.find("old"), slab.find("new"), slab.find(0)) == (None, item, item)


def test_slabs_do_not_share_their_things() -> None:
    first: Slab[Named] = Slab()
    second: Slab[Named] = Slab()
    first.add(Named(0, "a"))
    assert len(second) == 0


LOOKUPS: list[tuple[Callable[[Catalog], object], Status]] = [
    (lambda catalog: catalog.stream("x"), Status.STREAM_ID_NOT_FOUND),
    (lambda catalog: catalog.stream(1), Status.STREAM_ID_NOT_FOUND),
    (lambda catalog: catalog.topic("x", "t"), Status.STREAM_ID_NOT_FOUND),
    (lambda catalog: catalog.topic("s", 1), Status.TOPIC_ID_NOT_FOUND),
    (lambda catalog: catalog.topic("s", "t")[1].partition(2), Status.PARTITION_NOT_FOUND),
    (lambda catalog: catalog.topic("s", "t")[1].group(0), Status.CONSUMER_GROUP_ID_NOT_FOUND),
]


@pytest.mark.parametrize(("look", "status"), LOOKUPS)
async def test_what_is_missing_is_told_with_iggys_status(look: Callable[[Catalog], object], status: Status) -> None:
    broker = Broker()
    await broker.create_topic(2)
    with pytest.raises(Refused) as caught:
        look(broker.state.catalog)
    assert caught.value.status is status


async def test_journal_is_folded_after_enough_events() -> None:
    journal = MemoryJournal()
    catalog = Catalog(journal)
    for number in range(catalog_module.EVENTS_BEFORE_SNAPSHOT):
        catalog.record(events.StreamCreated(number, str(number), 1))
        if number < catalog_module.EVENTS_BEFORE_SNAPSHOT - 1:
            continue
        assert journal.load()[0] is None
        await catalog.sync()
    assert (journal.event_count, journal.load()[1]) == (0, [])
    assert Catalog(journal)._state == catalog._state


async def test_event_is_written_before_it_is_applied() -> None:
    class FailingJournal(MemoryJournal):
        def append(self, event: bytes) -> None:
            raise OSError(28, "no space")

    catalog = Catalog(FailingJournal())
    with pytest.raises(OSError, match="no space"):
        catalog.record(events.StreamCreated(0, "s", 1))
    assert len(catalog.streams) == 0


SETTINGS = defaults(Broker().config)
HELD = Permissions(read_streams=True, streams={3: StreamPermissions(topics={4: TopicPermissions(True)})})
STORED = [False] * 5 + [True] + [False] * 4 + [{3: [False] * 6 + [{4: [True, False, False, False]}]}]
EVENTS = [
    (events.StreamCreated(1, "s", 2), ["StreamCreated", 1, "s", 2]),
    (events.StreamRenamed(1, "s"), ["StreamRenamed", 1, "s"]),
    (events.StreamDeleted(1), ["StreamDeleted", 1]),
    (events.StreamPurged(1), ["StreamPurged", 1]),
    (events.TopicDeleted(1, 2), ["TopicDeleted", 1, 2]),
    (events.TopicPurged(1, 2), ["TopicPurged", 1, 2]),
    (events.PartitionsCreated(1, 2, 3, 4), ["PartitionsCreated", 1, 2, 3, 4]),
    (events.PartitionsDeleted(1, 2, 3), ["PartitionsDeleted", 1, 2, 3]),
    (events.GroupCreated(1, 2, 3, "g"), ["GroupCreated", 1, 2, 3, "g"]),
    (events.GroupDeleted(1, 2, 3), ["GroupDeleted", 1, 2, 3]),
    (events.UserCreated(1, "u", "hash", 2), ["UserCreated", 1, "u", "hash", 2, 1, None]),
    (events.UserCreated(1, "u", "hash", 2, UserStatus.INACTIVE, HELD), ["UserCreated", 1, "u", "hash", 2, 2, STORED]),
    (events.UserUpdated(1, "u", UserStatus.ACTIVE), ["UserUpdated", 1, "u", 1]),
    (events.UserDeleted(1), ["UserDeleted", 1]),
    (events.PasswordChanged(1, "hash"), ["PasswordChanged", 1, "hash"]),
    (events.PermissionsUpdated(1, HELD), ["PermissionsUpdated", 1, STORED]),
    (events.PermissionsUpdated(1, None), ["PermissionsUpdated", 1, None]),
    (events.TokenCreated(1, "tok", b"digest", 3, 2), ["TokenCreated", 1, "tok", b"digest", 3, 2]),
    (events.TokenDeleted(1, "tok"), ["TokenDeleted", 1, "tok"]),
]


@pytest.mark.parametrize(("event", "stored"), EVENTS, ids=lambda value: type(value).__name__)
def test_event_is_stored_as_an_array_with_its_tag_first(event: events.AnyEvent, stored: list[object]) -> None:
    assert msgspec.msgpack.decode(events.encode(event)) == stored
    assert events.decode(events.encode(event)) == event


@pytest.mark.parametrize(
    "event",
    [
        events.TopicCreated(1, 2, "t", 3, SETTINGS, (text_option("durability", "persisted"),), 4),
        events.TopicUpdated(1, 2, "t", SETTINGS, ()),
    ],
    ids=lambda event: type(event).__name__,
)
def test_topic_events_read_back_as_they_were(event: events.AnyEvent) -> None:
    assert events.decode(events.encode(event)) == event


def without_rights(snapshot: bytes) -> bytes:
    """Return a snapshot as it was written when there was no status, permissions and tokens."""
    state = msgspec.msgpack.decode(snapshot)
    for user in state["users"]["items"].values():
        for name in ("status", "permissions", "tokens"):
            del user[name]
    return msgspec.msgpack.encode(state)


@pytest.mark.parametrize("folded", [False, True])
async def test_users_of_older_releases_are_active_and_hold_nothing(folded: bool) -> None:
    journal = MemoryJournal()
    journal.append(msgspec.msgpack.encode(["UserCreated", 0, "iggy", "hash", 2]))
    if folded:
        journal.snapshot(without_rights(msgspec.msgpack.encode(Catalog(journal)._state)))
    user = Catalog(journal).user("iggy")
    assert user == catalog_module.User(0, "iggy", "hash", 2, UserStatus.ACTIVE, None, {})


USER_EVENTS: list[events.AnyEvent] = [
    events.StreamCreated(3, "s", 1),
    events.TopicCreated(3, 4, "t", 1, SETTINGS, (), 1),
    events.UserCreated(0, "iggy", "hash", 2),
    events.UserCreated(1, "bob", "hash", 2, UserStatus.INACTIVE, HELD),
    events.TokenCreated(0, "tok", b"first", 30, 20),
    events.TokenCreated(0, "for-ever", b"second", 0, 21),
    events.TokenCreated(1, "tok", b"third", 30, 22),
    events.PasswordChanged(1, "other hash"),
    events.UserUpdated(1, "robert", UserStatus.ACTIVE),
    events.PermissionsUpdated(0, HELD),
    events.TokenCreated(0, "later", b"fourth", 0, 30),
    events.TopicDeleted(3, 4),
    events.TokenDeleted(0, "later"),
    events.StreamDeleted(3),
    events.UserDeleted(1),
    events.UserCreated(1, "carol", "hash", 40),
]


@pytest.mark.parametrize("folded_at", range(len(USER_EVENTS) + 1))
def test_users_and_tokens_are_the_same_after_a_replay_and_after_a_snapshot(folded_at: int) -> None:
    journal = MemoryJournal()
    catalog = Catalog(journal)
    for event in USER_EVENTS[:folded_at]:
        catalog.record(event)
    journal.snapshot(msgspec.msgpack.encode(catalog._state))
    again = Catalog(journal)
    for event in USER_EVENTS[folded_at:]:
        catalog.apply(event)
        again.record(event)
    replayed = Catalog(journal)
    assert again._state == replayed._state == catalog._state
    for digest in (b"first", b"second", b"third", b"fourth"):
        found = replayed.token(digest)
        assert found == again.token(digest) == catalog.token(digest)
        assert (found is not None) == (digest == b"second")


def test_token_that_is_looked_up_is_its_users(broker: Broker) -> None:
    catalog = broker.state.catalog
    catalog.record(events.TokenCreated(1, "tok", b"digest", 0, 1))
    found = catalog.token(b"digest")
    assert found is not None
    assert found[0] is catalog.user("bob")
    assert found[1] is catalog.user("bob").tokens["tok"]
    assert catalog.token(b"another") is None
