"""Personal access tokens: create, list, delete one's own.

A token that has expired stays in the list, and says so who signs in with it, until its user creates another or deletes
it. It does not count: neither its name nor its place is taken.
"""

from ...protocol.errors import Refused, Status
from ...protocol.model import tokens as model
from ...protocol.primitives import U64_MAX
from .. import events, passwords
from ..catalog import User
from ..session import Session
from ..state import State

NAME_SIZES = (3, 30)  # in bytes


async def get_all(state: State, session: Session, _command: model.GetTokens) -> model.Tokens:
    tokens = _own(state, session).tokens.values()
    return model.Tokens([model.Token(token.name, token.expires_at_us) for token in tokens])


async def create(state: State, session: Session, command: model.CreateToken) -> model.RawToken:
    """Answer with the secret, which nobody is told again."""
    now_us = state.clock()
    user = _own(state, session)
    _check_name(command.name)
    live = {token.name for token in user.tokens.values() if not token.is_expired(now_us)}
    if command.name in live:
        raise Refused(Status.PERSONAL_ACCESS_TOKEN_ALREADY_EXISTS, command.name)
    if len(live) >= state.config.personal_access_token.max_tokens_per_user:
        raise Refused(Status.PERSONAL_ACCESS_TOKENS_LIMIT_REACHED, f"user {user.name!r} has {len(live)} tokens")
    secret = passwords.random_token()
    expires_at_us = 0 if command.expiry_us in (0, U64_MAX) else min(now_us + command.expiry_us, U64_MAX)
    digest = passwords.token_digest(secret)
    state.catalog.record(events.TokenCreated(user.id, command.name, digest, expires_at_us, now_us))
    await state.catalog.sync()
    return model.RawToken(secret)


async def delete(state: State, session: Session, command: model.DeleteToken) -> None:
    user = _own(state, session)
    if command.name not in user.tokens:
        raise Refused(Status.RESOURCE_NOT_FOUND, f"token {command.name!r} of user {user.name!r}")
    state.catalog.record(events.TokenDeleted(user.id, command.name))
    await state.catalog.sync()


def _own(state: State, session: Session) -> User:
    return state.catalog.users.items[session.user_id]


def _check_name(name: str) -> None:
    size = len(name.encode())
    if not NAME_SIZES[0] <= size <= NAME_SIZES[1]:
        raise Refused(Status.INVALID_PERSONAL_ACCESS_TOKEN_NAME, f"{size} bytes, expected 3 to 30")
