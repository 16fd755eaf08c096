"""Every payload of the vsr wire as bytes, written out from the reference: decoded, encoded, cut and prolonged."""

from typing import Any

import pytest
from msgspec import Struct
from pybroker.protocol.batch import Batch
from pybroker.protocol.commands import COMMANDS
from pybroker.protocol.errors import WireError
from pybroker.protocol.model.groups import (
    CreateConsumerGroup,
    DeleteConsumerGroup,
    GetConsumerGroup,
    GetConsumerGroups,
    Group,
    GroupAssignment,
    GroupDetails,
    GroupMember,
    Groups,
    JoinConsumerGroup,
    LeaveConsumerGroup,
    SyncConsumerGroup,
)
from pybroker.protocol.model.messages import Polled, PollMessages, SendMessages, Sent
from pybroker.protocol.model.offsets import (
    ConsumerOffset,
    DeleteConsumerOffset,
    GetConsumerOffset,
    StoreConsumerOffset,
)
from pybroker.protocol.model.partitions import CreatePartitions, DeletePartitions, DeleteSegments, Partition
from pybroker.protocol.model.streams import (
    CreateStream,
    DeleteStream,
    GetStream,
    GetStreams,
    PurgeStream,
    Stream,
    StreamDetails,
    Streams,
    UpdateStream,
)
from pybroker.protocol.model.system import (
    CacheMetrics,
    Client,
    ClientDetails,
    Clients,
    ClusterMetadata,
    DescribeOptions,
    GetClient,
    GetClients,
    GetClusterMetadata,
    GetMe,
    GetStats,
    GroupReference,
    OptionSpec,
    OptionSpecs,
    Ping,
    Snapshot,
    Stats,
)
from pybroker.protocol.model.tokens import LoginWithToken
from pybroker.protocol.model.topics import (
    CreateTopic,
    DeleteTopic,
    GetTopic,
    GetTopics,
    PurgeTopic,
    Topic,
    TopicDetails,
    Topics,
    UpdateTopic,
)
from pybroker.protocol.model.users import LoggedIn, Login, Logout
from pybroker.protocol.primitives import (
    U32_MAX,
    U64_MAX,
    AckLevel,
    Compression,
    Option,
    Partitioning,
    PartitioningKind,
    PollingKind,
    PollingStrategy,
    Transport,
    ValueKind,
)
from pybroker.protocol.vsr.overrides import CODECS
from support import layouts
from support.layouts import (
    CAFE,
    DURABILITY,
    DURABILITY_BYTES,
    ID_0,
    ID_7,
    ID_MAX,
    IN_GROUP,
    LONG,
    NAME_LONG,
    NODE,
    NODE_BYTES,
    ORDERS,
    SINGLE,
    U64_1,
    U64_ALL,
    Row,
    row,
)
from xxhash import xxh3_64_digest


def reversed_digest(data: bytes) -> bytes:
    """Return XXH3-64 as the wire has it: little-endian, where the digest is big-endian."""
    return xxh3_64_digest(data)[::-1]


# Payloads that run to the end of the frame: what stands behind them is part of them.
OPEN: frozenset[type[Struct]] = frozenset(
    layouts.OPEN
    | {CreateStream, UpdateStream, CreateTopic, UpdateTopic, StreamDetails, Streams, TopicDetails, ClientDetails}
    | {Clients, GroupDetails, Groups, SendMessages, Polled}
)

SEGMENT_SIZE = Option("segment_size", ValueKind.U64, b"\0\0\x20\0\0\0\0\0")
SEGMENT_SIZE_BYTES = b"\x02\x0c\0\0\0segment_size\x0c\x08\0\0\0\0\0\x20\0\0\0\0\0"

