"""The client's half of the vsr wire: commands out as frames, answers in. See `frames` and `session` for the bytes.

Every request has a number of its own, also those for which Iggy's client repeats the next one: so an answer is matched
to its request by number, and one that nobody asked for breaks the connection instead of being taken for another.
"""

from collections.abc import Iterator
from struct import Struct

import msgspec
from xxhash import xxh3_64_intdigest

from ..batch import Buffer
from ..commands import BY_REQUEST, Command
from ..errors import Status, WireError
from ..inbox import Inbox
from ..model.messages import Polled, SendMessages
from ..model.tokens import LoginWithToken
from ..model.users import LoggedIn, Login
from ..payloads.fields import SHORT_TEXT, TEXT
from ..payloads.sends import target_of
from ..reader import Reader, Writer
from ..wire import Receiver
from . import frames
from .frames import HEADER_SIZE, Reason
from .overrides import CODECS
from .session import NEWEST_VERSION

FRAME_SIZE_MAX = 64 * 1024 * 1024
SDK = "pybroker/0"

_LOGINS = (Login, LoginWithToken)
_STAMPED = frames.DEDUPLICATED | {frames.REGISTER, frames.LOGOUT}
# Operations of Iggy's own, with which it answers some commands; their bodies begin with a result section.
_FRAMED = frames.FRAMED | {frames.REGISTER, *range(64, 69)}
_SIZE = Struct("<48xI")
_U32 = Struct("<I")
_SUCCESS_SIZE = 4

_STATUSES: dict[int, Status] = {
    Reason.INVALID_CREDENTIALS: Status.INVALID_CREDENTIALS,
    Reason.INVALID_TOKEN: Status.INVALID_PERSONAL_ACCESS_TOKEN,
    Reason.USER_INACTIVE: Status.USER_INACTIVE,
    Reason.STALE_CLIENT: Status.STALE_CLIENT,
    Reason.INCOMPATIBLE_VERSION: Status.INCOMPATIBLE_PROTOCOL_VERSION,
    Reason.INVALID_FORMAT: Status.INVALID_FORMAT,
}


class Evicted(Exception):
    """The server has ended the session; nothing more is answered on this connection."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"evicted, reason {reason}")
        self.status = _STATUSES.get(reason, Status.UNAUTHENTICATED)


class Answer(msgspec.Struct, gc=False):
    """The answer to the request with this number. It views nothing that was received.

    code: 0, or Iggy's number for what went wrong. reply: None also where there is nothing to tell.
    fault: what is wrong with a reply that can't be decoded; the connection is sound.
    """

    number: int
    code: int = 0
    reply: msgspec.Struct | None = None
    fault: WireError | None = None


class VsrClient(Receiver):
    """One connection of a client. client: 16 random bytes, new for each connection; see Receiver for what arrives."""

    def __init__(self, inbox: Inbox, client: bytes, *, frame_size_max: int = FRAME_SIZE_MAX) -> None:
        super().__init__(inbox, frame_size_max)
        inbox.measure = _measure
        self.session = 0
        self._client = client
        self._number = 0
        self._asked: dict[int, Command] = {}

    @property
    def unanswered(self) -> int:
        """How many requests wait for their answers."""
        return len(self._asked)

    def ask(self, command: msgspec.Struct, buffers: list[Buffer], *, number: int | None = None) -> int:
        """Append the frame that asks `command`, and return its number. A batch record is not copied.

        number: the one that it was asked under before, and answered that it may be done yet; None for a new one.
        Raises ValueError or struct.error, before anything is appended, for what the layout can't hold.
        """
        if number is None:
            number = 0 if isinstance(command, _LOGINS) else self._number + 1
        frame = frame_of(command, client=self._client, session=self.session, number=number)
        if (size := sum(map(len, frame))) > self.frame_size_max:
            raise ValueError(f"a frame of {size} bytes, expected {self.frame_size_max} at most")
        self._number = max(number, self._number)
        self._asked[number] = BY_REQUEST[type(command)]
        buffers += frame
        return number

    def answers(self) -> Iterator[Answer]:
        """Yield what has been answered. Raises WireError or Evicted when the server can't be followed any more."""
        return map(self._answer, self._inbox.frames(len(self._asked) + 1))

    def _answer(self, frame: memoryview) -> Answer:
        header = frames.read_reply(frame)
        if header.command == frames.EVICTION_COMMAND:
            raise Evicted(frames.read_eviction(frame))
        if header.command != frames.REPLY_COMMAND:
            raise WireError(60, f"command {frames.REPLY_COMMAND}, a reply", str(header.command))
        row = self._asked.pop(header.request, None)
        if row is None:
            raise WireError(200, "the number of a request", str(header.request))
        try:
            answer = _read_answer(row, header, frame[HEADER_SIZE:])
        except WireError as fault:
            return Answer(header.request, fault=fault)
        if isinstance(answer.reply, LoggedIn):
            self.session = answer.reply.session
        return answer


