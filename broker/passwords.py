"""Secrets: password hashes, made and checked off the loop, and tokens.

Parameters are OWASP's first choice for servers that sign in many clients: Argon2id, 19 MiB, two passes, one lane. That
is 37 ms a login, where the library's defaults took 160 ms: too much for agents that come in hundreds.

A token is 50 random bytes, so there is nothing to guess that a slow hash could protect: what is kept of it is its
SHA-256, and it is looked up by that. How long the look-up takes tells of a digest that nobody can aim at.
"""

import asyncio
import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

USERNAME_SIZES = (3, 50)  # in bytes, as the next
PASSWORD_SIZES = (3, 100)

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Checked when a user does not exist, so that an unknown name takes as long as a wrong password.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$" + "A" * 22 + "$" + "A" * 43
# Threads of their own: who waits for the disk does not wait behind logins, and they leave the loop some processor.
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="argon2")
_TOKEN_SIZE = 50


async def make_hash(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _HASHER.hash, password)


async def matches(password_hash: str | None, password: str) -> bool:
    """Say whether a password is the one that was hashed; None, for a user that does not exist, never matches."""
    loop = asyncio.get_running_loop()
    is_right = await loop.run_in_executor(_THREADS, _verify, password_hash or _NOBODY, password)
    return is_right and password_hash is not None


def random_password() -> str:
    """Return 24 characters for a user that was given no password."""
    return secrets.token_urlsafe(18)


def random_token() -> str:
    """Return 67 characters that sign in."""
    return secrets.token_urlsafe(_TOKEN_SIZE)


def token_digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
