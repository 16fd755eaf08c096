"""Signing in and out."""

from ...protocol.errors import Refused, Status
from ...protocol.model.tokens import LoginWithToken
from ...protocol.model.users import LoggedIn, Login, Logout
from ...protocol.primitives import UserStatus
from .. import passwords
from ..catalog import User
from ..session import Session
from ..state import State


async def login(state: State, session: Session, command: Login) -> LoggedIn:
    check_username(command.username)
    check_password(command.password)
    async with state.throttle.turn(session.address):
        user = state.catalog.users.find(command.username)
        if not await password_matches(state, user, command.password) or user is None:
            raise Refused(Status.INVALID_CREDENTIALS, f"user {command.username!r}")
        return _sign_in(state, session, user, command.client)


async def login_with_token(state: State, session: Session, command: LoginWithToken) -> LoggedIn:
    async with state.throttle.turn(session.address):
        found = state.catalog.token(passwords.token_digest(command.token))
        if found is None:
            raise Refused(Status.INVALID_PERSONAL_ACCESS_TOKEN, "nobody has that token")
        user, token = found
        if token.is_expired(state.clock()):
            raise Refused(Status.PERSONAL_ACCESS_TOKEN_EXPIRED, f"token {token.name!r} of user {user.name!r}")
        return _sign_in(state, session, user, command.client)


async def logout(state: State, session: Session, _command: Logout) -> None:
    sign_out(state, session)


def check_username(username: str) -> None:
    _check_size(username, passwords.USERNAME_SIZES, Status.INVALID_USERNAME)


def check_password(password: str) -> None:
    _check_size(password, passwords.PASSWORD_SIZES, Status.INVALID_PASSWORD)


async def password_matches(state: State, user: User | None, password: str) -> bool:
    """Say whether that is a user's password, and still is once that is known."""
    password_hash = user.password_hash if user else None
    if not await state.passwords.matches(password_hash, password) or user is None:
        return False
    return state.catalog.users.items.get(user.id) is user and user.password_hash == password_hash


def sign_out(state: State, session: Session) -> None:
    state.groups.leave_all(session.client_id)
    state.clients.sign_out(session)


def _check_size(text: str, sizes: tuple[int, int], status: Status) -> None:
    size = len(text.encode())
    if not sizes[0] <= size <= sizes[1]:
        raise Refused(status, f"{size} bytes, expected {sizes[0]} to {sizes[1]}")


def _sign_in(state: State, session: Session, user: User, client: bytes) -> LoggedIn:
    """Make a session a user's; until then it stays whose it was. A group is not joined for somebody else."""
    if user.status is UserStatus.INACTIVE:
        raise Refused(Status.USER_INACTIVE, f"user {user.name!r}")
    if session.signed_in and session.user_id != user.id:
        sign_out(state, session)
    state.clients.sign_in(session, user.id, client)
    return LoggedIn(user.id, session.epoch)