def _measure(block: memoryview, start: int, end: int, size_max: int) -> int:
    if end - start < frames.SIZE_END:
        return 0
    size: int = _SIZE.unpack_from(block, start)[0]
    if not HEADER_SIZE <= size <= size_max:
        raise WireError(48, f"a frame of {HEADER_SIZE} to {size_max} bytes", str(size))
    return size


def frame_of(command: msgspec.Struct, *, client: bytes, session: int = 0, number: int = 0) -> list[Buffer]:
    """Return the frame that asks `command`: everything up to a batch record, and the record as it is."""
    row = BY_REQUEST[type(command)]
    body, record = _encode(command)
    operation, code = (frames.NON_REPLICATED, row.code) if row.operation is None else (row.operation, 0)
    header = frames.request_header(
        size=len(body) + len(record),
        client=client,
        request=number,
        operation=operation,
        session=session,
        code=code,
        checksum=xxh3_64_intdigest(body) if operation in _STAMPED else 0,
    )
    return [header + body, record] if record else [header + body]


def _encode(command: msgspec.Struct) -> tuple[Buffer, Buffer]:
    """Return a request's body in two parts, the second empty but for a send."""
    if isinstance(command, SendMessages):
        batch = command.batch
        return target_of(command.stream, command.topic, command.partitioning, batch.count), batch.record
    if isinstance(command, _LOGINS):
        return _write_login(command), b""
    return CODECS[type(command)].encode(command), b""


def _write_login(login: Login | LoginWithToken) -> bytearray:
    name, _, version = (login.version or SDK).partition("/")
    writer = Writer()
    writer.u32(NEWEST_VERSION)
    secrets = (login.username, login.password) if isinstance(login, Login) else (login.token,)
    for text in (name, version, *secrets):
        SHORT_TEXT.write(writer, text)
    TEXT.write(writer, login.context)
    return writer.data


def _read_answer(row: Command, header: frames.ReplyHeader, body: memoryview) -> Answer:
    if header.status:
        return Answer(header.request, header.status)
    if header.operation in _FRAMED and (body or header.operation != frames.REGISTER):
        if len(body) < _SUCCESS_SIZE:
            raise WireError(HEADER_SIZE, "a result section", f"{len(body)} bytes")
        if _U32.unpack_from(body)[0] and (code := Reader(body, 8).u32()):
            return Answer(header.request, code)
        body = body[_SUCCESS_SIZE:]
    return Answer(header.request, reply=_read_reply(row, body))


def _read_reply(row: Command, body: memoryview) -> msgspec.Struct | None:
    if row.reply is LoggedIn:
        return _read_logged_in(Reader(body))
    if row.reply is None or not body:
        return None
    reply = CODECS[row.reply].decode(body)
    if isinstance(reply, Polled):
        reply.records = [bytes(record) for record in reply.records]
    return reply


def _read_logged_in(reader: Reader) -> LoggedIn:
    user_id, session = reader.u32(), reader.u64()
    if not session:
        raise WireError(4, "a session", "0")
    return LoggedIn(user_id, session)
