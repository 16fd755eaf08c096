"""Commands about streams. Sizes are bytes, times microseconds since the epoch."""

import msgspec

from ..primitives import Identifier, Options
from .topics import Topic


class GetStream(msgspec.Struct):
    stream: Identifier


class GetStreams(msgspec.Struct):
    pass


class CreateStream(msgspec.Struct):
    name: str
    options: Options = ()


class UpdateStream(msgspec.Struct):
    stream: Identifier
    name: str
    options: Options = ()


class DeleteStream(msgspec.Struct):
    stream: Identifier


class PurgeStream(msgspec.Struct):
    stream: Identifier


class Stream(msgspec.Struct):
    id: int
    created_at_us: int
    topics_count: int
    size: int
    messages_count: int
    name: str
    options: Options = ()


class StreamDetails(msgspec.Struct):
    stream: Stream
    topics: list[Topic]


class Streams(msgspec.Struct):
    streams: list[Stream]
