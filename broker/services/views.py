"""How the catalog's things look to clients: names, ids and what their logs hold."""

from ...protocol.model import groups, partitions, streams, system, topics, users
from ...protocol.primitives import U32_MAX
from ...storage.engine import Bounds
from ..catalog import Group, Partition, Stream, Topic, User
from ..groups import GroupKey
from ..permissions import ROOT, ROOT_ID
from ..session import Session
from ..state import State
from ..topic_options import derived


def bounds_of(state: State, topic: Topic) -> list[Bounds]:
    return [state.logs.of(partition).bounds for partition in topic.partitions]


def current_offset(bounds: Bounds) -> int:
    """Return the last offset given out; 0 also when there is none, as Iggy has it."""
    return max(bounds.next - 1, 0)


def segments_of(bounds: Bounds) -> int:
    """Return how many segments a partition shows: always one to append to."""
    return max(bounds.segments, 1)


def stream_view(state: State, stream: Stream) -> streams.Stream:
    held = [bounds for topic in stream.topics for bounds in bounds_of(state, topic)]
    return streams.Stream(
        id=stream.id,
        created_at_us=stream.created_at_us,
        topics_count=len(stream.topics),
        size=sum(bounds.size for bounds in held),
        messages_count=sum(bounds.messages for bounds in held),
        name=stream.name,
    )


def stream_details(state: State, stream: Stream) -> streams.StreamDetails:
    return streams.StreamDetails(stream_view(state, stream), [topic_view(state, topic) for topic in stream.topics])


def topic_view(state: State, topic: Topic) -> topics.Topic:
    held = bounds_of(state, topic)
    return topics.Topic(
        id=topic.id,
        created_at_us=topic.created_at_us,
        partitions_count=len(topic.partitions),
        message_expiry_us=topic.settings.message_expiry_us,
        compression=topic.settings.compression,
        max_topic_size=topic.settings.max_topic_size,
        size=sum(bounds.size for bounds in held),
        messages_count=sum(bounds.messages for bounds in held),
        name=topic.name,
        options=topic.options,
        derived=derived(topic.settings, topic.options),
    )


def topic_details(state: State, topic: Topic) -> topics.TopicDetails:
    return topics.TopicDetails(
        topic_view(state, topic), [partition_view(state, partition) for partition in topic.partitions]
    )


def partition_view(state: State, partition: Partition) -> partitions.Partition:
    bounds = state.logs.of(partition).bounds
    return partitions.Partition(
        id=partition.id,
        created_at_us=partition.created_at_us,
        segments_count=segments_of(bounds),
        current_offset=current_offset(bounds),
        size=bounds.size,
        messages_count=bounds.messages,
    )


def group_view(state: State, key: GroupKey, topic: Topic, group: Group) -> groups.Group:
    return groups.Group(group.id, len(topic.partitions), len(state.groups.members(key)), group.name)


def group_details(state: State, key: GroupKey, topic: Topic, group: Group) -> groups.GroupDetails:
    members = [groups.GroupMember(member.id, member.owned) for member in state.groups.members(key)]
    return groups.GroupDetails(group_view(state, key, topic, group), members)


def node_view(state: State) -> system.ClusterNode:
    """Return this server as the one node of a cluster."""
    ports = state.ports
    return system.ClusterNode(
        name="pybroker",
        ip="127.0.0.1",
        tcp_port=ports.get("tcp", 0),
        quic_port=ports.get("quic", 0),
        http_port=ports.get("http", 0),
        websocket_port=ports.get("websocket", 0),
    )


def user_view(user: User) -> users.User:
    return users.User(user.id, user.created_at_us, user.status, user.name)


def user_details(user: User) -> users.UserDetails:
    return users.UserDetails(user_view(user), ROOT if user.id == ROOT_ID else user.permissions)


def client_view(state: State, session: Session) -> system.Client:
    return system.Client(
        client_id=session.client_id,
        user_id=session.user_id if session.signed_in else U32_MAX,
        transport=session.transport,
        address=session.address,
        groups_count=len(state.groups.joined(session.client_id)),
    )


def client_details(state: State, session: Session) -> system.ClientDetails:
    references = [system.GroupReference(*key) for key in state.groups.joined(session.client_id)]
    return system.ClientDetails(client_view(state, session), references)
