"""What a vsr connection remembers between requests, and how one signs in.

register    protocol version u32 | sdk name u8+text | sdk version u8+text, then one of
            password    username u8+text | password u8+text | context u32+text
            token       token u8+text | context u32+text
registered  user id u32 | session u64 | protocol version u32 | server version u8+text

Nothing on the wire tells the two apart but their shape: a password body that ends exactly is one, because a token
body with an empty context always ends a byte short of it.
"""

from typing import TypeVar

from ..batch import Buffer
from ..errors import Status, WireError
from ..model.tokens import LoginWithToken
from ..model.users import LoggedIn, Login
from ..payloads.fields import SHORT_TEXT, TEXT
from ..reader import Reader, Writer
from .frames import RequestHeader

L = TypeVar("L", Login, LoginWithToken)

OLDEST_VERSION = 11 << 10  # 0.11.0, packed as major << 20 | minor << 10 | patch
NEWEST_VERSION = OLDEST_VERSION
SERVER_VERSION = "0.9.0"  # of Iggy: what this wire speaks for
REPLIES_KEPT = 5


class VsrSession:
    """One sign-in and the replies that a repeated command is answered with.

    It belongs to the connection, not to the wire: over QUIC every request has a wire of its own.
    """

    __slots__ = ("_last", "_replies", "client", "commit", "epoch")

    def __init__(self) -> None:
        self.unbind()
        self.commit = 0

    def bind(self, client: bytes, epoch: int) -> None:
        self.unbind()
        self.client = client
        self.epoch = epoch

    def unbind(self) -> None:
        """Forget the sign-in. Epoch 0 is nobody's."""
        self.client = b""
        self.epoch = 0
        self._last = 0
        self._replies: dict[int, tuple[int, list[Buffer]]] = {}

    def keep(self, header: RequestHeader, reply: list[Buffer]) -> None:
        """Remember the reply to a command, for when it is asked again. The oldest goes."""
        self._last = max(self._last, header.request)
        self._replies[header.request] = (header.checksum, reply)
        if len(self._replies) > REPLIES_KEPT:
            del self._replies[next(iter(self._replies))]

    def repeated(self, header: RequestHeader) -> list[Buffer] | Status | None:
        """Return the kept reply of a command that came before, the status if it can't be had, None if it is new."""
        if header.request > self._last:
            return None
        checksum, reply = self._replies.get(header.request, (0, None))
        if reply is None or checksum != header.checksum:
            return Status.REQUEST_ALREADY_APPLIED
        return reply


def read_login(body: memoryview) -> Login | LoginWithToken:
    """Decode a register body. Raises WireError; its status says whether the version or the layout is at fault."""
    reader = Reader(body)
    version = reader.u32()
    if version >> 10 != NEWEST_VERSION >> 10:
        raise WireError(0, "protocol 0.11", version_text(version), Status.INCOMPATIBLE_PROTOCOL_VERSION)
    sdk = f"{SHORT_TEXT.read(reader)}/{SHORT_TEXT.read(reader)}"
    start = reader.position
    try:
        return _whole(reader, Login(SHORT_TEXT.read(reader), SHORT_TEXT.read(reader), sdk, TEXT.read(reader)))
    except WireError:
        reader = Reader(body, start)
        return _whole(reader, LoginWithToken(SHORT_TEXT.read(reader), sdk, TEXT.read(reader)))


def _whole(reader: Reader, login: L) -> L:
    if reader.remaining:
        raise WireError(reader.position, "the login's end", f"{reader.remaining} bytes more")
    return login


def write_logged_in(reply: LoggedIn) -> bytearray:
    writer = Writer()
    writer.u32(reply.user_id)
    writer.u64(reply.session)
    writer.u32(NEWEST_VERSION)
    SHORT_TEXT.write(writer, SERVER_VERSION)
    return writer.data


def version_text(version: int) -> str:
    """Return a packed protocol version as people write it."""
    return f"{version >> 20}.{version >> 10 & 0x3FF}.{version & 0x3FF}"