# One message: id 5, no deltas, no user headers, payload "hi".
FRAME_REST = b"\x05" + bytes(15) + bytes(4) + bytes(4) + bytes(4) + b"\x02\0\0\0" + bytes(8) + b"hi"
FRAME = reversed_digest(FRAME_REST) + FRAME_REST
# partition 0, base offset 0, base timestamp 0, origin timestamp 9, 256 + 50 bytes.
HEADER_HASHED = bytes(24) + b"\x09\0\0\0\0\0\0\0" + b"\x32\x01\0\0\0\0\0\0"
RECORD_CHECKSUM = reversed_digest(HEADER_HASHED + b"\x01\0\0\0" + FRAME[:8])
RECORD = HEADER_HASHED + RECORD_CHECKSUM + b"\x01\0\0\0" + bytes(204) + FRAME
BATCH = Batch(memoryview(RECORD), 1, FRAME[:8])

STREAM = Stream(1, 2, 3, 4, 5, "orders", (DURABILITY,))
STREAM_BYTES = (
    b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x03\0\0\0" b"\x04\0\0\0\0\0\0\0" b"\x05\0\0\0\0\0\0\0" b"\x06orders"
    b"\x1d\0\0\0" + DURABILITY_BYTES
)  # fmt: skip
BARE_STREAM = Stream(U32_MAX, U64_MAX, U32_MAX, U64_MAX, U64_MAX, LONG)
BARE_STREAM_BYTES = b"\xff" * 32 + NAME_LONG + bytes(4)
TOPIC = Topic(1, 2, 3, U64_MAX, Compression.GZIP, 6, 7, 8, "t", (DURABILITY,), (SEGMENT_SIZE,))
TOPIC_BYTES = (
    b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x03\0\0\0" + U64_ALL + b"\x02"
    b"\x06\0\0\0\0\0\0\0" b"\x07\0\0\0\0\0\0\0" b"\x08\0\0\0\0\0\0\0" b"\x01t"
    b"\x1d\0\0\0" + DURABILITY_BYTES + b"\x1e\0\0\0" + SEGMENT_SIZE_BYTES
)  # fmt: skip
BARE_TOPIC = Topic(0, 0, 0, 0, Compression.NONE, 0, 0, 0, LONG)
BARE_TOPIC_BYTES = bytes(24) + b"\x01" + bytes(24) + NAME_LONG + bytes(8)
PARTITION = Partition(1, 2, 3, 4, 5, 6)
PARTITION_BYTES = (
    b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x03\0\0\0" b"\x04\0\0\0\0\0\0\0" b"\x05\0\0\0\0\0\0\0" b"\x06\0\0\0\0\0\0\0"
)  # fmt: skip
GROUP = Group(1, 2, 3, "readers")
GROUP_BYTES = b"\x01\0\0\0" b"\x02\0\0\0" b"\x03\0\0\0" b"\x07readers"  # fmt: skip
CLIENT = Client(9, U32_MAX, Transport.WEBSOCKET, "[::1]:80", 2)
CLIENT_BYTES = b"\x09\0\0\0" b"\xff\xff\xff\xff" b"\x04" b"\x08\0\0\0[::1]:80" b"\x02\0\0\0"  # fmt: skip
BALANCED = Partitioning(PartitioningKind.BALANCED)

