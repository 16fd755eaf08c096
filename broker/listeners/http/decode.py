"""What requests hold: the bodies and queries of the routes, and the values in their paths.

A struct says which JSON is taken; fields that it does not name are passed over. What a struct can't say (bytes of a
name, sense of a value) is checked when it becomes a command.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from ....protocol.errors import Refused, Status
from ....protocol.primitives import U32_MAX, U64_MAX, Identifier
from .errors import Malformed
from .shapes import U32, HeaderEntry, Permissions

S = TypeVar("S", bound=msgspec.Struct)

NAME_SIZE_MAX = 255
# How many messages a stream of events has in hand.
FOLLOW_COUNT_MAX = 1000
_DIGITS_MAX = 20

# What is in an extra_json_schema is only told here and checked elsewhere: numbers of msgspec's end at 63 bits, and
# other refusals have statuses of their own.
U64 = Annotated[int, Meta(ge=0, extra_json_schema={"maximum": U64_MAX})]
Name = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": NAME_SIZE_MAX})]  # of characters, not bytes
Username = Annotated[Name, Meta(description="3 to 50 bytes", extra_json_schema={"maxLength": 50})]
Password = Annotated[Name, Meta(description="3 to 100 bytes", extra_json_schema={"maxLength": 100})]
TokenName = Annotated[Name, Meta(description="3 to 30 bytes", extra_json_schema={"maxLength": 30})]
ConsumerName = Annotated[Name, Meta(description="An id or a name")]
PartitionId = Annotated[U32 | None, Meta(description="0 unless given")]
PartitionCount = Annotated[
    U32, Meta(description="How many, 1 to 1000", extra_json_schema={"exclusiveMinimum": 0, "exclusiveMaximum": 1001})
]
Replication = Annotated[int, Meta(ge=0, le=255, extra_json_schema={"exclusiveMinimum": 0})]
NoOptions = Annotated[dict[str, str], Meta(extra_json_schema={"maxProperties": 0})]
Word = Literal["none", "gzip"]
Activity = Literal["active", "inactive"]


class Given(msgspec.Struct):
    """No number of a request is larger than 64 bits."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and value > U64_MAX:
                raise ValueError(f"{name}: expected at most {U64_MAX}")


class Login(Given):
    """version, context: what a client says of itself."""

    username: Username
    password: Password
    version: str | None = None
    context: str | None = None


class TokenLogin(Given):
    """To sign in: a personal access token. To get a new token: that of a login."""

    token: str


class SnapshotOf(Given):
    """compression: how the zip is packed. snapshot_types: what it tells of; All stands alone."""

    compression: Literal["Stored", "Deflated", "Bzip2", "Zstd", "Lzma", "Xz"] = "Deflated"
    snapshot_types: list[
        Literal["FilesystemOverview", "ProcessList", "ResourceUsage", "Test", "ServerLogs", "ServerConfig", "All"]
    ] = msgspec.field(default_factory=lambda: ["All"])


class NewUser(Given):
    """permissions: null for none."""

    username: Username
    password: Password
    status: Activity
    permissions: Permissions | None = None


class UserChanges(Given):
    """What is not given stays as it is."""

    username: Username | None = None
    status: Activity | None = None
    options: NoOptions = {}


class NewPermissions(Given):
    """They replace all that the user has; null for none."""

    permissions: Permissions | None = None


class NewPassword(Given):
    current_password: Password
    new_password: Password


class NewToken(Given):
    """expiry: microseconds from now; 0 is for ever."""

    name: TokenName
    expiry_us: U64 = msgspec.field(name="expiry")


class Named(Given):
    """name: at most 255 bytes."""

    name: Name


class NewStream(Named):
    """name: at most 255 bytes. options: none are known yet."""

    options: NoOptions = {}


