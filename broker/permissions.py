"""Which permissions meet which need.

A user holds flags everywhere, for single streams and for single topics. What one level gives no other takes away, and
a flag includes lesser ones: who may manage all streams may also poll every topic. RULES has that worked out.
"""

from typing import NamedTuple

import msgspec

from ..protocol.needs import Need
from ..protocol.primitives import Permissions, StreamPermissions, TopicPermissions

ROOT_ID = 0
ROOT = Permissions(
    manage_servers=True,
    read_servers=True,
    manage_users=True,
    read_users=True,
    manage_streams=True,
    read_streams=True,
    manage_topics=True,
    read_topics=True,
    poll_messages=True,
    send_messages=True,
)


class Rule(NamedTuple):
    """The flags any one of which meets a need: held everywhere, for the command's stream, or for its topic."""

    everywhere: str
    stream: str = ""
    topic: str = ""

    def or_else(self, flag: str) -> "Rule":
        """Return the rule that a flag of that name meets too, on each level."""
        return Rule(*(f"{flags} {flag}" for flags in self))


_MANAGE_TOPIC = Rule("manage_streams manage_topics", "manage_stream manage_topics", "manage_topic")
_READ_TOPIC = Rule(
    "manage_streams manage_topics read_streams read_topics",
    "manage_stream manage_topics read_stream read_topics",
    "manage_topic read_topic",
)

RULES = {
    Need.READ_SERVERS: Rule("manage_servers read_servers"),
    Need.READ_USER: Rule("manage_users read_users"),
    Need.READ_USERS: Rule("manage_users read_users"),
    Need.MANAGE_USERS: Rule("manage_users"),
    Need.CHANGE_PASSWORD: Rule("manage_users"),
    Need.READ_STREAMS: Rule("manage_streams read_streams"),
    Need.READ_STREAM: Rule("manage_streams read_streams", "manage_stream read_stream"),
    Need.CREATE_STREAM: Rule("manage_streams"),
    Need.MANAGE_STREAM: Rule("manage_streams", "manage_stream"),
    Need.READ_TOPIC: _READ_TOPIC,
    Need.CREATE_TOPIC: _MANAGE_TOPIC._replace(topic=""),
    Need.MANAGE_TOPIC: _MANAGE_TOPIC,
    Need.POLL: _READ_TOPIC.or_else("poll_messages"),
    Need.SEND: _MANAGE_TOPIC.or_else("send_messages"),
}

Needs = frozenset[Need]


class Grants(NamedTuple):
    """Permissions as the gate asks for them: the needs they meet everywhere, by stream, and by stream and topic."""

    everywhere: Needs
    streams: dict[int, Needs]
    topics: dict[tuple[int, int], Needs]

    def of_stream(self, need: Need, stream_id: int) -> bool:
        return need in self.streams.get(stream_id, ())

    def of_topic(self, need: Need, stream_id: int, topic_id: int) -> bool:
        return need in self.topics.get((stream_id, topic_id), ())


def grants_of(permissions: Permissions | None) -> Grants:
    """Work out which needs permissions meet. Every user meets those of who has signed in."""
    held = permissions or Permissions()
    return Grants(
        everywhere=_met(held, "everywhere") | {Need.NOTHING, Need.LOGIN},
        streams={stream_id: _met(flags, "stream") for stream_id, flags in held.streams.items()},
        topics={
            (stream_id, topic_id): _met(flags, "topic")
            for stream_id, stream in held.streams.items()
            for topic_id, flags in stream.topics.items()
        },
    )


def _met(held: Permissions | StreamPermissions | TopicPermissions, level: str) -> Needs:
    return frozenset(
        need for need, rule in RULES.items() if any(getattr(held, flag) for flag in getattr(rule, level).split())
    )


def without(permissions: Permissions, stream_id: int, topic_id: int | None = None) -> Permissions:
    """Return permissions that say nothing of a stream, or of one of its topics."""
    stream = permissions.streams.get(stream_id)
    if stream is None:
        return permissions
    streams = {ident: held for ident, held in permissions.streams.items() if ident != stream_id}
    if topic_id is not None:
        topics = {ident: held for ident, held in stream.topics.items() if ident != topic_id}
        streams[stream_id] = msgspec.structs.replace(stream, topics=topics)
    return msgspec.structs.replace(permissions, streams=streams)
