"""What clients do to the catalog and to consumer offsets, in the order in which the services do it."""

from collections.abc import Callable, Sequence

import msgspec
from pybroker.broker import events, topic_options
from pybroker.broker.catalog import Stream, Topic
from pybroker.broker.config import Config
from pybroker.broker.logs import log_ids
from pybroker.protocol.primitives import ConsumerKind

from .world import ROOT, World

SEGMENT_SIZES = (400, 1500, 6000, 1 << 30)
STREAMS_MAX = 3
TOPICS_MAX = 3
PARTITIONS_MAX = 3
CONSUMERS_COUNT = 3

_DEFAULTS = topic_options.defaults(Config())


async def _change(
    world: World, event: events.AnyEvent, *, begun: Callable[[], list[Topic]] = list, gone: Sequence[int] = ()
) -> None:
    """Record a change, open the logs it begins, sync, drop those it ends: as a service does."""
    life = world.life
    with world.refusals(ROOT):
        life.catalog.record(event)
        world.say(f"    {event}")
        world.add_ledgers()
        for topic in begun():
            life.logs.open(topic)
        await life.catalog.sync()
        world.tally.counts["changes of the catalog acknowledged"] += 1
        for log_id in gone:
            world.ledgers.pop(log_id, None)
        await life.logs.drop(gone)


def _pick_topic(world: World) -> tuple[Stream, Topic] | None:
    pairs = [(stream, topic) for stream in world.life.catalog.streams for topic in stream.topics]
    return world.rng.choice(pairs) if pairs else None


def create_stream(world: World) -> None:
    streams = world.life.catalog.streams
    if len(streams) < STREAMS_MAX:
        world.spawn(_change(world, events.StreamCreated(streams.next_id, world.new_name(), world.clock())))


def rename_stream(world: World) -> None:
    if streams := list(world.life.catalog.streams):
        world.spawn(_change(world, events.StreamRenamed(world.rng.choice(streams).id, world.new_name())))


def delete_stream(world: World) -> None:
    if streams := list(world.life.catalog.streams):
        stream = world.rng.choice(streams)
        world.spawn(_change(world, events.StreamDeleted(stream.id), gone=log_ids(stream.topics)))


def purge_stream(world: World) -> None:
    if streams := list(world.life.catalog.streams):
        stream = world.rng.choice(streams)
        event = events.StreamPurged(stream.id)
        world.spawn(_change(world, event, begun=lambda: list(stream.topics), gone=log_ids(stream.topics)))


def _settings(world: World) -> events.TopicSettings:
    return msgspec.structs.replace(
        _DEFAULTS, segment_size=world.rng.choice(SEGMENT_SIZES), persisted=world.rng.random() < 0.5
    )


def create_topic(world: World) -> None:
    streams = [stream for stream in world.life.catalog.streams if len(stream.topics) < TOPICS_MAX]
    if not streams:
        return
    stream = world.rng.choice(streams)
    event = events.TopicCreated(
        stream_id=stream.id,
        id=stream.topics.next_id,
        name=world.new_name(),
        partitions_count=world.rng.randint(1, 2),
        settings=_settings(world),
        options=(),
        created_at_us=world.clock(),
    )
    world.spawn(_change(world, event, begun=lambda: [stream.topics.items[event.id]]))


def update_topic(world: World) -> None:
    if picked := _pick_topic(world):
        stream, topic = picked
        settings = msgspec.structs.replace(_settings(world), persisted=topic.settings.persisted)
        event = events.TopicUpdated(stream.id, topic.id, topic.name, settings, ())
        world.spawn(_change(world, event))


def delete_topic(world: World) -> None:
    if picked := _pick_topic(world):
        stream, topic = picked
        world.spawn(_change(world, events.TopicDeleted(stream.id, topic.id), gone=log_ids([topic])))


