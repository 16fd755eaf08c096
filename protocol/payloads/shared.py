"""The layouts that every generation of the wire shares, by struct. A wire adds its own: `SHARED | {...}`."""

from typing import Any

from msgspec import Struct

from ..model import groups, messages, offsets, partitions, streams, system, tokens, topics, users
from .codec import F32, U8, U16, U32, U64, Codec, counted, few, layout, rest
from .fields import (
    FLAG,
    IDENTIFIER,
    NAME,
    RAW,
    SHORT_TEXT,
    SNAPSHOT_COMPRESSION,
    SNAPSHOT_KIND,
    TEXT,
    TRANSPORT,
)
from .permissions import GRANTED
from .polls import CONSUMER_OF_TOPIC, POLL_MESSAGES

Codecs = dict[type[Struct], Codec[Any]]

STREAM_ID: dict[str, Codec[Any]] = {"stream": IDENTIFIER}
TOPIC_ID = STREAM_ID | {"topic": IDENTIFIER}
GROUP_ID = TOPIC_ID | {"group": IDENTIFIER}
USER_ID: dict[str, Codec[Any]] = {"user": IDENTIFIER}

CLUSTER_NODE = layout(
    system.ClusterNode,
    name=TEXT,
    ip=TEXT,
    tcp_port=U16,
    quic_port=U16,
    http_port=U16,
    websocket_port=U16,
    role=U8,
    status=U8,
)
CACHE_METRICS = layout(
    system.CacheMetrics, stream_id=U32, topic_id=U32, partition_id=U32, hits=U64, misses=U64, hit_ratio=F32
)
STATS = layout(
    system.Stats,
    process_id=U32,
    cpu_usage=F32,
    total_cpu_usage=F32,
    memory_usage=U64,
    total_memory=U64,
    available_memory=U64,
    run_time_us=U64,
    started_at_us=U64,
    read_bytes=U64,
    written_bytes=U64,
    messages_size=U64,
    streams_count=U32,
    topics_count=U32,
    partitions_count=U32,
    segments_count=U32,
    messages_count=U64,
    clients_count=U32,
    groups_count=U32,
    hostname=TEXT,
    os_name=TEXT,
    os_version=TEXT,
    kernel_version=TEXT,
    server_version=TEXT,
    semver=U32,
    cache_metrics=counted(CACHE_METRICS),
    threads_count=U32,
    free_disk=U64,
    total_disk=U64,
)
CLIENT = layout(system.Client, client_id=U32, user_id=U32, transport=TRANSPORT, address=TEXT, groups_count=U32)
GROUP_REFERENCE = layout(system.GroupReference, stream_id=U32, topic_id=U32, group_id=U32)
PARTITION = layout(
    partitions.Partition,
    id=U32,
    created_at_us=U64,
    segments_count=U32,
    current_offset=U64,
    size=U64,
    messages_count=U64,
)
GROUP = layout(groups.Group, id=U32, partitions_count=U32, members_count=U32, name=NAME)
GROUP_MEMBER = layout(groups.GroupMember, id=U32, partitions=counted(U32))
TOKEN = layout(tokens.Token, name=NAME, expires_at_us=U64)

SHARED: Codecs = {
    system.Ping: layout(system.Ping),
    system.GetStats: layout(system.GetStats),
    system.Stats: STATS,
    system.GetClusterMetadata: layout(system.GetClusterMetadata),
    system.ClusterMetadata: layout(system.ClusterMetadata, name=TEXT, nodes=counted(CLUSTER_NODE)),
    system.GetMe: layout(system.GetMe),
    system.GetClient: layout(system.GetClient, client_id=U32),
    system.GetClients: layout(system.GetClients),
    system.ClientDetails: layout(system.ClientDetails, client=CLIENT, groups=rest(GROUP_REFERENCE)),
    system.Clients: layout(system.Clients, clients=rest(CLIENT)),
    system.GetSnapshot: layout(system.GetSnapshot, compression=SNAPSHOT_COMPRESSION, kinds=few(SNAPSHOT_KIND)),
    system.Snapshot: layout(system.Snapshot, zip=RAW),
    users.Logout: layout(users.Logout),
    users.GetUser: layout(users.GetUser, **USER_ID),
    users.GetUsers: layout(users.GetUsers),
    users.DeleteUser: layout(users.DeleteUser, **USER_ID),
    users.UpdatePermissions: layout(users.UpdatePermissions, **USER_ID, permissions=GRANTED),
    users.ChangePassword: layout(users.ChangePassword, **USER_ID, current_password=SHORT_TEXT, new_password=SHORT_TEXT),
    tokens.GetTokens: layout(tokens.GetTokens),
    tokens.CreateToken: layout(tokens.CreateToken, name=SHORT_TEXT, expiry_us=U64),
    tokens.DeleteToken: layout(tokens.DeleteToken, name=SHORT_TEXT),
    tokens.Tokens: layout(tokens.Tokens, tokens=rest(TOKEN)),
    tokens.RawToken: layout(tokens.RawToken, token=SHORT_TEXT),
    messages.PollMessages: POLL_MESSAGES,
    messages.FlushUnsavedBuffer: layout(messages.FlushUnsavedBuffer, **TOPIC_ID, partition_id=U32, fsync=FLAG),
    offsets.GetConsumerOffset: layout(offsets.GetConsumerOffset, **CONSUMER_OF_TOPIC),
    offsets.ConsumerOffset: layout(offsets.ConsumerOffset, partition_id=U32, current_offset=U64, stored_offset=U64),
    streams.GetStream: layout(streams.GetStream, **STREAM_ID),
    streams.GetStreams: layout(streams.GetStreams),
    streams.DeleteStream: layout(streams.DeleteStream, **STREAM_ID),
    streams.PurgeStream: layout(streams.PurgeStream, **STREAM_ID),
    topics.GetTopic: layout(topics.GetTopic, **TOPIC_ID),
    topics.GetTopics: layout(topics.GetTopics, **STREAM_ID),
    topics.DeleteTopic: layout(topics.DeleteTopic, **TOPIC_ID),
    topics.PurgeTopic: layout(topics.PurgeTopic, **TOPIC_ID),
    partitions.CreatePartitions: layout(partitions.CreatePartitions, **TOPIC_ID, count=U32),
    partitions.DeletePartitions: layout(partitions.DeletePartitions, **TOPIC_ID, count=U32),
    partitions.DeleteSegments: layout(partitions.DeleteSegments, **TOPIC_ID, partition_id=U32, count=U32),
    groups.GetConsumerGroup: layout(groups.GetConsumerGroup, **GROUP_ID),
    groups.GetConsumerGroups: layout(groups.GetConsumerGroups, **TOPIC_ID),
    groups.CreateConsumerGroup: layout(groups.CreateConsumerGroup, **TOPIC_ID, name=NAME),
    groups.DeleteConsumerGroup: layout(groups.DeleteConsumerGroup, **GROUP_ID),
    groups.JoinConsumerGroup: layout(groups.JoinConsumerGroup, **GROUP_ID),
    groups.LeaveConsumerGroup: layout(groups.LeaveConsumerGroup, **GROUP_ID),
    groups.GroupDetails: layout(groups.GroupDetails, group=GROUP, members=rest(GROUP_MEMBER)),
    groups.Groups: layout(groups.Groups, groups=rest(GROUP)),
}
