"""The batch record: built, verified, stamped, cut anywhere; and no byte of it can change unnoticed."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from struct import pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol import batch as module
from pybroker.protocol.batch import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    NO_ID,
    PAYLOAD_SIZE_MAX,
    USER_HEADERS_SIZE_MAX,
    BadBatch,
    Batch,
    Header,
    _walk_alike,
    _walk_each,
    checksum_of,
    cut,
    message_ids,
    read_header,
    stamp,
    verify,
    walk,
    without,
)
from pybroker.protocol.errors import Status
from support.batches import make_batch, make_frame, make_record, offsets_of, payloads_of, reseal, seal
from xxhash import xxh3_64_intdigest

PAYLOADS = st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=8)


@pytest.fixture(scope="module", autouse=True, params=["python", "native"])
def _verifier(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test here with C and without; tests/protocol/test_native.py tells where there must be C."""
    if request.param == "native" and not find_spec("pybroker.protocol._frames"):
        pytest.skip("protocol/native is not built here")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setattr(module, "_native", None)
            patch.setattr(module, "put_stamp", module.stamp_in_python)
            patch.setattr(module, "hop", module.hop_in_python)
        yield


def frame_with(offset: int, value: bytes, payload: bytes = b"payload") -> bytes:
    frame = bytearray(make_frame(payload, offset_delta=0))
    frame[offset : offset + len(value)] = value
    return reseal(frame)


@given(payloads=PAYLOADS, headers=st.binary(max_size=40), ident=st.integers(0, 2**128 - 1))
def test_built_records_verify(payloads: list[bytes], headers: bytes, ident: int) -> None:
    frames = [
        make_frame(payload, offset_delta=delta, message_id=ident, user_headers=headers)
        for delta, payload in enumerate(payloads)
    ]
    record = make_record(*frames)
    batch = verify(record)
    assert batch == Batch(record, len(frames), b"".join(frame[:8] for frame in frames))
    assert payloads_of([record]) == payloads


@given(
    payloads=PAYLOADS,
    partition_id=st.integers(0, 2**32 - 1),
    base_offset=st.integers(0, 2**63),
    timestamp=st.integers(0, 2**64 - 1),
)
def test_stamped_records_verify_and_keep_their_frames(
    payloads: list[bytes], partition_id: int, base_offset: int, timestamp: int
) -> None:
    batch = make_batch(payloads, origin_timestamp_us=77)
    frames = bytes(batch.record[HEADER_SIZE:])
    batch.partition_id = partition_id
    stamp(batch, base_offset=base_offset, base_timestamp_us=timestamp)
    header = read_header(batch.record)
    assert header == Header(partition_id, base_offset, timestamp, 77, len(batch.record), header.checksum, len(payloads))
    assert verify(batch.record) == batch
    assert batch.record[HEADER_SIZE:] == frames
    assert offsets_of(batch.record, header) == range(base_offset, base_offset + len(payloads))


@given(payloads=PAYLOADS, base_offset=st.integers(0, 1000))
def test_every_part_of_a_record_verifies_and_keeps_its_offsets(payloads: list[bytes], base_offset: int) -> None:
    batch = make_batch(payloads, partition_id=3, origin_timestamp_us=5)
    stamp(batch, base_offset=base_offset, base_timestamp_us=99)
    for skip in range(len(payloads)):
        for count in range(1, len(payloads) - skip + 1):
            part = memoryview(b"".join(cut(batch.record, skip=skip, count=count)))
            header = read_header(part)
            whole = read_header(batch.record)
            assert verify(part).first_delta == skip
            assert payloads_of([part]) == payloads[skip : skip + count]
            assert offsets_of(part, header) == range(base_offset + skip, base_offset + skip + count)
            assert (header.partition_id, header.base_offset, header.base_timestamp_us, header.origin_timestamp_us) == (
                whole.partition_id, whole.base_offset, whole.base_timestamp_us, whole.origin_timestamp_us,
            )  # fmt: skip


@given(payloads=PAYLOADS, data=st.data())
def test_part_of_a_part_is_the_part(payloads: list[bytes], data: st.DataObject) -> None:
    record = make_batch(payloads).record
    skip = data.draw(st.integers(0, len(payloads) - 1))
    count = data.draw(st.integers(1, len(payloads) - skip))
    inner_skip = data.draw(st.integers(0, count - 1))
    inner = data.draw(st.integers(1, count - inner_skip))
    part = memoryview(b"".join(cut(record, skip=skip, count=count)))
    twice = b"".join(cut(part, skip=inner_skip, count=inner))
    assert twice == b"".join(cut(record, skip=skip + inner_skip, count=inner))


