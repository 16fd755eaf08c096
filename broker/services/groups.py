"""Consumer groups: create, look up, join, leave, and what a member owns."""

from ...protocol.errors import Refused, Status
from ...protocol.model import groups as model
from .. import events
from ..catalog import Group, Topic
from ..groups import GroupKey
from ..logs import log_ids
from ..session import Session
from ..state import State
from .views import group_details, group_view


async def get(state: State, _session: Session, command: model.GetConsumerGroup) -> model.GroupDetails | None:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    group = topic.groups.find(command.group)
    return group_details(state, GroupKey(stream.id, topic.id, group.id), topic, group) if group else None


async def get_all(state: State, _session: Session, command: model.GetConsumerGroups) -> model.Groups:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    return model.Groups(
        [group_view(state, GroupKey(stream.id, topic.id, group.id), topic, group) for group in topic.groups]
    )


async def create(state: State, _session: Session, command: model.CreateConsumerGroup) -> model.GroupDetails:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    if command.name in topic.groups.ids:
        raise Refused(Status.CONSUMER_GROUP_NAME_ALREADY_EXISTS, command.name)
    created = topic.groups.next_id
    state.catalog.record(events.GroupCreated(stream.id, topic.id, created, command.name))
    answer = group_details(state, GroupKey(stream.id, topic.id, created), topic, topic.groups.items[created])
    await state.catalog.sync()
    return answer


async def delete(state: State, _session: Session, command: model.DeleteConsumerGroup) -> None:
    key, topic, group = _find(state, command)
    state.catalog.record(events.GroupDeleted(key.stream_id, key.topic_id, group.id))
    state.groups.drop(*key)
    state.arrivals.wake((key.stream_id, key.topic_id))
    state.offsets.drop_group(log_ids([topic]), group.id)
    await state.catalog.sync()


async def join(state: State, session: Session, command: model.JoinConsumerGroup) -> None:
    key, topic, _ = _find(state, command)
    state.groups.join(key, session.client_id, len(topic.partitions))


async def leave(state: State, session: Session, command: model.LeaveConsumerGroup) -> None:
    key, _, group = _find(state, command)
    if not state.groups.leave(key, session.client_id):
        raise Refused(Status.CONSUMER_GROUP_MEMBER_NOT_FOUND, f"group {group.name}")


async def sync(state: State, session: Session, command: model.SyncConsumerGroup) -> model.GroupAssignment | None:
    """Tell a member its partitions; None for a connection that is not one."""
    key, _, _ = _find(state, command)
    member = state.groups.member(key, session.client_id)
    if member is None:
        return None
    member.stale = False
    return model.GroupAssignment(state.groups.generation(key), member.partitions)


def _find(
    state: State,
    command: model.DeleteConsumerGroup | model.JoinConsumerGroup | model.LeaveConsumerGroup | model.SyncConsumerGroup,
) -> tuple[GroupKey, Topic, Group]:
    stream, topic = state.catalog.topic(command.stream, command.topic)
    group = topic.group(command.group)
    return GroupKey(stream.id, topic.id, group.id), topic, group
