"""Messages of the classic wire to a batch record and back: nothing is lost, every checksum is right."""

import itertools
import struct
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol.batch import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    PAYLOAD_SIZE_MAX,
    USER_HEADERS_SIZE_MAX,
    BadBatch,
    Batch,
    cut,
    read_header,
    stamp,
    verify,
)
from pybroker.protocol.classic import convert
from pybroker.protocol.classic.convert import messages_of, record_of
from pybroker.protocol.errors import Status
from pybroker.protocol.primitives import U32_MAX, U64_MAX
from support.batches import make_batch
from support.classic import Message, index_of, polled_bytes, sent_bytes

ONE_HOUR_US = 3_600_000_000
NOW_US = 1_790_000_000_000_000
# As many messages of one size as are converted together.
MANY = convert._ALIKE_COUNT_MIN

messages = st.lists(
    st.builds(
        Message,
        payload=st.binary(min_size=1, max_size=50),
        id=st.integers(1, 2**128 - 1),
        offset=st.just(0),
        timestamp_us=st.just(0),
        origin_us=st.integers(NOW_US, NOW_US + ONE_HOUR_US),
        headers=st.binary(max_size=20),
    ),
    min_size=1,
    max_size=20,
)


@st.composite
def alike(draw: st.DrawFn) -> list[Message]:
    """Draw messages of one size."""
    size, headers = draw(st.integers(1, 40)), draw(st.binary(max_size=9))
    payloads = draw(st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=40))
    ids = draw(st.lists(st.integers(1, 2**128 - 1), min_size=len(payloads), max_size=len(payloads)))
    times = [NOW_US + ident % ONE_HOUR_US for ident in ids]
    return [
        Message(payload, id=ident, origin_us=time, headers=headers)
        for payload, ident, time in zip(payloads, ids, times, strict=True)
    ]


def convert_sent(sent: Sequence[Message], random_bytes: Callable[[int], bytes] = bytes) -> Batch:
    data = [sent_bytes(message) for message in sent]
    return record_of(memoryview(b"".join(data)), memoryview(index_of(data)), random_bytes)


def stamped(batch: Batch, *, base_offset: int = 3, base_timestamp_us: int = 77) -> Batch:
    """Do what a log does with it, and verify everything."""
    stamp(batch, base_offset=base_offset, base_timestamp_us=base_timestamp_us)
    return verify(batch.record)


def expected(sent: Sequence[Message], *, base_offset: int = 3, timestamp_us: int = 77) -> bytes:
    """Return what a poll gives of sent messages."""
    return b"".join(
        polled_bytes(message._replace(offset=base_offset + index, timestamp_us=timestamp_us))
        for index, message in enumerate(sent)
    )


@given(sent=messages | alike())
def test_messages_come_back_as_they_were_sent(sent: list[Message]) -> None:
    batch = convert_sent(sent)
    record = stamped(batch)
    assert (record.count, record.checksums) == (len(sent), batch.checksums)
    assert b"".join(messages_of([record.record])) == expected(sent)


@given(sent=messages | alike(), data=st.data())
def test_part_of_a_record_is_the_part_of_its_messages(sent: list[Message], data: st.DataObject) -> None:
    skip = data.draw(st.integers(0, len(sent) - 1))
    count = data.draw(st.integers(1, len(sent) - skip))
    record = stamped(convert_sent(sent)).record
    assert b"".join(messages_of(cut(record, skip=skip, count=count))) == expected(
        sent[skip : skip + count], base_offset=3 + skip
    )


@given(runs=st.lists(messages | alike(), min_size=2, max_size=3))
def test_records_of_a_poll_come_in_any_buffers(runs: list[list[Message]]) -> None:
    records = [stamped(convert_sent(sent), base_offset=100 * index).record for index, sent in enumerate(runs)]
    whole = b"".join(expected(sent, base_offset=100 * index) for index, sent in enumerate(runs))
    assert b"".join(messages_of([b"".join(records)])) == whole
    assert b"".join(messages_of(records)) == whole
    headed = itertools.chain.from_iterable((record[:HEADER_SIZE], record[HEADER_SIZE:]) for record in records)
    assert b"".join(messages_of(list(headed))) == whole


