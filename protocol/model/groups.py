"""Commands about consumer groups."""

import msgspec

from ..primitives import Identifier


class GetConsumerGroup(msgspec.Struct):
    stream: Identifier
    topic: Identifier
    group: Identifier


class GetConsumerGroups(msgspec.Struct):
    stream: Identifier
    topic: Identifier


class CreateConsumerGroup(msgspec.Struct):
    stream: Identifier
    topic: Identifier
    name: str


class DeleteConsumerGroup(msgspec.Struct):
    stream: Identifier
    topic: Identifier
    group: Identifier


class JoinConsumerGroup(msgspec.Struct):
    stream: Identifier
    topic: Identifier
    group: Identifier


class LeaveConsumerGroup(msgspec.Struct):
    stream: Identifier
    topic: Identifier
    group: Identifier


class SyncConsumerGroup(msgspec.Struct):
    stream: Identifier
    topic: Identifier
    group: Identifier


class Group(msgspec.Struct):
    id: int
    partitions_count: int
    members_count: int
    name: str


class GroupMember(msgspec.Struct):
    id: int
    partitions: list[int]


class GroupDetails(msgspec.Struct):
    group: Group
    members: list[GroupMember]


class Groups(msgspec.Struct):
    groups: list[Group]


class GroupAssignment(msgspec.Struct):
    """generation: grows with every change of members or partitions."""

    generation: int
    partitions: list[int]
