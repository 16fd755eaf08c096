"""Commands about partitions and their segments."""

import msgspec

from ..primitives import Identifier


class CreatePartitions(msgspec.Struct):
    stream: Identifier
    topic: Identifier
    count: int


class DeletePartitions(msgspec.Struct):
    """Delete the `count` partitions with the highest ids."""

    stream: Identifier
    topic: Identifier
    count: int


class DeleteSegments(msgspec.Struct):
    """Delete up to `count` of the oldest sealed segments."""

    stream: Identifier
    topic: Identifier
    partition_id: int
    count: int


class Partition(msgspec.Struct):
    """current_offset: the last offset given out, 0 also when there is none."""

    id: int
    created_at_us: int
    segments_count: int
    current_offset: int
    size: int
    messages_count: int
