"""The C that verifies, stamps and finds records and the Python that does: they agree, whatever the bytes say."""

import sys
import sysconfig
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from struct import pack_into, unpack_from
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol.batch import (
    HEADER_SIZE,
    PAYLOAD_SIZE_MAX,
    USER_HEADERS_SIZE_MAX,
    BadBatch,
    _native,
    hop_in_python,
    stamp_in_python,
    verify_in_python,
)
from support.batches import make_batch, make_frame, make_record, reseal, seal

native: Any = _native
IS_BUILT = find_spec("pybroker.protocol._frames") is not None
needs_native = pytest.mark.skipif(not IS_BUILT, reason="protocol/native is not built here")

# Numbers that sums of sizes, counts and deltas wrap at, and limits with what is just above them.
LIES = (0, 1, 2**31, 2**32 - 48, 2**32 - 47, 2**32 - 1, 100_000, 100_001, 64_000_000, 64_000_001)
FIELDS = (24, 32, 36, 40, 44)  # of a frame: offset delta, sizes, reserved bytes
LIMITS = (
    (USER_HEADERS_SIZE_MAX, 1, True),
    (USER_HEADERS_SIZE_MAX + 1, 1, False),
    (0, PAYLOAD_SIZE_MAX, True),
    (0, PAYLOAD_SIZE_MAX + 1, False),
)
U64 = st.integers(0, 2**64 - 1)
# XXH3 goes another way below 17, 129 and 241 bytes, and after each KiB; a frame's checksum covers 40 more than these.
SIZES = st.one_of(st.integers(1, 300), st.integers(980, 990), st.integers(1, 5000))


def could_be_built() -> bool:
    """Tell whether this machine has what protocol/native/frames.c needs."""
    has_tools = which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()
    return has_tools and sys.byteorder == "little" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def fields_in_python(record: memoryview) -> tuple[int, bytes, int, int] | None:
    """Return what the C should."""
    try:
        batch = verify_in_python(record)
    except BadBatch:
        return None
    return batch.count, batch.checksums, batch.partition_id, batch.first_delta


def both_say_the_same(record: memoryview) -> bool:
    return native.verify(record) == fields_in_python(record)


@st.composite
def frames(draw: st.DrawFn) -> list[bytes]:
    """Return frames of any sizes whose deltas ascend by one."""
    first = draw(st.sampled_from([0, 0, 1, 16_384, 2**32 - 3]))
    sizes = draw(st.lists(SIZES, min_size=1, max_size=6))
    if draw(st.booleans()):
        sizes = sizes[:1] * 40
    headers = draw(st.binary(max_size=40))
    ident = draw(st.integers(0, 2**128 - 1))
    fill = draw(st.binary(min_size=1, max_size=9))
    return [
        make_frame((fill * size)[:size], offset_delta=(first + index) % 2**32, message_id=ident, user_headers=headers)
        for index, size in enumerate(sizes)
    ]


def checksums_of(made: list[bytes]) -> bytes:
    return b"".join(frame[:8] for frame in made)


def whole(made: list[bytes], _data: st.DataObject) -> memoryview:
    return make_record(*made)