def test_frames_of_a_part_are_a_view_of_the_record() -> None:
    record = make_batch([b"one", b"two"]).record
    _, frames = cut(record, skip=1, count=1)
    assert isinstance(frames, memoryview)
    assert frames.obj is record.obj


@given(idents=st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=40), data=st.data())
def test_message_ids_are_those_of_the_frames_in_order(idents: list[int], data: st.DataObject) -> None:
    frames = [
        make_frame(data.draw(st.sampled_from([b"x", b"four"])), offset_delta=delta, message_id=ident)
        for delta, ident in enumerate(idents)
    ]
    found = message_ids(make_record(*frames), len(frames))
    assert [int.from_bytes(ident, "little") for ident in found] == idents


def test_messages_without_an_id_have_no_id() -> None:
    assert message_ids(make_batch([b"a", b"b"]).record, 2) == [NO_ID, NO_ID]


def test_message_ids_of_a_cut_record_are_a_bad_batch() -> None:
    record = make_batch([b"first", b"second"]).record
    assert len(message_ids(record[: -len(b"second")], 2)) == 2
    with pytest.raises(BadBatch, match="2 messages announced, the bytes end after 1"):
        message_ids(record[: -len(b"second") - FRAME_HEADER_SIZE], 2)


@given(payloads=PAYLOADS, headers=st.binary(max_size=20), data=st.data())
def test_record_without_some_messages_verifies_and_keeps_all_else(
    payloads: list[bytes], headers: bytes, data: st.DataObject
) -> None:
    idents = [data.draw(st.integers(0, 2**128 - 1)) for _ in payloads]
    deltas_us = [data.draw(st.integers(0, 2**32 - 1)) for _ in payloads]

    def frame(index: int, offset_delta: int) -> bytes:
        made = make_frame(payloads[index], offset_delta=offset_delta, message_id=idents[index], user_headers=headers)
        return reseal(bytearray(made[:28] + deltas_us[index].to_bytes(4, "little") + made[32:]))

    record = make_record(*(frame(index, index) for index in range(len(payloads))))
    stamp(Batch(record, len(payloads), b""), base_offset=9, base_timestamp_us=8)
    pack_into("<Q", record, 24, 77)
    seal(record, b"".join(frame(index, index)[:8] for index in range(len(payloads))))
    before = bytes(record)
    stays = data.draw(st.lists(st.sampled_from(range(len(payloads))), min_size=1, unique=True).map(sorted))
    left = without(verify(record), set(range(len(payloads))) - set(stays))
    assert verify(left.record) == left
    assert bytes(left.record[HEADER_SIZE:]) == b"".join(frame(index, delta) for delta, index in enumerate(stays))
    header = read_header(left.record)
    assert header == Header(0, 9, 8, 77, len(left.record), header.checksum, len(stays))
    assert bytes(record) == before


def test_record_without_some_messages_can_be_stamped() -> None:
    batch = without(make_batch([b"a", b"b", b"c"], partition_id=3), {0, 2})
    stamp(batch, base_offset=5, base_timestamp_us=6)
    assert verify(batch.record) == batch
    assert (batch.partition_id, payloads_of([batch.record])) == (3, [b"b"])


@pytest.mark.parametrize("value", [0x01, 0x80, 0xFF])
def test_no_byte_of_a_record_changes_unnoticed(value: int) -> None:
    """The uncovered set is empty: checksums cover fields, ids, payloads and headers, zeros are compared."""
    record = make_batch([b"first", b"second!"], origin_timestamp_us=1 << 40).record
    frames = bytes(record[HEADER_SIZE:])
    assert len(frames) > 2 * FRAME_HEADER_SIZE
    uncovered: list[int] = []
    for position in range(len(record)):
        changed = memoryview(bytearray(record))
        changed[position] ^= value
        try:
            verify(changed)
        except BadBatch:
            continue
        uncovered.append(position)
    assert uncovered == []


@given(payloads=PAYLOADS, data=st.data())
def test_damaged_records_are_bad_batches_and_nothing_else(payloads: list[bytes], data: st.DataObject) -> None:
    record = bytearray(make_batch(payloads).record)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(record) - 1))
        record[position] ^= data.draw(st.integers(1, 255))
    damaged = memoryview(record[: data.draw(st.integers(0, len(record)))] + data.draw(st.binary(max_size=3)))
    if damaged == make_batch(payloads).record:
        return
    with pytest.raises(BadBatch):
        verify(damaged)


