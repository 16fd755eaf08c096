"""From what a request gives to its command, where the two don't have the same fields. Nothing is looked up here."""

from collections.abc import Mapping
from struct import Struct
from typing import Any, NamedTuple

from msgspec import structs

from ....protocol.errors import Refused, Status
from ....protocol.model import groups, messages, offsets, partitions, streams, system, tokens, topics, users
from ....protocol.primitives import (
    Consumer,
    ConsumerKind,
    Option,
    Options,
    Permissions,
    PollingKind,
    PollingStrategy,
    SnapshotCompression,
    SnapshotKind,
    StreamPermissions,
    TopicPermissions,
    UserStatus,
    ValueKind,
)
from . import decode, own, shapes
from .decode import identifier, sized_name
from .errors import Malformed
from .messages import send_of

_U64 = Struct("<Q")
_STATUSES = {"active": UserStatus.ACTIVE, "inactive": UserStatus.INACTIVE}
_STRATEGIES = {
    "offset": PollingKind.OFFSET,
    "timestamp": PollingKind.TIMESTAMP,
    "first": PollingKind.FIRST,
    "last": PollingKind.LAST,
    "next": PollingKind.NEXT,
}
_SHORT = {name[0]: kind for name, kind in _STRATEGIES.items()}
_SCOPES = {"topic": 1, "stream": 2, "user": 3}
_COMPRESSIONS = {
    "Stored": SnapshotCompression.STORED,
    "Deflated": SnapshotCompression.DEFLATED,
    "Bzip2": SnapshotCompression.BZIP2,
    "Zstd": SnapshotCompression.ZSTD,
    "Lzma": SnapshotCompression.LZMA,
    "Xz": SnapshotCompression.XZ,
}
_PARTS = {
    "FilesystemOverview": SnapshotKind.FILESYSTEM,
    "ProcessList": SnapshotKind.PROCESSES,
    "ResourceUsage": SnapshotKind.RESOURCES,
    "Test": SnapshotKind.TEST,
    "ServerLogs": SnapshotKind.LOGS,
    "ServerConfig": SnapshotKind.CONFIG,
    "All": SnapshotKind.ALL,
}
_FLAGS = {"true": True, "false": False, "fsync=true": True, "fsync=false": False}
_SINGLE = ConsumerKind.SINGLE
_NOBODY = "1"  # as in Iggy, who a poll without a name is of
# Messages become JSON one by one, while everybody else waits: 6 us each, and 0.9 kB of memory besides.
POLL_COUNT_MAX = 10_000


class Call(NamedTuple):
    """What a request gives. path: the values in its path by name, still text. user_id: who asks, 0 for nobody."""

    path: Mapping[str, str]
    body: Any
    query: Any
    user_id: int
    now_us: int

    @property
    def stream(self) -> int | str:
        return identifier(self.path["stream"])

    @property
    def topic(self) -> int | str:
        return identifier(self.path["topic"])

    @property
    def user(self) -> int | str:
        """The user that the path names, "me" for who asks."""
        name = self.path["user"]
        return self.user_id if name == "me" else identifier(name)


def login(call: Call) -> users.Login:
    return users.Login(call.body.username, call.body.password, call.body.version or "", call.body.context or "")


def token_login(call: Call) -> tokens.LoginWithToken:
    return tokens.LoginWithToken(call.body.token)


def refresh(call: Call) -> own.RefreshToken:
    return own.RefreshToken(call.body.token)


def snapshot(call: Call) -> system.GetSnapshot:
    body: decode.SnapshotOf = call.body
    return system.GetSnapshot(_COMPRESSIONS[body.compression], [_PARTS[part] for part in body.snapshot_types])


def create_user(call: Call) -> users.CreateUser:
    body: decode.NewUser = call.body
    return users.CreateUser(body.username, body.password, _STATUSES[body.status], _permissions(body.permissions))


def update_user(call: Call) -> users.UpdateUser:
    body: decode.UserChanges = call.body
    status = _STATUSES[body.status] if body.status else None
    return users.UpdateUser(call.user, body.username, status, _options(body.options))


def update_permissions(call: Call) -> users.UpdatePermissions:
    return users.UpdatePermissions(call.user, _permissions(call.body.permissions))


def change_password(call: Call) -> users.ChangePassword:
    return users.ChangePassword(call.user, call.body.current_password, call.body.new_password)


def create_token(call: Call) -> tokens.CreateToken:
    return tokens.CreateToken(call.body.name, call.body.expiry_us)


def delete_token(call: Call) -> tokens.DeleteToken:
    return tokens.DeleteToken(call.path["name"])


def describe_options(call: Call) -> system.DescribeOptions:
    scope = _SCOPES.get(call.path["scope"])
    if scope is None:
        raise Malformed(400, "the path does not fit: expected topic, stream or user")
    return system.DescribeOptions(scope)


def create_stream(call: Call) -> streams.CreateStream:
    name = sized_name(call.body.name, Status.INVALID_STREAM_NAME)
    return streams.CreateStream(name, _options(call.body.options))


def update_stream(call: Call) -> streams.UpdateStream:
    name = sized_name(call.body.name, Status.INVALID_STREAM_NAME)
    return streams.UpdateStream(call.stream, name, _options(call.body.options))


def create_topic(call: Call) -> topics.CreateTopic:
    body: decode.NewTopic = call.body
    name = sized_name(body.name, Status.INVALID_TOPIC_NAME)
    return topics.CreateTopic(call.stream, body.partitions_count, name, _settings(body))


def update_topic(call: Call) -> topics.UpdateTopic:
    name = sized_name(call.body.name, Status.INVALID_TOPIC_NAME)
    return topics.UpdateTopic(call.stream, call.topic, name, _settings(call.body))


