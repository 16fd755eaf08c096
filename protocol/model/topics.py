"""Commands about topics. Sizes are bytes, times and durations microseconds."""

import msgspec

from ..primitives import Compression, Identifier, Options
from .partitions import Partition


class GetTopic(msgspec.Struct):
    stream: Identifier
    topic: Identifier


class GetTopics(msgspec.Struct):
    stream: Identifier


class CreateTopic(msgspec.Struct):
    stream: Identifier
    partitions_count: int
    name: str
    options: Options = ()


class UpdateTopic(msgspec.Struct):
    """Options that are absent stay as they are."""

    stream: Identifier
    topic: Identifier
    name: str
    options: Options = ()


class DeleteTopic(msgspec.Struct):
    stream: Identifier
    topic: Identifier


class PurgeTopic(msgspec.Struct):
    stream: Identifier
    topic: Identifier


class Topic(msgspec.Struct):
    """options: what the creator asked for; derived: what holds for every other key.

    message_expiry_us and max_topic_size are U64_MAX for never and unlimited.
    """

    id: int
    created_at_us: int
    partitions_count: int
    message_expiry_us: int
    compression: Compression
    max_topic_size: int
    size: int
    messages_count: int
    name: str
    options: Options = ()
    derived: Options = ()
    replication_factor: int = 1


class TopicDetails(msgspec.Struct):
    topic: Topic
    partitions: list[Partition]


class Topics(msgspec.Struct):
    topics: list[Topic]
