"""From replies to the shapes of their JSON: one function for each reply of `REPLIES`."""

from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from msgspec import Struct, structs

from ....protocol.batch import BadBatch
from ....protocol.errors import Refused
from ....protocol.model import groups, messages, offsets, partitions, streams, system, tokens, topics, users
from ....protocol.primitives import U32_MAX, Options, Permissions, StreamPermissions, Transport, ValueKind
from ....protocol.unpacked import HeaderField, StoredMessage, unpack, unpack_headers
from ...units import show_size
from . import shapes

S = TypeVar("S", bound=Struct)

_TRANSPORTS = {
    Transport.TCP: "TCP",
    Transport.QUIC: "QUIC",
    Transport.HTTP: "HTTP",
    Transport.WEBSOCKET: "WebSocket",
}
_KIND_NAMES: dict[ValueKind, shapes.Kind] = {kind: name for name, kind in shapes.VALUE_KINDS.items()}
_ROLES = ("leader", "follower")
_NODE_STATUSES = ("healthy", "starting", "stopping", "unreachable", "maintenance")


def _more(shape: Struct, kind: type[S], **fields: object) -> S:
    """Return a shape as one of a kind that has fields besides."""
    return kind(**structs.asdict(shape), **fields)


def _stream(stream: streams.Stream) -> shapes.Stream:
    return shapes.Stream(
        id=stream.id,
        created_at=stream.created_at_us,
        name=stream.name,
        size=show_size(stream.size),
        messages_count=stream.messages_count,
        topics_count=stream.topics_count,
        options=_options(stream.options),
    )


def _streams(reply: streams.Streams) -> list[shapes.Stream]:
    return [_stream(stream) for stream in reply.streams]


def _stream_details(details: streams.StreamDetails) -> shapes.StreamDetails:
    return _more(_stream(details.stream), shapes.StreamDetails, topics=[_topic(topic) for topic in details.topics])


def _topic(topic: topics.Topic) -> shapes.Topic:
    return shapes.Topic(
        id=topic.id,
        created_at=topic.created_at_us,
        name=topic.name,
        size=show_size(topic.size),
        message_expiry=topic.message_expiry_us,
        compression_algorithm=topic.compression.name.lower(),
        max_topic_size=topic.max_topic_size,
        replication_factor=topic.replication_factor,
        messages_count=topic.messages_count,
        partitions_count=topic.partitions_count,
        options=_options(topic.options) | _options(topic.derived, explicit=False),
    )


def _topics(reply: topics.Topics) -> list[shapes.Topic]:
    return [_topic(topic) for topic in reply.topics]


def _topic_details(details: topics.TopicDetails) -> shapes.TopicDetails:
    held = [_partition(partition) for partition in details.partitions]
    return _more(_topic(details.topic), shapes.TopicDetails, partitions=held)


def _partition(partition: partitions.Partition) -> shapes.Partition:
    return shapes.Partition(
        id=partition.id,
        created_at=partition.created_at_us,
        segments_count=partition.segments_count,
        current_offset=partition.current_offset,
        size=show_size(partition.size),
        messages_count=partition.messages_count,
    )


def _options(options: Options, *, explicit: bool = True) -> dict[str, shapes.Option]:
    """explicit: a client asked for them."""
    return {option.key: shapes.Option(_text(option.kind, option.value), explicit) for option in options}


def _text(kind: ValueKind, value: bytes) -> str:
    if kind is ValueKind.STRING:
        return value.decode(errors="replace")
    number = int.from_bytes(value, "little")
    return str(number) if kind is not ValueKind.BOOL else str(bool(number)).lower()


def _group(group: groups.Group) -> shapes.ConsumerGroup:
    return shapes.ConsumerGroup(group.id, group.name, group.partitions_count, group.members_count)


def _groups(reply: groups.Groups) -> list[shapes.ConsumerGroup]:
    return [_group(group) for group in reply.groups]


def _group_details(details: groups.GroupDetails) -> shapes.ConsumerGroupDetails:
    members = [
        shapes.ConsumerGroupMember(member.id, len(member.partitions), member.partitions) for member in details.members
    ]
    return _more(_group(details.group), shapes.ConsumerGroupDetails, members=members)


def _user(user: users.User) -> shapes.User:
    return shapes.User(user.id, user.created_at_us, user.status.name.lower(), user.username, _options(user.options))


def _users(reply: users.Users) -> list[shapes.User]:
    return [_user(user) for user in reply.users]


def _user_details(details: users.UserDetails) -> shapes.UserDetails:
    granted = details.permissions
    return _more(_user(details.user), shapes.UserDetails, permissions=_permissions(granted) if granted else None)


def _permissions(granted: Permissions) -> shapes.Permissions:
    everywhere = structs.asdict(granted)
    by_stream = everywhere.pop("streams")
    in_streams = {id_: _in_stream(of) for id_, of in by_stream.items()}
    return shapes.Permissions(shapes.GlobalPermissions(**everywhere), in_streams or None)


def _in_stream(granted: StreamPermissions) -> shapes.StreamPermissions:
    flags = structs.asdict(granted)
    by_topic = flags.pop("topics")
    in_topics = {id_: shapes.TopicPermissions(**structs.asdict(of)) for id_, of in by_topic.items()}
    return shapes.StreamPermissions(**flags, topics=in_topics or None)


def _tokens(reply: tokens.Tokens) -> list[shapes.Token]:
    return [shapes.Token(token.name, token.expires_at_us or None) for token in reply.tokens]