REQUESTS = [
    row(Ping()),
    row(GetStats()),
    row(GetClusterMetadata()),
    row(DescribeOptions(3), b"\x03"),
    row(GetMe()),
    row(GetClient(0x01020304), b"\x04\x03\x02\x01"),
    row(GetClients()),
    row(Logout()),
    row(
        PollMessages(SINGLE, 7, "orders", None, PollingStrategy(PollingKind.NEXT), 10, False),
        b"\x01" + ID_7 + ID_7 + ORDERS + b"\0\0\0\0\0" b"\x05\0\0\0\0\0\0\0\0" b"\x0a\0\0\0" b"\0",
    ),
    row(
        PollMessages(IN_GROUP, "orders", U32_MAX, 2, PollingStrategy(PollingKind.TIMESTAMP, U64_MAX), U32_MAX, True),
        b"\x02" + ORDERS + ORDERS + ID_MAX + b"\x01\x02\0\0\0" b"\x02" + U64_ALL + b"\xff\xff\xff\xff" b"\x01",
    ),
    row(SendMessages(7, "orders", BALANCED, BATCH), b"\x14\0\0\0" + ID_7 + ORDERS + b"\x01\0" b"\x01\0\0\0" + RECORD),
    row(
        SendMessages(0, 7, Partitioning(PartitioningKind.PARTITION, 3), BATCH),
        b"\x16\0\0\0" + ID_0 + ID_7 + b"\x02\x04\x03\0\0\0" b"\x01\0\0\0" + RECORD,
    ),
    row(
        SendMessages(0, 7, Partitioning(PartitioningKind.MESSAGES_KEY, b"\0key"), BATCH),
        b"\x16\0\0\0" + ID_0 + ID_7 + b"\x03\x04\0key" b"\x01\0\0\0" + RECORD,
    ),
    row(GetConsumerOffset(SINGLE, 0, "orders", 1), b"\x01" + ID_7 + ID_0 + ORDERS + b"\x01\x01\0\0\0"),
    row(GetConsumerOffset(IN_GROUP, 0, 7, None), b"\x02" + ORDERS + ID_0 + ID_7 + b"\0\0\0\0\0"),
    row(
        StoreConsumerOffset(SINGLE, 0, 7, 1, 513, AckLevel.QUORUM),
        b"\x01" + ID_7 + ID_0 + ID_7 + b"\x01\x01\0\0\0" b"\x01\x02\0\0\0\0\0\0" b"\x01",
    ),
    row(
        DeleteConsumerOffset(IN_GROUP, 0, 7, None, AckLevel.NO_ACK),
        b"\x02" + ORDERS + ID_0 + ID_7 + b"\0\0\0\0\0" b"\0",
    ),
    row(GetStream(U32_MAX), ID_MAX),
    row(GetStream("café"), CAFE),
    row(GetStream(LONG), b"\x02" + NAME_LONG),
    row(GetStreams()),
    row(CreateStream("orders"), b"\x06orders"),
    row(
        CreateStream("café", (DURABILITY, SEGMENT_SIZE)),
        b"\x05caf\xc3\xa9", DURABILITY_BYTES, SEGMENT_SIZE_BYTES,
    ),
    row(UpdateStream(7, "orders"), ID_7 + b"\x06orders"),
    row(UpdateStream("orders", LONG, (DURABILITY,)), ORDERS + NAME_LONG, DURABILITY_BYTES),
    row(DeleteStream(7), ID_7),
    row(PurgeStream("orders"), ORDERS),
    row(GetTopic(7, "orders"), ID_7 + ORDERS),
    row(GetTopics(0), ID_0),
    row(CreateTopic(7, 1000, "t"), ID_7 + b"\xe8\x03\0\0" b"\x01t"),
    row(
        CreateTopic("orders", 0, "t", (SEGMENT_SIZE, DURABILITY)),
        ORDERS + bytes(4) + b"\x01t", SEGMENT_SIZE_BYTES, DURABILITY_BYTES,
    ),
    row(UpdateTopic(7, 0, "t"), ID_7 + ID_0 + b"\x01t"),
    row(UpdateTopic("orders", 0, "t", (DURABILITY,)), ORDERS + ID_0 + b"\x01t", DURABILITY_BYTES),
    row(DeleteTopic(7, 0), ID_7 + ID_0),
    row(PurgeTopic(7, "café"), ID_7 + CAFE),
    row(CreatePartitions(7, 0, 1000), ID_7 + ID_0 + b"\xe8\x03\0\0"),
    row(DeletePartitions(7, 0, U32_MAX), ID_7 + ID_0 + b"\xff\xff\xff\xff"),
    row(DeleteSegments(7, 0, 2, 3), ID_7 + ID_0 + b"\x02\0\0\0" b"\x03\0\0\0"),
    row(GetConsumerGroup(7, 0, "orders"), ID_7 + ID_0 + ORDERS),
    row(GetConsumerGroups(7, "orders"), ID_7 + ORDERS),
    row(CreateConsumerGroup(7, 0, "readers"), ID_7 + ID_0 + b"\x07readers"),
    row(DeleteConsumerGroup(7, 0, 0), ID_7 + ID_0 + ID_0),
    row(JoinConsumerGroup(7, 0, "orders"), ID_7 + ID_0 + ORDERS),
    row(LeaveConsumerGroup(7, 0, U32_MAX), ID_7 + ID_0 + ID_MAX),
    row(SyncConsumerGroup("orders", "café", 7), ORDERS + CAFE + ID_7),
]  # fmt: skip