def create_partitions(call: Call) -> partitions.CreatePartitions:
    return partitions.CreatePartitions(call.stream, call.topic, call.body.count)


def delete_partitions(call: Call) -> partitions.DeletePartitions:
    return partitions.DeletePartitions(call.stream, call.topic, call.query.count)


def delete_segments(call: Call) -> partitions.DeleteSegments:
    partition_id = decode.number(call.path["partition_id"])
    return partitions.DeleteSegments(call.stream, call.topic, partition_id, call.query.count)


def create_group(call: Call) -> groups.CreateConsumerGroup:
    name = sized_name(call.body.name, Status.INVALID_CONSUMER_GROUP_NAME)
    return groups.CreateConsumerGroup(call.stream, call.topic, name)


def send(call: Call) -> messages.SendMessages:
    return send_of(call.stream, call.topic, call.body, call.now_us)


def poll(call: Call) -> messages.PollMessages:
    """A consumer group can't be said over HTTP: who polls is always a single consumer."""
    query: decode.Poll = call.query
    return messages.PollMessages(
        consumer=Consumer(_SINGLE, identifier(query.consumer_id)),
        stream=call.stream,
        topic=call.topic,
        partition_id=query.partition_id or 0,
        strategy=PollingStrategy(_STRATEGIES.get(query.kind) or _SHORT[query.kind], query.value),
        count=min(query.count, POLL_COUNT_MAX),
        auto_commit=query.auto_commit,
    )


def follow(call: Call) -> own.Follow:
    query: decode.Follow = call.query
    _check_follow(query)
    is_group = query.group is not None
    name = query.group if is_group else query.consumer_id
    kind = ConsumerKind.GROUP if is_group else _SINGLE
    return own.Follow(
        consumer=Consumer(kind, identifier(_NOBODY if name is None else name)),
        stream=call.stream,
        topic=call.topic,
        partition_id=query.partition_id,
        start=query.kind or ("new" if name is None else "next"),
        value=query.value,
        count=query.count,
        auto_commit=is_group or bool(query.auto_commit),
        last_event_id=query.last_event_id,
    )


def _check_follow(query: decode.Follow) -> None:
    """Raise Malformed for what has no sense together."""
    if query.group is None:
        if query.consumer_id is None and (query.kind == "next" or query.auto_commit):
            raise Malformed(400, "the query does not fit: kind=next and auto_commit need a consumer_id or group")
        return
    if (query.consumer_id, query.partition_id, query.kind or "next") != (None, None, "next"):
        raise Malformed(400, "the query does not fit: a group has no consumer_id, partition_id, or kind but next")
    if query.auto_commit is False:
        raise Malformed(400, "the query does not fit: a group's offsets are always stored, leave auto_commit out")


def flush(call: Call) -> messages.FlushUnsavedBuffer:
    fsync = _FLAGS.get(call.path["fsync"])
    if fsync is None:
        raise Malformed(400, "the path does not fit: expected true or false")
    return messages.FlushUnsavedBuffer(call.stream, call.topic, decode.number(call.path["partition_id"]), fsync)


def get_offset(call: Call) -> offsets.GetConsumerOffset:
    consumer = Consumer(_SINGLE, identifier(call.query.consumer_id))
    return offsets.GetConsumerOffset(consumer, call.stream, call.topic, call.query.partition_id)


def store_offset(call: Call) -> offsets.StoreConsumerOffset:
    body: decode.NewOffset = call.body
    consumer = Consumer(_SINGLE, identifier(str(body.consumer_id)))
    return offsets.StoreConsumerOffset(consumer, call.stream, call.topic, body.partition_id, body.offset)


def delete_offset(call: Call) -> offsets.DeleteConsumerOffset:
    consumer = Consumer(_SINGLE, identifier(call.path["consumer"]))
    return offsets.DeleteConsumerOffset(consumer, call.stream, call.topic, call.query.partition_id)


def _permissions(given: shapes.Permissions | None) -> Permissions | None:
    if given is None:
        return None
    in_streams = {id_: _in_stream(of) for id_, of in (given.streams or {}).items()}
    return Permissions(**structs.asdict(given.everywhere), streams=in_streams)


def _in_stream(given: shapes.StreamPermissions) -> StreamPermissions:
    flags = structs.asdict(given)
    by_topic: dict[int, shapes.TopicPermissions] = flags.pop("topics") or {}
    in_topics = {id_: TopicPermissions(**structs.asdict(of)) for id_, of in by_topic.items()}
    return StreamPermissions(**flags, topics=in_topics)


def _options(given: Mapping[str, str]) -> Options:
    return tuple(Option(key, ValueKind.STRING, value.encode()) for key, value in given.items())


def _settings(given: decode.NewTopic | decode.TopicChanges) -> Options:
    """Return the options of a topic: those with a field of their own and the others; a field wins.

    A replication factor means nothing to a single server, but 0 is refused as Iggy does.
    """
    if given.replication_factor == 0:
        raise Refused(Status.INVALID_REPLICATION_FACTOR, "0, expected 1 or more")
    fields: dict[str, Option] = {}
    if given.compression_algorithm is not None:
        word = given.compression_algorithm.encode()
        fields["compression_algorithm"] = Option("compression_algorithm", ValueKind.STRING, word)
    for key, value in (("message_expiry", given.message_expiry), ("max_topic_size", given.max_topic_size)):
        if value is not None:
            fields[key] = Option(key, ValueKind.U64, _U64.pack(value))
    others = {option.key: option for option in _options(given.options)}
    return tuple((others | fields).values())