def _raw_token(reply: tokens.RawToken) -> shapes.RawToken:
    return shapes.RawToken(reply.token)


def _client(client: system.Client) -> shapes.Client:
    return shapes.Client(
        client_id=client.client_id,
        user_id=client.user_id if client.user_id != U32_MAX else None,
        address=client.address,
        transport=_TRANSPORTS[client.transport],
        consumer_groups_count=client.groups_count,
    )


def _clients(reply: system.Clients) -> list[shapes.Client]:
    return [_client(client) for client in reply.clients]


def _client_details(details: system.ClientDetails) -> shapes.ClientDetails:
    joined = [shapes.ClientGroup(group.stream_id, group.topic_id, group.group_id) for group in details.groups]
    return _more(_client(details.client), shapes.ClientDetails, consumer_groups=joined)


def _stats(stats: system.Stats) -> shapes.Stats:
    return shapes.Stats(
        process_id=stats.process_id,
        cpu_usage=stats.cpu_usage,
        total_cpu_usage=stats.total_cpu_usage,
        memory_usage=show_size(stats.memory_usage),
        total_memory=show_size(stats.total_memory),
        available_memory=show_size(stats.available_memory),
        run_time=stats.run_time_us,
        start_time=stats.started_at_us,
        read_bytes=show_size(stats.read_bytes),
        written_bytes=show_size(stats.written_bytes),
        messages_size_bytes=show_size(stats.messages_size),
        streams_count=stats.streams_count,
        topics_count=stats.topics_count,
        partitions_count=stats.partitions_count,
        segments_count=stats.segments_count,
        messages_count=stats.messages_count,
        clients_count=stats.clients_count,
        consumer_groups_count=stats.groups_count,
        hostname=stats.hostname,
        os_name=stats.os_name,
        os_version=stats.os_version,
        kernel_version=stats.kernel_version,
        iggy_server_version=stats.server_version,
        iggy_server_semver=stats.semver,
        cache_metrics={},
        threads_count=stats.threads_count,
        free_disk_space=show_size(stats.free_disk),
        total_disk_space=show_size(stats.total_disk),
    )


def _cluster(metadata: system.ClusterMetadata) -> shapes.Cluster:
    nodes = [
        shapes.Node(
            name=node.name,
            ip=node.ip,
            endpoints=shapes.Endpoints(node.tcp_port, node.quic_port, node.http_port, node.websocket_port),
            role=_ROLES[node.role],
            status=_NODE_STATUSES[node.status],
        )
        for node in metadata.nodes
    ]
    return shapes.Cluster(metadata.name, nodes)


def _specs(reply: system.OptionSpecs) -> list[shapes.OptionSpec]:
    return [
        shapes.OptionSpec(spec.key, _KIND_NAMES[spec.kind], list(spec.default), spec.description)
        for spec in reply.specs
    ]


def polled(reply: messages.Polled) -> shapes.Polled:
    try:
        found = unpack(reply.records)
    except BadBatch as error:
        raise Refused(error.status, str(error)) from error
    shown = [_message(message) for message in found]
    return shapes.Polled(reply.partition_id, reply.current_offset, len(shown), shown)


def _message(message: StoredMessage) -> shapes.Message:
    # By position: with 1000 messages in a poll, names would cost a tenth of it.
    header = shapes.MessageHeader(
        message.checksum,
        int.from_bytes(message.ident, "little"),
        message.offset,
        message.timestamp_us,
        message.origin_timestamp_us,
        len(message.user_headers),
        len(message.payload),
        0,
    )
    return shapes.Message(header, message.payload, _headers(message.user_headers))


def _headers(data: bytes) -> list[shapes.HeaderEntry] | bytes:
    if not data:
        return []
    entries = unpack_headers(data)
    if entries is None:
        return data
    return [shapes.HeaderEntry(_field(entry.key), _field(entry.value)) for entry in entries]


def _field(field: HeaderField) -> shapes.HeaderField:
    return shapes.HeaderField(_KIND_NAMES[field.kind], field.value)


def _sent(reply: messages.Sent) -> shapes.Sent:
    return shapes.Sent([shapes.Confirmation(reply.stream_id, reply.topic_id, reply.partition_id, reply.base_offset)])


def _offset(reply: offsets.ConsumerOffset) -> shapes.ConsumerOffset:
    return shapes.ConsumerOffset(reply.partition_id, reply.current_offset, reply.stored_offset)


REPLIES: dict[type[Struct], Callable[[Any], Struct | list[Any]]] = {
    system.Stats: _stats,
    system.ClusterMetadata: _cluster,
    system.OptionSpecs: _specs,
    system.ClientDetails: _client_details,
    system.Clients: _clients,
    users.UserDetails: _user_details,
    users.Users: _users,
    tokens.Tokens: _tokens,
    tokens.RawToken: _raw_token,
    messages.Polled: polled,
    messages.Sent: _sent,
    offsets.ConsumerOffset: _offset,
    streams.StreamDetails: _stream_details,
    streams.Streams: _streams,
    topics.TopicDetails: _topic_details,
    topics.Topics: _topics,
    groups.GroupDetails: _group_details,
    groups.Groups: _groups,
}


def shape_of(reply: type[Struct]) -> Any:
    """Return the type of a reply's JSON: what its function returns."""
    return get_type_hints(REPLIES[reply])["return"]