@pytest.mark.parametrize("sizes", [[5], [8] * MANY, [1, 2, 3], [5000] * MANY, [100_000, 1, 70_000]])
def test_record_is_the_one_that_a_newer_client_would_send(sizes: list[int]) -> None:
    payloads = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    ids = range(1, len(sizes) + 1)
    theirs = make_batch(payloads, message_ids=list(ids), origin_timestamp_us=9)
    ours = convert_sent([Message(payload, id=ident, origin_us=9) for payload, ident in zip(payloads, ids, strict=True)])
    assert bytes(stamped(ours).record) == bytes(stamped(theirs).record)


@pytest.mark.parametrize("count", [1, MANY, 3 * MANY])
def test_messages_without_an_id_get_one_each(count: int) -> None:
    numbers = itertools.count(1)

    def random_bytes(size: int) -> bytes:
        return b"".join(next(numbers).to_bytes(16, "little") for _ in range(size // 16))

    sent = [Message(b"x", id=0 if index % 3 == 0 else 1000 + index) for index in range(count)]
    record = stamped(convert_sent(sent, random_bytes)).record
    fresh = itertools.count(1)
    named = [message._replace(id=message.id or next(fresh)) for message in sent]
    assert b"".join(messages_of([record])) == expected(named)


@pytest.mark.parametrize("count", [1, MANY])
def test_reserved_bytes_of_a_message_are_sent_on_as_zeros(count: int) -> None:
    plain = [sent_bytes(Message(b"x", id=1))] * count
    odd = [message[:56] + b"\1" * 8 + message[64:] for message in plain]
    found = [record_of(memoryview(b"".join(data)), memoryview(index_of(data)), bytes) for data in (plain, odd)]
    assert bytes(found[0].record) == bytes(found[1].record)


@pytest.mark.parametrize("count", [2, MANY])
@pytest.mark.parametrize(
    ("origins", "kept"),
    [
        ((NOW_US, NOW_US + U32_MAX), (NOW_US, NOW_US + U32_MAX)),
        ((NOW_US, NOW_US + U32_MAX + 1), (NOW_US + 1, NOW_US + U32_MAX + 1)),
        ((0, NOW_US), (NOW_US - U32_MAX, NOW_US)),
        ((U64_MAX, 0), (U64_MAX, U64_MAX - U32_MAX)),
        ((U64_MAX, U64_MAX), (U64_MAX - U32_MAX, U64_MAX - U32_MAX)),
    ],
)
def test_messages_made_long_apart_are_kept_with_the_nearest_time_that_fits(
    count: int, origins: tuple[int, int], kept: tuple[int, int]
) -> None:
    payloads = [b"x"] * (count - 2)
    sent = [Message(payload, id=1, origin_us=origins[0]) for payload in (*payloads, b"x")]
    sent.append(Message(b"x", id=1, origin_us=origins[1]))
    shown = [message._replace(origin_us=kept[0]) for message in sent[:-1]] + [sent[-1]._replace(origin_us=kept[1])]
    assert b"".join(messages_of([stamped(convert_sent(sent)).record])) == expected(shown)


def alike_messages() -> list[bytes]:
    return [sent_bytes(Message(b"payload")) for _ in range(MANY)]


def with_sizes(message: bytes, headers_size: int, payload_size: int) -> bytes:
    return message[:48] + struct.pack("<II", headers_size, payload_size) + message[56:]


def entry(end: int, *, zero: int = 0, zeros: int = 0) -> bytes:
    return struct.pack("<IIQ", zero, end, zeros)


# What is wrong with the last but one of eight messages of 71 bytes: messages, index entries.
FAULTS: dict[str, tuple[Status, Callable[[list[bytes], list[bytes]], None]]] = {
    "index with an offset": (Status.NON_ZERO_OFFSET, lambda _, index: index.__setitem__(6, entry(497, zero=1))),
    "index with a time": (Status.NON_ZERO_TIMESTAMP, lambda _, index: index.__setitem__(6, entry(497, zeros=1))),
    "index that goes back": (Status.CANNOT_READ_INDEX_POSITION, lambda _, index: index.__setitem__(6, entry(1))),
    "index beyond the end": (Status.MISSING_INDEX, lambda _, index: index.__setitem__(6, entry(10_000))),
    "message too small": (Status.TOO_SMALL_MESSAGE, lambda _, index: index.__setitem__(6, entry(426 + 63))),
    "message twice as long": (Status.INVALID_MESSAGES_SIZE, lambda _, index: index.__setitem__(6, entry(568))),
    "payload too large": (
        Status.TOO_BIG_MESSAGE_PAYLOAD,
        lambda data, _: data.__setitem__(6, with_sizes(data[6], 0, PAYLOAD_SIZE_MAX + 1)),
    ),
    "headers too large": (
        Status.TOO_BIG_USER_HEADERS,
        lambda data, _: data.__setitem__(6, with_sizes(data[6], USER_HEADERS_SIZE_MAX + 1, 7)),
    ),
    "sizes that are too much": (
        Status.INVALID_MESSAGES_SIZE,
        lambda data, _: data.__setitem__(6, with_sizes(data[6], 1, 7)),
    ),
    "no payload": (Status.EMPTY_MESSAGE_PAYLOAD, lambda data, _: data.__setitem__(6, with_sizes(data[6], 7, 0))),
    "bytes behind the messages": (Status.INVALID_MESSAGES_SIZE, lambda data, _: data.append(b"x")),
    "bytes missing": (Status.MISSING_INDEX, lambda data, _: data.__setitem__(7, data[7][:-1])),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_by_its_status(name: str) -> None:
    status, spoil = FAULTS[name]
    data = alike_messages()
    whole = index_of(data)
    index = [whole[start : start + 16] for start in range(0, len(whole), 16)]
    spoil(data, index)
    with pytest.raises(BadBatch) as fault:
        record_of(memoryview(b"".join(data)), memoryview(b"".join(index)), bytes)
    assert fault.value.status is status


@pytest.mark.parametrize("count", [1, MANY])
def test_all_payloads_empty_is_a_fault(count: int) -> None:
    data = [sent_bytes(Message(b"", headers=b"headers"))] * count
    with pytest.raises(BadBatch) as fault:
        record_of(memoryview(b"".join(data)), memoryview(index_of(data)), bytes)
    assert fault.value.status is Status.EMPTY_MESSAGE_PAYLOAD


@pytest.mark.parametrize("count", [3, MANY])
def test_damaged_record_is_told_from_a_sound_one(count: int) -> None:
    sound = bytes(stamped(make_batch([b"payload"] * count)).record)
    sizes_at = HEADER_SIZE + (count - 2) * (FRAME_HEADER_SIZE + 7) + 32
    for size in (0, 8, U32_MAX):
        damaged = sound[: sizes_at + 4] + struct.pack("<I", size) + sound[sizes_at + 8 :]
        with pytest.raises(BadBatch):
            messages_of([damaged])
    for size in (1, HEADER_SIZE - 1, len(sound) - 1):
        with pytest.raises(BadBatch):
            messages_of([sound[:size]])
    assert len(messages_of([sound])) == 1


def test_time_at_the_end_of_time_does_not_overflow() -> None:
    batch = make_batch([b"x"] * MANY, origin_timestamp_us=U64_MAX)
    (data,) = messages_of([stamped(batch).record])
    assert struct.unpack_from("<Q", data, 40) == (U64_MAX - U32_MAX,)


def test_large_messages_of_a_poll_are_not_joined() -> None:
    sent = [Message(bytes([index + 1]) * 100_000, id=1) for index in range(3)]
    record = stamped(convert_sent(sent)).record
    parts = messages_of([record])
    assert len(parts) == 6
    assert b"".join(parts) == expected(sent)
    assert read_header(record).count == 3
