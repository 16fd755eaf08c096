"""Messages of Iggy 0.6 and older: told by their size, given back in it, their user headers as they know them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol.classic.wire import ClassicWire
from pybroker.protocol.errors import Status
from pybroker.protocol.model.messages import Polled, SendMessages
from pybroker.protocol.model.system import GetClusterMetadata, Ping
from pybroker.protocol.model.users import Login
from support.batches import make_batch
from support.classic import (
    POLL_ONCE,
    SEND,
    Message,
    frame_of,
    make_sound,
    make_wire,
    messages_of,
    poll_answer,
    polled_bytes,
    receive,
    request_frame,
    send_body,
    sent_bytes,
)

NEW_HEADERS = b"\x02\x01\0\0\0k\x0b\x04\0\0\0\x07\0\0\0\x02\x02\0\0\0k2\x02\x01\0\0\0v"
OLD_HEADERS = b"\x01\0\0\0k\x0b\x04\0\0\0\x07\0\0\0\x02\0\0\0k2\x02\x01\0\0\0v"
OLD = 56


def old_wire(messages: list[Message]) -> tuple[ClassicWire, SendMessages]:
    """Return a wire whose peer has sent old messages, and what came of them."""
    wire = make_wire()
    (request,) = receive(wire, request_frame(SEND, send_body([sent_bytes(message, OLD) for message in messages])))
    assert isinstance(request.command, SendMessages), request.refusal
    return wire, request.command


@pytest.mark.parametrize("count", [1, 3, 20])
def test_old_messages_are_told_by_their_size_and_given_back_in_it(count: int) -> None:
    sent = [Message(b"payload", id=index + 1, origin_us=9 + index) for index in range(count)]
    wire, command = old_wire(sent)
    assert make_sound(command).count == count
    body = poll_answer(wire, Polled(0, count - 1, count, [command.batch.record]))
    assert messages_of(body, OLD) == [message._replace(offset=index) for index, message in enumerate(sent)]
    assert body[16:] == b"".join(polled_bytes(message, OLD) for message in messages_of(body, OLD))


def test_peer_has_new_messages_until_it_sends_old_ones() -> None:
    reply = Polled(0, 0, 1, [make_batch([b"one"]).record])
    assert len(poll_answer(make_wire(), reply)) == 16 + 64 + 3
    assert len(poll_answer(old_wire([Message(b"one")])[0], reply)) == 16 + 56 + 3


def test_user_headers_of_old_messages_get_a_kind_and_lose_it_again() -> None:
    wire, command = old_wire([Message(b"one", id=1, headers=OLD_HEADERS), Message(b"two", id=2)])
    record = bytes(command.batch.record)
    assert record[256 + 48 + 3 :].startswith(NEW_HEADERS)
    body = poll_answer(wire, Polled(0, 1, 2, [record]))
    assert [message.headers for message in messages_of(body, OLD)] == [OLD_HEADERS, b""]


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        (NEW_HEADERS, OLD_HEADERS),
        (b"\x0b\x04\0\0\0\x07\0\0\0\x02\x01\0\0\0v", b""),  # a key that is a number
        (b"\x0b\x01\0\0\0k\x02\x01\0\0\0v" + NEW_HEADERS, OLD_HEADERS),
        (NEW_HEADERS[:-1], b""),
        (b"no headers at all", b""),
        (b"\x02", b""),
    ],
)
def test_user_headers_that_an_old_client_can_not_know_are_left_out(headers: bytes, shown: bytes) -> None:
    wire, _ = old_wire([Message(b"one")])
    (request,) = receive(make_wire(), request_frame(SEND, send_body([sent_bytes(Message(b"two", 2, headers=headers))])))
    assert isinstance(request.command, SendMessages)
    body = poll_answer(wire, Polled(0, 0, 1, [request.command.batch.record]))
    assert messages_of(body, OLD) == [Message(b"two", id=2, headers=shown)]


@pytest.mark.parametrize("headers", [OLD_HEADERS[:-1], b"no headers at all", b"\x01\0\0\0k"])
def test_old_user_headers_that_make_no_sense_are_refused(headers: bytes) -> None:
    body = send_body([sent_bytes(Message(b"one", headers=headers), OLD)])
    (request,) = receive(make_wire(), request_frame(SEND, body))
    assert request.refusal is Status.CANNOT_READ_HEADERS_PAYLOAD


@given(data=st.data())
def test_old_send_with_bytes_changed_is_a_sound_batch_or_a_refusal(data: st.DataObject) -> None:
    body = bytearray(send_body([sent_bytes(Message(b"payload", headers=OLD_HEADERS), OLD)] * 3))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    (request,) = receive(make_wire(), request_frame(SEND, bytes(body)))
    if isinstance(request.command, SendMessages):
        make_sound(request.command)
    else:
        assert request.refusal is not None


@pytest.mark.parametrize(
    ("version", "pings", "head_size"),
    [
        ("0.8.0", True, 56),  # apache-iggy 0.6 of Python
        ("0.7.0", True, 56),
        ("0.8.0", False, 64),  # Go, which pings after 5 s
        ("0.9.0", True, 64),  # apache-iggy 0.7
        ("0.10.0", True, 64),  # apache-iggy 0.8
        ("1.8.0", True, 64),
        ("", True, 64),
        ("0.x", True, 64),
        ("iggy-java-sdk/0.8.0", True, 64),
    ],
)
def test_client_that_has_sent_nothing_is_told_by_its_version_and_its_ping(
    version: str, pings: bool, head_size: int
) -> None:
    wire = make_wire()
    login, reply = Login("iggy", "iggy", version), Polled(0, 0, 1, [make_batch([b"one"]).record])
    receive(wire, *([frame_of(Ping())] if pings else []), frame_of(login), frame_of(POLL_ONCE))
    assert len(poll_answer(wire, reply)) == 16 + head_size + 3
    receive(wire, frame_of(Ping()), frame_of(Login("iggy", "iggy", "0.8.0")), frame_of(POLL_ONCE))
    assert len(poll_answer(wire, reply)) == 16 + head_size + 3
    receive(wire, request_frame(SEND, send_body([sent_bytes(Message(b"one"))])))
    assert len(poll_answer(wire, reply)) == 16 + 64 + 3


@pytest.mark.parametrize(
    ("context", "pings_after", "head_size"),
    [
        ("", 2, 56),
        ("", 3, 64),  # Go's first ping, where nothing was asked for 5 s
        ("csharp-sdk", 0, 64),
    ],
)
def test_ping_tells_nothing_when_it_is_late_or_the_client_names_itself(
    context: str, pings_after: int, head_size: int
) -> None:
    wire = make_wire()
    reply = Polled(0, 0, 1, [make_batch([b"one"]).record])
    others = [frame_of(GetClusterMetadata())] * pings_after
    login = frame_of(Login("iggy", "iggy", "0.8.0", context))
    receive(wire, login, *others, frame_of(Ping()), frame_of(POLL_ONCE))
    assert len(poll_answer(wire, reply)) == 16 + head_size + 3
