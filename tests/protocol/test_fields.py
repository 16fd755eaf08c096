"""The small values of payloads: what each refuses, and with which status."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from pybroker.protocol.batch import cut
from pybroker.protocol.errors import Status, WireError
from pybroker.protocol.model.groups import GroupAssignment
from pybroker.protocol.model.messages import PollMessages, SendMessages
from pybroker.protocol.model.offsets import GetConsumerOffset
from pybroker.protocol.model.streams import CreateStream, GetStream
from pybroker.protocol.model.system import ClientDetails, OptionSpecs
from pybroker.protocol.model.topics import Topics
from pybroker.protocol.payloads.codec import U8, layout, sized
from pybroker.protocol.payloads.fields import OPTIONS_COUNT_MAX, OPTIONS_SIZE_MAX
from pybroker.protocol.primitives import Option, ValueKind
from pybroker.protocol.reader import Reader, Writer
from pybroker.protocol.vsr.overrides import CODECS
from support.batches import make_batch

ID = b"\x01\x04\0\0\0\0"
CONSUMER = b"\x01" + ID
RECORD = bytes(make_batch().record)


def option(key: bytes, value: bytes = b"v", *, key_kind: int = 2, kind: int = 2) -> bytes:
    size = len(value).to_bytes(4, "little")
    return bytes([key_kind]) + len(key).to_bytes(4, "little") + key + bytes([kind]) + size + value


def metadata(*parts: bytes) -> bytes:
    data = b"".join(parts)
    return len(data).to_bytes(4, "little") + data


REFUSED = [
    # names and identifiers
    (CreateStream, b"\0", 0, Status.INVALID_FORMAT),
    (CreateStream, b"\x02\xc3(", 1, Status.INVALID_UTF8),
    (CreateStream, b"\x01\xff", 1, Status.INVALID_UTF8),
    (GetStream, b"\0\x04\0\0\0\0", 0, Status.INVALID_COMMAND),
    (GetStream, b"\x03\x04\0\0\0\0", 0, Status.INVALID_COMMAND),
    (GetStream, b"\x01\x03\0\0\0", 1, Status.INVALID_FORMAT),
    (GetStream, b"\x01\x05\0\0\0\0\0", 1, Status.INVALID_FORMAT),
    (GetStream, b"\x02\0", 1, Status.INVALID_FORMAT),
    (GetStream, b"\x02\x01\x80", 2, Status.INVALID_UTF8),
    # consumers and strategies
    (GetConsumerOffset, b"\0" + ID * 3 + bytes(5), 0, Status.INVALID_COMMAND),
    (GetConsumerOffset, b"\x03" + ID * 3 + bytes(5), 0, Status.INVALID_COMMAND),
    (PollMessages, CONSUMER + ID + ID + bytes(5) + b"\0" + bytes(13), 24, Status.INVALID_COMMAND),
    (PollMessages, CONSUMER + ID + ID + bytes(5) + b"\x06" + bytes(13), 24, Status.INVALID_COMMAND),
    # options
    (CreateStream, b"\x01s" + option(b""), 3, Status.INVALID_FORMAT),
    (CreateStream, b"\x01s" + option(b"k" * 256), 3, Status.INVALID_FORMAT),
    (CreateStream, b"\x01s" + option(b"k", b""), 9, Status.INVALID_FORMAT),
    (CreateStream, b"\x01s" + option(b"k", b"v" * 256), 9, Status.INVALID_FORMAT),
    (CreateStream, b"\x01s" + option(b"k", key_kind=1), 2, Status.INVALID_FORMAT),
    (CreateStream, b"\x01s" + option(b"\xff"), 3, Status.INVALID_FORMAT),
    (CreateStream, b"\x01s" + option(b"k", kind=0), 8, Status.INVALID_HEADER_KIND),
    (CreateStream, b"\x01s" + option(b"k", kind=16), 8, Status.INVALID_HEADER_KIND),
    (CreateStream, b"\x01s" + option(b"k") + option(b"l") + option(b"k"), 26, Status.INVALID_FORMAT),
    (CreateStream, b"\x01s" + bytes(OPTIONS_SIZE_MAX + 1), 2, Status.OPTIONS_BLOCK_TOO_LARGE),
    # counts and blocks
    (GroupAssignment, bytes(8) + b"\xff\xff\xff\xff" + bytes(8), 8, Status.INVALID_COMMAND),
    (OptionSpecs, b"\xff\xff\xff\x7f", 0, Status.INVALID_COMMAND),
    (ClientDetails, bytes(8) + b"\x05" + bytes(8), 8, Status.INVALID_COMMAND),
    (Topics, b"\x01\0\0\0" + bytes(24) + b"\x03" + bytes(33), 28, Status.INVALID_COMMAND),
    # sends: what stands before the record
    (SendMessages, b"\x01\x04\0\0" + bytes(1025) + RECORD, 0, Status.INVALID_COMMAND),
    (SendMessages, metadata(ID, ID, b"\0\0", b"\x01\0\0\0") + RECORD, 12, Status.INVALID_COMMAND),
    (SendMessages, metadata(ID, ID, b"\x02\x03\0\0\0\0", b"\x01\0\0\0") + RECORD, 13, Status.INVALID_FORMAT),
    (SendMessages, metadata(ID, ID, b"\x03\0", b"\x01\0\0\0") + RECORD, 13, Status.INVALID_FORMAT),
    (SendMessages, metadata(ID, ID, b"\x01\0", b"\x01\0\0\0\0") + RECORD, 18, Status.INVALID_COMMAND),
    (SendMessages, metadata(ID, ID, b"\x01\0", b"\x02\0\0\0") + RECORD, 70, Status.INVALID_COMMAND),
    (SendMessages, metadata(ID, ID, b"\x01\0", b"\0\0\0\0") + RECORD, 70, Status.INVALID_COMMAND),
    (SendMessages, metadata(ID, ID, b"\x01\0", b"\x01\0\0\0") + RECORD + b"\0", 54, Status.INVALID_COMMAND),
]


@pytest.mark.parametrize(("kind", "payload", "offset", "status"), REFUSED, ids=lambda value: getattr(value, "name", ""))
def test_payload_that_breaks_a_rule_is_refused_where_it_breaks(
    kind: type[Struct], payload: bytes, offset: int, status: Status
) -> None:
    with pytest.raises(WireError) as caught:
        CODECS[kind].decode(memoryview(payload))
    assert (caught.value.offset, caught.value.status) == (offset, status)


@pytest.mark.parametrize("checksum_of", ["message", "batch"])
def test_send_with_a_wrong_checksum_is_refused_with_iggys_status(checksum_of: str) -> None:
    record = bytearray(RECORD)
    record[-1 if checksum_of == "message" else 40] ^= 1
    with pytest.raises(WireError) as caught:
        CODECS[SendMessages].decode(memoryview(metadata(ID, ID, b"\x01\0", b"\x01\0\0\0") + record))
    expected = {"message": Status.INVALID_MESSAGE_CHECKSUM, "batch": Status.INVALID_BATCH_CHECKSUM}
    assert caught.value.status is expected[checksum_of]


def test_send_of_a_part_of_a_record_is_refused() -> None:
    part = b"".join(cut(make_batch([b"a", b"b"]).record, skip=1, count=1))
    with pytest.raises(WireError) as caught:
        CODECS[SendMessages].decode(memoryview(metadata(ID, ID, b"\x01\0", b"\x01\0\0\0") + part))
    assert caught.value.need == "offset deltas from 0"


@pytest.mark.parametrize(("count", "good"), [(OPTIONS_COUNT_MAX, True), (OPTIONS_COUNT_MAX + 1, False)])
def test_options_have_a_limit_in_number(count: int, good: bool) -> None:
    payload = b"\x01s" + b"".join(option(str(number).encode()) for number in range(count))
    if good:
        assert len(CODECS[CreateStream].decode(memoryview(payload)).options) == count
    else:
        with pytest.raises(WireError) as caught:
            CODECS[CreateStream].decode(memoryview(payload))
        assert caught.value.status is Status.OPTIONS_BLOCK_TOO_LARGE


def test_options_of_every_kind_and_the_longest_size_are_kept_as_they_are() -> None:
    options = tuple(Option(f"key-{kind}", kind, bytes([kind]) * 255) for kind in ValueKind)
    command = CreateStream("s", options)
    assert CODECS[CreateStream].decode(memoryview(CODECS[CreateStream].encode(command))) == command


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_any_flag_but_zero_is_true(flag: int) -> None:
    payload = CONSUMER + ID + ID + bytes(5) + b"\x05" + bytes(8) + b"\x01\0\0\0" + bytes([flag])
    assert CODECS[PollMessages].decode(memoryview(payload)).auto_commit is True


def test_polls_that_differ_in_their_offset_share_what_stands_before_it() -> None:
    decode = CODECS[PollMessages].decode
    polls = [
        decode(memoryview(CONSUMER + ID + ID + bytes(5) + b"\x01" + bytes([offset]) + bytes(7) + b"\x01\0\0\0\0"))
        for offset in (7, 8)
    ]
    assert [poll.strategy.value for poll in polls] == [7, 8]
    assert polls[0].consumer is polls[1].consumer


@pytest.mark.parametrize("size", [1, 13, 14, 2000])
def test_what_stands_behind_a_poll_is_ignored(size: int) -> None:
    payload = CONSUMER + ID + ID + bytes(5) + b"\x05" + bytes(8) + b"\x01\0\0\0\0"
    decode = CODECS[PollMessages].decode
    assert decode(memoryview(payload + bytes(size))) == decode(memoryview(payload))


@given(payload=st.binary(max_size=120))
@pytest.mark.parametrize("kind", CODECS, ids=lambda kind: kind.__name__)
def test_any_bytes_are_a_value_or_a_wire_error(kind: type[Struct], payload: bytes) -> None:
    codec = CODECS[kind]
    try:
        value = codec.decode(memoryview(payload))
    except WireError:
        return
    encoded = bytes(codec.encode(value))
    assert codec.encode(codec.decode(memoryview(encoded))) == encoded  # not the values: a float may be NaN


def test_sized_block_has_to_be_filled() -> None:
    with pytest.raises(WireError) as caught:
        sized(U8).decode(memoryview(b"\x02\0\0\0\x07\x08"))
    assert caught.value.offset == 5


def test_layout_of_a_field_that_the_struct_lacks_is_a_bug_at_import() -> None:
    with pytest.raises(TypeError, match="GetStream has no field strem"):
        layout(GetStream, strem=U8)


def test_reader_says_where_bytes_lack() -> None:
    reader = Reader(memoryview(b"abc"), 1)
    for read in (reader.u32, reader.u64, reader.f32, lambda: reader.take(3), lambda: reader.text(3)):
        with pytest.raises(WireError) as caught:
            read()
        assert caught.value.offset == 1
    assert (reader.u16(), reader.remaining) == (0x6362, 0)


@given(
    small=st.integers(0, 255),
    short=st.integers(0, 65535),
    word=st.integers(0, 2**32 - 1),
    long=st.integers(0, 2**64 - 1),
)
def test_numbers_are_little_endian_both_ways(small: int, short: int, word: int, long: int) -> None:
    writer = Writer()
    for write, value in ((writer.u8, small), (writer.u16, short), (writer.u32, word), (writer.u64, long)):
        write(value)
    assert writer.data == b"".join(
        value.to_bytes(size, "little") for value, size in ((small, 1), (short, 2), (word, 4), (long, 8))
    )
    reader = Reader(memoryview(writer.data))
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64(), reader.remaining) == (small, short, word, long, 0)
