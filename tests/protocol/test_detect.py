"""The first bytes of a peer say which wire it speaks; from then on the detector is out of the way."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol.classic.wire import BY_CODE, ClassicWire
from pybroker.protocol.detect import KNOWN_SIZE, Detector, Generation, detect, frame_size
from pybroker.protocol.errors import WireError
from pybroker.protocol.inbox import BLOCK_SIZE, Inbox, Pool
from pybroker.protocol.model.streams import CreateStream
from pybroker.protocol.model.system import Ping
from pybroker.protocol.vsr.session import VsrSession
from pybroker.protocol.vsr.wire import VsrWire
from pybroker.protocol.wire import Wire
from support import raw
from support.classic import feed, receive, request_frame

SIZE_MAX = 1 << 16


def classic_wire(inbox: Inbox) -> Wire:
    return ClassicWire(inbox, frame_size_max=SIZE_MAX, random_bytes=os.urandom)


def vsr_wire(inbox: Inbox) -> Wire:
    return VsrWire(VsrSession(), inbox, frame_size_max=SIZE_MAX)


class Peer:
    """A detector, and the wires it has chosen."""

    def __init__(self) -> None:
        self.chosen: list[Wire] = []
        self.wire = Detector(
            Inbox(Pool()),
            {Generation.CLASSIC: classic_wire, Generation.VSR: vsr_wire},
            self.chosen.append,
            frame_size_max=SIZE_MAX,
        )


CLASSIC = request_frame(1) + request_frame(202, b"\x06orders")
VSR = raw.request_frame(code=1) + raw.request_frame(code=20)
SAME = pytest.mark.parametrize(("data", "kind"), [(CLASSIC, ClassicWire), (VSR, VsrWire)], ids=["classic", "vsr"])


@SAME
def test_wire_is_chosen_at_the_eighth_byte(data: bytes, kind: type[Wire]) -> None:
    for size in range(1, len(data)):
        peer = Peer()
        feed(peer.wire, data[:size])
        assert len(list(peer.wire.requests(1))) == (0 if size < KNOWN_SIZE or (kind is VsrWire and size < 256) else 1)
        assert [type(wire) for wire in peer.chosen] == ([kind] if size >= KNOWN_SIZE else [])


@SAME
def test_chosen_wire_goes_on_with_what_has_arrived(data: bytes, kind: type[Wire]) -> None:
    for size in range(KNOWN_SIZE, len(data)):
        peer = Peer()
        feed(peer.wire, data[:size])
        count = len(list(peer.wire.requests(9)))
        (wire,) = peer.chosen
        assert isinstance(wire, kind)
        assert wire.unread == peer.wire.unread
        count += len(receive(wire, data[size:]))
        assert count == 2


def test_space_of_the_detector_stays_that_of_the_wire() -> None:
    peer = Peer()
    feed(peer.wire, request_frame(1))
    assert [request.command for request in peer.wire.requests(1)] == [Ping()]
    feed(peer.wire, request_frame(202, b"\x06orders"))
    assert [request.command for request in peer.chosen[0].requests(1)] == [CreateStream("orders")]


def test_first_bytes_may_be_more_than_a_block() -> None:
    peer = Peer()
    data = request_frame(1) * (3 * BLOCK_SIZE // 8)
    feed(peer.wire, data)
    assert len(list(peer.wire.requests(len(data)))) == len(data) // 8


@pytest.mark.parametrize("code", BY_CODE)
def test_every_classic_command_may_be_the_first(code: int) -> None:
    assert detect(memoryview(request_frame(code, b"body")), SIZE_MAX) is Generation.CLASSIC


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"GET / HTTP/1.1\r\n", "an HTTP request"),
        (b"POST /streams HTTP/1.1\r\n", "an HTTP request"),
        (b"PRI * HTTP/2.0\r\n", "an HTTP/2 request"),
        (bytes.fromhex("16030100f8010000f40303"), "a TLS hello"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH hello"),
        (b"\x05\x01\x00\x00\xff\xff\xff\xff", "05 01 00 00 ff ff ff ff"),  # no command has this code
        (b"\x00\x00\x00\x00\x01\x00\x00\x00", "00 00 00 00 01 00 00 00"),  # a length of 0 in front of a command
        (b"\x03\x00\x00\x00\x01\x00\x00\x00", "03 00 00 00 01 00 00 00"),
        (struct.pack("<II", SIZE_MAX, 101), "00 00 01 00 65 00 00 00"),
    ],
)
def test_stranger_is_named(data: bytes, what: str) -> None:
    for size in range(KNOWN_SIZE, len(data) + 1):
        with pytest.raises(WireError, match=f"need the first frame of an Iggy client, have {what}"):
            detect(memoryview(data[:size]), SIZE_MAX)


@pytest.mark.parametrize("data", [b"GET ", b"HELO", b"\x16\x03\x01\x00\xf8", b"\x01\0\0\0", b"\xff" * 4])
def test_stranger_is_sent_away_at_the_fourth_byte_where_it_can_be(data: bytes) -> None:
    with pytest.raises(WireError):
        detect(memoryview(data[:4]), SIZE_MAX)


@given(data=st.binary(max_size=300))
def test_any_bytes_give_a_wire_nothing_or_a_wire_error(data: bytes) -> None:
    peer = Peer()
    feed(peer.wire, data)
    try:
        found = list(peer.wire.requests(9))
    except WireError:
        return
    assert not found or peer.chosen
    assert bool(peer.chosen) == (len(data) >= KNOWN_SIZE)


def test_detector_gives_up_what_it_received() -> None:
    pool = Pool()
    detector = Detector(Inbox(pool), {}, lambda _: None, frame_size_max=SIZE_MAX)
    feed(detector, b"abc")
    assert detector.unread == 3
    detector.close()
    assert (detector.unread, len(pool.small)) == (0, 1)


def test_wire_that_is_not_taken_is_named() -> None:
    detector = Detector(Inbox(Pool()), {Generation.VSR: vsr_wire}, lambda _: None, frame_size_max=99)
    feed(detector, CLASSIC)
    with pytest.raises(WireError, match="a client of the vsr wire, as configured, have one of the classic wire"):
        detector.requests(1)


@pytest.mark.parametrize(
    ("frame", "known_at"),
    [
        pytest.param(request_frame(1), 4, id="classic"),
        pytest.param(request_frame(302, b"x" * 300), 4, id="classic, large"),
        pytest.param(raw.request_frame(), 52, id="vsr"),
        pytest.param(raw.request_frame(b"x" * 70_000), 52, id="vsr, large"),
    ],
)
def test_frame_says_how_long_it_is(frame: bytes, known_at: int) -> None:
    sizes = [frame_size(frame[:count]) for count in range(min(len(frame), 400))]
    assert sizes == [0] * known_at + [len(frame)] * (len(sizes) - known_at)
