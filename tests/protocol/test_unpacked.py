"""Messages one by one: packed into a record and taken out again."""

import os
from struct import pack as pack_values

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol.batch import (
    HEADER_SIZE,
    PAYLOAD_SIZE_MAX,
    USER_HEADERS_SIZE_MAX,
    BadBatch,
    cut,
    stamp,
    verify,
)
from pybroker.protocol.errors import Status
from pybroker.protocol.primitives import ValueKind
from pybroker.protocol.unpacked import (
    FRESH_SIZE,
    HeaderEntry,
    HeaderField,
    Message,
    pack,
    pack_checked,
    pack_headers,
    unpack,
    unpack_headers,
)

IDENT = bytes(range(16))
FIELD = HeaderField(ValueKind.STRING, b"k")

messages_of_any_kind = st.lists(
    st.builds(Message, st.binary(min_size=16, max_size=16), st.binary(min_size=1, max_size=90), st.binary(max_size=90)),
    min_size=1,
    max_size=50,
)
fields = st.builds(HeaderField, st.sampled_from(ValueKind), st.binary(min_size=1, max_size=255))


def stamped(*payloads: bytes, base_offset: int = 0) -> memoryview:
    batch = pack([Message(IDENT, payload) for payload in payloads], 5)
    stamp(batch, base_offset=base_offset, base_timestamp_us=9)
    return batch.record


@given(messages_of_any_kind)
def test_a_packed_record_is_sound_and_holds_its_messages(messages: list[Message]) -> None:
    batch = pack(messages, 5)
    stamp(batch, base_offset=70, base_timestamp_us=9)
    verified = verify(batch.record)
    assert (verified.count, verified.checksums) == (batch.count, batch.checksums)
    found = unpack([batch.record])
    assert [Message(one.ident, one.payload, one.user_headers) for one in found] == messages
    assert [one.offset for one in found] == list(range(70, 70 + len(messages)))
    assert {(one.timestamp_us, one.origin_timestamp_us) for one in found} == {(9, 5)}
    assert b"".join(one.checksum.to_bytes(8, "little") for one in found) == batch.checksums


def test_records_may_follow_each_other_and_be_cut_anywhere() -> None:
    parts = [*cut(stamped(b"a", b"b", b"c"), skip=1, count=2), stamped(b"d", base_offset=3)]
    data = b"".join(parts)
    for pieces in (parts, [data[:7], data[7:]], [data]):
        assert [(one.offset, one.payload) for one in unpack(pieces)] == [(1, b"b"), (2, b"c"), (3, b"d")]


@pytest.mark.parametrize("count", [1, 31, 32, 100])
@pytest.mark.parametrize("sizes", [[8], [100], [101], [8, 16], [3000]])
def test_payloads_alone_are_packed_as_messages_with_new_ids(count: int, sizes: list[int]) -> None:
    payloads = [os.urandom(sizes[index % len(sizes)]) for index in range(count)]
    fresh = bytes(range(FRESH_SIZE))
    messages = [Message(fresh + pack_values("<I", index), payload) for index, payload in enumerate(payloads)]
    alone, whole = pack_checked(payloads, 5, fresh), pack(messages, 5)
    assert (alone.record, alone.checksums) == (whole.record, whole.checksums)
    stamp(alone, base_offset=0, base_timestamp_us=0)
    assert verify(alone.record).count == count


def test_messages_with_and_without_an_id_may_share_a_batch() -> None:
    batch = pack_checked([b"alone", Message(b"", b"with headers", b"abc"), Message(IDENT, b"with an id")], 5, bytes(12))
    assert [(one.ident, one.payload, one.user_headers) for one in unpack([batch.record])] == [
        (bytes(16), b"alone", b""),
        (bytes(12) + b"\1\0\0\0", b"with headers", b"abc"),
        (IDENT, b"with an id", b""),
    ]


@pytest.mark.parametrize(
    "shapes",
    [
        [(100, 0)],
        [(7, 13)],
        [(100, 0), (104, 0)],  # of two sizes, though all together are as large as if they had one
        [(100, 20), (20, 100)],  # of one size, cut elsewhere
        [(10, 10), (12, 8)],
    ],
)
@pytest.mark.parametrize("count", [2, 64, 400])
def test_frames_unpack_alike_whether_they_have_one_size_or_not(shapes: list[tuple[int, int]], count: int) -> None:
    made = [shapes[index % len(shapes)] for index in range(count)]
    messages = [Message(os.urandom(16), os.urandom(payload), os.urandom(headers)) for payload, headers in made]
    record = pack(messages, 5).record
    found = unpack([*cut(record, skip=1, count=count - 1), record])
    assert [Message(one.ident, one.payload, one.user_headers) for one in found] == messages[1:] + messages
    assert [one.offset for one in found] == [*range(1, count), *range(count)]


def test_nothing_unpacks_to_nothing() -> None:
    assert unpack([]) == []


@pytest.mark.parametrize("size", [1, HEADER_SIZE - 1, HEADER_SIZE + 20])
def test_a_record_that_is_cut_off_is_bad(size: int) -> None:
    with pytest.raises(BadBatch):
        unpack([stamped(b"a")[:size]])


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([], Status.INVALID_MESSAGES_COUNT),
        ([Message(IDENT, b"")], Status.EMPTY_MESSAGE_PAYLOAD),
        ([Message(IDENT, bytes(PAYLOAD_SIZE_MAX + 1))], Status.TOO_BIG_MESSAGE_PAYLOAD),
        ([Message(IDENT, b"x", bytes(USER_HEADERS_SIZE_MAX + 1))], Status.TOO_BIG_USER_HEADERS),
    ],
    ids=lambda value: value.name if isinstance(value, Status) else "",
)
def test_a_message_beyond_a_limit_is_not_packed(messages: list[Message], status: Status) -> None:
    with pytest.raises(BadBatch) as error:
        pack(messages, 0)
    assert error.value.status is status


@given(st.lists(st.builds(HeaderEntry, fields, fields), max_size=5))
def test_user_headers_unpack_as_they_were_packed(entries: list[HeaderEntry]) -> None:
    assert unpack_headers(pack_headers(entries)) == entries


@given(st.binary(max_size=60))
def test_user_headers_that_are_none_are_noticed(data: bytes) -> None:
    entries = unpack_headers(data)
    assert entries is None or pack_headers(entries) == data


@pytest.mark.parametrize("size", [0, 256])
def test_keys_and_values_have_1_to_255_bytes(size: int) -> None:
    wrong = HeaderField(ValueKind.RAW, bytes(size))
    for entry, status in (
        (HeaderEntry(wrong, FIELD), Status.INVALID_HEADER_KEY),
        (HeaderEntry(FIELD, wrong), Status.INVALID_HEADER_VALUE),
    ):
        with pytest.raises(BadBatch) as error:
            pack_headers([entry])
        assert error.value.status is status
