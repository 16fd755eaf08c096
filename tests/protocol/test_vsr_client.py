"""The client's half of the vsr wire: what it asks is what the server reads, and every answer finds its request."""

import struct
from collections.abc import Iterator
from struct import pack_into
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.errors import Status, WireError
from pybroker.protocol.inbox import Inbox, Pool
from pybroker.protocol.model.groups import JoinConsumerGroup, SyncConsumerGroup
from pybroker.protocol.model.messages import Polled, PollMessages, SendMessages, Sent
from pybroker.protocol.model.streams import CreateStream, DeleteStream, GetStream, Stream, StreamDetails
from pybroker.protocol.model.system import GetMe, Ping
from pybroker.protocol.model.tokens import LoginWithToken
from pybroker.protocol.model.users import LoggedIn, Login, Logout
from pybroker.protocol.primitives import (
    Consumer,
    ConsumerKind,
    Partitioning,
    PartitioningKind,
    PollingKind,
    PollingStrategy,
)
from pybroker.protocol.vsr.client import Answer, Evicted, VsrClient, frame_of
from pybroker.protocol.vsr.frames import HEADER_SIZE, Reason, RequestHeader, eviction, read_request, reply_header
from pybroker.protocol.vsr.overrides import CODECS
from pybroker.protocol.vsr.session import VsrSession
from pybroker.protocol.vsr.wire import VsrWire
from pybroker.protocol.wire import Request
from support.batches import make_batch, make_sized_batch
from support.layouts import REPLIES, REQUESTS, Row

from .test_golden import EXCHANGES, Exchange

CLIENT = bytes(range(16))
EPOCH = 5
FRAME_SIZE_MAX = 4 << 20
BALANCED = Partitioning(PartitioningKind.BALANCED)
POLL = PollMessages(
    Consumer(ConsumerKind.SINGLE, 1), "s", "t", 0, PollingStrategy(PollingKind.FIRST), 100, auto_commit=False
)


def make_client() -> VsrClient:
    client = VsrClient(Inbox(Pool()), CLIENT, frame_size_max=FRAME_SIZE_MAX)
    client.session = EPOCH
    return client


def make_server() -> VsrWire:
    session = VsrSession()
    session.bind(CLIENT, EPOCH)
    return VsrWire(session, Inbox(Pool()), frame_size_max=FRAME_SIZE_MAX)


def feed(side: VsrClient | VsrWire, data: bytes) -> None:
    while data:
        space = side.space(len(data))
        part, data = data[: len(space)], data[len(space) :]
        space[: len(part)] = part
        side.filled(len(part))


def ask(client: VsrClient, command: Struct) -> bytes:
    buffers: list[Any] = []
    client.ask(command, buffers)
    return b"".join(buffers)


def header_of(frame: bytes) -> RequestHeader:
    return read_request(memoryview(frame))


def read_by_server(frame: bytes) -> Request:
    server = make_server()
    feed(server, frame)
    (request,) = server.requests(1)
    return request


def answers_of(client: VsrClient) -> Iterator[Answer]:
    """Yield everything that has been answered."""
    while found := list(client.answers()):
        yield from found


def answer_by_server(client: VsrClient, command: Struct, reply: Struct | Status | None) -> bytes:
    """Ask a command; return the frame that the server answers with."""
    server = make_server()
    feed(server, ask(client, command))
    (request,) = server.requests(1)
    answer = server.refuse(request, reply) if isinstance(reply, Status) else server.reply(request, reply)
    return b"".join(answer)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_requests_are_those_of_the_real_client(exchange: Exchange) -> None:
    header = header_of(exchange.request)
    body = memoryview(bytearray(exchange.request[HEADER_SIZE:]))
    command: Struct = (
        Login("iggy", "iggy", "rust-sdk/0.11.0")
        if exchange.command.request is Login
        else CODECS[exchange.command.request].decode(body)
    )
    frame = frame_of(command, client=header.client, session=header.session, number=header.request)
    assert b"".join(frame) == exchange.request


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_replies_that_the_real_client_accepted_are_read(exchange: Exchange) -> None:
    client = make_client()
    command: Struct = (
        Login("iggy", "iggy")
        if exchange.command.request is Login
        else CODECS[exchange.command.request].decode(memoryview(bytearray(exchange.request[HEADER_SIZE:])))
    )
    number = header_of(ask(client, command)).request
    reply = bytearray(exchange.reply)
    pack_into("<Q", reply, 200, number)  # Iggy's client gives several requests one number
    feed(client, bytes(reply))
    (answer,) = client.answers()
    assert answer.fault is None
    assert answer.code == exchange.failure
    if isinstance(command, Login):
        assert isinstance(answer.reply, LoggedIn) and client.session == answer.reply.session > 0
    elif answer.reply is not None:
        assert CODECS[type(answer.reply)].encode(answer.reply) == exchange.payload
    else:
        assert answer.code or not exchange.payload


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: type(row.value).__name__)
def test_every_request_reaches_the_server_as_it_was_asked(row: Row) -> None:
    assert read_by_server(ask(make_client(), row.value)).command == row.value


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: type(row.value).__name__)
def test_every_reply_arrives_as_the_server_gave_it(row: Row) -> None:
    command = next(each for each in BY_REQUEST.values() if each.reply is type(row.value))
    request = next((each.value for each in REQUESTS if type(each.value) is command.request), None)
    client = make_client()
    asked = request or CODECS[command.request].decode(memoryview(bytes(64)))
    feed(client, answer_by_server(client, asked, row.value))
    (answer,) = client.answers()
    payload_is_empty = not row.payload
    assert answer == Answer(1, reply=None if payload_is_empty else row.value)