def purge_topic(world: World) -> None:
    if picked := _pick_topic(world):
        stream, topic = picked
        world.spawn(
            _change(world, events.TopicPurged(stream.id, topic.id), begun=lambda: [topic], gone=log_ids([topic]))
        )


def create_partitions(world: World) -> None:
    if picked := _pick_topic(world):
        stream, topic = picked
        if len(topic.partitions) < PARTITIONS_MAX:
            event = events.PartitionsCreated(stream.id, topic.id, 1, world.clock())
            world.spawn(_change(world, event, begun=lambda: [topic]))


def delete_partitions(world: World) -> None:
    if picked := _pick_topic(world):
        stream, topic = picked
        if len(topic.partitions) > 1:
            event = events.PartitionsDeleted(stream.id, topic.id, 1)
            world.spawn(_change(world, event, gone=[topic.partitions[-1].log_id]))


def create_group(world: World) -> None:
    if picked := _pick_topic(world):
        stream, topic = picked
        event = events.GroupCreated(stream.id, topic.id, topic.groups.next_id, world.new_name())
        world.spawn(_change(world, event))


def delete_group(world: World) -> None:
    if (picked := _pick_topic(world)) and len(picked[1].groups):
        stream, topic = picked
        group = world.rng.choice(list(topic.groups))
        world.spawn(_delete_group(world, events.GroupDeleted(stream.id, topic.id, group.id), log_ids([topic])))


async def _delete_group(world: World, event: events.GroupDeleted, ids: list[int]) -> None:
    await _change(world, event)
    with world.refusals(ROOT):
        world.life.offsets.drop_group(ids, event.id)


def snapshot(world: World) -> None:
    """Fold the journal now, whatever its length."""
    with world.refusals(ROOT):
        world.life.journal.snapshot(msgspec.msgpack.encode(world.life.catalog._state))


def sync_journals(world: World) -> None:
    world.spawn(_sync(world))


async def _sync(world: World) -> None:
    for sync in (world.life.journal.sync, world.life.table.sync):
        with world.refusals(ROOT):
            await sync()


def store_offset(world: World) -> None:
    world.spawn(_store(world, world.rng.random() < 0.4))


async def _store(world: World, persisted: bool) -> None:
    log_id, kind, consumer = _consumer(world)
    offsets = world.life.offsets
    value = world.rng.randrange(100)
    with world.refusals(ROOT):
        offsets.store(log_id, kind, consumer, value)
        if persisted:
            await offsets.sync()
        world.tally.counts["offsets stored"] += 1


def delete_offset(world: World) -> None:
    world.spawn(_delete(world, world.rng.random() < 0.4))


async def _delete(world: World, persisted: bool) -> None:
    log_id, kind, consumer = _consumer(world)
    with world.refusals(ROOT):
        world.life.offsets.delete(log_id, kind, consumer)
        if persisted:
            await world.life.offsets.sync()


def _consumer(world: World) -> tuple[int, ConsumerKind, int]:
    ids = world.open_ids() or [0]
    kind = world.rng.choice((ConsumerKind.SINGLE, ConsumerKind.GROUP))
    return world.rng.choice(ids), kind, world.rng.randrange(CONSUMERS_COUNT)


CATALOG_ACTIONS: dict[str, tuple[int, Callable[[World], None]]] = {
    "create a stream": (3, create_stream),
    "rename a stream": (1, rename_stream),
    "delete a stream": (1, delete_stream),
    "purge a stream": (1, purge_stream),
    "create a topic": (6, create_topic),
    "update a topic": (1, update_topic),
    "delete a topic": (1, delete_topic),
    "purge a topic": (1, purge_topic),
    "create partitions": (2, create_partitions),
    "delete partitions": (1, delete_partitions),
    "create a group": (1, create_group),
    "delete a group": (1, delete_group),
    "snapshot": (1, snapshot),
    "sync the journals": (2, sync_journals),
    "store an offset": (8, store_offset),
    "delete an offset": (2, delete_offset),
}
