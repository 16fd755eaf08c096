"""Signing in and out on the vsr wire, and what a repeated command is answered with."""

from struct import pack, unpack_from

import pytest
from pybroker.protocol.errors import Status, WireError
from pybroker.protocol.inbox import Inbox, Pool
from pybroker.protocol.model.streams import CreateStream
from pybroker.protocol.model.tokens import LoginWithToken
from pybroker.protocol.model.users import LoggedIn, Login, Logout
from pybroker.protocol.vsr.frames import HEADER_SIZE, Reason
from pybroker.protocol.vsr.session import REPLIES_KEPT, VsrSession, read_login, version_text, write_logged_in
from pybroker.protocol.vsr.wire import VsrWire
from pybroker.protocol.wire import Request
from support.raw import login_body, request_frame
from xxhash import xxh3_64_intdigest

REGISTER, READ, LOGOUT, CREATE_STREAM, SEND = 1, 2, 3, 128, 160
REPLY, EVICTION = 8, 13
PREFIX = b"\x00\x2c\0\0" b"\x08rust-sdk" b"\x060.11.0"  # fmt: skip
PASSWORD = PREFIX + b"\x04iggy" b"\x06secret" b"\0\0\0\0"  # fmt: skip
TOKEN = PREFIX + b"\x05token" b"\0\0\0\0"  # fmt: skip
STREAM_BODY = b"\x06orders"
CLIENT = b"\x01" + bytes(15)  # as request_frame numbers it


def make_wire() -> VsrWire:
    return VsrWire(VsrSession(), Inbox(Pool()), frame_size_max=1 << 20)


def take(wire: VsrWire, frame: bytes) -> Request:
    space = wire.space(0)
    space[: len(frame)] = frame
    wire.filled(len(frame))
    (request,) = wire.requests(10)
    return request


def login(wire: VsrWire, epoch: int, client: int = 1) -> bytes:
    request = take(wire, request_frame(login_body(), operation=REGISTER, request=0, client=client))
    assert isinstance(request.command, Login)
    return b"".join(wire.reply(request, LoggedIn(0, epoch)))


def create(
    wire: VsrWire, number: int, *, session: int = 5, client: int = 1, checksum: int = 0, body: bytes = STREAM_BODY
) -> Request:
    frame = request_frame(
        body, operation=CREATE_STREAM, session=session, request=number, client=client, checksum=checksum
    )
    return take(wire, frame)


def execute(wire: VsrWire, number: int) -> list[bytes]:
    """Ask for a stream under a request number that is new, and answer; return the answer."""
    request = create(wire, number)
    assert request.command == CreateStream("orders")
    return [bytes(part) for part in wire.reply(request, None)]


def refusal_of(wire: VsrWire, request: Request) -> bytes:
    assert request.refusal is not None
    return b"".join(wire.refuse(request, request.refusal))


# Protocol 0.11 of any patch is taken; everything else is told the window.
VERSIONS = [
    (0x2C00, True), (0x2C01, True), (0x2FFF, True), (0x2BFF, False), (0x3000, False), (0, False),
    (0x2C00 | 1 << 20, False), (0xFFFFFFFF, False),
]  # fmt: skip


@pytest.mark.parametrize(("version", "good"), VERSIONS)
def test_only_protocol_0_11_is_let_in(version: int, good: bool) -> None:
    wire = make_wire()
    request = take(wire, request_frame(login_body(version=version), operation=REGISTER, request=0))
    if good:
        assert request.command == Login("iggy", "iggy", "rust-sdk/0.11.0", client=CLIENT)
        return
    frame = refusal_of(wire, request)
    assert (len(frame), frame[60], frame[255]) == (HEADER_SIZE, EVICTION, Reason.INCOMPATIBLE_VERSION)
    assert unpack_from("<II", frame, 144) == (0x2C00, 0x2C00)