@pytest.mark.parametrize(
    "login",
    [
        Login("iggy", "secret", "sdk/1.2", "context"),
        Login("é" * 100, "p" * 255, "sdk/1"),
        LoginWithToken("token", "sdk/1.2"),
    ],
)
def test_logins_are_read_as_they_were_meant(login: Login | LoginWithToken) -> None:
    client = VsrClient(Inbox(Pool()), CLIENT)
    frame = ask(client, login)
    login.client = CLIENT
    assert read_by_server(frame).command == login
    assert (header_of(frame).request, header_of(frame).session) == (0, 0)


def test_a_login_begins_the_session_that_later_requests_name() -> None:
    client = VsrClient(Inbox(Pool()), CLIENT)
    feed(client, answer_by_server(client, Login("iggy", "iggy"), LoggedIn(3, 77)))
    (answer,) = client.answers()
    assert answer == Answer(0, reply=LoggedIn(3, 77))
    assert header_of(ask(client, GetMe())).session == 77


def test_a_session_of_zero_is_none() -> None:
    client = VsrClient(Inbox(Pool()), CLIENT)
    feed(client, answer_by_server(client, Login("iggy", "iggy"), LoggedIn(3, 0)))
    (answer,) = client.answers()
    assert answer.fault is not None and client.session == 0


def test_a_record_is_not_copied_into_its_frame() -> None:
    batch = make_batch([b"x" * 1000])
    frame = frame_of(SendMessages("s", "t", BALANCED, batch), client=CLIENT, session=EPOCH, number=1)
    assert frame[1] is batch.record
    sent = read_by_server(b"".join(frame)).command
    assert isinstance(sent, SendMessages) and sent.batch.record == batch.record


@pytest.mark.parametrize(
    "command",
    [
        CreateStream("n" * 256),
        DeleteStream(1 << 32),
        DeleteStream(-1),
        SendMessages("s", "t", BALANCED, make_sized_batch(FRAME_SIZE_MAX)),
    ],
)
def test_what_no_layout_holds_leaves_no_trace(command: Struct) -> None:
    client = make_client()
    buffers: list[Any] = []
    with pytest.raises((ValueError, struct.error)):
        client.ask(command, buffers)
    assert not buffers and not client.unanswered
    assert header_of(ask(client, Ping())).request == 1


STREAM = StreamDetails(Stream(1, 2, 0, 0, 0, "s"), [])
RECORD = bytes(make_batch([b"a", b"b" * 500]).record)
EXCHANGED: list[tuple[Struct, Struct | Status | None]] = [
    (Ping(), None),
    (CreateStream("s"), STREAM),
    (CreateStream("s"), Status.STREAM_NAME_ALREADY_EXISTS),
    (GetStream("s"), Status.UNAUTHORIZED),
    (GetStream("t"), None),
    (POLL, Polled(0, 1, 2, [RECORD])),
    (SendMessages("s", "t", BALANCED, make_batch()), Sent(1, 2, 3, 4)),
    (SendMessages("s", "t", BALANCED, make_batch()), Status.TOPIC_ID_NOT_FOUND),
    (JoinConsumerGroup("s", "t", "g"), None),
    (SyncConsumerGroup("s", "t", "g"), None),
    (Logout(), None),
]
EXPECTED = [
    Answer(number, reply) if isinstance(reply, Status) else Answer(number, reply=reply)
    for number, (_, reply) in enumerate(EXCHANGED, 1)
]


def conversation(client: VsrClient) -> list[bytes]:
    """Ask everything; return the answers' frames."""
    return [answer_by_server(client, command, reply) for command, reply in EXCHANGED]


