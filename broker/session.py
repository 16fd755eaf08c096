"""Who is connected: one session per connection, whatever its transport and wire."""

from itertools import count

import msgspec

from ..protocol.primitives import Transport


class Session(msgspec.Struct):
    """user_id and epoch are 0 until sign-in; `signed_in` says which. address is "ip:port"."""

    client_id: int
    transport: Transport
    address: str
    user_id: int = 0
    epoch: int = 0

    @property
    def signed_in(self) -> bool:
        return self.epoch > 0


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

    def connect(self, transport: Transport, address: str) -> Session:
        session = Session(next(self._ids), transport, address)
        self._sessions[session.client_id] = session
        return session

    def disconnect(self, session: Session) -> None:
        del self._sessions[session.client_id]

    def sign_in(self, session: Session, user_id: int) -> None:
        session.user_id = user_id
        session.epoch = next(self._epochs)

    def sign_out(self, session: Session) -> None:
        session.user_id = session.epoch = 0
