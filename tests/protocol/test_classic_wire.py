"""The classic wire as a whole: bytes in any pieces give requests or a WireError, and every answer can be read."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace
from pybroker.protocol.batch import stamp
from pybroker.protocol.classic.frames import CONTROL_BODY_SIZE_MAX
from pybroker.protocol.classic.overrides import CODECS
from pybroker.protocol.classic.wire import BY_CODE, IDLE_PAUSE_S, IDLE_POLLS_MAX, POLL_COUNT_MAX, ClassicWire
from pybroker.protocol.commands import COMMANDS
from pybroker.protocol.errors import Status, WireError
from pybroker.protocol.model.groups import GetConsumerGroup, GetConsumerGroups, JoinConsumerGroup
from pybroker.protocol.model.messages import RESYNC_PARTITION, Polled, SendMessages, Sent
from pybroker.protocol.model.offsets import DeleteConsumerOffset, GetConsumerOffset, StoreConsumerOffset
from pybroker.protocol.model.streams import CreateStream, DeleteStream, GetStream
from pybroker.protocol.model.system import GetClient, Ping
from pybroker.protocol.model.tokens import LoginWithToken, RawToken
from pybroker.protocol.model.topics import GetTopic, GetTopics
from pybroker.protocol.model.users import GetUser
from pybroker.protocol.primitives import PollingKind, PollingStrategy
from pybroker.protocol.wire import Request
from support.batches import make_batch
from support.classic import (
    FRAME_SIZE_MAX,
    POLL_ONCE,
    SEND,
    SINGLE,
    Message,
    answer,
    frame_of,
    make_sound,
    make_wire,
    messages_of,
    poll_answer,
    receive,
    request_frame,
    send_body,
    sent_bytes,
)

SOME = [Ping(), CreateStream("orders"), POLL_ONCE, GetStream(7), LoginWithToken("5ecret"), DeleteStream("orders")]


def test_requests_are_the_same_however_their_bytes_are_split() -> None:
    data = b"".join(map(frame_of, SOME))
    for size in range(1, len(data)):
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        assert [request.command for request in receive(make_wire(), *chunks)] == SOME


@given(data=st.binary(max_size=300), size=st.integers(1, 300))
def test_any_bytes_give_requests_or_a_wire_error(data: bytes, size: int) -> None:
    wire = make_wire()
    wire.frame_size_max = 1000
    try:
        found = receive(wire, *(data[start : start + size] for start in range(0, len(data), size)))
    except WireError:
        return
    assert all(request.command is not None or request.refusal is not None for request in found)


@given(code=st.sampled_from(sorted(BY_CODE)), body=st.binary(max_size=200))
def test_any_body_gives_a_command_or_a_refusal(code: int, body: bytes) -> None:
    (request,) = receive(make_wire(), request_frame(code, body))
    assert type(request.command) is BY_CODE[code].request if request.refusal is None else request.command is None


@given(data=st.data())
def test_send_with_bytes_changed_is_a_sound_batch_or_a_refusal(data: st.DataObject) -> None:
    body = bytearray(send_body([sent_bytes(Message(b"payload", headers=b"headers"))] * 9))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    (request,) = receive(make_wire(), request_frame(SEND, bytes(body)))
    if isinstance(request.command, SendMessages):
        sealed = make_sound(request.command)
        assert sealed.count == request.command.batch.count
    else:
        assert request.refusal is not None


@pytest.mark.parametrize("length", range(4))
def test_frame_without_a_code_is_refused_and_the_next_one_read(length: int) -> None:
    short = struct.pack("<I", length) + bytes(length)
    found = receive(make_wire(), short + frame_of(Ping()))
    assert [request.refusal for request in found] == [Status.INVALID_COMMAND, None]


@pytest.mark.parametrize("code", [0, 2, 13, 14, 103, 104, 123, 606, 2**32 - 1])
def test_unknown_command_is_refused_and_the_next_one_read(code: int) -> None:
    wire = make_wire()
    found = receive(wire, request_frame(code, b"body") + frame_of(Ping()))
    assert [request.refusal for request in found] == [Status.INVALID_COMMAND, None]
    assert answer(wire.refuse(found[0], Status.INVALID_COMMAND)) == (3, b"")


def test_control_command_that_is_too_large_ends_the_connection() -> None:
    largest = CONTROL_BODY_SIZE_MAX
    assert receive(make_wire(), struct.pack("<II", 4 + largest, 202) + b"x") == []
    with pytest.raises(WireError, match="a body of at most 10485760 bytes"):
        receive(make_wire(), struct.pack("<II", 4 + largest + 1, 202))
    assert receive(make_wire(), struct.pack("<I", 4 + largest + 1)) == []  # whose, nobody knows yet


def test_send_may_be_as_large_as_frames_are() -> None:
    wire = make_wire()
    head = struct.pack("<II", FRAME_SIZE_MAX - 4, SEND)
    assert receive(wire, head) == []
    with pytest.raises(WireError, match=f"a frame of at most {FRAME_SIZE_MAX} bytes"):
        receive(make_wire(), struct.pack("<I", FRAME_SIZE_MAX - 3))


def test_limit_of_a_frame_may_change_between_frames() -> None:
    wire = make_wire()
    wire.frame_size_max = 8
    assert len(receive(wire, frame_of(Ping()))) == 1
    wire.frame_size_max = 100
    assert len(receive(wire, frame_of(CreateStream("orders")))) == 1


@pytest.mark.parametrize("status", [status for status in Status if status])
def test_refusal_is_a_status_without_a_body(status: Status) -> None:
    for row in BY_CODE.values():
        wire = make_wire()
        request = receive(wire, request_frame(row.code, b""))[0]
        refused = answer(wire.refuse(request, status))
        assert refused[1] == b""


# Codes that Iggy got after 0.8 and that a service may answer with.
NEWER = {
    Status.INVALID_PERSONAL_ACCESS_TOKEN_EXPIRY: 3,
    Status.TOO_MANY_STREAMS: 1006,
    Status.TOO_MANY_TOPICS: 2006,
    Status.PARTITION_ID_SPACE_EXHAUSTED: 3000,
    Status.TOO_MANY_CONSUMER_OFFSETS: 1,
    Status.UNSUPPORTED_OPTION_KEY: 3,
    Status.INVALID_OPTION_VALUE: 3,
    Status.OPTIONS_BLOCK_TOO_LARGE: 3,
    Status.SEGMENT_SIZE_MISMATCH_AT_OPEN: 1,
    Status.CONSUMER_GROUP_PARTITION_NOT_OWNED: 3022,
}


@pytest.mark.parametrize(("status", "told"), NEWER.items())
def test_status_that_the_client_can_not_know_is_told_as_one_it_knows(status: Status, told: int) -> None:
    assert refuse(DeleteConsumerOffset(SINGLE, 0, 0, 0), status) == (told, b"")
    assert refuse(StoreConsumerOffset(SINGLE, 0, 0, 0, 1), status) == (told, b"")


def refuse(command: Struct, status: Status) -> tuple[int, bytes]:
    return answer(make_wire().refuse(Request(command, None), status))


LOOKUPS = [
    (GetClient(1), Status.CLIENT_NOT_FOUND),
    (GetUser(1), Status.RESOURCE_NOT_FOUND),
    (GetStream(1), Status.STREAM_ID_NOT_FOUND),
    (GetTopic(1, 1), Status.STREAM_ID_NOT_FOUND),
    (GetTopic(1, 1), Status.TOPIC_ID_NOT_FOUND),
    (GetTopics(1), Status.STREAM_ID_NOT_FOUND),
    (GetConsumerGroup(1, 1, 1), Status.STREAM_ID_NOT_FOUND),
    (GetConsumerGroup(1, 1, 1), Status.CONSUMER_GROUP_ID_NOT_FOUND),
    (GetConsumerGroups(1, 1), Status.TOPIC_ID_NOT_FOUND),
    (GetConsumerOffset(SINGLE, 1, 1, 9), Status.PARTITION_NOT_FOUND),
]


@pytest.mark.parametrize(("command", "status"), LOOKUPS)
def test_what_is_not_there_is_answered_with_nothing(command: Struct, status: Status) -> None:
    assert refuse(command, status) == (0, b"")
    assert refuse(command, Status.UNAUTHORIZED) == (41, b"")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (DeleteStream(1), Status.STREAM_ID_NOT_FOUND),
        (JoinConsumerGroup(1, 1, 1), Status.CONSUMER_GROUP_ID_NOT_FOUND),
        (POLL_ONCE, Status.PARTITION_NOT_FOUND),
        (DeleteConsumerOffset(SINGLE, 0, 0, 0), Status.CONSUMER_OFFSET_NOT_FOUND),
        (LoginWithToken("5ecret"), Status.PERSONAL_ACCESS_TOKEN_EXPIRED),
    ],
)
def test_other_commands_are_told_what_is_not_there(command: Struct, status: Status) -> None:
    assert refuse(command, status) == (status.value, b"")


def test_unknown_token_is_a_resource_that_is_not_there() -> None:
    assert refuse(LoginWithToken("5ecret"), Status.INVALID_PERSONAL_ACCESS_TOKEN) == (20, b"")
    assert refuse(Ping(), Status.INVALID_PERSONAL_ACCESS_TOKEN) == (53, b"")


def test_replies_are_a_status_a_length_and_a_body() -> None:
    wire = make_wire()
    ping = Request(Ping(), None)
    assert answer(wire.reply(ping, None)) == (0, b"")
    assert answer(wire.reply(ping, Sent(1, 2, 3, 4))) == (0, b"")
    assert answer(wire.reply(ping, RawToken("5ecret"))) == (0, b"\x065ecret")


def test_every_reply_of_its_commands_has_a_layout() -> None:
    replies = {row.reply for row in COMMANDS if row.code in BY_CODE} - {None, Sent}
    assert replies <= CODECS.keys()


def polled(messages: list[Message], *, base_offset: int = 0) -> Polled:
    batch = make_batch([message.payload for message in messages], message_ids=[message.id for message in messages])
    stamp(batch, base_offset=base_offset, base_timestamp_us=7)
    return Polled(2, base_offset + len(messages) - 1, len(messages), [batch.record])


def test_poll_is_answered_with_messages() -> None:
    body = poll_answer(make_wire(), polled([Message(b"one", id=1), Message(b"two", id=2)], base_offset=5))
    assert struct.unpack_from("<IQI", body) == (2, 6, 2)
    assert messages_of(body) == [
        Message(b"one", id=1, offset=5, timestamp_us=7),
        Message(b"two", id=2, offset=6, timestamp_us=7),
    ]


@pytest.mark.parametrize(
    ("kind", "count"),
    [(PollingKind.FIRST, POLL_COUNT_MAX), (PollingKind.OFFSET, POLL_COUNT_MAX), (PollingKind.LAST, 10**6)],
)
def test_poll_for_very_many_gets_fewer_but_starts_where_it_asked(kind: PollingKind, count: int) -> None:
    asked = replace(POLL_ONCE, strategy=PollingStrategy(kind), count=10**6)
    (request,) = receive(make_wire(), frame_of(asked))
    assert request.command == replace(asked, count=count)


def test_member_that_should_ask_for_its_partitions_is_told_of_no_messages() -> None:
    assert poll_answer(make_wire(), Polled(RESYNC_PARTITION, 0, 0, [])) == bytes(16)


def test_damaged_record_is_a_refused_poll() -> None:
    reply = polled([Message(b"one", id=1)])
    reply.records = [bytes(reply.records[0])[:-1]]
    assert answer(make_wire().reply(Request(POLL_ONCE, None), reply)) == (4011, b"")


def test_sent_messages_outlive_the_bytes_they_came_in() -> None:
    wire = make_wire()
    frame = request_frame(SEND, send_body([sent_bytes(Message(b"payload", id=1))]))
    (first,) = receive(wire, frame)
    assert isinstance(first.command, SendMessages)
    before = bytes(first.command.batch.record)
    receive(wire, *[request_frame(SEND, send_body([sent_bytes(Message(b"another", id=2))]))] * 3)
    assert bytes(first.command.batch.record) == before


def test_messages_get_ids_of_their_own() -> None:
    wire = make_wire()
    body = send_body([sent_bytes(Message(b"x"))] * 20)
    ids: set[bytes] = set()
    for request in receive(wire, request_frame(SEND, body) * 2):
        assert isinstance(request.command, SendMessages)
        record = bytes(request.command.batch.record)
        ids |= {record[start + 8 : start + 24] for start in range(256, len(record), 49)}
    assert len(ids) == 40
    assert bytes(16) not in ids


def pauses(wire: ClassicWire, partitions: list[int]) -> list[float]:
    """Poll partitions that are empty; return how long each answer may wait."""
    found: list[float] = []
    for partition_id in partitions:
        poll_answer(wire, Polled(partition_id, 0, 0, []))
        found.append(wire.pause_s)
    return found


def test_answers_wait_once_many_polls_have_found_nothing() -> None:
    wire = make_wire()
    assert pauses(wire, [0] * IDLE_POLLS_MAX) == [0.0] * IDLE_POLLS_MAX
    assert pauses(wire, [0, 0]) == [IDLE_PAUSE_S, IDLE_PAUSE_S]
    poll_answer(wire, polled([Message(b"one", id=1)]))
    assert wire.pause_s == 0
    assert pauses(wire, [2] * IDLE_POLLS_MAX) == [0.0] * IDLE_POLLS_MAX


def test_only_one_answer_waits_in_a_round_of_partitions() -> None:
    wire = make_wire()
    pauses(wire, [0, 3, 5] * IDLE_POLLS_MAX)
    assert pauses(wire, [0, 3, 5, 0, 3, 5]) == [IDLE_PAUSE_S, 0, 0, IDLE_PAUSE_S, 0, 0]


def test_polls_that_are_refused_wait_like_those_that_find_nothing() -> None:
    wire = make_wire()
    for _ in range(IDLE_POLLS_MAX + 1):
        wire.refuse(Request(POLL_ONCE, None), Status.CONSUMER_GROUP_MEMBER_NOT_FOUND)
    assert wire.pause_s == IDLE_PAUSE_S


@pytest.mark.parametrize("refused", [True, False])
def test_other_commands_never_wait(refused: bool) -> None:
    wire = make_wire()
    pauses(wire, [0] * (IDLE_POLLS_MAX + 1))
    ping = Request(Ping(), None)
    answer(wire.refuse(ping, Status.ERROR) if refused else wire.reply(ping, None))
    assert wire.pause_s == 0
    assert pauses(wire, [0] * IDLE_POLLS_MAX) == [0.0] * IDLE_POLLS_MAX
