"""Where a send goes. A producer repeats it with every batch, so it is remembered.

metadata size u32 | stream | topic | partitioning | messages count u32
"""

from functools import lru_cache
from struct import Struct

import msgspec

from ..errors import WireError
from ..model.messages import SendMessages
from ..primitives import Identifier, Partitioning
from ..reader import Reader, Writer
from .codec import U32, layout
from .fields import IDENTIFIER, PARTITIONING

METADATA_SIZE_MAX = 1024
_SIZE = Struct("<I")
_SIZE_SIZE = _SIZE.size
_END_MAX = _SIZE_SIZE + METADATA_SIZE_MAX
_TARGETS_MAX = 4096


class Target(msgspec.Struct, frozen=True):
    stream: Identifier
    topic: Identifier
    partitioning: Partitioning
    messages_count: int


_TARGET = layout(Target, stream=IDENTIFIER, topic=IDENTIFIER, partitioning=PARTITIONING, messages_count=U32)


@lru_cache(_TARGETS_MAX)
def _target(metadata: bytes) -> Target:
    """Decode a target: 0.1 us remembered, 5.5 us decoded."""
    reader = Reader(memoryview(metadata))
    target = _TARGET.read(reader)
    if reader.remaining:
        raise WireError(reader.position, "the metadata's end", f"{reader.remaining} bytes more")
    return target


def read_target(data: memoryview) -> tuple[Target, int]:
    """Read where a send goes; return it and where in `data` its messages start."""
    end = _SIZE_SIZE + (_SIZE.unpack_from(data)[0] if len(data) >= _SIZE_SIZE else METADATA_SIZE_MAX)
    if end > len(data) or end > _END_MAX:
        raise WireError(0, f"metadata of at most {METADATA_SIZE_MAX} bytes, all there", f"{len(data)} bytes")
    return _target(data[_SIZE_SIZE:end].tobytes()), end


@lru_cache(_TARGETS_MAX)
def target_of(stream: Identifier, topic: Identifier, partitioning: Partitioning, messages_count: int) -> bytes:
    """Return the bytes that say where a send goes: 0.3 us remembered, 9 us encoded."""
    metadata = _TARGET.encode(Target(stream, topic, partitioning, messages_count))
    return _SIZE.pack(len(metadata)) + metadata


def write_target(writer: Writer, command: SendMessages) -> None:
    writer.raw(target_of(command.stream, command.topic, command.partitioning, command.batch.count))
