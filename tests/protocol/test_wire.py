"""The vsr wire as a whole: bytes in any pieces give requests or a WireError, and every request has an answer."""

from struct import unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from pybroker.protocol.batch import Batch
from pybroker.protocol.commands import BY_CODE, BY_OPERATION, COMMANDS
from pybroker.protocol.errors import Status, WireError
from pybroker.protocol.inbox import BLOCK_SIZE, Inbox, Pool
from pybroker.protocol.model.messages import Polled, SendMessages
from pybroker.protocol.model.streams import CreateStream, GetStream, PurgeStream
from pybroker.protocol.model.system import GetClient, Ping
from pybroker.protocol.primitives import Partitioning, PartitioningKind
from pybroker.protocol.vsr.frames import FRAMED, HEADER_SIZE, OPERATIONS
from pybroker.protocol.vsr.overrides import CODECS
from pybroker.protocol.vsr.session import VsrSession
from pybroker.protocol.vsr.wire import VsrWire
from pybroker.protocol.wire import Request
from support.batches import make_batch, make_sized_batch
from support.raw import login_body, request_frame

CLIENT = 1
EPOCH = 5
BALANCED = Partitioning(PartitioningKind.BALANCED)
FRAME_SIZE_MAX = 4 << 20


def make_wire(epoch: int = EPOCH) -> VsrWire:
    """Return a wire that is signed in, or with epoch 0 one that is not."""
    session = VsrSession()
    if epoch:
        session.bind(CLIENT.to_bytes(16, "little"), epoch)
    return VsrWire(session, Inbox(Pool()), frame_size_max=FRAME_SIZE_MAX)


def frame_of(command: Struct, *, request: int = 1) -> bytes:
    row = next(row for row in COMMANDS if row.request is type(command))
    body = bytes(CODECS[row.request].encode(command))
    if row.operation is None:
        return request_frame(body, code=row.code, session=EPOCH, client=CLIENT)
    return request_frame(body, operation=row.operation, session=EPOCH, request=request, client=CLIENT)


def send_of(size: int) -> SendMessages:
    return SendMessages("stream", 7, BALANCED, make_sized_batch(size))


def feed(wire: VsrWire, data: bytes) -> None:
    """Give the wire bytes as a transport would, as many at once as there is space."""
    position = 0
    while position < len(data):
        space = wire.space(0)
        assert len(space) > 0
        count = min(len(space), len(data) - position)
        space[:count] = data[position : position + count]
        wire.filled(count)
        position += count


def commands_of(wire: VsrWire, data: bytes, chunk_sizes: list[int], count_max: int = 64) -> list[Struct]:
    """Feed `data` in chunks; return copies of the commands that come of it."""
    commands: list[Struct] = []
    position = turn = 0
    while position < len(data):
        size = chunk_sizes[turn % len(chunk_sizes)]
        feed(wire, data[position : position + size])
        position, turn = position + size, turn + 1
        while taken := [copied(request) for request in wire.requests(count_max)]:
            commands += taken
    return commands


def copied(request: Request) -> Struct:
    """Return a request's command without views of received bytes."""
    command = request.command
    assert command is not None
    if isinstance(command, SendMessages):
        batch = command.batch
        command.batch = Batch(memoryview(bytes(batch.record)), batch.count, batch.checksums)
    return command


COMMANDS_SENT: list[Struct] = [Ping(), GetStream("orders"), send_of(305), PurgeStream(3), GetClient(9), send_of(1000)]
SENT = b"".join(frame_of(command, request=number) for number, command in enumerate(COMMANDS_SENT, 1))


def test_requests_are_the_same_at_every_split_point() -> None:
    for cut in range(1, len(SENT)):
        assert commands_of(make_wire(), SENT, [cut, len(SENT)]) == COMMANDS_SENT


def test_requests_are_the_same_byte_by_byte() -> None:
    assert commands_of(make_wire(), SENT, [1]) == COMMANDS_SENT


def test_many_requests_come_of_one_feed() -> None:
    frames = b"".join(frame_of(GetClient(number)) for number in range(1000))
    assert commands_of(make_wire(), frames, [len(frames)]) == [GetClient(number) for number in range(1000)]


@pytest.mark.parametrize("chunk", [1000, BLOCK_SIZE - 1, BLOCK_SIZE, 1 << 20, FRAME_SIZE_MAX * 2])
def test_large_and_small_frames_follow_each_other(chunk: int) -> None:
    sizes = (3 << 20, 305, BLOCK_SIZE, 305, BLOCK_SIZE - 283, 2 * BLOCK_SIZE, 1 << 20)
    sends: list[Struct] = [send_of(size) for size in sizes]
    data = b"".join(frame_of(command, request=number) for number, command in enumerate(sends, 1))
    assert commands_of(make_wire(), data, [chunk]) == sends


