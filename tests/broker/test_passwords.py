"""Secrets: what is stored of them, and what matches it."""

import asyncio
import threading

import pytest
from pybroker.broker import passwords


async def test_hash_matches_its_password_only() -> None:
    password_hash = await passwords.make_hash("sécret")
    assert password_hash.startswith("$argon2id$")
    assert "sécret" not in password_hash
    assert await passwords.matches(password_hash, "sécret")
    for wrong in ("secret", "", "sécret ", "x" * 1000):
        assert not await passwords.matches(password_hash, wrong)
    assert not await passwords.matches("not a hash", "sécret")


async def test_user_that_does_not_exist_is_checked_like_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def verify(password_hash: str, _password: str) -> bool:
        checked.append(password_hash)
        return True

    monkeypatch.setattr(passwords, "_verify", verify)
    assert not await passwords.matches(None, "any")
    assert checked[0].startswith("$argon2id$")


async def test_only_so_many_are_checked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 19 MiB and a processor."""
    going = most = 0
    lock, both = threading.Lock(), threading.Barrier(2)

    def verify(_password_hash: str, _password: str) -> bool:
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
        both.wait(10)
        with lock:
            going -= 1
        return True

    monkeypatch.setattr(passwords, "_verify", verify)
    assert await asyncio.gather(*(passwords.matches("hash", "any") for _ in range(10))) == [True] * 10
    assert most <= 2


def test_random_passwords_are_long_and_differ() -> None:
    made = {passwords.random_password() for _ in range(10)}
    assert len(made) == 10
    assert {len(password) for password in made} == {24}


def test_tokens_are_long_and_differ_and_fit_the_wire() -> None:
    made = {passwords.random_token() for _ in range(10)}
    assert len(made) == 10
    assert {len(token.encode()) for token in made} == {67}


def test_digest_is_of_the_whole_token_and_not_the_token() -> None:
    token = passwords.random_token()
    digests = {passwords.token_digest(text) for text in (token, token[:-1], token + "x", token.swapcase(), "")}
    assert len(digests) == 5
    assert {len(digest) for digest in digests} == {32}
    assert token.encode() not in passwords.token_digest(token)
