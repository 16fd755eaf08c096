"""WebSocket frames without sockets, against those that the websockets library makes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.broker.listeners import frames
from pybroker.broker.listeners.frames import BadFrame, Control, FrameReader, frame_control, frame_message
from websockets.frames import CloseCode, Frame, Opcode

SIZE_MAX = 1 << 20
# Around each way to write a size.
SIZES = (0, 1, 3, 4, 125, 126, 127, 65_535, 65_536, 65_537)
CONTROLS = (Opcode.PING, Opcode.PONG, Opcode.CLOSE)


def masked(opcode: Opcode, payload: bytes, *, final: bool = True) -> bytes:
    return Frame(opcode, payload, final).serialize(mask=True)


def message(*fragments: bytes) -> list[bytes]:
    """Return the frames of a message in fragments."""
    last = len(fragments) - 1
    return [
        masked(Opcode.CONT if index else Opcode.BINARY, payload, final=index == last)
        for index, payload in enumerate(fragments)
    ]


def read(*pieces: bytes, size_max: int = SIZE_MAX) -> tuple[bytes, list[Control]]:
    """Feed a reader; return the payload and the control frames."""
    reader = FrameReader(size_max)
    payload, controls = bytearray(), list[Control]()
    for piece in pieces:
        for part in reader.feed(memoryview(piece)):
            if isinstance(part, Control):
                controls.append(part)
            else:
                payload += part
    return bytes(payload), controls


def pattern(size: int) -> bytes:
    return bytes(index % 251 for index in range(size))


@pytest.mark.parametrize("size", SIZES)
def test_message_of_each_size_is_read(size: int) -> None:
    data = masked(Opcode.BINARY, pattern(size))
    assert read(data + masked(Opcode.BINARY, b"after it")) == (pattern(size) + b"after it", [])


def test_frames_may_be_split_anywhere() -> None:
    data = b"".join(
        (
            *message(pattern(300), b"", pattern(7)),
            masked(Opcode.PING, b"hello"),
            *message(b"x"),
            masked(Opcode.CLOSE, b""),
        )
    )
    wanted = (pattern(300) + pattern(7) + b"x", [Control(Opcode.PING, b"hello"), Control(Opcode.CLOSE, b"")])
    for split in range(len(data) + 1):
        assert read(data[:split], data[split:]) == wanted
    assert read(*(data[index : index + 1] for index in range(len(data)))) == wanted


@given(
    st.lists(
        st.one_of(
            st.lists(st.binary(max_size=200), min_size=1, max_size=3),
            st.tuples(st.sampled_from(CONTROLS), st.binary(max_size=125)),
        ),
        max_size=8,
    ),
    st.lists(st.integers(1, 300), min_size=1),
)
def test_payload_is_the_same_however_it_arrives(
    sent: list[list[bytes] | tuple[Opcode, bytes]], sizes: list[int]
) -> None:
    data, payload, controls = bytearray(), bytearray(), list[Control]()
    for item in sent:
        if isinstance(item, tuple):
            data += masked(*item)
            controls.append(Control(*item))
        else:
            data += b"".join(message(*item))
            payload += b"".join(item)
    pieces: list[bytes] = []
    while data:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(bytes(data[:size]))
        del data[:size]
    assert read(*pieces) == (bytes(payload), controls)


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    try:
        read(*pieces)
    except BadFrame as bad:
        assert bad.code in (CloseCode.PROTOCOL_ERROR, CloseCode.UNSUPPORTED_DATA, CloseCode.MESSAGE_TOO_BIG)


def test_control_frames_may_come_between_fragments() -> None:
    first, last = message(b"one ", b"message")
    assert read(first + masked(Opcode.PING, b"?") + last) == (b"one message", [Control(Opcode.PING, b"?")])


REFUSED = {
    "text": (masked(Opcode.TEXT, b"{}"), CloseCode.UNSUPPORTED_DATA),
    "not masked": (Frame(Opcode.BINARY, b"x").serialize(mask=False), CloseCode.PROTOCOL_ERROR),
    "two bytes that are not masked": (b"\x89\x00", CloseCode.PROTOCOL_ERROR),
    "compressed": (b"\xc2\x81" + bytes(5), CloseCode.PROTOCOL_ERROR),
    "unknown kind": (b"\x83\x80" + bytes(4), CloseCode.PROTOCOL_ERROR),
    "unknown control frame": (b"\x8b\x80" + bytes(4), CloseCode.PROTOCOL_ERROR),
    "continues nothing": (masked(Opcode.CONT, b"x"), CloseCode.PROTOCOL_ERROR),
    "message within a message": (message(b"x", b"y")[0] + masked(Opcode.BINARY, b"z"), CloseCode.PROTOCOL_ERROR),
    "control frame in fragments": (b"\x09\x80" + bytes(4), CloseCode.PROTOCOL_ERROR),
    "large control frame": (b"\x89\xfe\x00\x7e" + bytes(4), CloseCode.PROTOCOL_ERROR),
    "oversize": (masked(Opcode.BINARY, bytes(101))[:8], CloseCode.MESSAGE_TOO_BIG),
    "oversize in all": (b"".join(message(bytes(60), bytes(41))), CloseCode.MESSAGE_TOO_BIG),
    "size of 64 bits": (b"\x82\xff" + b"\xff" * 8 + bytes(4), CloseCode.MESSAGE_TOO_BIG),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_place_is_refused_with_its_code(data: bytes, code: CloseCode) -> None:
    with pytest.raises(BadFrame) as refusal:
        read(data, size_max=100)
    assert refusal.value.code == code


def test_the_limit_is_that_of_a_message_and_not_of_all() -> None:
    assert len(read(masked(Opcode.BINARY, bytes(100)) * 5, size_max=100)[0]) == 500


@pytest.mark.parametrize("size", SIZES)
def test_answers_are_written_as_the_library_does(size: int) -> None:
    data = pattern(size)
    wanted = Frame(Opcode.BINARY, data).serialize(mask=False)
    assert b"".join(frame_message([data[:2], memoryview(data)[2:]])) == wanted


@pytest.mark.parametrize("opcode", CONTROLS)
@pytest.mark.parametrize("size", [0, 125])
def test_control_frames_are_written_as_the_library_does(opcode: Opcode, size: int) -> None:
    assert frame_control(opcode, pattern(size)) == Frame(opcode, pattern(size)).serialize(mask=False)


@pytest.mark.parametrize("size", [101, 200, 201, 250, 1000])
@pytest.mark.parametrize("first", [0, 1, 99, 100, 101])
def test_large_answers_are_fragmented(monkeypatch: pytest.MonkeyPatch, size: int, first: int) -> None:
    monkeypatch.setattr(frames, "FRAME_SIZE_MAX", 100)
    data = pattern(size)
    parts = [data[start : start + 100] for start in range(0, size, 100)]
    wanted = b"".join(
        Frame(Opcode.CONT if index else Opcode.BINARY, part, index == len(parts) - 1).serialize(mask=False)
        for index, part in enumerate(parts)
    )
    assert b"".join(frame_message([data[:first], data[first:]])) == wanted
