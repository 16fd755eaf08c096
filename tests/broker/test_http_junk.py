"""Requests that make no sense, at every route: each is refused, none is a bug."""

import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pybroker.broker.listeners.http import own
from pybroker.broker.listeners.http.listener import HttpListener
from pybroker.broker.listeners.http.routes import ROUTES, Route
from support.broker import Broker
from support.rest import LIMITS, Rest, exchange

BODIES: tuple[Any, ...] = (
    None,
    True,
    7,
    "x",
    [],
    {},
    [{}],
    {"name": None},
    {"name": "\x00"},
    {"name": "\ud800"},
    {"options": 1},
)
NUMBERS = ("-1", "4294967296", str(2**64), "1e3", "0x1", "", "\uff11", "1" * 5000, "nan", "true")
WORDS = ("%00", "%FF", "%2F", "..", "%F0%9F%A6%80", "x" * 256, "-1", "4294967296", "%25", "+", "a;b=c")


def each(routes: list[Route]) -> pytest.MarkDecorator:
    assert routes
    return pytest.mark.parametrize("route", routes, ids=lambda route: f"{route.method} {route.path}")


@pytest.fixture
async def rest(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Rest]:
    """A client signed in as root; fails the test if the server takes a request for a bug of its own."""
    broker = Broker()
    await broker.create_topic()
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    async with Rest(await listener.open("127.0.0.1", 0)) as rest:
        await rest.login()
        yield rest
    await listener.finish(1)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def filled(route: Route, word: str = "0") -> str:
    """Return a route's path with a word for each of its values."""
    return re.sub(r"{\w+}", word, route.path)


async def status_of(rest: Rest, route: Route, path: str, **params: str) -> int:
    """Return how a request is answered. Of a stream of events no more is read than that."""
    async with rest.http.stream(route.method, path, params=params or None) as response:
        if route.command is not own.Follow:
            await response.aread()
        return response.status_code


@each([route for route in ROUTES if route.body is not None])
async def test_bodies_that_make_no_sense_are_refused(rest: Rest, route: Route) -> None:
    for body in BODIES:
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        response = await rest.http.request(route.method, filled(route), content=content, headers=headers)
        assert response.status_code < 500


@each([route for route in ROUTES if route.query is not None and route.body is None])
async def test_queries_that_make_no_sense_are_refused(rest: Rest, route: Route) -> None:
    assert route.query is not None
    for name in route.query.__struct_encode_fields__:
        for number in NUMBERS:
            assert await status_of(rest, route, filled(route), **{name: number}) < 500


@each([route for route in ROUTES if "{" in route.path])
async def test_paths_that_make_no_sense_are_refused(rest: Rest, route: Route) -> None:
    for word in WORDS:
        assert 200 <= await status_of(rest, route, filled(route, word)) < 500


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00" + b"x" * 100, b"hello\r\n\r\n"], ids=["TLS", "text"])
async def test_a_peer_that_speaks_no_http_is_closed_with_one_line_in_the_log(
    rest: Rest, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    answer = await exchange(rest.http.base_url.netloc.decode(), data)
    assert answer.startswith(b"HTTP/1.1 400")
    assert [record.levelname for record in caplog.records if "closed 127.0.0.1" in record.getMessage()] == ["WARNING"]
