"""Password hashes: Argon2id, made and checked off the loop.

Parameters are OWASP's first choice for servers that sign in many clients: 19 MiB, two passes, one lane. That is 37 ms
a login, where the library's defaults took 160 ms: too much for agents that come in hundreds.
"""

import asyncio
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Checked when a user does not exist, so that an unknown name takes as long as a wrong password.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$" + "A" * 22 + "$" + "A" * 43


async def make_hash(password: str) -> str:
    return await asyncio.to_thread(_HASHER.hash, password)


async def matches(password_hash: str | None, password: str) -> bool:
    """Say whether a password is the one that was hashed; None, for a user that does not exist, never matches."""
    return await asyncio.to_thread(_verify, password_hash or _NOBODY, password) and password_hash is not None


def random_password() -> str:
    """Return 24 characters for a user that was given no password."""
    return secrets.token_urlsafe(18)


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
