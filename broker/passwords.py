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
from msgspec import Struct

USERNAME_SIZES = (3, 50)  # in bytes, as the next
PASSWORD_SIZES = (3, 100)

THREADS = 2
_TOKEN_SIZE = 50


class Cost(Struct, frozen=True):
    """What making or checking a hash takes: passes over so many KiB of memory."""

    passes: int
    memory_kib: int


SERVER_COST = Cost(passes=2, memory_kib=19 * 1024)


class Passwords:
    """Makes hashes and checks them, in threads of its own that `close` ends.

    Who waits for the disk does not wait behind logins, and so few threads leave the loop some processor.
    """

    def __init__(self, cost: Cost = SERVER_COST) -> None:
        self._hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=1)
        # Checked when a user does not exist, so that an unknown name takes as long as a wrong password.
        self._nobody = f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p=1${'A' * 22}${'A' * 43}"
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")

    async def make_hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Say whether a password is the one that was hashed; None, for a user that does not exist, never matches."""
        loop = asyncio.get_running_loop()
        is_right = await loop.run_in_executor(self._threads, self._verify, password_hash or self._nobody, password)
        return is_right and password_hash is not None

    def close(self) -> None:
        """Wait for what is being hashed, and do nothing more."""
        self._threads.shutdown(cancel_futures=True)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False


def random_password() -> str:
    """Return 24 characters for a user that was given no password."""
    return secrets.token_urlsafe(18)


def random_token() -> str:
    """Return 67 characters that sign in."""
    return secrets.token_urlsafe(_TOKEN_SIZE)


def token_digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
