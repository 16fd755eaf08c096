"""Topics: create, look up, change, empty, delete."""

from ...protocol.errors import Refused, Status
from ...protocol.model import topics as model
from .. import events, topic_options
from ..logs import log_ids
from ..session import Session
from ..state import State
from .views import topic_details, topic_view

PARTITIONS_COUNT_MAX = 1000  # a request


async def get(state: State, _session: Session, command: model.GetTopic) -> model.TopicDetails | None:
    stream = state.catalog.streams.find(command.stream)
    topic = stream.topics.find(command.topic) if stream else None
    return topic_details(state, topic) if topic else None


async def get_all(state: State, _session: Session, command: model.GetTopics) -> model.Topics:
    stream = state.catalog.streams.find(command.stream)
    return model.Topics([topic_view(state, topic) for topic in stream.topics] if stream else [])


async def create(state: State, _session: Session, command: model.CreateTopic) -> model.TopicDetails:
    stream = state.catalog.stream(command.stream)
    if command.name in stream.topics.ids:
        raise Refused(Status.TOPIC_NAME_ALREADY_EXISTS, command.name)
    if command.partitions_count > PARTITIONS_COUNT_MAX:
        raise Refused(Status.TOO_MANY_PARTITIONS, f"{command.partitions_count}, at most {PARTITIONS_COUNT_MAX}")
    server = topic_options.defaults(state.config)
    settings = topic_options.resolve(command.options, server, server)
    created = stream.topics.next_id
    state.catalog.record(
        events.TopicCreated(
            stream_id=stream.id,
            id=created,
            name=command.name,
            partitions_count=command.partitions_count,
            settings=settings,
            options=command.options,
            created_at_us=state.clock(),
        )
    )
    topic = stream.topics.items[created]
    state.logs.open(topic)
    answer = topic_details(state, topic)
    await state.catalog.sync()
    return answer


async def update(state: State, _session: Session, command: model.UpdateTopic) -> None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    if stream.topics.ids.get(command.name, topic.id) != topic.id:
        raise Refused(Status.TOPIC_NAME_ALREADY_EXISTS, command.name)
    options = topic_options.updatable(command.options)
    settings = topic_options.resolve(options, topic.settings, topic_options.defaults(state.config))
    shown = topic_options.merged(topic.options, options)
    state.catalog.record(events.TopicUpdated(stream.id, topic.id, command.name, settings, shown))
    if not settings.message_deduplication:  # a window that misses a while would be no use later
        state.windows.drop((stream.id, topic.id))
    await state.catalog.sync()


async def delete(state: State, _session: Session, command: model.DeleteTopic) -> None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    gone = log_ids([topic])
    state.catalog.record(events.TopicDeleted(stream.id, topic.id))
    state.groups.drop(stream.id, topic.id)
    state.balanced.pop((stream.id, topic.id), None)
    state.counters.forget((stream.id, topic.id))
    state.arrivals.wake((stream.id, topic.id))
    state.windows.drop((stream.id, topic.id))
    await state.catalog.sync()
    await state.logs.drop(gone)


async def purge(state: State, _session: Session, command: model.PurgeTopic) -> None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    gone = log_ids([topic])
    state.catalog.record(events.TopicPurged(stream.id, topic.id))
    state.groups.purge(stream.id, topic.id)
    state.windows.drop((stream.id, topic.id))
    state.logs.open(topic)
    await state.catalog.sync()
    await state.logs.drop(gone)
