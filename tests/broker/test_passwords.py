"""Secrets: what is stored of them, and what matches it."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from pybroker.broker import passwords
from pybroker.broker.passwords import SERVER_COST, Cost, Passwords
from support.broker import CHEAP


@pytest.fixture
def cheap() -> Iterator[Passwords]:
    made = Passwords(CHEAP)
    yield made
    made.close()


async def test_hash_matches_its_password_only(cheap: Passwords) -> None:
    password_hash = await cheap.make_hash("sécret")
    assert password_hash.startswith("$argon2id$")
    assert "sécret" not in password_hash
    assert await cheap.matches(password_hash, "sécret")
    for wrong in ("secret", "", "sécret ", "x" * 1000):
        assert not await cheap.matches(password_hash, wrong)
    assert not await cheap.matches("not a hash", "sécret")


async def test_hashes_of_any_cost_can_be_checked(cheap: Passwords) -> None:
    """A test's data directory opens in a real broker, and the reverse."""
    usual = Passwords()
    dear = await usual.make_hash("sécret")
    assert "$m=19456,t=2,p=1$" in dear
    assert await cheap.matches(dear, "sécret")
    assert await usual.matches(await cheap.make_hash("sécret"), "sécret")
    usual.close()


async def test_closed_ones_leave_no_threads() -> None:
    others = set(threading.enumerate())
    made = Passwords(CHEAP)
    hashing = asyncio.create_task(made.make_hash("sécret"))
    await asyncio.sleep(0)  # it is handed to a thread
    own = set(threading.enumerate()) - others
    assert [thread.name.startswith("argon2") for thread in own] == [True]
    made.close()
    assert not own & set(threading.enumerate())
    assert (await hashing).startswith("$argon2id$")


@pytest.mark.parametrize("cost", [CHEAP, SERVER_COST])
async def test_user_that_does_not_exist_is_checked_like_one_that_does(
    cost: Cost, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def verify(_passwords: Passwords, password_hash: str, _password: str) -> bool:
        checked.append(password_hash)
        return True

    monkeypatch.setattr(Passwords, "_verify", verify)
    made = Passwords(cost)
    assert not await made.matches(None, "any")
    real = await made.make_hash("any")
    assert checked[0].split("$")[:4] == real.split("$")[:4]
    assert len(checked[0]) == len(real)
    made.close()


async def test_only_so_many_are_checked_at_a_time(cheap: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 19 MiB and a processor."""
    going = most = 0
    lock, both = threading.Lock(), threading.Barrier(2)

    def verify(_passwords: Passwords, _password_hash: str, _password: str) -> bool:
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
        both.wait(10)
        with lock:
            going -= 1
        return True

    monkeypatch.setattr(Passwords, "_verify", verify)
    assert await asyncio.gather(*(cheap.matches("hash", "any") for _ in range(10))) == [True] * 10
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
