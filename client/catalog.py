"""Streams, topics, partitions, segments and consumer groups."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from ..protocol.model import groups, partitions, streams, topics
from ..protocol.model.groups import Group, GroupAssignment, GroupDetails, Groups
from ..protocol.model.streams import Stream, StreamDetails, Streams
from ..protocol.model.topics import Topic, TopicDetails, Topics
from ..protocol.primitives import Identifier, Option, Options, ValueKind
from .caller import Caller, OptionValue, text_options

Durability = Literal["replicated", "persisted"]

_MICROSECOND = timedelta(microseconds=1)


class CatalogCommands(Caller):
    """What is looked up and isn't there is None; what is changed and isn't there is a BrokerError."""

    async def get_streams(self) -> list[Stream]:
        return (await self._find(streams.GetStreams(), Streams) or Streams([])).streams

    async def get_stream(self, stream: Identifier) -> StreamDetails | None:
        return await self._find(streams.GetStream(stream), StreamDetails)

    async def create_stream(self, name: str) -> StreamDetails:
        return await self._get(streams.CreateStream(name), StreamDetails)

    async def update_stream(self, stream: Identifier, name: str) -> None:
        await self.call(streams.UpdateStream(stream, name))

    async def delete_stream(self, stream: Identifier) -> None:
        await self.call(streams.DeleteStream(stream))

    async def purge_stream(self, stream: Identifier) -> None:
        """Delete the messages of all its topics."""
        await self.call(streams.PurgeStream(stream))

    async def get_topics(self, stream: Identifier) -> list[Topic]:
        return (await self._find(topics.GetTopics(stream), Topics) or Topics([])).topics

    async def get_topic(self, stream: Identifier, topic: Identifier) -> TopicDetails | None:
        return await self._find(topics.GetTopic(stream, topic), TopicDetails)

    async def create_topic(
        self,
        stream: Identifier,
        name: str,
        partitions: int = 1,
        *,
        expiry: timedelta | None = None,
        size_max: int | None = None,
        durability: Durability | None = None,
        options: Mapping[str, OptionValue] | None = None,
    ) -> TopicDetails:
        """Create a topic. None leaves a setting to the server.

        expiry: how long messages are kept. size_max: bytes of all partitions, from where on the oldest segments go.
        durability: when a send is answered: once written ("replicated") or once on disk ("persisted").
        options: more of them by name, as the server's describe_options lists them.
        """
        chosen = _topic_options(expiry, size_max, durability) + text_options(options or {})
        return await self._get(topics.CreateTopic(stream, partitions, name, chosen), TopicDetails)

    async def update_topic(
        self,
        stream: Identifier,
        topic: Identifier,
        name: str,
        *,
        expiry: timedelta | None = None,
        size_max: int | None = None,
        options: Mapping[str, OptionValue] | None = None,
    ) -> None:
        """Give a topic a name and settings; None leaves a setting as it is."""
        chosen = _topic_options(expiry, size_max, None) + text_options(options or {})
        await self.call(topics.UpdateTopic(stream, topic, name, chosen))

    async def delete_topic(self, stream: Identifier, topic: Identifier) -> None:
        await self.call(topics.DeleteTopic(stream, topic))

    async def purge_topic(self, stream: Identifier, topic: Identifier) -> None:
        """Delete its messages."""
        await self.call(topics.PurgeTopic(stream, topic))

    async def create_partitions(self, stream: Identifier, topic: Identifier, count: int) -> None:
        await self.call(partitions.CreatePartitions(stream, topic, count))

    async def delete_partitions(self, stream: Identifier, topic: Identifier, count: int) -> None:
        """Delete the `count` partitions with the highest numbers."""
        await self.call(partitions.DeletePartitions(stream, topic, count))

    async def delete_segments(self, stream: Identifier, topic: Identifier, partition: int, count: int) -> None:
        """Delete up to `count` of the oldest segments that are full."""
        await self.call(partitions.DeleteSegments(stream, topic, partition, count))

    async def get_groups(self, stream: Identifier, topic: Identifier) -> list[Group]:
        return (await self._find(groups.GetConsumerGroups(stream, topic), Groups) or Groups([])).groups

    async def get_group(self, stream: Identifier, topic: Identifier, group: Identifier) -> GroupDetails | None:
        return await self._find(groups.GetConsumerGroup(stream, topic, group), GroupDetails)

    async def create_group(self, stream: Identifier, topic: Identifier, name: str) -> GroupDetails:
        return await self._get(groups.CreateConsumerGroup(stream, topic, name), GroupDetails)

    async def delete_group(self, stream: Identifier, topic: Identifier, group: Identifier) -> None:
        await self.call(groups.DeleteConsumerGroup(stream, topic, group))

    async def join_group(self, stream: Identifier, topic: Identifier, group: Identifier) -> None:
        """Become a member, as long as this connection lives: after a reconnection one has to join again."""
        await self.call(groups.JoinConsumerGroup(stream, topic, group))

    async def leave_group(self, stream: Identifier, topic: Identifier, group: Identifier) -> None:
        await self.call(groups.LeaveConsumerGroup(stream, topic, group))

    async def sync_group(self, stream: Identifier, topic: Identifier, group: Identifier) -> GroupAssignment | None:
        """Return the partitions that are this member's; None for who is no member."""
        return await self._find(groups.SyncConsumerGroup(stream, topic, group), GroupAssignment)


def _topic_options(expiry: timedelta | None, size_max: int | None, durability: Durability | None) -> Options:
    options: list[Option] = []
    if expiry is not None:
        options.append(_number("message_expiry", expiry // _MICROSECOND))
    if size_max is not None:
        options.append(_number("max_topic_size", size_max))
    if durability is not None:
        options.append(Option("durability", ValueKind.STRING, durability.encode()))
    return tuple(options)


def _number(key: str, value: int) -> Option:
    return Option(key, ValueKind.U64, value.to_bytes(8, "little"))
