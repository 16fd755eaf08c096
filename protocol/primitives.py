"""The small values that commands are made of, as every layer sees them. Their bytes are in `payloads/fields.py`."""

from enum import IntEnum

import msgspec

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1

# Numeric ids are ints, names are strings: the type says which, as the kind byte does on the wire.
Identifier = int | str


class ConsumerKind(IntEnum):
    SINGLE = 1
    GROUP = 2


class Consumer(msgspec.Struct, frozen=True):
    """Who reads: a single consumer, or a consumer group that the connection is a member of."""

    kind: ConsumerKind
    id: Identifier


class PartitioningKind(IntEnum):
    BALANCED = 1
    PARTITION = 2
    MESSAGES_KEY = 3


class Partitioning(msgspec.Struct, frozen=True):
    """How the partition of a send is chosen. value: a partition id, a key, or nothing."""

    kind: PartitioningKind
    value: int | bytes = 0


class PollingKind(IntEnum):
    OFFSET = 1
    TIMESTAMP = 2
    FIRST = 3
    LAST = 4
    NEXT = 5


class PollingStrategy(msgspec.Struct, frozen=True, gc=False):
    """Where a poll starts. value: an offset, or microseconds since the epoch; 0 for the others."""

    kind: PollingKind
    value: int = 0


class ValueKind(IntEnum):
    """Types of the values in user headers and options."""

    RAW = 1
    STRING = 2
    BOOL = 3
    I8 = 4
    I16 = 5
    I32 = 6
    I64 = 7
    I128 = 8
    U8 = 9
    U16 = 10
    U32 = 11
    U64 = 12
    U128 = 13
    F32 = 14
    F64 = 15


class Option(msgspec.Struct, frozen=True):
    """A setting by name, the value still in its wire form."""

    key: str
    kind: ValueKind
    value: bytes


Options = tuple[Option, ...]


class Compression(IntEnum):
    """A label that clients agree on; the server never compresses."""

    NONE = 1
    GZIP = 2


class Transport(IntEnum):
    TCP = 1
    QUIC = 2
    HTTP = 3
    WEBSOCKET = 4


class UserStatus(IntEnum):
    ACTIVE = 1
    INACTIVE = 2


class TopicPermissions(msgspec.Struct, frozen=True, array_like=True):
    manage_topic: bool = False
    read_topic: bool = False
    poll_messages: bool = False
    send_messages: bool = False


class StreamPermissions(msgspec.Struct, frozen=True, array_like=True):
    """topics: what holds for single topics besides, by id."""

    manage_stream: bool = False
    read_stream: bool = False
    manage_topics: bool = False
    read_topics: bool = False
    poll_messages: bool = False
    send_messages: bool = False
    topics: dict[int, TopicPermissions] = {}


class Permissions(msgspec.Struct, frozen=True, array_like=True):
    """What a user may do everywhere, and besides in single streams, by id. Fields are in wire order."""

    manage_servers: bool = False
    read_servers: bool = False
    manage_users: bool = False
    read_users: bool = False
    manage_streams: bool = False
    read_streams: bool = False
    manage_topics: bool = False
    read_topics: bool = False
    poll_messages: bool = False
    send_messages: bool = False
    streams: dict[int, StreamPermissions] = {}


class AckLevel(IntEnum):
    """How sure the answer to a stored offset is."""

    NO_ACK = 0
    QUORUM = 1


class SnapshotCompression(IntEnum):
    """How the files in a snapshot's zip are packed."""

    STORED = 1
    DEFLATED = 2
    BZIP2 = 3
    ZSTD = 4
    LZMA = 5
    XZ = 6


class SnapshotKind(IntEnum):
    """What a snapshot tells of."""

    FILESYSTEM = 1
    PROCESSES = 2
    RESOURCES = 3
    TEST = 4
    LOGS = 5
    CONFIG = 6
    ALL = 100