class NewTopic(Named):
    """name: at most 255 bytes. partitions_count: 1000 at most. compression_algorithm: what clients are told.

    message_expiry: microseconds that messages are kept. max_topic_size: bytes. For both, 0 is the server's default and
    18446744073709551615 no limit. options: see /options/topic.
    """

    partitions_count: Annotated[U32, Meta(extra_json_schema={"exclusiveMaximum": 1001})]
    compression_algorithm: Word
    message_expiry: U64
    max_topic_size: U64
    replication_factor: Replication | None = None
    options: dict[str, str] = {}


class TopicChanges(Named):
    """As for a new topic. What is not given stays as it is."""

    compression_algorithm: Word | None = None
    message_expiry: U64 | None = None
    max_topic_size: U64 | None = None
    replication_factor: Replication | None = None
    options: dict[str, str] = {}


class PartitionsCount(Given):
    """partitions_count: 1 to 1000."""

    count: PartitionCount = msgspec.field(name="partitions_count")


class SegmentsCount(Given):
    count: Annotated[U32, Meta(description="How many at most; the newest stays")] = msgspec.field(name="segments_count")


class SentPartitioning(Given):
    """value: base64 of nothing for balanced, of 4 bytes for a partition id, little-endian, or of a key's 1 to 255."""

    kind: Literal["balanced", "partition_id", "messages_key"]
    value: bytes


class SentMessage(msgspec.Struct):
    """payload: base64. id: a number of 128 bits, also as text or as a UUID; the server makes one for 0 and null.

    user_headers: entries, or base64 of what the sender encrypted itself.
    """

    payload: bytes
    id: int | str | None = None
    user_headers: list[HeaderEntry] | bytes | None = None


class Send(Given, forbid_unknown_fields=True):
    """Messages for one partition: the next in turn, one by its id, or one by a key."""

    partitioning: SentPartitioning
    messages: Annotated[list[SentMessage], Meta(extra_json_schema={"minItems": 1})]


class Ack(Given):
    ack: Annotated[
        Literal["replicated", "none"], Meta(description="none: answer 202 without saying where messages are stored")
    ] = "replicated"


class Poll(Given):
    consumer_id: ConsumerName = "1"
    partition_id: PartitionId = None
    kind: Annotated[
        Literal["offset", "timestamp", "first", "last", "next", "o", "t", "f", "l", "n"],
        Meta(description="Where to begin. next: after what the consumer stored"),
    ] = "offset"
    value: Annotated[U64, Meta(description="The offset, or the time in microseconds since 1970")] = 0
    count: Annotated[U32, Meta(description="How many messages at most")] = 10
    auto_commit: Annotated[bool, Meta(description="Store the last offset of the answer for the consumer")] = False


class Follow(Given):
    """Where it begins, who reads, and what a browser can put nowhere else."""

    partition_id: Annotated[U32 | None, Meta(description="All partitions unless given")] = None
    kind: Annotated[
        Literal["offset", "timestamp", "first", "last", "next", "new"] | None,
        Meta(
            description="Where to begin, as in a poll; `new` is with what is sent from now on. `next` for a consumer"
            " or group unless given, else `new`"
        ),
    ] = None
    value: Annotated[U64, Meta(description="The offset, or the time in microseconds since 1970")] = 0
    consumer_id: Annotated[str | None, Meta(description="An id or a name, whose offsets are gone on after")] = None
    group: Annotated[str | None, Meta(description="An id or a name: be a member of this group meanwhile")] = None
    auto_commit: Annotated[
        bool | None, Meta(description="Store the consumer's offset of what was sent; a group's always is")
    ] = None
    count: Annotated[int, Meta(ge=1, le=FOLLOW_COUNT_MAX, description="How many messages to have in hand at most")] = (
        100
    )
    last_event_id: Annotated[str, Meta(description="As the header Last-Event-ID: go on after that event")] = ""
    access_token: Annotated[str, Meta(description="The token, for whom no header can be set")] = ""


class OffsetOf(Given):
    consumer_id: ConsumerName = "1"
    partition_id: PartitionId = None


class PartitionOf(Given):
    partition_id: PartitionId = None


class NewOffset(Given):
    """consumer_id: an id or a name. offset: of the last message that was processed. partition_id: 0 unless given."""

    consumer_id: U32 | Name
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
