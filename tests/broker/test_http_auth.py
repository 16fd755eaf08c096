"""Signing in over HTTP: logins, tokens of both kinds, and what ends them."""

import base64
from collections.abc import AsyncIterator

import jwt
import pytest
from msgspec.structs import replace
from pybroker.broker.catalog import User
from pybroker.broker.config import ConfigError
from pybroker.broker.config.schema import Jwt
from pybroker.broker.listeners.http.auth import Tokens
from pybroker.broker.listeners.http.listener import HttpListener
from pybroker.protocol.errors import Refused, Status
from support.broker import Broker
from support.engines import FakeClock
from support.rest import LIMITS, Rest

HOUR_US = 3_600_000_000
SECRET = "a secret of more than thirty-two bytes"
TOKENS = "/personal-access-tokens"
SEVENTH = User(7, "seventh", "", created_at_us=77)


@pytest.fixture
async def rest(address: str) -> AsyncIterator[Rest]:
    async with Rest(address) as rest:
        yield rest


def refused(tokens: Tokens, token: str) -> bool:
    try:
        tokens.read(token)
    except Refused as error:
        return error.status is Status.UNAUTHENTICATED
    return False


def changed(token: str, **claims: object) -> str:
    """Return a token with other claims and the right signature."""
    known = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_signature": False})
    return jwt.encode(known | claims, SECRET, "HS256")


def test_a_token_tells_whose_it_is_until_it_expires() -> None:
    clock = FakeClock()
    tokens = Tokens(Jwt(encoding_secret=SECRET), clock)
    access = tokens.issue(SEVENTH)
    assert tokens.read(access.token).user_id == 7
    assert access.expiry == (clock() + HOUR_US) // 1_000_000
    clock.now_us += HOUR_US + 4_000_000  # the skew is 5 s
    assert tokens.read(access.token).user_id == 7
    clock.now_us += 2_000_000
    assert refused(tokens, access.token)


def test_a_token_is_not_good_before_its_time() -> None:
    clock = FakeClock()
    tokens = Tokens(Jwt(not_before_us=60_000_000), clock)
    token = tokens.issue(SEVENTH).token
    assert refused(tokens, token)
    clock.now_us += 56_000_000
    assert tokens.read(token).user_id == 7


def test_tokens_of_others_are_refused() -> None:
    clock = FakeClock()
    tokens = Tokens(Jwt(encoding_secret=SECRET), clock)
    token = tokens.issue(SEVENTH).token
    assert tokens.read(changed(token, sub="8")).user_id == 8
    assert refused(tokens, changed(token, iss="someone"))
    assert refused(tokens, changed(token, aud="someone"))
    assert refused(tokens, changed(token, sub="root"))
    assert refused(tokens, changed(token, exp="soon"))
    assert refused(tokens, changed(token, since="ever"))
    assert refused(tokens, jwt.encode({"sub": "7"}, SECRET, "HS256"))
    head, body, signature = token.split(".")
    assert refused(tokens, f"{head}.{body}.{signature[::-1]}")
    assert refused(tokens, "a.b.c")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    assert refused(tokens, f"{unsigned}.{body}.")
    assert refused(Tokens(Jwt(), clock), token)


def test_a_secret_makes_tokens_outlive_the_server() -> None:
    clock = FakeClock()
    encoded = base64.b64encode(SECRET.encode()).decode()
    token = Tokens(Jwt(encoding_secret=SECRET), clock).issue(SEVENTH).token
    assert Tokens(Jwt(decoding_secret=SECRET), clock).read(token).user_id == 7
    assert Tokens(Jwt(encoding_secret=encoded, use_base64_secret=True), clock).read(token).user_id == 7


@pytest.mark.parametrize(
    "settings",
    [Jwt(encoding_secret=SECRET, decoding_secret="other"), Jwt(encoding_secret="?", use_base64_secret=True)],
    ids=["two", "no base64"],
)
def test_secrets_that_can_not_be_stop_the_start_and_are_not_shown(settings: Jwt) -> None:
    with pytest.raises(ConfigError) as error:
        Tokens(settings, FakeClock())
    assert SECRET not in str(error.value)


def test_a_revoked_token_is_remembered_until_it_expires() -> None:
    clock = FakeClock()
    tokens = Tokens(Jwt(), clock)
    gone, kept = tokens.issue(SEVENTH).token, tokens.issue(SEVENTH).token
    tokens.revoke(tokens.read(gone))
    assert refused(tokens, gone)
    clock.now_us += HOUR_US // 2
    tokens.revoke(tokens.read(kept))
    assert len(tokens._revoked) == 2
    clock.now_us += HOUR_US // 2 + 6_000_000
    tokens.revoke(tokens.read(tokens.issue(SEVENTH).token))
    assert len(tokens._revoked) == 1  # those before are forgotten


async def test_a_login_answers_with_a_token_of_the_user(rest: Rest, broker: Broker) -> None:
    identity = await rest.login("bob")
    assert identity["user_id"] == 1
    assert identity["access_token"]["expiry"] == (broker.clock() + HOUR_US) // 1_000_000
    assert (await rest.get("/users/me"))["username"] == "bob"


