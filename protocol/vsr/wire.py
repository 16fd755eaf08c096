"""The vsr wire: requests of Iggy 0.9 clients in, their replies out. See `frames` for the bytes.

A reply has to carry its request's operation, because the client splits the body by it; nothing may stay without
an answer, because the client waits 30 s and then drops the connection.
"""

from collections.abc import Iterator
from struct import Struct

import msgspec

from ..batch import Buffer
from ..commands import BY_CODE, COMMANDS
from ..errors import Status, WireError
from ..inbox import Inbox
from ..model.messages import Polled, Sent
from ..model.tokens import LoginWithToken
from ..model.users import LoggedIn, Logout
from ..wire import Receiver, Request
from . import session
from .frames import (
    DEDUPLICATED,
    FRAMED,
    HEADER_SIZE,
    LOGOUT,
    NON_REPLICATED,
    REGISTER,
    Reason,
    RequestHeader,
    body_checksum_holds,
    eviction,
    measure,
    read_request,
    reply_header,
)
from .messages import polled_head, sent_body
from .overrides import CODECS

_LOGIN = (None, REGISTER)
SUCCESS = bytes(4)  # a result section with no failures
_FAILURE = Struct("<3I")

# What decodes a command's body; a login has a way of its own.
_OF_OPERATION = {row.operation: CODECS[row.request].decode for row in COMMANDS if row.operation not in _LOGIN}
_OF_CODE = {row.code: CODECS[row.request].decode for row in COMMANDS if row.operation is None}

# Statuses that a client learns by being evicted: while it signs in, and from replicated commands.
_LOGIN_REASONS = {
    Status.INVALID_COMMAND: Reason.INVALID_FORMAT,
    Status.INVALID_FORMAT: Reason.INVALID_FORMAT,
    Status.INVALID_UTF8: Reason.INVALID_FORMAT,
    Status.INVALID_CREDENTIALS: Reason.INVALID_CREDENTIALS,
    Status.INVALID_USERNAME: Reason.INVALID_CREDENTIALS,
    Status.INVALID_PASSWORD: Reason.INVALID_CREDENTIALS,
    Status.USER_INACTIVE: Reason.INVALID_CREDENTIALS,
    Status.INVALID_PERSONAL_ACCESS_TOKEN: Reason.INVALID_TOKEN,
    Status.PERSONAL_ACCESS_TOKEN_EXPIRED: Reason.INVALID_TOKEN,
    Status.INCOMPATIBLE_PROTOCOL_VERSION: Reason.INCOMPATIBLE_VERSION,
}
_REASONS = {
    Status.UNAUTHENTICATED: Reason.NO_SESSION,
    Status.INVALID_SESSION: Reason.SESSION_TOO_LOW,
    Status.STALE_CLIENT: Reason.STALE_CLIENT,
}


