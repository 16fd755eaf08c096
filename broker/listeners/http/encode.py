"""What replies look like in JSON: one function for each reply of `REPLIES`, in the shapes of both generations of Iggy.

Timestamps and durations are microseconds, sizes text ("1.5 KiB"), ids of messages numbers of up to 128 bits.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from ....protocol.batch import BadBatch
from ....protocol.errors import Refused
from ....protocol.model import groups, messages, offsets, partitions, streams, system, tokens, topics, users
from ....protocol.primitives import U32_MAX, Options, Permissions, StreamPermissions, Transport, ValueKind
from ....protocol.unpacked import HeaderEntry, HeaderField, StoredMessage, unpack, unpack_headers
from ...units import show_size

Json = dict[str, Any]

_TRANSPORTS = {
    Transport.TCP: "TCP",
    Transport.QUIC: "QUIC",
    Transport.HTTP: "HTTP",
    Transport.WEBSOCKET: "WebSocket",
}
VALUE_KINDS = {
    "raw": ValueKind.RAW,
    "string": ValueKind.STRING,
    "bool": ValueKind.BOOL,
    "int8": ValueKind.I8,
    "int16": ValueKind.I16,
    "int32": ValueKind.I32,
    "int64": ValueKind.I64,
    "int128": ValueKind.I128,
    "uint8": ValueKind.U8,
    "uint16": ValueKind.U16,
    "uint32": ValueKind.U32,
    "uint64": ValueKind.U64,
    "uint128": ValueKind.U128,
    "float32": ValueKind.F32,
    "float64": ValueKind.F64,
}
_KIND_NAMES = {kind: name for name, kind in VALUE_KINDS.items()}
_ROLES = ("leader", "follower")
_NODE_STATUSES = ("healthy", "starting", "stopping", "unreachable", "maintenance")


def _stream(stream: streams.Stream) -> Json:
    return {
        "id": stream.id,
        "created_at": stream.created_at_us,
        "name": stream.name,
        "size": show_size(stream.size),
        "messages_count": stream.messages_count,
        "topics_count": stream.topics_count,
        "options": _options(stream.options),
    }


def _stream_details(details: streams.StreamDetails) -> Json:
    return _stream(details.stream) | {"topics": [_topic(topic) for topic in details.topics]}


def _topic(topic: topics.Topic) -> Json:
    return {
        "id": topic.id,
        "created_at": topic.created_at_us,
        "name": topic.name,
        "size": show_size(topic.size),
        "message_expiry": topic.message_expiry_us,
        "compression_algorithm": topic.compression.name.lower(),
        "max_topic_size": topic.max_topic_size,
        "replication_factor": topic.replication_factor,
        "messages_count": topic.messages_count,
        "partitions_count": topic.partitions_count,
        "options": _options(topic.options) | _options(topic.derived, explicit=False),
    }


def _topic_details(details: topics.TopicDetails) -> Json:
    return _topic(details.topic) | {"partitions": [_partition(partition) for partition in details.partitions]}


def _partition(partition: partitions.Partition) -> Json:
    return {
        "id": partition.id,
        "created_at": partition.created_at_us,
        "segments_count": partition.segments_count,
        "current_offset": partition.current_offset,
        "size": show_size(partition.size),
        "messages_count": partition.messages_count,
    }


def _options(options: Options, *, explicit: bool = True) -> Json:
    """explicit: a client asked for them."""
    return {option.key: {"value": _text(option.kind, option.value), "explicit": explicit} for option in options}


def _text(kind: ValueKind, value: bytes) -> str:
    if kind is ValueKind.STRING:
        return value.decode(errors="replace")
    number = int.from_bytes(value, "little")
    return str(number) if kind is not ValueKind.BOOL else str(bool(number)).lower()


def _group(group: groups.Group) -> Json:
    return {
        "id": group.id,
        "name": group.name,
        "partitions_count": group.partitions_count,
        "members_count": group.members_count,
    }


def _group_details(details: groups.GroupDetails) -> Json:
    members = [
        {"id": member.id, "partitions_count": len(member.partitions), "partitions": member.partitions}
        for member in details.members
    ]
    return _group(details.group) | {"members": members}


def _user(user: users.User) -> Json:
    return {
        "id": user.id,
        "created_at": user.created_at_us,
        "status": user.status.name.lower(),
        "username": user.username,
        "options": _options(user.options),
    }


def _user_details(details: users.UserDetails) -> Json:
    granted = details.permissions
    return _user(details.user) | {"permissions": _permissions(granted) if granted else None}


def _permissions(granted: Permissions) -> Json:
    everywhere = msgspec.structs.asdict(granted)
    by_stream = everywhere.pop("streams")
    return {"global": everywhere, "streams": {id_: _in_stream(of) for id_, of in by_stream.items()} or None}


def _in_stream(granted: StreamPermissions) -> Json:
    topics_of = {id_: msgspec.structs.asdict(of) for id_, of in granted.topics.items()}
    return msgspec.structs.asdict(granted) | {"topics": topics_of or None}


def _token(token: tokens.Token) -> Json:
    return {"name": token.name, "expiry_at": token.expires_at_us or None}


def _client(client: system.Client) -> Json:
    return {
        "client_id": client.client_id,
        "user_id": client.user_id if client.user_id != U32_MAX else None,
        "address": client.address,
        "transport": _TRANSPORTS[client.transport],
        "consumer_groups_count": client.groups_count,
    }


def _client_details(details: system.ClientDetails) -> Json:
    return _client(details.client) | {"consumer_groups": [msgspec.structs.asdict(group) for group in details.groups]}


def _stats(stats: system.Stats) -> Json:
    return {
        "process_id": stats.process_id,
        "cpu_usage": stats.cpu_usage,
        "total_cpu_usage": stats.total_cpu_usage,
        "memory_usage": show_size(stats.memory_usage),
        "total_memory": show_size(stats.total_memory),
        "available_memory": show_size(stats.available_memory),
        "run_time": stats.run_time_us,
        "start_time": stats.started_at_us,
        "read_bytes": show_size(stats.read_bytes),
        "written_bytes": show_size(stats.written_bytes),
        "messages_size_bytes": show_size(stats.messages_size),
        "streams_count": stats.streams_count,
        "topics_count": stats.topics_count,
        "partitions_count": stats.partitions_count,
        "segments_count": stats.segments_count,
        "messages_count": stats.messages_count,
        "clients_count": stats.clients_count,
        "consumer_groups_count": stats.groups_count,
        "hostname": stats.hostname,
        "os_name": stats.os_name,
        "os_version": stats.os_version,
        "kernel_version": stats.kernel_version,
        "iggy_server_version": stats.server_version,
        "iggy_server_semver": stats.semver,
        "cache_metrics": {},
        "threads_count": stats.threads_count,
        "free_disk_space": show_size(stats.free_disk),
        "total_disk_space": show_size(stats.total_disk),
    }


def _cluster(metadata: system.ClusterMetadata) -> Json:
    nodes = [
        {
            "name": node.name,
            "ip": node.ip,
            "endpoints": {
                "tcp": node.tcp_port,
                "quic": node.quic_port,
                "http": node.http_port,
                "websocket": node.websocket_port,
            },
            "role": _ROLES[node.role],
            "status": _NODE_STATUSES[node.status],
        }
        for node in metadata.nodes
    ]
    return {"name": metadata.name, "nodes": nodes}


def _spec(spec: system.OptionSpec) -> Json:
    return {
        "key": spec.key,
        "kind": _KIND_NAMES[spec.kind],
        "default_value": list(spec.default),
        "description": spec.description,
    }


def _polled(polled: messages.Polled) -> Json:
    try:
        found = unpack(polled.records)
    except BadBatch as error:
        raise Refused(error.status, str(error)) from error
    return {
        "partition_id": polled.partition_id,
        "current_offset": polled.current_offset,
        "count": len(found),
        "messages": [_message(message) for message in found],
    }


def _message(message: StoredMessage) -> Json:
    entries = unpack_headers(message.user_headers)
    header = {
        "checksum": message.checksum,
        "id": int.from_bytes(message.ident, "little"),
        "offset": message.offset,
        "timestamp": message.timestamp_us,
        "origin_timestamp": message.origin_timestamp_us,
        "user_headers_length": len(message.user_headers),
        "payload_length": len(message.payload),
        "reserved": 0,
    }
    shown = message.user_headers if entries is None else [_entry(entry) for entry in entries]
    return {"header": header, "payload": message.payload, "user_headers": shown}


def _entry(entry: HeaderEntry) -> Json:
    return {"key": _field(entry.key), "value": _field(entry.value)}


def _field(field: HeaderField) -> Json:
    return {"kind": _KIND_NAMES[field.kind], "value": field.value}


REPLIES: dict[type[msgspec.Struct], Callable[[Any], object]] = {
    system.Stats: _stats,
    system.ClusterMetadata: _cluster,
    system.OptionSpecs: lambda reply: [_spec(spec) for spec in reply.specs],
    system.ClientDetails: _client_details,
    system.Clients: lambda reply: [_client(client) for client in reply.clients],
    users.UserDetails: _user_details,
    users.Users: lambda reply: [_user(user) for user in reply.users],
    tokens.Tokens: lambda reply: [_token(token) for token in reply.tokens],
    tokens.RawToken: msgspec.structs.asdict,
    messages.Polled: _polled,
    messages.Sent: lambda reply: {"confirmations": [msgspec.structs.asdict(reply)]},
    offsets.ConsumerOffset: msgspec.structs.asdict,
    streams.StreamDetails: _stream_details,
    streams.Streams: lambda reply: [_stream(stream) for stream in reply.streams],
    topics.TopicDetails: _topic_details,
    topics.Topics: lambda reply: [_topic(topic) for topic in reply.topics],
    groups.GroupDetails: _group_details,
    groups.Groups: lambda reply: [_group(group) for group in reply.groups],
}
