"""Builds batches as a client sends them: verified, not yet stamped, in writable memory."""

from collections.abc import Sequence
from struct import Struct, pack_into

from pybroker.protocol.batch import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    Batch,
    Buffer,
    Header,
    checksum_of,
    read_header,
    verify,
)
from xxhash import xxh3_64_intdigest

_FRAME = Struct("<16sIIIIQ")  # a frame from byte 8 on: id, deltas, headers size, payload size, zero
_U64 = Struct("<Q")


def make_frame(payload: bytes, *, offset_delta: int, message_id: int = 0, user_headers: bytes = b"") -> bytes:
    """Return one message's frame with its checksum."""
    ident = message_id.to_bytes(16, "little")
    rest = _FRAME.pack(ident, offset_delta, 0, len(user_headers), len(payload), 0) + payload + user_headers
    return _U64.pack(xxh3_64_intdigest(rest)) + rest


def make_record(*frames: bytes, count: int | None = None) -> memoryview:
    """Return a record of these frames whose batch checksum is right."""
    record = memoryview(bytearray(HEADER_SIZE) + b"".join(frames))
    pack_into("<QI", record, 32, len(record), 0)
    pack_into("<I", record, 48, len(frames) if count is None else count)
    seal(record, b"".join(frame[:8] for frame in frames))
    return record


def seal(record: memoryview, checksums: bytes) -> None:
    """Write the batch checksum by the rule of the reference: five u64, the count, the frames' checksums."""
    pack_into("<Q", record, 40, xxh3_64_intdigest(bytes(record[:40]) + bytes(record[48:52]) + checksums))


def reseal(frame: bytearray) -> bytes:
    """Give a changed frame its checksum."""
    pack_into("<Q", frame, 0, xxh3_64_intdigest(bytes(frame[8:])))
    return bytes(frame)


def make_batch(
    payloads: Sequence[bytes] = (b"payload",),
    *,
    partition_id: int = 0,
    origin_timestamp_us: int = 0,
    message_ids: Sequence[int] = (),
) -> Batch:
    """Return a batch of one message for each payload. Its record is a view of a bytearray of its own.

    message_ids: one for each payload; none of them has one if it is empty.
    """
    idents = message_ids or [0] * len(payloads)
    frames = [
        make_frame(payload, offset_delta=delta, message_id=ident)
        for delta, (payload, ident) in enumerate(zip(payloads, idents, strict=True))
    ]
    record = memoryview(bytearray(HEADER_SIZE) + b"".join(frames))
    size = HEADER_SIZE + sum(map(len, frames))
    Struct("<6QI").pack_into(record, 0, partition_id, 0, 0, origin_timestamp_us, size, 0, len(frames))
    _U64.pack_into(record, 40, checksum_of(record, b"".join(frame[:8] for frame in frames)))
    return verify(record)


def make_sized_batch(size: int) -> Batch:
    """Return a batch of one message whose record has exactly `size` bytes, at least 305."""
    return make_batch([b"x" * (size - HEADER_SIZE - FRAME_HEADER_SIZE)])


def split_records(buffers: Sequence[memoryview]) -> list[memoryview]:
    """Return the records that the buffers of a read hold, one view each. Raises BadBatch."""
    records: list[memoryview] = []
    for buffer in buffers:
        position = 0
        while position < len(buffer):
            size = read_header(buffer, position).size
            records.append(buffer[position : position + size])
            position += size
    return records


def payloads_of(buffers: Sequence[memoryview]) -> list[bytes]:
    """Return the payloads in the records of a read, every record verified. Raises BadBatch."""
    payloads: list[bytes] = []
    for record in split_records(buffers):
        position = HEADER_SIZE
        for _ in range(verify(record).count):
            headers_size, payload_size = Struct("<II").unpack_from(record, position + 32)
            start = position + FRAME_HEADER_SIZE
            payloads.append(bytes(record[start : start + payload_size]))
            position = start + payload_size + headers_size
    return payloads


def offsets_of(record: Buffer, header: Header, position: int = 0) -> range:
    """Return the offsets of the record at `position` of `record`, its first delta taken into account."""
    first_delta = int.from_bytes(bytes(record[position + HEADER_SIZE + 24 : position + HEADER_SIZE + 28]), "little")
    return range(header.base_offset + first_delta, header.base_offset + first_delta + header.count)