def with_flipped_bits(made: list[bytes], data: st.DataObject) -> memoryview:
    record = make_record(*made)
    for bit in data.draw(st.lists(st.integers(0, 8 * len(record) - 1), min_size=1, max_size=3)):
        record[bit // 8] ^= 1 << bit % 8
    return record


def cut_off(made: list[bytes], data: st.DataObject) -> memoryview:
    """A record that ends too soon, and may say so, in memory that goes on with what was cut off."""
    record = make_record(*made)
    gone = st.integers(1, 60) | st.integers(1, len(record))
    record = record[: -data.draw(gone)]
    if len(record) >= HEADER_SIZE and data.draw(st.booleans()):
        pack_into("<Q", record, 32, len(record))
        seal(record, checksums_of(made))
    return record


def with_bytes_behind(made: list[bytes], data: st.DataObject) -> memoryview:
    record = make_record(*made, bytes(data.draw(st.integers(1, 60))), count=len(made) + data.draw(st.integers(0, 1)))
    seal(record, checksums_of(made))
    return record


def with_wrong_count(made: list[bytes], data: st.DataObject) -> memoryview:
    return make_record(*made, count=data.draw(st.sampled_from([0, len(made) - 1, len(made) + 1, 2**31, 2**32 - 1])))


def with_wrong_size(made: list[bytes], data: st.DataObject) -> memoryview:
    record = make_record(*made)
    pack_into(
        "<Q", record, 32, data.draw(st.sampled_from([0, 1, 303, len(record) - 1, len(record) + 1, 2**63, 2**64 - 1]))
    )
    seal(record, checksums_of(made))
    return record


def with_a_lie(made: list[bytes], data: st.DataObject) -> memoryview:
    """A record with one field changed in one frame, and the checksums made anew."""
    index = data.draw(st.integers(0, len(made) - 1))
    frame, at = bytearray(made[index]), data.draw(st.sampled_from(FIELDS))
    near = (unpack_from("<I", frame, at)[0] + data.draw(st.integers(-60, 60))) % 2**32
    pack_into("<I", frame, at, data.draw(st.sampled_from([near, *LIES])))
    made[index] = reseal(frame)
    return make_record(*made)


CHANGES = (whole, with_flipped_bits, cut_off, with_bytes_behind, with_wrong_count, with_wrong_size, with_a_lie)


def test_native_part_is_built_wherever_it_can_be() -> None:
    assert IS_BUILT or not could_be_built(), "there is a C compiler, but no pybroker.protocol._frames: run `make` again"


@needs_native
@given(made=frames())
def test_right_records_of_any_sizes_are_found_right(made: list[bytes]) -> None:
    record = make_record(*made)
    checksums = checksums_of(made)
    first_delta = unpack_from("<I", made[0], 24)[0]
    pack_into("<Q", record, 0, 2**64 - 1)
    seal(record, checksums)
    assert both_say_the_same(record)
    wraps = first_delta + len(made) > 2**32
    assert native.verify(record) == (None if wraps else (len(made), checksums, 2**64 - 1, first_delta))


@needs_native
@pytest.mark.parametrize("change", CHANGES)
@given(data=st.data())
def test_changed_records_get_the_same_verdict_from_both(
    change: Callable[[list[bytes], st.DataObject], memoryview], data: st.DataObject
) -> None:
    assert both_say_the_same(change(data.draw(frames()), data))


@needs_native
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("at", FIELDS)
def test_each_lie_in_each_field_gets_the_same_verdict_from_both(lie: int, at: int) -> None:
    """Also the sizes that add up to what is there once they wrap."""
    for index in range(3):
        made = [bytearray(make_frame(b"12345678" * 8, offset_delta=delta)) for delta in range(3)]
        pack_into("<I", made[index], at, lie)
        if at == 32:
            pack_into("<I", made[index], 36, (64 - lie) % 2**32)
        assert both_say_the_same(make_record(*map(reseal, made)))


@needs_native
@pytest.mark.parametrize(("headers_size", "payload_size", "right"), LIMITS)
def test_sizes_at_their_limit_are_right_and_one_more_is_not(headers_size: int, payload_size: int, right: bool) -> None:
    record = make_record(make_frame(bytes(payload_size), offset_delta=0, user_headers=bytes(headers_size)))
    assert (native.verify(record) is not None) == right
    assert both_say_the_same(record)


@needs_native
@given(rest=st.binary(max_size=300), count=st.integers(0, 2**32 - 1))
def test_any_frames_under_a_plausible_header_get_the_same_verdict_from_both(rest: bytes, count: int) -> None:
    assert both_say_the_same(make_record(rest, count=count))
    assert both_say_the_same(make_record(rest, count=count % 4))


@needs_native
@pytest.mark.parametrize("shift", range(1, 8))
def test_record_may_start_at_any_address(shift: int) -> None:
    record = make_batch([b"one", b"two" * 400]).record
    moved = memoryview(bytes(shift) + record)[shift:]
    assert native.verify(moved) == native.verify(record) is not None


@needs_native
def test_record_is_let_go_of() -> None:
    record = make_batch([b"one"]).record
    for view in (memoryview(record), memoryview(record[:-1])):
        native.verify(view)
        view.release()
        with pytest.raises(ValueError, match="released"):
            native.verify(view)


@needs_native
def test_what_is_no_buffer_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        native.verify(None)  # pyright: ignore[reportArgumentType]


@needs_native
@given(made=frames(), fields=st.tuples(U64, U64, U64), counts=st.sampled_from([None, 0, 2**32 - 1]))
def test_both_stamp_alike(made: list[bytes], fields: tuple[int, int, int], counts: int | None) -> None:
    """Also where the header says nonsense: what is stamped has been verified, and nobody relies on that here."""
    record, checksums = make_record(*made), checksums_of(made)
    if counts is not None:
        pack_into("<I", record, 48, counts)
    stamped = memoryview(bytearray(record))
    native.stamp(record, checksums, *fields)
    stamp_in_python(stamped, checksums, *fields)
    assert record == stamped


@needs_native
def test_stamp_takes_only_what_it_can() -> None:
    record = make_batch([b"one"]).record
    for wrong, error in (
        ((record, b"", 0, 0), TypeError),
        ((record, b"", 0, 0, "0"), TypeError),
        ((record, b"", 0, 2**64, 0), OverflowError),
        ((record, b"", 0, -1, 0), OverflowError),
        ((record, None, 0, 0, 0), TypeError),
        ((record.toreadonly(), b"", 0, 0, 0), BufferError),
        ((record[: HEADER_SIZE - 1], b"", 0, 0, 0), ValueError),
    ):
        before = bytes(record)
        with pytest.raises(error):
            native.stamp(*wrong)
        assert record == before


@st.composite
def runs(draw: st.DrawFn) -> tuple[bytearray, list[int], int]:
    """Return stored records back to back, some of them lying, where each begins, and the first's base offset."""
    base = first = draw(st.sampled_from([0, 7, 2**32, 2**62]))
    data, starts = bytearray(), list[int]()
    for count in draw(st.lists(st.integers(1, 3), min_size=1, max_size=6)):
        starts.append(len(data))
        record = make_batch([b"x" * draw(st.integers(1, 30))] * count).record
        pack_into("<Q", record, 8, base)
        data += record
        base += count
    if draw(st.booleans()):
        at, size = draw(st.sampled_from([(8, 8), (32, 8), (48, 4)]))
        lie = draw(st.sampled_from([0, 1, 303, 304, 2**31, 2**32 - 1, 2**63, 2**64 - 1])) % 2 ** (8 * size)
        at += draw(st.sampled_from(starts))
        data[at : at + size] = lie.to_bytes(size, "little")
    return data, starts, first


@needs_native
@given(run=runs(), data=st.data())
def test_both_hop_alike(run: tuple[bytearray, list[int], int], data: st.DataObject) -> None:
    held, starts, first = run
    position = data.draw(st.one_of(st.sampled_from(starts), st.integers(0, len(held) + 300)))
    offset = first + data.draw(st.integers(0, 3)) * (position != 0)
    stop = data.draw(st.one_of(st.integers(0, 20).map(first.__add__), st.sampled_from([0, 2**64 - 1])))
    room = data.draw(st.sampled_from([0, 255, 304, 400, 1000, len(held), 2**63]))
    view = memoryview(held)
    assert native.hop(view, position, offset, stop, room) == hop_in_python(view, position, offset, stop, room)


@needs_native
def test_hop_takes_only_what_it_can() -> None:
    record = make_batch([b"one"]).record
    for wrong in ((record, 0, 0, 0), (None, 0, 0, 0, 0), (record, 0, "0", 0, 0)):
        with pytest.raises(TypeError):
            native.hop(*wrong)
    with pytest.raises(OverflowError):
        native.hop(record, 0, 0, 0, -1)