@pytest.mark.parametrize(
    ("version", "text"), [(0x2C00, "0.11.0"), (0x2C01, "0.11.1"), (1 << 20 | 2 << 10 | 3, "1.2.3")]
)
def test_versions_read_as_people_write_them(version: int, text: str) -> None:
    assert version_text(version) == text


def test_password_login_is_read_from_its_bytes() -> None:
    assert read_login(memoryview(PASSWORD)) == Login("iggy", "secret", "rust-sdk/0.11.0", "")
    with_context = PASSWORD[:-4] + b"\x03\0\0\0abc"
    assert read_login(memoryview(with_context)) == Login("iggy", "secret", "rust-sdk/0.11.0", "abc")


def test_login_answer_is_written_as_its_bytes() -> None:
    expected = b"\x07\0\0\0" b"\x09\0\0\0\0\0\0\0" b"\x00\x2c\0\0" b"\x050.9.0"  # fmt: skip
    assert write_logged_in(LoggedIn(7, 9)) == expected


def test_token_login_is_read_from_its_bytes() -> None:
    assert read_login(memoryview(TOKEN)) == LoginWithToken("token", "rust-sdk/0.11.0", "")
    with_context = TOKEN[:-4] + b"\x03\0\0\0abc"
    assert read_login(memoryview(with_context)) == LoginWithToken("token", "rust-sdk/0.11.0", "abc")


@pytest.mark.parametrize("body", [PASSWORD, TOKEN], ids=["password", "token"])
def test_login_cut_anywhere_is_refused_with_a_wire_error(body: bytes) -> None:
    for size in range(len(body)):
        with pytest.raises(WireError):
            read_login(memoryview(body[:size]))


@pytest.mark.parametrize("body", [PASSWORD, TOKEN], ids=["password", "token"])
def test_login_with_bytes_behind_it_is_refused(body: bytes) -> None:
    with pytest.raises(WireError) as caught:
        read_login(memoryview(body + b"\0\0"))  # with one more, the token would be a name with an empty password
    assert caught.value.status is Status.INVALID_COMMAND


BAD_LOGINS = {
    "empty": (b"", Reason.INVALID_FORMAT),
    "version-alone": (b"\x00\x2c\0\0", Reason.INVALID_FORMAT),
    "cut": (PASSWORD[:-1], Reason.INVALID_FORMAT),
    "longer": (PASSWORD + b"\0", Reason.INVALID_FORMAT),
    "name-not-utf8": (PREFIX + b"\x04\xff\xff\xff\xff\x06secret\0\0\0\0", Reason.INVALID_FORMAT),
    "sdk-not-utf8": (b"\x00\x2c\0\0\x01\xff\x06" + PASSWORD[14:], Reason.INVALID_FORMAT),
}


@pytest.mark.parametrize("name", BAD_LOGINS)
def test_login_that_does_not_read_is_evicted(name: str) -> None:
    body, reason = BAD_LOGINS[name]
    wire = make_wire()
    frame = refusal_of(wire, take(wire, request_frame(body, operation=REGISTER, request=0)))
    assert (len(frame), frame[60], frame[255]) == (HEADER_SIZE, EVICTION, reason)


LOGIN_REASONS = [
    (Status.INVALID_CREDENTIALS, Reason.INVALID_CREDENTIALS),
    (Status.INVALID_USERNAME, Reason.INVALID_CREDENTIALS),
    (Status.INVALID_PASSWORD, Reason.INVALID_CREDENTIALS),
    (Status.USER_INACTIVE, Reason.INVALID_CREDENTIALS),
    (Status.INVALID_PERSONAL_ACCESS_TOKEN, Reason.INVALID_TOKEN),
    (Status.PERSONAL_ACCESS_TOKEN_EXPIRED, Reason.INVALID_TOKEN),
    (Status.INVALID_FORMAT, Reason.INVALID_FORMAT),
]


