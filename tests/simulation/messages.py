"""Messages that say who they are, and what a read has given of them."""

from collections.abc import Sequence
from struct import Struct

import msgspec
from pybroker.protocol.batch import BadBatch, Batch, read_header
from support.batches import make_batch, offsets_of, payloads_of, split_records
from xxhash import xxh3_64_intdigest

_IDENT = Struct("<QQ")
_CHECKSUM = Struct("<Q")
_SIZE = _CHECKSUM.size + _IDENT.size


class Violation(AssertionError):
    """A rule that must hold whatever fails does not."""


class Record(msgspec.Struct):
    """A record that a read returned: its place, and the numbers of its messages."""

    base: int
    timestamp_us: int
    size: int
    numbers: list[int]

    @property
    def end(self) -> int:
        return self.base + len(self.numbers)


def make_payload(log_id: int, number: int, size: int) -> bytes:
    """Return a message's payload: checksum, log id, number, and filling up to `size`."""
    body = _IDENT.pack(log_id, number)
    body += bytes([number % 251]) * max(size - _SIZE, 0)
    return _CHECKSUM.pack(xxh3_64_intdigest(body)) + body


def batch_of(log_id: int, numbers: Sequence[int], sizes: Sequence[int]) -> Batch:
    return make_batch([make_payload(log_id, number, size) for number, size in zip(numbers, sizes, strict=True)])


def records_of(log_id: int, buffers: Sequence[memoryview]) -> list[Record]:
    """Return the records of a read, every byte of them verified."""
    try:
        return [_record_of(log_id, record) for record in split_records(buffers)]
    except BadBatch as fault:
        raise Violation(f"log {log_id}: damaged bytes were served: {fault}") from fault


def _record_of(log_id: int, record: memoryview) -> Record:
    header = read_header(record)
    numbers = [_number_of(log_id, payload) for payload in payloads_of([record])]
    assert offsets_of(record, header) == range(header.base_offset, header.base_offset + len(numbers))
    return Record(header.base_offset, header.base_timestamp_us, header.size, numbers)


def _number_of(log_id: int, payload: bytes) -> int:
    if xxh3_64_intdigest(payload[_CHECKSUM.size :]) != _CHECKSUM.unpack_from(payload)[0]:
        raise Violation(f"log {log_id}: a payload was served that nobody sent")
    written_to, number = _IDENT.unpack_from(payload, _CHECKSUM.size)
    if written_to != log_id:
        raise Violation(f"log {log_id}: message {number} of log {written_to} was served")
    return number
