"""What can happen to the catalog. The journal holds these in order; the catalog is what they add up to.

Events carry every value that was chosen when they happened (ids, times, hashes), so that a replay gives the same
catalog. They are stored as MessagePack arrays with the tag first: fields may be added at the end with a default,
never renamed away or reordered.
"""

import msgspec

from ..protocol.primitives import Compression, Options, Permissions, UserStatus


class TopicSettings(msgspec.Struct, frozen=True, array_like=True):
    """What holds for a topic, server defaults resolved. Sizes are bytes, U64_MAX is never or unlimited.

    persisted, offsets_persisted: acknowledge sends, and stored offsets, after fdatasync.
    messages_required_to_save and size_of_messages_required_to_save are kept and shown; pybroker writes every
    batch before it acknowledges it, so nothing waits for them. preallocate_segments likewise.
    message_deduplication: store no message whose id the topic has had lately.
    """

    compression: Compression
    message_expiry_us: int
    max_topic_size: int
    segment_size: int
    persisted: bool
    offsets_persisted: bool
    messages_required_to_save: int
    size_of_messages_required_to_save: int
    preallocate_segments: bool
    message_deduplication: bool = False


class Event(msgspec.Struct, array_like=True, tag=True):
    pass


class StreamCreated(Event):
    id: int
    name: str
    created_at_us: int


class StreamRenamed(Event):
    id: int
    name: str


class StreamDeleted(Event):
    id: int


class StreamPurged(Event):
    id: int


class TopicCreated(Event):
    """options: what the creator asked for, shown back to clients."""

    stream_id: int
    id: int
    name: str
    partitions_count: int
    settings: TopicSettings
    options: Options
    created_at_us: int


class TopicUpdated(Event):
    stream_id: int
    id: int
    name: str
    settings: TopicSettings
    options: Options


class TopicDeleted(Event):
    stream_id: int
    id: int


class TopicPurged(Event):
    stream_id: int
    id: int


class PartitionsCreated(Event):
    stream_id: int
    topic_id: int
    count: int
    created_at_us: int


class PartitionsDeleted(Event):
    stream_id: int
    topic_id: int
    count: int


class GroupCreated(Event):
    stream_id: int
    topic_id: int
    id: int
    name: str


class GroupDeleted(Event):
    stream_id: int
    topic_id: int
    id: int


class UserCreated(Event):
    id: int
    username: str
    password_hash: str
    created_at_us: int
    status: UserStatus = UserStatus.ACTIVE
    permissions: Permissions | None = None


class UserUpdated(Event):
    id: int
    username: str
    status: UserStatus


class UserDeleted(Event):
    """Its tokens go with it."""

    id: int


class PasswordChanged(Event):
    id: int
    password_hash: str


class PermissionsUpdated(Event):
    id: int
    permissions: Permissions | None


class TokenCreated(Event):
    """digest: of the secret. expires_at_us: 0 for never. The user's tokens that had expired by then are gone."""

    user_id: int
    name: str
    digest: bytes
    expires_at_us: int
    created_at_us: int


class TokenDeleted(Event):
    user_id: int
    name: str


AnyEvent = (
    StreamCreated
    | StreamRenamed
    | StreamDeleted
    | StreamPurged
    | TopicCreated
    | TopicUpdated
    | TopicDeleted
    | TopicPurged
    | PartitionsCreated
    | PartitionsDeleted
    | GroupCreated
    | GroupDeleted
    | UserCreated
    | UserUpdated
    | UserDeleted
    | PasswordChanged
    | PermissionsUpdated
    | TokenCreated
    | TokenDeleted
)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(AnyEvent).decode