@pytest.mark.parametrize(("status", "reason"), LOGIN_REASONS)
def test_failed_login_is_an_eviction_that_names_the_client(status: Status, reason: Reason) -> None:
    wire = make_wire()
    request = take(wire, request_frame(login_body(), operation=REGISTER, request=0, client=77))
    frame = b"".join(wire.refuse(request, status))
    assert (len(frame), frame[60], frame[255], frame[128]) == (HEADER_SIZE, EVICTION, reason, 77)
    assert unpack_from("<II", frame, 144) == (0, 0)


@pytest.mark.parametrize(("body", "reason"), [(PASSWORD, Reason.INVALID_CREDENTIALS), (TOKEN, Reason.USER_INACTIVE)])
def test_inactive_user_is_told_so_only_of_a_token(body: bytes, reason: Reason) -> None:
    wire = make_wire()
    request = take(wire, request_frame(body, operation=REGISTER, request=0))
    assert b"".join(wire.refuse(request, Status.USER_INACTIVE))[255] == reason


def test_login_that_fails_in_the_server_is_told_the_status() -> None:
    wire = make_wire()
    request = take(wire, request_frame(login_body(), operation=REGISTER, request=0))
    frame = b"".join(wire.refuse(request, Status.ERROR))
    assert (frame[60], unpack_from("<I", frame, 216)) == (REPLY, (1,))


@pytest.mark.parametrize(("session", "request_number"), [(1, 0), (0, 1)])
def test_register_has_neither_session_nor_number(session: int, request_number: int) -> None:
    wire = make_wire()
    frame = request_frame(login_body(), operation=REGISTER, request=request_number, session=session)
    assert refusal_of(wire, take(wire, frame))[255] == Reason.INVALID_FORMAT


def test_login_binds_the_client_and_shows_its_session() -> None:
    wire = make_wire()
    answer = login(wire, 5)
    assert answer[HEADER_SIZE:][:20] == bytes(4) + pack("<IQI", 0, 5, 0x2C00)
    assert unpack_from("<Q", answer, 176) == (5,)
    assert create(wire, 1).command == CreateStream("orders")


# Who may ask replicated commands: (session, client) of the request to one signed in as client 1, epoch 5.
STRANGERS = [
    (5, 1, None),
    (4, 1, Reason.SESSION_TOO_LOW),
    (0, 1, Reason.SESSION_TOO_LOW),
    (6, 1, Reason.NO_SESSION),
    (5, 2, Reason.NO_SESSION),
]


@pytest.mark.parametrize("operation", [CREATE_STREAM, 149, SEND, 161, 162])
@pytest.mark.parametrize(("session", "client", "reason"), STRANGERS)
def test_replicated_command_needs_the_current_session(
    operation: int, session: int, client: int, reason: Reason | None
) -> None:
    wire = make_wire()
    login(wire, 5)
    request = take(wire, request_frame(operation=operation, session=session, client=client))
    if reason is None:
        assert request.refusal not in (Status.UNAUTHENTICATED, Status.INVALID_SESSION)
    else:
        frame = refusal_of(wire, request)
        assert (frame[60], frame[255]) == (EVICTION, reason)


@pytest.mark.parametrize("operation", [CREATE_STREAM, SEND, 161])
def test_replicated_command_before_login_is_evicted(operation: int) -> None:
    wire = make_wire()
    frame = refusal_of(wire, take(wire, request_frame(operation=operation, session=1)))
    assert (frame[60], frame[255]) == (EVICTION, Reason.NO_SESSION)


def test_read_before_login_is_answered_with_the_status() -> None:
    wire = make_wire()
    request = take(wire, request_frame(code=201))
    frame = b"".join(wire.refuse(request, Status.UNAUTHENTICATED))
    assert (frame[60], unpack_from("<I", frame, 216)) == (REPLY, (40,))


def test_repeated_command_gets_the_same_answer_again() -> None:
    wire = make_wire()
    login(wire, 5)
    answer = execute(wire, 1)
    again = create(wire, 1)
    assert again.command is None
    assert again.answer == answer