@given(data=st.binary(max_size=600))
def test_any_bytes_verify_or_are_a_bad_batch(data: bytes) -> None:
    with pytest.raises(BadBatch):
        verify(memoryview(data))


@given(rest=st.binary(max_size=200), count=st.integers(0, 2**32 - 1), size=st.integers(0, 2**64 - 1))
def test_any_frames_under_a_plausible_header_are_a_bad_batch(rest: bytes, count: int, size: int) -> None:
    record = memoryview(bytearray(HEADER_SIZE) + rest)
    pack_into("<Q8xI", record, 32, size, count)
    with pytest.raises(BadBatch):
        verify(record)


def too_short(size: int) -> Callable[[], memoryview]:
    return lambda: make_record(make_frame(b"x", offset_delta=0))[:size]


def with_size(change: int) -> memoryview:
    record = make_record(make_frame(b"x", offset_delta=0))
    pack_into("<Q", record, 32, len(record) + change)
    seal(record, bytes(record[HEADER_SIZE : HEADER_SIZE + 8]))
    return record


def with_reserved(position: int) -> memoryview:
    record = make_record(make_frame(b"x", offset_delta=0))
    record[position] = 1
    return record


def with_wrong_checksum() -> memoryview:
    record = make_record(make_frame(b"x", offset_delta=0))
    record[40] ^= 1
    return record


FRAME = make_frame(b"payload", offset_delta=0)
WRONG_CHECKSUM = bytes([FRAME[0] ^ 1]) + FRAME[1:]
U32 = b"\xff\xff\xff\xff"