STATS = Stats(
    process_id=1, cpu_usage=1.5, total_cpu_usage=2.5, memory_usage=4, total_memory=5, available_memory=6, run_time_us=7,
    started_at_us=8, read_bytes=9, written_bytes=10, messages_size=11, streams_count=12, topics_count=13,
    partitions_count=14, segments_count=15, messages_count=16, clients_count=17, groups_count=18, hostname="host",
    os_name="", os_version="6", kernel_version="é", server_version="0.9.0", semver=9000,
    cache_metrics=[CacheMetrics(1, 2, 3, 4, 5, 0.5)], threads_count=19, free_disk=20, total_disk=U64_MAX,
)  # fmt: skip
STATS_BYTES = (
    b"\x01\0\0\0" b"\0\0\xc0\x3f" b"\0\0\x20\x40"
    b"\x04\0\0\0\0\0\0\0" b"\x05\0\0\0\0\0\0\0" b"\x06\0\0\0\0\0\0\0" b"\x07\0\0\0\0\0\0\0" b"\x08\0\0\0\0\0\0\0"
    b"\x09\0\0\0\0\0\0\0" b"\x0a\0\0\0\0\0\0\0" b"\x0b\0\0\0\0\0\0\0"
    b"\x0c\0\0\0" b"\x0d\0\0\0" b"\x0e\0\0\0" b"\x0f\0\0\0" b"\x10\0\0\0\0\0\0\0" b"\x11\0\0\0" b"\x12\0\0\0"
    b"\x04\0\0\0host" b"\0\0\0\0" b"\x01\0\0\x006" b"\x02\0\0\0\xc3\xa9" b"\x05\0\0\x000.9.0" b"\x28\x23\0\0"
    b"\x01\0\0\0" b"\x01\0\0\0\x02\0\0\0\x03\0\0\0" b"\x04\0\0\0\0\0\0\0" b"\x05\0\0\0\0\0\0\0" b"\0\0\0\x3f"
    b"\x13\0\0\0" b"\x14\0\0\0\0\0\0\0" + U64_ALL
)  # fmt: skip