async def test_a_wrong_password_is_a_bad_request_and_slows_guessing_down(rest: Rest, broker: Broker) -> None:
    body = {"username": "bob", "password": "wrong"}
    for _ in range(6):
        assert await rest.code("POST", "/users/login", body) == (400, "invalid_credentials")
    assert broker.waits == [0.5]


async def test_a_logout_ends_the_token(rest: Rest) -> None:
    await rest.login()
    await rest.do("DELETE", "/users/logout")
    assert await rest.code("GET", "/streams") == (401, "unauthenticated")


async def test_a_refresh_answers_with_a_token_for_longer(rest: Rest, broker: Broker) -> None:
    old = (await rest.login("bob"))["access_token"]
    broker.clock.now_us += HOUR_US // 2
    new = await rest.post("/users/refresh-token", {"token": old["token"]})
    assert new["user_id"] == 1
    assert new["access_token"]["expiry"] == old["expiry"] + 1800
    assert await rest.code("POST", "/users/refresh-token", {"token": "x"}) == (401, "unauthenticated")


async def test_a_personal_access_token_signs_in_by_itself_and_for_a_login(rest: Rest, address: str) -> None:
    await rest.login("bob")
    made = await rest.post(TOKENS, {"name": "ci-token", "expiry": 0})
    assert await rest.get(TOKENS) == [{"name": "ci-token", "expiry_at": None}]
    async with Rest(address, token=made["token"]) as bearer:
        assert (await bearer.get("/users/me"))["username"] == "bob"
    async with Rest(address) as other:
        assert (await other.post(f"{TOKENS}/login", made))["user_id"] == 1
    await rest.do("DELETE", f"{TOKENS}/ci-token")
    async with Rest(address, token=made["token"]) as bearer:
        assert await bearer.code("GET", "/users/me") == (401, "unauthenticated")


async def test_an_expired_personal_access_token_does_not_sign_in(rest: Rest, address: str, broker: Broker) -> None:
    await rest.login("bob")
    token = (await rest.post(TOKENS, {"name": "short", "expiry": 1_000_000}))["token"]
    broker.clock.now_us += 2_000_000
    async with Rest(address, token=token) as bearer:
        assert await bearer.code("GET", "/users/me") == (401, "unauthenticated")
        assert await bearer.code("POST", f"{TOKENS}/login", {"token": token}) == (400, "personal_access_token_expired")


async def test_users_are_made_shown_changed_and_deleted(rest: Rest, address: str) -> None:
    await rest.login()
    asked = {"username": "carol", "password": "secret", "status": "active", "permissions": None}
    made = await rest.post("/users", asked)
    assert made == {
        "id": 2, "created_at": made["created_at"], "status": "active", "username": "carol",
        "options": {}, "permissions": None,
    }  # fmt: skip
    assert await rest.get("/users/carol") == made
    assert [user["id"] for user in await rest.get("/users")] == [0, 1, 2]
    assert await rest.code("POST", "/users", asked) == (400, "user_already_exists")
    async with Rest(address) as carol:
        await carol.login("carol", "secret")
        passwords = {"current_password": "wrong", "new_password": "better"}
        assert await carol.code("PUT", "/users/2/password", passwords) == (400, "invalid_credentials")
        await carol.do("PUT", "/users/me/password", passwords | {"current_password": "secret"})
        await carol.login("carol", "better")
        await rest.do("PUT", "/users/carol", {"status": "inactive"})
        assert await carol.code("GET", "/users/me") == (401, "unauthenticated")
        await rest.do("DELETE", "/users/carol")
        assert await carol.code("GET", "/users/me") == (401, "unauthenticated")
    assert await rest.code("GET", "/users/carol") == (404, "not_found")


async def test_a_token_is_not_that_of_the_next_user_with_its_id(rest: Rest, address: str, broker: Broker) -> None:
    await rest.login()
    async with Rest(address) as bob:
        await bob.login("bob")
        await rest.do("DELETE", "/users/bob")
        broker.clock.now_us += 1
        asked = {"username": "carol", "password": "secret", "status": "active", "permissions": None}
        assert (await rest.post("/users", asked))["id"] == 1
        assert await bob.code("GET", "/users/me") == (401, "unauthenticated")


@pytest.mark.parametrize("header", ["", "Bearer", "bearer x", "Basic eDp5", "Bearer x", "Bearer a.b.c"])
async def test_other_credentials_are_refused(rest: Rest, header: str) -> None:
    response = await rest.http.get("/streams", headers={"authorization": header})
    assert (response.status_code, response.json()["id"]) == (401, Status.UNAUTHENTICATED)


async def test_root_signs_in_to_another_algorithm(broker: Broker) -> None:
    http = broker.config.http
    broker.state.config = replace(broker.config, http=replace(http, jwt=replace(http.jwt, algorithm="HS512")))
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    async with Rest(await listener.open("127.0.0.1", 0)) as rest:
        token = (await rest.login())["access_token"]["token"]
        assert jwt.get_unverified_header(token)["alg"] == "HS512"
        assert (await rest.get("/users/me"))["id"] == 0
    await listener.finish(1)