@given(
    sizes=st.lists(st.sampled_from([305, 400, 20_000, 65_000, 70_000, 200_000]), min_size=1, max_size=8),
    chunks=st.lists(st.integers(100, 100_000), min_size=1, max_size=4),
    count_max=st.integers(1, 5),
)
def test_any_frames_in_any_chunks_give_the_same_requests(sizes: list[int], chunks: list[int], count_max: int) -> None:
    sends: list[Struct] = [send_of(size) for size in sizes]
    data = b"".join(frame_of(command, request=number) for number, command in enumerate(sends, 1))
    assert commands_of(make_wire(), data, chunks, count_max) == sends


def test_views_of_a_request_stay_intact_until_requests_are_asked_again() -> None:
    wire = make_wire()
    feed(wire, frame_of(send_of(1000)) + frame_of(send_of(2000), request=2))
    commands = [request.command for request in wire.requests(10)]
    feed(wire, b"".join(frame_of(send_of(size), request=3) for size in (70_000, 305, 200_000)))
    assert commands == [send_of(1000), send_of(2000)]


def test_a_received_record_can_be_stamped_in_place() -> None:
    wire = make_wire()
    feed(wire, frame_of(send_of(400)))
    (request,) = wire.requests(10)
    assert isinstance(request.command, SendMessages)
    assert not request.command.batch.record.readonly


@pytest.mark.parametrize("size", [0, 1, 255, FRAME_SIZE_MAX + 1, 2**32 - 1])
def test_frame_size_outside_the_limits_ends_the_stream(size: int) -> None:
    wire = make_wire()
    feed(wire, frame_of(Ping()) + request_frame(code=1, size=size))
    requests = wire.requests(10)
    assert next(requests).command == Ping()
    with pytest.raises(WireError):
        next(requests)


def test_limit_of_the_frame_size_can_be_raised_between_requests() -> None:
    """As it is by a login that is followed at once by a large frame."""
    wire = make_wire()
    wire.frame_size_max = 1000
    feed(wire, frame_of(Ping()) + frame_of(send_of(5000)))
    requests = wire.requests(10)
    assert next(requests).command == Ping()
    wire.frame_size_max = FRAME_SIZE_MAX
    assert next(requests).command == send_of(5000)


def test_unread_counts_what_no_request_was_made_of() -> None:
    wire = make_wire()
    feed(wire, frame_of(Ping()) * 2 + b"\0\0\0")
    assert wire.unread == 2 * HEADER_SIZE + 3
    assert len(list(wire.requests(1))) == 1
    assert wire.unread == HEADER_SIZE + 3


@given(data=st.binary(max_size=1500), chunks=st.lists(st.integers(1, 400), min_size=1, max_size=4))
def test_any_bytes_give_requests_or_a_wire_error(data: bytes, chunks: list[int]) -> None:
    try:
        commands_or_refusals(make_wire(), data, chunks)
    except WireError:
        return


@given(
    head=st.lists(st.tuples(st.integers(128, 255), st.integers(0, 255)), max_size=5),
    size=st.integers(200, 400),
    body=st.binary(max_size=200),
    chunks=st.lists(st.integers(1, 400), min_size=1, max_size=4),
)
def test_damaged_headers_give_requests_or_a_wire_error(
    head: list[tuple[int, int]], size: int, body: bytes, chunks: list[int]
) -> None:
    frame = bytearray(request_frame(body, operation=128, session=EPOCH, size=size))
    for position, value in head:
        frame[position] = value
    try:
        commands_or_refusals(make_wire(), bytes(frame) + frame_of(Ping()), chunks)
    except WireError:
        return


def commands_or_refusals(wire: VsrWire, data: bytes, chunks: list[int]) -> None:
    position = turn = 0
    while position < len(data):
        size = chunks[turn % len(chunks)]
        feed(wire, data[position : position + size])
        position, turn = position + size, turn + 1
        for request in wire.requests(64):
            assert sum([request.command is not None, request.refusal is not None, request.answer is not None]) == 1


OPERATIONS_AND_CODES = [(operation, 0) for operation in sorted(OPERATIONS - {2})] + [
    (2, code) for code in (*BY_CODE, 0, 11, 31, 102, 999, 2**32 - 1)
]