def test_refusal_of_a_command_is_repeated_too() -> None:
    wire = make_wire()
    login(wire, 5)
    answer = wire.refuse(create(wire, 1), Status.STREAM_NAME_ALREADY_EXISTS)
    assert create(wire, 1).answer == answer


def test_answers_of_the_last_commands_are_kept_and_older_ones_are_not() -> None:
    wire = make_wire()
    login(wire, 5)
    answers = {number: execute(wire, number) for number in range(1, REPLIES_KEPT + 3)}
    for number, answer in answers.items():
        again = create(wire, number)
        if number <= 2:
            assert again.refusal is Status.REQUEST_ALREADY_APPLIED
            assert unpack_from("<I", refusal_of(wire, again), 216) == (59,)
        else:
            assert again.answer == answer


def test_numbers_may_leave_gaps_but_not_come_back_into_them() -> None:
    wire = make_wire()
    login(wire, 5)
    execute(wire, 10)
    execute(wire, 20)
    assert create(wire, 15).refusal is Status.REQUEST_ALREADY_APPLIED
    assert create(wire, 21).command is not None


def test_same_number_for_another_command_is_refused() -> None:
    wire = make_wire()
    login(wire, 5)
    body = b"\x05other"
    first = create(wire, 1, checksum=xxh3_64_intdigest(STREAM_BODY))
    wire.reply(first, None)
    assert create(wire, 1, checksum=xxh3_64_intdigest(body), body=body).refusal is Status.REQUEST_ALREADY_APPLIED


def test_partition_commands_are_never_taken_for_repeated() -> None:
    wire = make_wire()
    login(wire, 5)
    execute(wire, 9)
    for operation in (SEND, 161, 162):
        request = take(wire, request_frame(operation=operation, session=5, request=9))
        assert (request.answer, request.refusal) == (None, Status.INVALID_COMMAND)  # its empty body does not decode


def test_new_login_begins_a_new_table() -> None:
    wire = make_wire()
    login(wire, 5)
    execute(wire, 1)
    login(wire, 6)
    assert create(wire, 1, session=5).refusal is Status.INVALID_SESSION
    assert create(wire, 1, session=6).command == CreateStream("orders")


def test_logout_forgets_the_session_and_keeps_the_connection() -> None:
    wire = make_wire()
    login(wire, 5)
    request = take(wire, request_frame(operation=LOGOUT, session=5))
    assert request.command == Logout()
    answer = b"".join(wire.reply(request, None))
    assert (len(answer), answer[60], unpack_from("<I", answer, 216)) == (HEADER_SIZE, REPLY, (0,))
    assert create(wire, 2).refusal is Status.UNAUTHENTICATED
    login(wire, 6, client=2)
    assert create(wire, 1, session=6, client=2).command == CreateStream("orders")


def test_wrong_body_checksum_is_refused_with_invalid_format() -> None:
    wire = make_wire()
    login(wire, 5)
    assert create(wire, 1, checksum=1).refusal is Status.INVALID_FORMAT
    assert create(wire, 1, checksum=xxh3_64_intdigest(STREAM_BODY)).command == CreateStream("orders")


def test_command_of_an_old_session_leaves_the_table_alone() -> None:
    """What is not of this session may not take its request numbers, whatever else is wrong with it."""
    wire = make_wire()
    login(wire, 5)
    for strange in (
        create(wire, 100, session=4, checksum=1),
        take(wire, request_frame(operation=141, session=4, request=100)),
    ):
        refusal_of(wire, strange)
        assert create(wire, 1).command == CreateStream("orders")


def test_session_is_shared_by_wires_of_one_connection() -> None:
    """Over QUIC each request has a wire of its own."""
    session = VsrSession()
    wires = [VsrWire(session, Inbox(Pool()), frame_size_max=1 << 20) for _ in range(3)]
    login(wires[0], 5)
    answer = execute(wires[1], 1)
    assert create(wires[2], 1).answer == answer
