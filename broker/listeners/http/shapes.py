"""What answers hold: the JSON of every reply, in the shapes of both generations of Iggy; requests share parts of it.

Sizes are text, ids of messages numbers of up to 128 bits. The API's document is made from these structs, and they are
what is encoded.
"""

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct, field

from ....protocol.primitives import U32_MAX, U64_MAX, ValueKind

U32 = Annotated[int, Meta(ge=0, le=U32_MAX)]
Time = Annotated[int, Meta(description="Microseconds since 1970")]
Size = Annotated[str, Meta(description="Bytes, in the largest unit that is exact", examples=["1.5 KiB"])]
Expiry = Annotated[int, Meta(description=f"How long messages are kept, in microseconds; {U64_MAX} is for ever")]
TopicSize = Annotated[
    int, Meta(description=f"Bytes, after which the oldest segments are deleted; {U64_MAX} is no limit")
]
_BY_ID = Meta(extra_json_schema={"propertyNames": {"pattern": "^[0-9]{1,9}$"}})
Kind = Literal[
    "raw", "string", "bool", "int8", "int16", "int32", "int64", "int128",
    "uint8", "uint16", "uint32", "uint64", "uint128", "float32", "float64",
]  # fmt: skip
VALUE_KINDS: dict[Kind, ValueKind] = {
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
assert set(VALUE_KINDS) == set(get_args(Kind))


class HeaderField(Struct, gc=False):
    """A key or a value: its bytes, little-endian, in base64."""

    kind: Kind
    value: bytes


class HeaderEntry(Struct):
    key: HeaderField
    value: HeaderField


class GlobalPermissions(Struct):
    """What a user may do everywhere."""

    manage_servers: bool
    read_servers: bool
    manage_users: bool
    read_users: bool
    manage_streams: bool
    read_streams: bool
    manage_topics: bool
    read_topics: bool
    poll_messages: bool
    send_messages: bool


class TopicPermissions(Struct):
    """What a user may do in one topic."""

    manage_topic: bool
    read_topic: bool
    poll_messages: bool
    send_messages: bool


class StreamPermissions(Struct):
    """What a user may do in one stream, and in topics of it by their ids."""

    manage_stream: bool
    read_stream: bool
    manage_topics: bool
    read_topics: bool
    poll_messages: bool
    send_messages: bool
    topics: Annotated[dict[U32, TopicPermissions], _BY_ID] | None = None


class Permissions(Struct):
    """What a user may do: everywhere, and in streams by their ids. What one allows, no other takes away."""

    everywhere: GlobalPermissions = field(name="global")
    streams: Annotated[dict[U32, StreamPermissions], _BY_ID] | None = None


class Option(Struct):
    """explicit: whether it was asked for, or is a default."""

    value: str
    explicit: bool


class Stream(Struct):
    id: int
    created_at: Time
    name: str
    size: Size
    messages_count: int
    topics_count: int
    options: dict[str, Option]


class Topic(Struct):
    id: int
    created_at: Time
    name: str
    size: Size
    message_expiry: Expiry
    compression_algorithm: str
    max_topic_size: TopicSize
    replication_factor: int
    messages_count: int
    partitions_count: int
    options: dict[str, Option]


class StreamDetails(Stream):
    topics: list[Topic]


class Partition(Struct):
    """current_offset: of its last message, 0 also where there is none."""

    id: int
    created_at: Time
    segments_count: int
    current_offset: int
    size: Size
    messages_count: int


class TopicDetails(Topic):
    partitions: list[Partition]


class ConsumerGroup(Struct):
    id: int
    name: str
    partitions_count: int
    members_count: int


class ConsumerGroupMember(Struct):
    """partitions: the ids of those it reads."""

    id: int
    partitions_count: int
    partitions: list[int]


class ConsumerGroupDetails(ConsumerGroup):
    members: list[ConsumerGroupMember]


class User(Struct):
    id: int
    created_at: Time
    status: str
    username: str
    options: dict[str, Option]


class UserDetails(User):
    permissions: Permissions | None


class Token(Struct):
    """A personal access token. expiry_at: microseconds since 1970, null for never."""

    name: str
    expiry_at: int | None


class RawToken(Struct):
    """The personal access token itself."""

    token: str


class AccessToken(Struct):
    """expiry: seconds since 1970."""

    token: str
    expiry: int


class Identity(Struct):
    """Who signed in, and the token to bring from now on."""

    user_id: int
    access_token: AccessToken


class Client(Struct):
    """user_id: null before it signs in."""

    client_id: int
    user_id: int | None
    address: str
    transport: str
    consumer_groups_count: int


class ClientGroup(Struct):
    """A consumer group that a client is in."""

    stream_id: int
    topic_id: int
    group_id: int


class ClientDetails(Client):
    consumer_groups: list[ClientGroup]


class Stats(Struct):
    """CPU figures are percent of one core. run_time: microseconds."""

    process_id: int
    cpu_usage: float
    total_cpu_usage: float
    memory_usage: Size
    total_memory: Size
    available_memory: Size
    run_time: int
    start_time: Time
    read_bytes: Size
    written_bytes: Size
    messages_size_bytes: Size
    streams_count: int
    topics_count: int
    partitions_count: int
    segments_count: int
    messages_count: int
    clients_count: int
    consumer_groups_count: int
    hostname: str
    os_name: str
    os_version: str
    kernel_version: str
    iggy_server_version: str
    iggy_server_semver: int
    cache_metrics: dict[str, float]
    threads_count: int
    free_disk_space: Size
    total_disk_space: Size


class Endpoints(Struct):
    """Ports; 0 where there is no listener."""

    tcp: int
    quic: int
    http: int
    websocket: int


class Node(Struct):
    name: str
    ip: str
    endpoints: Endpoints
    role: str
    status: str


class Cluster(Struct):
    name: str
    nodes: list[Node]


class OptionSpec(Struct):
    """default_value: its bytes, a number each."""

    key: str
    kind: Kind
    default_value: list[int]
    description: str


class MessageHeader(Struct, gc=False):
    """timestamp, origin_timestamp: when the server and the sender had it, in microseconds since 1970."""

    checksum: int
    id: int
    offset: int
    timestamp: int
    origin_timestamp: int
    user_headers_length: int
    payload_length: int
    reserved: int


class Message(Struct):
    """payload: base64. user_headers: entries, or base64 of what the sender encrypted."""

    header: MessageHeader
    payload: bytes
    user_headers: list[HeaderEntry] | bytes


class Event(Struct):
    """A message as an event's data."""

    partition_id: int
    header: MessageHeader
    payload: bytes
    user_headers: list[HeaderEntry] | bytes


class Polled(Struct):
    """current_offset: of the partition's last message."""

    partition_id: int
    current_offset: int
    count: int
    messages: list[Message]


class Confirmation(Struct):
    """Where messages were stored, and the offset of the first of them."""

    stream_id: int
    topic_id: int
    partition_id: int
    base_offset: int


class Sent(Struct):
    confirmations: list[Confirmation]


class ConsumerOffset(Struct):
    """stored_offset: the last that the consumer stored. current_offset: of the partition's last message."""

    partition_id: int
    current_offset: int
    stored_offset: int
