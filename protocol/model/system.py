"""Commands about the server and its clients."""

import msgspec

from ..primitives import SnapshotCompression, SnapshotKind, Transport, ValueKind


class Ping(msgspec.Struct):
    pass


class GetStats(msgspec.Struct):
    pass


class CacheMetrics(msgspec.Struct):
    stream_id: int
    topic_id: int
    partition_id: int
    hits: int
    misses: int
    hit_ratio: float


class Stats(msgspec.Struct):
    """Sizes are bytes, times microseconds, CPU figures percent of one core."""

    process_id: int
    cpu_usage: float
    total_cpu_usage: float
    memory_usage: int
    total_memory: int
    available_memory: int
    run_time_us: int
    started_at_us: int
    read_bytes: int
    written_bytes: int
    messages_size: int
    streams_count: int
    topics_count: int
    partitions_count: int
    segments_count: int
    messages_count: int
    clients_count: int
    groups_count: int
    hostname: str
    os_name: str
    os_version: str
    kernel_version: str
    server_version: str
    semver: int  # major * 10**6 + minor * 10**3 + patch
    cache_metrics: list[CacheMetrics]
    threads_count: int
    free_disk: int
    total_disk: int


class GetClusterMetadata(msgspec.Struct):
    pass


class ClusterNode(msgspec.Struct):
    """role: 0 leader, 1 follower. status: 0 healthy. Ports are 0 where there is no listener."""

    name: str
    ip: str
    tcp_port: int
    quic_port: int
    http_port: int
    websocket_port: int
    role: int = 0
    status: int = 0


class ClusterMetadata(msgspec.Struct):
    name: str
    nodes: list[ClusterNode]


class DescribeOptions(msgspec.Struct):
    """scope: 1 topic, 2 stream, 3 user."""

    scope: int


class OptionSpec(msgspec.Struct):
    key: str
    kind: ValueKind
    default: bytes
    description: str


class OptionSpecs(msgspec.Struct):
    specs: list[OptionSpec]


class GetMe(msgspec.Struct):
    pass


class GetClient(msgspec.Struct):
    client_id: int


class GetClients(msgspec.Struct):
    pass


class Client(msgspec.Struct):
    """user_id is U32_MAX before login; address is "ip:port"."""

    client_id: int
    user_id: int
    transport: Transport
    address: str
    groups_count: int


class GroupReference(msgspec.Struct):
    stream_id: int
    topic_id: int
    group_id: int


class ClientDetails(msgspec.Struct):
    client: Client
    groups: list[GroupReference]


class Clients(msgspec.Struct):
    clients: list[Client]


class GetSnapshot(msgspec.Struct):
    compression: SnapshotCompression
    kinds: list[SnapshotKind]


class Snapshot(msgspec.Struct):
    """zip: the bytes of a zip file."""

    zip: bytes


class AttachConsumerSession(msgspec.Struct):
    """Act as the group member that another connection of the same user is.

    client: the u128 that the other connection registered with, as 16 bytes. session: its fence.
    """

    client: bytes
    session: int
    metadata_watermark: int


class ConsumerRouting(msgspec.Struct):
    """Where to poll and store offsets: for one server always here."""

    client: bytes
    session: int
    metadata_watermark: int
    primary: ClusterNode
