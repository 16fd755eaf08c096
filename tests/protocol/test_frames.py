"""The three headers: every field at the place and in the size that the reference gives it."""

from struct import unpack_from

import pytest
from pybroker.protocol.errors import WireError
from pybroker.protocol.vsr import frames
from pybroker.protocol.vsr.frames import HEADER_SIZE, Reason, RequestHeader

CLIENT = bytes(range(1, 17))
CLUSTER = bytes(range(0xE0, 0xF0))
EMPTY_BODY_CHECKSUM = 0x2D06800538D394C2

# offset and bytes of every field that a request carries
REQUEST_FIELDS = {
    "cluster": (32, CLUSTER),
    "size": (48, b"\x02\x01\0\0"),
    "command": (60, b"\x05"),
    "client": (128, CLIENT),
    "checksum": (144, b"\xc2\x94\xd3\x38\x05\x80\x06\x2d"),
    "request": (168, b"\x07\0\0\0\0\0\0\x01"),
    "operation": (176, b"\x80"),
    "session": (184, b"\x09\0\0\0\0\0\0\x02"),
    "code": (196, b"\x65\0\0\x01"),
}
ASKED = RequestHeader(
    cluster=CLUSTER,
    size=258,
    command=5,
    client=CLIENT,
    checksum=EMPTY_BODY_CHECKSUM,
    request=0x0100000000000007,
    operation=128,
    session=0x0200000000000009,
    code=0x01000065,
)


def request_header(**changed: bytes) -> bytearray:
    header = bytearray(HEADER_SIZE)
    for name, (offset, value) in REQUEST_FIELDS.items():
        header[offset : offset + len(value)] = changed.get(name, value)
    return header


def fields_of(header: bytes, *places: tuple[int, int]) -> list[bytes]:
    """Return the bytes at each (offset, size), and last what is left when those are blanked."""
    rest = bytearray(header)
    values: list[bytes] = []
    for offset, size in places:
        values.append(bytes(rest[offset : offset + size]))
        rest[offset : offset + size] = bytes(size)
    return [*values, bytes(rest)]


def test_request_header_is_read_field_by_field() -> None:
    assert frames.read_request(memoryview(request_header())) == ASKED


def test_request_header_ignores_what_no_server_needs() -> None:
    header = memoryview(bytearray(b"\xaa" * HEADER_SIZE))
    for offset, value in REQUEST_FIELDS.values():
        header[offset : offset + len(value)] = value
    assert frames.read_request(header) == ASKED


@pytest.mark.parametrize(
    ("changed", "offset"),
    [
        *(({"command": bytes([command])}, 60) for command in (0, 4, 6, 8, 13, 255)),
        *(({"operation": bytes([operation])}, 176) for operation in (0, 4, 64, 68, 127, 150, 159, 163, 255)),
        ({"client": bytes(16)}, 128),
    ],
)
def test_header_that_no_client_may_send_is_a_wire_error(changed: dict[str, bytes], offset: int) -> None:
    with pytest.raises(WireError) as caught:
        frames.read_request(memoryview(request_header(**changed)))
    assert caught.value.offset == offset


def test_known_operations_are_those_of_the_reference() -> None:
    assert frozenset({1, 2, 3, *range(128, 150), 160, 161, 162}) == frames.OPERATIONS
    assert frozenset({*range(128, 138), *range(139, 150), 161, 162}) == frames.FRAMED
    assert frozenset(range(128, 150)) == frames.DEDUPLICATED


def test_reply_header_has_its_fields_in_place_and_zeros_elsewhere() -> None:
    reply = frames.reply_header(ASKED, size=10, session=0x1122, commit=0x3344, status=4042)
    assert len(reply) == HEADER_SIZE
    *fields, rest = fields_of(
        reply, (32, 16), (48, 4), (60, 1), (128, 16), (160, 16), (176, 8), (184, 8), (200, 8), (208, 1), (216, 4)
    )
    checksum = REQUEST_FIELDS["checksum"][1] + bytes(8)
    assert fields == [
        CLUSTER,
        b"\x0a\x01\0\0",
        b"\x08",
        checksum,
        CLIENT,
        b"\x22\x11" + bytes(6),
        b"\x44\x33" + bytes(6),
        REQUEST_FIELDS["request"][1],
        b"\x80",
        b"\xca\x0f\0\0",
    ]
    assert rest == bytes(HEADER_SIZE)


@pytest.mark.parametrize("reason", Reason)
def test_eviction_is_a_header_alone_with_its_reason_last(reason: Reason) -> None:
    frame = frames.eviction(ASKED, reason, newest=0x2C01, oldest=0x2C00)
    assert len(frame) == HEADER_SIZE
    *fields, rest = fields_of(frame, (48, 4), (60, 1), (128, 16), (144, 4), (148, 4), (255, 1))
    assert fields == [b"\0\x01\0\0", b"\x0d", CLIENT, b"\x01\x2c\0\0", b"\0\x2c\0\0", bytes([reason])]
    assert rest == bytes(HEADER_SIZE)


def test_reasons_are_those_of_the_reference() -> None:
    assert {reason.name: reason.value for reason in Reason} == {
        "NO_SESSION": 1,
        "SESSION_TOO_LOW": 7,
        "INVALID_CREDENTIALS": 9,
        "INVALID_TOKEN": 10,
        "USER_INACTIVE": 11,
        "STALE_CLIENT": 13,
        "INCOMPATIBLE_VERSION": 14,
        "INVALID_FORMAT": 15,
    }


def test_size_is_known_after_52_bytes() -> None:
    header = memoryview(request_header())
    assert [frames.measure(header, 0, count, 1000) for count in range(52)] == [0] * 52
    assert [frames.measure(header, 0, count, 1000) for count in range(52, 257)] == [258] * 205


@pytest.mark.parametrize(
    ("size", "size_max", "good"),
    [
        (0, 1000, False),
        (255, 1000, False),
        (256, 256, True),
        (1000, 1000, True),
        (1001, 1000, False),
        (64 << 20, 64 << 20, True),
        ((64 << 20) + 1, 64 << 20, False),
        (2**32 - 1, 64 << 20, False),
    ],
)
def test_size_outside_the_limits_is_a_wire_error(size: int, size_max: int, good: bool) -> None:
    header = memoryview(request_header(size=size.to_bytes(4, "little")))
    if good:
        assert frames.measure(header, 0, len(header), size_max) == size
    else:
        with pytest.raises(WireError) as caught:
            frames.measure(header, 0, len(header), size_max)
        assert caught.value.offset == 48


@pytest.mark.parametrize("start", [b"G", b"\x16\x03\x01", b"\0\0\0\0\0\0\0\x01"])
def test_bytes_of_another_protocol_are_noticed_at_once(start: bytes) -> None:
    with pytest.raises(WireError):
        frames.measure(memoryview(start), 0, len(start), 1000)


def test_body_checksum_is_checked_where_there_is_one() -> None:
    header = frames.read_request(memoryview(request_header()))
    assert frames.body_checksum_holds(header, memoryview(b""))
    assert not frames.body_checksum_holds(header, memoryview(b"x"))
    header.checksum = 0
    assert frames.body_checksum_holds(header, memoryview(b"x"))


def test_sizes_are_little_endian_u32() -> None:
    reply = frames.reply_header(ASKED, size=0x01020304 - HEADER_SIZE, session=0, commit=0)
    assert unpack_from("<I", reply, 48) == (0x01020304,)
