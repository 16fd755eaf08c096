"""Signing in and out."""

from ...protocol.errors import Refused, Status
from ...protocol.model import users as model
from .. import passwords
from ..session import Session
from ..state import State


async def login(state: State, session: Session, command: model.Login) -> model.LoggedIn:
    user = state.catalog.users.find(command.username)
    if not await passwords.matches(user.password_hash if user else None, command.password) or user is None:
        raise Refused(Status.INVALID_CREDENTIALS, f"user {command.username!r}")
    state.clients.sign_in(session, user.id)
    return model.LoggedIn(user.id, session.epoch)


async def logout(state: State, session: Session, _command: model.Logout) -> None:
    state.groups.leave_all(session.client_id)
    state.clients.sign_out(session)
