"""What requests hold: the bodies and queries of the routes, and the values in their paths.

A struct says which JSON is taken; fields that it does not name are passed over. What a struct can't say (bytes of a
name, sense of a value) is checked when it becomes a command.
"""

from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec

from ....protocol.errors import Refused, Status
from ....protocol.primitives import U32_MAX, U64_MAX, Identifier, StreamPermissions, TopicPermissions
from .encode import VALUE_KINDS
from .errors import Malformed

S = TypeVar("S", bound=msgspec.Struct)

NAME_SIZE_MAX = 255
_DIGITS_MAX = 20

U32 = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]
U64 = Annotated[int, msgspec.Meta(ge=0)]  # its upper bound is checked by Given
Word = Literal["none", "gzip"]
Activity = Literal["active", "inactive"]
Kind = Literal[
    "raw", "string", "bool", "int8", "int16", "int32", "int64", "int128",
    "uint8", "uint16", "uint32", "uint64", "uint128", "float32", "float64",
]  # fmt: skip
assert set(VALUE_KINDS) == set(get_args(Kind))


class Given(msgspec.Struct):
    """What a request gives. No number of it is larger than 64 bits."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and value > U64_MAX:
                raise ValueError(f"{name}: expected at most {U64_MAX}")


class Login(Given):
    username: str
    password: str
    version: str | None = None
    context: str | None = None


class TokenLogin(Given):
    """Also a refresh: the token is then the one of a login."""

    token: str


class NewUser(Given):
    username: str
    password: str
    status: Activity
    permissions: "Granted | None" = None


class UserChanges(Given):
    username: str | None = None
    status: Activity | None = None
    options: dict[str, str] = {}


class Everywhere(Given):
    """All of it has to be said, as in the next two."""

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


class InTopic(Given):
    manage_topic: bool
    read_topic: bool
    poll_messages: bool
    send_messages: bool

    def granted(self) -> TopicPermissions:
        return TopicPermissions(**msgspec.structs.asdict(self))


class InStream(Given):
    manage_stream: bool
    read_stream: bool
    manage_topics: bool
    read_topics: bool
    poll_messages: bool
    send_messages: bool
    topics: dict[U32, InTopic] | None = None

    def granted(self) -> StreamPermissions:
        flags: dict[str, Any] = msgspec.structs.asdict(self)
        del flags["topics"]
        return StreamPermissions(**flags, topics={id_: topic.granted() for id_, topic in (self.topics or {}).items()})


class Granted(Given):
    everywhere: Everywhere = msgspec.field(name="global")
    streams: dict[U32, InStream] | None = None


class NewPermissions(Given):
    permissions: Granted | None = None


class NewPassword(Given):
    current_password: str
    new_password: str


class NewToken(Given):
    """expiry: microseconds from now; 0 or U64_MAX is for ever."""

    name: str
    expiry_us: U64 = msgspec.field(name="expiry")


class Named(Given):
    name: str


class NewStream(Named):
    options: dict[str, str] = {}


class NewTopic(Named):
    """Microseconds and bytes; 0 takes the server's default."""

    partitions_count: U32
    compression_algorithm: Word
    message_expiry: U64
    max_topic_size: U64
    replication_factor: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    options: dict[str, str] = {}


class TopicChanges(Named):
    """What is not given stays as it is."""

    compression_algorithm: Word | None = None
    message_expiry: U64 | None = None
    max_topic_size: U64 | None = None
    replication_factor: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    options: dict[str, str] = {}


class PartitionsCount(Given):
    count: U32 = msgspec.field(name="partitions_count")


class SegmentsCount(Given):
    count: U32 = msgspec.field(name="segments_count")


class SentPartitioning(Given):
    """value: nothing, 4 bytes of a partition id, or a key."""

    kind: Literal["balanced", "partition_id", "messages_key"]
    value: bytes


class SentField(Given):
    kind: Kind
    value: bytes


class SentEntry(Given):
    key: SentField
    value: SentField


class SentMessage(msgspec.Struct):
    """user_headers: entries, or the bytes of a block that the client made itself."""

    payload: bytes
    id: int | str | None = None
    user_headers: list[SentEntry] | bytes | None = None


class Send(Given, forbid_unknown_fields=True):
    partitioning: SentPartitioning
    messages: list[SentMessage]


class Ack(Given):
    ack: Literal["replicated", "none"] = "replicated"


class Poll(Given):
    consumer_id: str = "1"
    partition_id: U32 | None = None
    kind: Literal["offset", "timestamp", "first", "last", "next", "o", "t", "f", "l", "n"] = "offset"
    value: U64 = 0
    count: U32 = 10
    auto_commit: bool = False


class OffsetOf(Given):
    consumer_id: str = "1"
    partition_id: U32 | None = None


class PartitionOf(Given):
    partition_id: U32 | None = None


class NewOffset(Given):
    consumer_id: U32 | str
    offset: U64
    partition_id: U32 | None = None


def read_json(data: bytes, kind: type[S]) -> S:
    """Return a body. Raises Malformed: 400 for what is not JSON, 422 for JSON of another shape."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise Malformed(422, f"the body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(400, f"the body is not JSON: {error}") from None


def read_query(query: Any, kind: type[S]) -> S:
    """Return what the query of a URL gives. Raises Malformed."""
    try:
        return msgspec.convert(dict(query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Malformed(400, f"the query does not fit: {error}") from None


def identifier(text: str) -> Identifier:
    """Return an id where the text is one, else a name. Raises Refused."""
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and int(text) <= U32_MAX:
        return int(text)
    return sized_name(text, Status.INVALID_IDENTIFIER)


def number(text: str) -> int:
    """Return a number of 32 bits. Raises Malformed."""
    found = identifier(text) if text else text
    if isinstance(found, str):
        raise Malformed(400, f"the path does not fit: expected a number of 32 bits, given {text!r}")
    return found


def sized_name(name: str, status: Status) -> str:
    """Return a name that is neither empty nor too long. Raises Refused with `status`."""
    size = len(name.encode())
    if not 1 <= size <= NAME_SIZE_MAX:
        raise Refused(status, f"{size} bytes, expected 1 to {NAME_SIZE_MAX}")
    return name