REPLIES = [
    row(STATS, STATS_BYTES),
    row(ClusterMetadata("single", []), b"\x06\0\0\0single" + bytes(4)),
    row(ClusterMetadata("two", [NODE, NODE]), b"\x03\0\0\0two" b"\x02\0\0\0" + NODE_BYTES + NODE_BYTES),
    row(OptionSpecs([]), bytes(4)),
    row(
        OptionSpecs(
            [OptionSpec("durability", ValueKind.STRING, b"replicated", "é"), OptionSpec("k", ValueKind.F64, b"", "")]
        ),
        b"\x02\0\0\0" b"\x0adurability" b"\x02" b"\x0a\0\0\0replicated" b"\x02\0\0\0\xc3\xa9"
        b"\x01k" b"\x0f" b"\0\0\0\0" b"\0\0\0\0",
    ),
    row(ClientDetails(CLIENT, []), CLIENT_BYTES),
    row(
        ClientDetails(CLIENT, [GroupReference(1, 2, 3), GroupReference(0, 0, U32_MAX)]),
        CLIENT_BYTES, b"\x01\0\0\0\x02\0\0\0\x03\0\0\0", bytes(8) + b"\xff\xff\xff\xff",
    ),
    row(Clients([])),
    row(Clients([CLIENT, CLIENT]), b"", CLIENT_BYTES, CLIENT_BYTES),
    row(Polled(U32_MAX, 0, 0, [b""]), b"\xff\xff\xff\xff" + bytes(12)),
    row(
        Polled(1, 2, 1, [RECORD]),
        b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x01\0\0\0", *(bytes([byte]) for byte in RECORD),
    ),
    row(Sent(1, 2, 3, 4), b"\x01\0\0\0" b"\x01\0\0\0\x02\0\0\0\x03\0\0\0" b"\x04\0\0\0\0\0\0\0"),
    row(ConsumerOffset(1, U64_MAX, 1), b"\x01\0\0\0" + U64_ALL + U64_1),
    row(StreamDetails(BARE_STREAM, []), BARE_STREAM_BYTES),
    row(StreamDetails(STREAM, [TOPIC, BARE_TOPIC]), STREAM_BYTES, TOPIC_BYTES, BARE_TOPIC_BYTES),
    row(Streams([])),
    row(Streams([STREAM, BARE_STREAM]), b"", STREAM_BYTES, BARE_STREAM_BYTES),
    row(TopicDetails(BARE_TOPIC, []), BARE_TOPIC_BYTES),
    row(TopicDetails(TOPIC, [PARTITION, PARTITION]), TOPIC_BYTES, PARTITION_BYTES, PARTITION_BYTES),
    row(Topics([]), bytes(4)),
    row(Topics([TOPIC, BARE_TOPIC]), b"\x02\0\0\0" + TOPIC_BYTES + BARE_TOPIC_BYTES),
    row(GroupDetails(GROUP, []), GROUP_BYTES),
    row(
        GroupDetails(GROUP, [GroupMember(5, [0, 2]), GroupMember(U32_MAX, [])]),
        GROUP_BYTES, b"\x05\0\0\0" b"\x02\0\0\0" b"\0\0\0\0\x02\0\0\0", b"\xff\xff\xff\xff" b"\0\0\0\0",
    ),
    row(Groups([])),
    row(Groups([GROUP, GROUP]), b"", GROUP_BYTES, GROUP_BYTES),
    row(GroupAssignment(1, []), U64_1 + bytes(4)),
    row(GroupAssignment(U64_MAX, [0, U32_MAX]), U64_ALL + b"\x02\0\0\0" b"\0\0\0\0" b"\xff\xff\xff\xff"),
]  # fmt: skip

ALL_REQUESTS = REQUESTS + layouts.REQUESTS
ALL_REPLIES = REPLIES + layouts.REPLIES
ROWS = ALL_REQUESTS + ALL_REPLIES
each_row = pytest.mark.parametrize("entry", ROWS, ids=lambda entry: type(entry.value).__name__)

# A register body has two shapes, and its answer an own writer: test_session has their bytes.
SIGN_IN = {Login, LoginWithToken, LoggedIn}


def decode(kind: type[Struct], payload: bytes) -> Any:
    return CODECS[kind].decode(memoryview(payload))


def test_every_layout_has_a_row() -> None:
    assert {type(entry.value) for entry in ROWS} == CODECS.keys()


def test_every_command_has_its_rows() -> None:
    requests = {type(entry.value) for entry in ALL_REQUESTS} | SIGN_IN
    replies = {type(entry.value) for entry in ALL_REPLIES} | SIGN_IN | {None}
    assert {command.request for command in COMMANDS} <= requests
    assert {command.reply for command in COMMANDS} <= replies


@each_row
def test_payload_decodes_to_its_value(entry: Row) -> None:
    assert decode(type(entry.value), entry.payload) == entry.value


@each_row
def test_value_encodes_to_its_payload(entry: Row) -> None:
    assert CODECS[type(entry.value)].encode(entry.value) == entry.payload


@each_row
def test_payload_cut_anywhere_is_refused_or_a_shorter_value(entry: Row) -> None:
    kind, payload = type(entry.value), entry.payload
    for size in range(len(payload)):
        if size in entry.shorter:
            assert CODECS[kind].encode(decode(kind, payload[:size])) == payload[:size]
        else:
            with pytest.raises(WireError):
                decode(kind, payload[:size])


@each_row
def test_bytes_behind_a_payload_are_ignored_unless_it_runs_to_the_end(entry: Row) -> None:
    kind, longer = type(entry.value), entry.payload + b"\xff\xfe\xff"
    if kind not in OPEN:
        assert decode(kind, longer) == entry.value
    elif kind in (Polled, Snapshot):
        assert decode(kind, longer) != entry.value
    else:
        with pytest.raises(WireError):
            decode(kind, longer)
