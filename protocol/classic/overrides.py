"""The layouts of the classic wire: what it shares and what only it has.

It has no options. What a topic can be told stands in fields of its own, which become options here and back.
"""

from struct import Struct as Layout
from typing import Any, NamedTuple

from ..errors import Refused, Status
from ..model import messages, offsets, streams, tokens, topics, users
from ..payloads.codec import U8, U32, U64, Codec, layout, optional, rest
from ..payloads.fields import COMPRESSION, IDENTIFIER, NAME, SHORT_TEXT, TEXT, USER_STATUS
from ..payloads.permissions import GRANTED, SHOWN
from ..payloads.shared import CONSUMER_OF_TOPIC, PARTITION, SHARED, STREAM_ID, USER_ID, Codecs
from ..primitives import Compression, Option, Options, ValueKind
from ..reader import Reader, Writer
from .messages import POLLED, SEND_MESSAGES

_U64 = Layout("<Q")
_WORDS = {Compression.NONE: b"none", Compression.GZIP: b"gzip"}
_SETTINGS = ("compression_algorithm", "message_expiry", "max_topic_size")


class _Settings(NamedTuple):
    """What a topic is told: microseconds and bytes, 0 for the server's default."""

    compression: Compression = Compression.NONE
    message_expiry_us: int = 0
    max_topic_size: int = 0


def _read_settings(reader: Reader) -> _Settings:
    """Read settings, and a replication factor that means nothing to a single server."""
    settings = _Settings(COMPRESSION.read(reader), reader.u64(), reader.u64())
    reader.u8()
    return settings


def _write_settings(writer: Writer, options: Options) -> None:
    """Write the options that have a field. Raises Refused for one that has none."""
    given = {option.key: option.value for option in options}
    if unknown := given.keys() - set(_SETTINGS):
        raise Refused(Status.UNSUPPORTED_OPTION_KEY, f"{', '.join(sorted(unknown))}: Iggy 0.8 has no such option")
    word = given.get("compression_algorithm", b"none")
    COMPRESSION.write(writer, next(key for key, value in _WORDS.items() if value == word))
    for key in _SETTINGS[1:]:
        writer.u64(int.from_bytes(given.get(key, b""), "little"))
    writer.u8(1)


def _options(settings: _Settings) -> Options:
    values = (
        (ValueKind.STRING, _WORDS[settings.compression]),
        (ValueKind.U64, _U64.pack(settings.message_expiry_us)),
        (ValueKind.U64, _U64.pack(settings.max_topic_size)),
    )
    return tuple(Option(key, kind, value) for key, (kind, value) in zip(_SETTINGS, values, strict=True))


def _read_create_topic(reader: Reader) -> topics.CreateTopic:
    stream, partitions_count, settings = IDENTIFIER.read(reader), reader.u32(), _read_settings(reader)
    asked = zip(settings, _Settings(), _options(settings), strict=True)
    options = tuple(option for value, default, option in asked if value != default)
    return topics.CreateTopic(stream, partitions_count, NAME.read(reader), options)


def _write_create_topic(writer: Writer, command: topics.CreateTopic) -> None:
    IDENTIFIER.write(writer, command.stream)
    writer.u32(command.partitions_count)
    _write_settings(writer, command.options)
    NAME.write(writer, command.name)


def _read_update_topic(reader: Reader) -> topics.UpdateTopic:
    """Read an update: it always says all, so that its options leave nothing as it was."""
    stream, topic, settings = IDENTIFIER.read(reader), IDENTIFIER.read(reader), _read_settings(reader)
    return topics.UpdateTopic(stream, topic, NAME.read(reader), _options(settings))


def _write_update_topic(writer: Writer, command: topics.UpdateTopic) -> None:
    IDENTIFIER.write(writer, command.stream)
    IDENTIFIER.write(writer, command.topic)
    _write_settings(writer, command.options)
    NAME.write(writer, command.name)


# The reply to a login has no session: a classic sign-in ends with its connection.
_LOGGED_IN = Codec(
    lambda reader: users.LoggedIn(reader.u32(), session=0),
    lambda writer, reply: writer.u32(reply.user_id),
)

STREAM = layout(
    streams.Stream, id=U32, created_at_us=U64, topics_count=U32, size=U64, messages_count=U64, name=NAME
)  # fmt: skip
TOPIC = layout(
    topics.Topic,
    id=U32,
    created_at_us=U64,
    partitions_count=U32,
    message_expiry_us=U64,
    compression=COMPRESSION,
    max_topic_size=U64,
    replication_factor=U8,
    size=U64,
    messages_count=U64,
    name=NAME,
)
USER = layout(users.User, id=U32, created_at_us=U64, status=USER_STATUS, username=NAME)
_ACCOUNT: dict[str, Codec[Any]] = {"username": SHORT_TEXT, "password": SHORT_TEXT}

CODECS: Codecs = SHARED | {
    users.Login: layout(users.Login, **_ACCOUNT, version=TEXT, context=TEXT),
    users.LoggedIn: _LOGGED_IN,
    tokens.LoginWithToken: layout(tokens.LoginWithToken, token=SHORT_TEXT),
    users.CreateUser: layout(users.CreateUser, **_ACCOUNT, status=USER_STATUS, permissions=GRANTED),
    users.UpdateUser: layout(users.UpdateUser, **USER_ID, username=optional(SHORT_TEXT), status=optional(USER_STATUS)),
    users.UserDetails: layout(users.UserDetails, user=USER, permissions=SHOWN),
    users.Users: layout(users.Users, users=rest(USER)),
    messages.SendMessages: SEND_MESSAGES,
    messages.Polled: POLLED,
    offsets.StoreConsumerOffset: layout(offsets.StoreConsumerOffset, **CONSUMER_OF_TOPIC, offset=U64),
    offsets.DeleteConsumerOffset: layout(offsets.DeleteConsumerOffset, **CONSUMER_OF_TOPIC),
    streams.CreateStream: layout(streams.CreateStream, name=NAME),
    streams.UpdateStream: layout(streams.UpdateStream, **STREAM_ID, name=NAME),
    streams.StreamDetails: layout(streams.StreamDetails, stream=STREAM, topics=rest(TOPIC)),
    streams.Streams: layout(streams.Streams, streams=rest(STREAM)),
    topics.CreateTopic: Codec(_read_create_topic, _write_create_topic),
    topics.UpdateTopic: Codec(_read_update_topic, _write_update_topic),
    topics.TopicDetails: layout(topics.TopicDetails, topic=TOPIC, partitions=rest(PARTITION)),
    topics.Topics: layout(topics.Topics, topics=rest(TOPIC)),
}
