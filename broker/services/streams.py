"""Streams: create, look up, rename, empty, delete."""

from ...protocol.errors import Refused, Status
from ...protocol.model import streams as model
from .. import events
from ..logs import log_ids
from ..session import Session
from ..state import State
from ..topic_options import refuse_any
from .views import stream_details, stream_view


async def get(state: State, _session: Session, command: model.GetStream) -> model.StreamDetails | None:
    stream = state.catalog.streams.find(command.stream)
    return stream_details(state, stream) if stream else None


async def get_all(state: State, _session: Session, _command: model.GetStreams) -> model.Streams:
    return model.Streams([stream_view(state, stream) for stream in state.catalog.streams])


async def create(state: State, _session: Session, command: model.CreateStream) -> model.StreamDetails:
    refuse_any(command.options)
    streams = state.catalog.streams
    if command.name in streams.ids:
        raise Refused(Status.STREAM_NAME_ALREADY_EXISTS, command.name)
    created = streams.next_id
    state.catalog.record(events.StreamCreated(created, command.name, state.clock()))
    answer = stream_details(state, streams.items[created])
    await state.catalog.sync()
    return answer


async def update(state: State, _session: Session, command: model.UpdateStream) -> None:
    refuse_any(command.options)
    stream = state.catalog.stream(command.stream)
    if state.catalog.streams.ids.get(command.name, stream.id) != stream.id:
        raise Refused(Status.STREAM_NAME_ALREADY_EXISTS, command.name)
    state.catalog.record(events.StreamRenamed(stream.id, command.name))
    await state.catalog.sync()


async def delete(state: State, _session: Session, command: model.DeleteStream) -> None:
    stream = state.catalog.stream(command.stream)
    gone = log_ids(stream.topics)
    state.catalog.record(events.StreamDeleted(stream.id))
    state.groups.drop(stream.id)
    for topic in stream.topics:
        state.balanced.pop((stream.id, topic.id), None)
        state.counters.forget((stream.id, topic.id))
        state.arrivals.wake((stream.id, topic.id))
        state.windows.drop((stream.id, topic.id))
    await state.catalog.sync()
    await state.logs.drop(gone)


async def purge(state: State, _session: Session, command: model.PurgeStream) -> None:
    stream = state.catalog.stream(command.stream)
    gone = log_ids(stream.topics)
    state.catalog.record(events.StreamPurged(stream.id))
    for topic in stream.topics:
        state.groups.purge(stream.id, topic.id)
        state.windows.drop((stream.id, topic.id))
        state.logs.open(topic)
    await state.catalog.sync()
    await state.logs.drop(gone)