def test_answers_are_the_same_at_every_split_point() -> None:
    size = len(b"".join(conversation(make_client())))
    for cut in range(1, size):
        client = make_client()
        data = b"".join(conversation(client))
        feed(client, data[:cut])
        answers = list(answers_of(client))
        feed(client, data[cut:])
        assert answers + list(answers_of(client)) == EXPECTED
        assert not client.unanswered


def test_answers_find_their_requests_in_any_order() -> None:
    client = make_client()
    feed(client, b"".join(reversed(conversation(client))))
    assert list(answers_of(client)) == EXPECTED[::-1]


def test_a_poll_stays_intact_when_more_arrives() -> None:
    client = make_client()
    records = [bytes(make_sized_batch(size).record) for size in (700_000, 700_000, 400, 400)]
    answers: list[Answer] = []
    for record in records:
        feed(client, answer_by_server(client, POLL, Polled(0, 1, 1, [record])))
        answers += answers_of(client)
    assert [cast(Polled, answer.reply).records for answer in answers] == [[record] for record in records]


def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    client = make_client()
    frame = answer_by_server(client, Ping(), None)
    feed(client, frame + frame)
    answers = client.answers()
    assert next(answers) == Answer(1)
    with pytest.raises(WireError, match="number of a request"):
        next(answers)


@pytest.mark.parametrize(
    ("position", "value"), [(48, HEADER_SIZE - 1), (48, FRAME_SIZE_MAX + 1), (60, 5), (60, 0), (200, 2)]
)
def test_a_header_that_is_no_replys_ends_the_connection(position: int, value: int) -> None:
    client = make_client()
    frame = bytearray(answer_by_server(client, Ping(), None))
    pack_into("<I", frame, position, value)
    feed(client, bytes(frame))
    with pytest.raises(WireError):
        list(client.answers())


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.INVALID_CREDENTIALS, Status.INVALID_CREDENTIALS),
        (Reason.INVALID_TOKEN, Status.INVALID_PERSONAL_ACCESS_TOKEN),
        (Reason.USER_INACTIVE, Status.USER_INACTIVE),
        (Reason.STALE_CLIENT, Status.STALE_CLIENT),
        (Reason.INCOMPATIBLE_VERSION, Status.INCOMPATIBLE_PROTOCOL_VERSION),
        (Reason.INVALID_FORMAT, Status.INVALID_FORMAT),
        (Reason.NO_SESSION, Status.UNAUTHENTICATED),
        (200, Status.UNAUTHENTICATED),
    ],
)
def test_an_eviction_says_why(reason: Reason, status: Status) -> None:
    client = make_client()
    feed(client, eviction(header_of(ask(client, Ping())), reason))
    with pytest.raises(Evicted) as caught:
        list(client.answers())
    assert caught.value.status is status


@pytest.mark.parametrize("body", [b"", b"\0\0\0", b"\1\0\0\0", b"\1\0\0\0\0\0\0\0\1", b"\0\0\0\0\1"])
def test_a_body_that_makes_no_sense_fails_its_request_only(body: bytes) -> None:
    client = make_client()
    asked = header_of(ask(client, CreateStream("s")))
    feed(client, reply_header(asked, size=len(body), session=EPOCH, commit=1) + body)
    feed(client, answer_by_server(client, Ping(), None))
    broken, sound = answers_of(client)
    assert isinstance(broken.fault, WireError) and broken.number == 1
    assert sound == Answer(2)


def test_a_result_section_without_a_code_is_success() -> None:
    client = make_client()
    asked = header_of(ask(client, DeleteStream(1)))
    feed(client, reply_header(asked, size=12, session=EPOCH, commit=1) + b"\1" + bytes(11))
    assert list(client.answers()) == [Answer(1)]


def test_a_status_that_is_not_known_keeps_its_number() -> None:
    client = make_client()
    asked = header_of(ask(client, DeleteStream(1)))
    feed(client, reply_header(asked, size=0, session=EPOCH, commit=1, status=60_000))
    assert list(client.answers()) == [Answer(1, 60_000)]


@given(command=st.sampled_from([command for command, _ in EXCHANGED]), operation=st.integers(0, 255), body=st.binary())
def test_any_body_gives_an_answer(command: Struct, operation: int, body: bytes) -> None:
    client = make_client()
    asked = header_of(ask(client, command))
    asked.operation = operation
    feed(client, reply_header(asked, size=len(body), session=EPOCH, commit=1) + body)
    (answer,) = client.answers()
    assert answer.number == 1
    assert not client.unanswered


@given(st.binary(min_size=300, max_size=600))
def test_any_bytes_give_answers_or_the_end(data: bytes) -> None:
    client = make_client()
    ask(client, Ping())
    feed(client, data)
    try:
        answers = list(answers_of(client))
    except (WireError, Evicted):
        return
    assert len(answers) <= 1