class VsrWire(Receiver):
    """The wire of one connection, or of one QUIC stream. `session` is the connection's."""

    def __init__(self, vsr: session.VsrSession, inbox: Inbox, *, frame_size_max: int) -> None:
        super().__init__(inbox, frame_size_max)
        self._session = vsr
        inbox.measure = measure

    def requests(self, count_max: int) -> Iterator[Request]:
        return map(self._request, self._inbox.frames(count_max))

    def reply(self, request: Request, reply: msgspec.Struct | None) -> list[Buffer]:
        header: RequestHeader = request.tag
        if type(reply) is Polled:
            return self._polled(header, reply)
        if type(reply) is Sent:
            vsr = self._session  # a send is not asked again (see DEDUPLICATED): nothing of it is kept
            vsr.commit += 1
            body = sent_body(reply)
            return [reply_header(header, len(body), vsr.epoch, vsr.commit) + body]
        if isinstance(reply, LoggedIn):
            self._session.bind(header.client, reply.session)
            return self._answer(header, SUCCESS + session.write_logged_in(reply))
        if isinstance(request.command, Logout):
            self._session.unbind()
        payload = CODECS[type(reply)].encode(reply) if reply is not None else b""
        return self._answer(header, SUCCESS + payload if header.operation in FRAMED else payload)

    def refuse(self, request: Request, status: Status) -> list[Buffer]:
        header: RequestHeader = request.tag
        if header.operation == REGISTER and (reason := _LOGIN_REASONS.get(status)):
            if status is Status.USER_INACTIVE and isinstance(request.command, LoginWithToken):
                reason = Reason.USER_INACTIVE
            return [_evict(header, reason)]
        if header.operation > LOGOUT and (reason := _REASONS.get(status)):
            return [_evict(header, reason)]
        if status is Status.REQUEST_ALREADY_APPLIED:
            vsr = self._session
            return [reply_header(header, 0, vsr.epoch, vsr.commit, status)]
        if header.operation in FRAMED:
            return self._answer(header, _FAILURE.pack(1, 0, status))
        return self._answer(header, b"", status)

    def _request(self, frame: memoryview) -> Request:
        header = read_request(frame)
        operation, vsr = header.operation, self._session
        if operation == NON_REPLICATED:
            decode = _OF_CODE.get(header.code)
        elif operation > LOGOUT and (header.session != vsr.epoch or header.client != vsr.client or not vsr.epoch):
            return Request(None, header, self._stranger(header))
        else:
            decode = _OF_OPERATION.get(operation)
        body = frame[HEADER_SIZE:]
        if header.checksum and not body_checksum_holds(header, body):
            return Request(None, header, Status.INVALID_FORMAT)
        if decode is None:
            return _login(header, body) if operation == REGISTER else Request(None, header, _unknown(header))
        if operation in DEDUPLICATED and (settled := self._settled(header)):
            return settled
        try:
            return Request(decode(body), header)
        except WireError as error:
            return Request(None, header, error.status)

    def _stranger(self, header: RequestHeader) -> Status:
        """Return why a replicated command is not of this session. Asked first: a stranger takes no request number."""
        vsr = self._session
        is_older = header.session < vsr.epoch and header.client == vsr.client
        return Status.INVALID_SESSION if is_older else Status.UNAUTHENTICATED

    def _settled(self, header: RequestHeader) -> Request | None:
        """Return the answer of a command that came before, None for a new one."""
        match self._session.repeated(header):
            case None:
                return None
            case Status() as status:
                return Request(None, header, status)
            case reply:
                return Request(None, header, answer=reply)

    def _polled(self, header: RequestHeader, reply: Polled) -> list[Buffer]:
        vsr, records = self._session, reply.records
        head = polled_head(reply)
        size = len(head) + (len(records[0]) if len(records) == 1 else sum(map(len, records)))
        return [reply_header(header, size, vsr.epoch, vsr.commit) + head, *records]

    def _answer(self, header: RequestHeader, body: Buffer, status: Status = Status.OK) -> list[Buffer]:
        """Return a whole reply, and remember it where the client may ask again."""
        vsr = self._session
        if header.operation != NON_REPLICATED:
            vsr.commit += 1
        answer: list[Buffer] = [reply_header(header, len(body), vsr.epoch, vsr.commit, status) + body]
        if header.operation in DEDUPLICATED and vsr.epoch:
            vsr.keep(header, answer)
        return answer


def _unknown(header: RequestHeader) -> Status:
    """Return the status of a header that names no command. One that has an operation has to come as that."""
    is_code = header.operation == NON_REPLICATED
    return Status.INVALID_COMMAND if is_code and header.code not in BY_CODE else Status.FEATURE_UNAVAILABLE


def _login(header: RequestHeader, body: memoryview) -> Request:
    if header.session or header.request:
        return Request(None, header, Status.INVALID_FORMAT)
    try:
        login = session.read_login(body)
    except WireError as error:
        return Request(None, header, error.status)
    login.client = header.client
    return Request(login, header)


def _evict(header: RequestHeader, reason: Reason) -> bytes:
    if reason is Reason.INCOMPATIBLE_VERSION:
        return eviction(header, reason, newest=session.NEWEST_VERSION, oldest=session.OLDEST_VERSION)
    return eviction(header, reason)
