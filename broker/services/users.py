"""Users: create, look up, change, delete.

Who is deleted or made inactive is signed out at once and disconnected. New permissions hold from the next command on.
A new password ends nothing: who is signed in stays so, as with Iggy, and tokens stay good.
"""

from ...protocol.errors import Refused, Status
from ...protocol.model import users as model
from ...protocol.primitives import UserStatus
from .. import events
from ..permissions import ROOT_ID
from ..session import Session
from ..state import State
from ..topic_options import refuse_any
from .logins import check_password, check_username, password_matches, sign_out
from .views import user_details, user_view


async def get(state: State, _session: Session, command: model.GetUser) -> model.UserDetails | None:
    user = state.catalog.users.find(command.user)
    return user_details(user) if user else None


async def get_all(state: State, _session: Session, _command: model.GetUsers) -> model.Users:
    return model.Users([user_view(user) for user in state.catalog.users])


async def create(state: State, _session: Session, command: model.CreateUser) -> model.UserDetails:
    refuse_any(command.options)
    check_username(command.username)
    check_password(command.password)
    _check_is_free(state, command.username)
    password_hash = await state.passwords.make_hash(command.password)
    _check_is_free(state, command.username)  # it may have been taken meanwhile
    users = state.catalog.users
    created = users.next_id
    state.catalog.record(
        events.UserCreated(created, command.username, password_hash, state.clock(), command.status, command.permissions)
    )
    answer = user_details(users.items[created])
    await state.catalog.sync()
    return answer


async def update(state: State, _session: Session, command: model.UpdateUser) -> None:
    refuse_any(command.options)
    user = state.catalog.user(command.user)
    username = user.name if command.username is None else command.username
    status = command.status or user.status
    if username != user.name:
        check_username(username)
        _check_is_free(state, username)
    if user.id == ROOT_ID and status is UserStatus.INACTIVE:
        # Iggy lets it happen, and then nobody can undo it.
        raise Refused(Status.INVALID_USER_STATUS, "the root user stays active: nobody could make it active again")
    state.catalog.record(events.UserUpdated(user.id, username, status))
    if status is UserStatus.INACTIVE:
        _end_sessions(state, user.id)
    await state.catalog.sync()


async def delete(state: State, _session: Session, command: model.DeleteUser) -> None:
    user = state.catalog.user(command.user)
    if user.id == ROOT_ID:
        raise Refused(Status.CANNOT_DELETE_USER, "the root user stays")
    state.catalog.record(events.UserDeleted(user.id))
    _end_sessions(state, user.id)
    await state.catalog.sync()


async def update_permissions(state: State, _session: Session, command: model.UpdatePermissions) -> None:
    user = state.catalog.user(command.user)
    if user.id == ROOT_ID:
        raise Refused(Status.CANNOT_CHANGE_PERMISSIONS, "the root user has all of them")
    state.catalog.record(events.PermissionsUpdated(user.id, command.permissions))
    await state.catalog.sync()


async def change_password(state: State, session: Session, command: model.ChangePassword) -> None:
    user = state.catalog.user(command.user)
    check_password(command.new_password)
    password_hash = await state.passwords.make_hash(command.new_password)
    async with state.throttle.turn(session.address):
        if not await password_matches(state, user, command.current_password):
            raise Refused(Status.INVALID_CREDENTIALS, f"the current password of user {user.name!r}")
        state.catalog.record(events.PasswordChanged(user.id, password_hash))
    await state.catalog.sync()


def _check_is_free(state: State, username: str) -> None:
    if username in state.catalog.users.ids:
        raise Refused(Status.USER_ALREADY_EXISTS, username)


def _end_sessions(state: State, user_id: int) -> None:
    for session in state.clients.of_user(user_id):
        sign_out(state, session)
        session.close()