BAD = {
    "nothing": (too_short(0), 0, Status.INVALID_COMMAND),
    "header-cut": (too_short(51), 0, Status.INVALID_COMMAND),
    "header-alone": (lambda: make_record(count=1), 32, Status.INVALID_COMMAND),
    "no-messages": (lambda: make_record(FRAME, count=0), 48, Status.INVALID_MESSAGES_COUNT),
    "more-messages-than-bytes": (lambda: make_record(FRAME, count=2), 48, Status.INVALID_COMMAND),
    "size-above": (lambda: with_size(1), 32, Status.INVALID_COMMAND),
    "size-below": (lambda: with_size(-1), 32, Status.INVALID_COMMAND),
    "reserved-first": (lambda: with_reserved(52), 52, Status.INVALID_COMMAND),
    "reserved-last": (lambda: with_reserved(255), 52, Status.INVALID_COMMAND),
    "batch-checksum": (with_wrong_checksum, 40, Status.INVALID_BATCH_CHECKSUM),
    "message-checksum": (lambda: make_record(WRONG_CHECKSUM), 256, Status.INVALID_MESSAGE_CHECKSUM),
    "frame-cut": (
        lambda: make_record(make_frame(b"x" * 60, offset_delta=0), count=2), 364, Status.INVALID_COMMAND,
    ),
    "frame-beyond": (lambda: make_record(frame_with(36, b"\x08\0\0\0")), 256, Status.INVALID_COMMAND),
    "bytes-behind": (
        lambda: make_record(FRAME, make_frame(b"x", offset_delta=1), count=1), 311, Status.INVALID_COMMAND,
    ),
    "delta-repeated": (lambda: make_record(FRAME, FRAME), 256 + 55 + 24, Status.INVALID_COMMAND),
    "delta-skipped": (
        lambda: make_record(FRAME, make_frame(b"x", offset_delta=2)), 256 + 55 + 24, Status.INVALID_COMMAND,
    ),
    "frame-reserved": (lambda: make_record(frame_with(47, b"\x01")), 296, Status.INVALID_RESERVED_FIELD),
    "empty-payload": (lambda: make_record(make_frame(b"", offset_delta=0)), 292, Status.EMPTY_MESSAGE_PAYLOAD),
    "payload-too-big": (lambda: make_record(frame_with(36, U32)), 292, Status.TOO_BIG_MESSAGE_PAYLOAD),
    "headers-too-big": (lambda: make_record(frame_with(32, U32)), 288, Status.TOO_BIG_USER_HEADERS),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_batch_says_where_and_with_which_status(name: str) -> None:
    make, position, status = BAD[name]
    with pytest.raises(BadBatch) as caught:
        verify(make())
    assert (caught.value.position, caught.value.status) == (position, status)
    assert str(position) in str(caught.value)


@pytest.mark.parametrize(("size", "good"), [(USER_HEADERS_SIZE_MAX, True), (USER_HEADERS_SIZE_MAX + 1, False)])
def test_user_headers_may_be_as_large_as_iggy_lets_them(size: int, good: bool) -> None:
    record = make_record(make_frame(b"x", offset_delta=0, user_headers=bytes(size)))
    if good:
        assert verify(record).count == 1
    else:
        with pytest.raises(BadBatch) as caught:
            verify(record)
        assert caught.value.status is Status.TOO_BIG_USER_HEADERS


@pytest.mark.parametrize(("size", "good"), [(PAYLOAD_SIZE_MAX, True), (PAYLOAD_SIZE_MAX + 1, False)])
def test_payload_may_be_as_large_as_iggy_lets_it(size: int, good: bool) -> None:
    record = make_record(make_frame(bytes(size), offset_delta=0))
    if good:
        assert verify(record).count == 1
    else:
        with pytest.raises(BadBatch) as caught:
            verify(record)
        assert caught.value.status is Status.TOO_BIG_MESSAGE_PAYLOAD


def test_walk_starts_at_the_given_delta() -> None:
    frames = [make_frame(b"x", offset_delta=delta) for delta in (4, 5)]
    record = make_record(*frames)
    assert walk(record, 2, 4) == b"".join(frame[:8] for frame in frames)
    assert verify(record).first_delta == 4
    with pytest.raises(BadBatch):
        walk(record, 2, 3)


def test_batch_checksum_covers_header_fields_count_and_frame_checksums_only() -> None:
    record = make_record(FRAME)
    record[HEADER_SIZE + 8 :] = bytes(len(FRAME) - 8)
    record[52:HEADER_SIZE] = b"\xff" * 204
    record[40:48] = bytes(8)
    by_rule = xxh3_64_intdigest(bytes(record[:40]) + b"\x01\0\0\0" + FRAME[:8])
    assert checksum_of(record, FRAME[:8]) == by_rule


def test_one_message_record_as_its_bytes() -> None:
    """The example that the layout in the module can be read along with."""
    (head, frames) = cut(make_batch([b"a", b"bc"], partition_id=1, origin_timestamp_us=2).record, skip=1, count=1)
    assert bytes(head[:40]).hex() == (
        "0100000000000000" + "0000000000000000" + "0000000000000000" + "0200000000000000" + "3201000000000000"
    )
    assert bytes(head[48:52]).hex() == "01000000"
    assert bytes(frames[24:]).hex() == "01000000" + "00000000" + "00000000" + "02000000" + "00" * 8 + b"bc".hex()


ALIKE = [(40, 4), (64, 600), (33, 1000)]


@pytest.mark.parametrize(("count", "payload_size"), ALIKE)
def test_frames_of_one_size_are_walked_together_with_the_same_result(count: int, payload_size: int) -> None:
    record = make_batch([bytes([number % 251]) * payload_size for number in range(count)]).record
    together = _walk_alike(record, count, 0)
    assert together == _walk_each(record, count, 0) == walk(record, count)
    part = memoryview(bytearray().join(cut(record, skip=1, count=count - 1)))
    assert _walk_alike(part, count - 1, 1) == _walk_each(part, count - 1, 1)


@pytest.mark.parametrize(("count", "payload_size"), ALIKE)
def test_wrong_byte_among_frames_of_one_size_is_found_and_named(count: int, payload_size: int) -> None:
    record = make_batch([bytes([number]) * payload_size for number in range(count)]).record
    frame_size = FRAME_HEADER_SIZE + payload_size
    for frame in (0, 1, count - 1):
        for byte in (*range(FRAME_HEADER_SIZE), frame_size - 1):
            position = HEADER_SIZE + frame * frame_size + byte
            record[position] ^= 1
            with pytest.raises(BadBatch) as caught:
                walk(record, count)
            assert HEADER_SIZE + frame * frame_size <= caught.value.position <= position
            record[position] ^= 1
    assert walk(record, count)


def test_frames_of_no_common_size_are_walked_one_by_one() -> None:
    for payloads in ([b"12345"] * 40, [b"1234", b"12345678"] * 20, [b"1234"] * 39 + [b"12345678"]):
        record = make_batch(payloads).record
        assert _walk_alike(record, 40, 0) == b""
        assert len(walk(record, 40)) == 320
