"""Who is connected: one session per connection, whatever its transport and wire."""

from collections.abc import Callable
from itertools import count

import msgspec

from ..protocol.primitives import Transport


def _nothing() -> None:
    """Close a session that no connection carries."""


class Session(msgspec.Struct):
    """user_id and epoch are 0 until sign-in; `signed_in` says which. address is "ip:port".

    close: ends the connection once it has answered what it is at; set by the connection.
    is_heard: it has asked something since that was last looked at; silent_us: for how long it had not.
    is_stale: it was silent for too long and lost its group memberships; its next command is told so, its last.
    client: what it calls itself, 16 bytes; nothing when it does not. parent: whose group memberships it uses, as long
    as that one's epoch is parent_epoch.
    traceparent, tracestate: the trace its request belongs to, as the W3C has them; of a request over HTTP, where traces
    are wanted.
    """

    client_id: int
    transport: Transport
    address: str
    user_id: int = 0
    epoch: int = 0
    close: Callable[[], None] = _nothing
    is_heard: bool = False
    silent_us: int = 0
    is_stale: bool = False
    client: bytes = b""
    parent: "Session | None" = None
    parent_epoch: int = 0
    traceparent: str = ""
    tracestate: str = ""

    @property
    def signed_in(self) -> bool:
        return self.epoch > 0

    @property
    def member_id(self) -> int:
        """The client id that it is a member of groups as; 0, nobody's, when whose memberships it used is gone."""
        if self.parent is None:
            return self.client_id
        return self.parent.client_id if self.parent.epoch == self.parent_epoch else 0


class Clients:
    """The sessions that are connected. Ids and epochs only grow, so none is given out twice in a run."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._ids = count(1)
        self._epochs = count(1)

    def __len__(self) -> int:
        return len(self._sessions)

    def all(self) -> list[Session]:
        return list(self._sessions.values())

    def find(self, client_id: int) -> Session | None:
        return self._sessions.get(client_id)

    def of_user(self, user_id: int) -> list[Session]:
        """Return the sessions that are signed in as a user."""
        return [session for session in self._sessions.values() if session.signed_in and session.user_id == user_id]

    def connect(self, transport: Transport, address: str) -> Session:
        session = Session(next(self._ids), transport, address)
        self._sessions[session.client_id] = session
        return session

    def disconnect(self, session: Session) -> None:
        del self._sessions[session.client_id]

    def sign_in(self, session: Session, user_id: int, client: bytes = b"") -> None:
        """Make a session a user's. client: what it calls itself."""
        self.sign_out(session)
        session.user_id = user_id
        session.epoch = next(self._epochs)
        session.client = client

    def sign_out(self, session: Session) -> None:
        session.user_id = session.epoch = session.parent_epoch = 0
        session.client = b""
        session.parent = None
        session.is_stale = False