@given(body=st.binary(max_size=300), checksum=st.sampled_from([0, 1]))
@pytest.mark.parametrize(("operation", "code"), OPERATIONS_AND_CODES)
def test_any_payload_under_any_operation_and_code_is_a_request(
    operation: int, code: int, body: bytes, checksum: int
) -> None:
    """It may be refused, and then the refusal is one frame that names the operation or evicts."""
    wire = make_wire()
    feed(wire, request_frame(body, operation=operation, code=code, session=EPOCH, client=CLIENT, checksum=checksum))
    (request,) = wire.requests(10)
    if checksum:
        assert request.refusal is Status.INVALID_FORMAT
    if request.refusal is not None:
        answer = b"".join(wire.refuse(request, request.refusal))
        assert unpack_from("<I", answer, 48) == (len(answer),)
        assert answer[60] == 13 or answer[208] == operation


@pytest.mark.parametrize(("operation", "code"), OPERATIONS_AND_CODES)
def test_operations_and_codes_name_their_command(operation: int, code: int) -> None:
    wire = make_wire()
    row = BY_OPERATION.get(operation) if operation != 2 else BY_CODE.get(code)
    feed(wire, request_frame(operation=operation, code=code, session=EPOCH, client=CLIENT))
    (request,) = wire.requests(10)
    if row is None:
        assert request.refusal is (Status.INVALID_COMMAND if operation == 2 else Status.FEATURE_UNAVAILABLE)
    elif operation == 2 and row.operation is not None:
        assert request.refusal is Status.FEATURE_UNAVAILABLE
    elif request.command is not None:
        assert type(request.command) is row.request


@pytest.mark.parametrize("operation", sorted(OPERATIONS - {1, 2, 3}))
def test_refusal_stands_in_the_result_section_or_the_header(operation: int) -> None:
    wire = make_wire()
    feed(wire, request_frame(operation=operation, session=EPOCH, client=CLIENT))
    (request,) = wire.requests(10)
    answer = b"".join(wire.refuse(request, Status.TOPIC_ID_NOT_FOUND))
    if operation in FRAMED:
        assert answer[HEADER_SIZE:] == b"\x01\0\0\0" b"\0\0\0\0" b"\xda\x07\0\0"  # fmt: skip
        assert unpack_from("<I", answer, 216) == (0,)
    else:
        assert len(answer) == HEADER_SIZE
        assert unpack_from("<I", answer, 216) == (2010,)


def test_empty_answer_is_a_success_section_where_there_is_one_and_nothing_elsewhere() -> None:
    for operation in sorted(OPERATIONS - {1}):
        wire = make_wire()
        feed(wire, request_frame(operation=operation, code=1, session=EPOCH, client=CLIENT))
        (request,) = wire.requests(10)
        answer = b"".join(wire.reply(request, None))
        assert answer[HEADER_SIZE:] == (bytes(4) if operation in FRAMED else b"")
        assert answer[208] == operation


def test_poll_answers_with_its_records_uncopied() -> None:
    wire = make_wire()
    feed(wire, request_frame(code=100, session=EPOCH, client=CLIENT))
    (request,) = wire.requests(10)
    record = make_batch([b"a", b"b"]).record
    head, *records = wire.reply(request, Polled(3, 9, 2, [record]))
    assert records == [record]
    assert records[0] is record
    assert bytes(head[HEADER_SIZE:]) == b"\x03\0\0\0" b"\x09\0\0\0\0\0\0\0" b"\x02\0\0\0"  # fmt: skip
    assert unpack_from("<I", head, 48) == (len(head) + len(record),)


def test_commit_counts_what_is_not_a_read() -> None:
    wire = make_wire()
    commits: list[int] = []
    for number, command in enumerate([Ping(), CreateStream("a"), GetStream(1), send_of(305), PurgeStream(1)], 1):
        feed(wire, frame_of(command, request=number))
        (request,) = wire.requests(10)
        commits.append(unpack_from("<Q", b"".join(wire.reply(request, None)), 184)[0])
    assert commits == [0, 1, 1, 2, 3]


def test_closed_wire_has_nothing_left() -> None:
    wire = make_wire()
    feed(wire, frame_of(Ping())[:100])
    wire.close()
    assert wire.unread == 0


def test_login_is_a_request_of_its_own_shape() -> None:
    wire = make_wire(epoch=0)
    feed(wire, request_frame(login_body("bob", "secret"), operation=1, request=0))
    (request,) = wire.requests(10)
    assert repr(request.command).startswith("Login(username='bob', password='secret'")
