"""HTTPS, on both event loops, in this process, over the memory engine; and the connections that HTTP may have."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvloop
from pybroker.broker.listeners.http.listener import HttpListener
from pybroker.broker.listeners.peers import Room
from pybroker.broker.tls import Certificate
from support.broker import Broker
from support.certificates import Issued, issue, shown, trusting, write
from support.rest import LIMITS, Rest, exchange

TIMEOUT_S = 10.0
PING = b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

# Its successor, a hook, would give every test of the folder both loops.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy.:pytest.PytestDeprecationWarning")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy(), uvloop.EventLoopPolicy()], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = request.param
    return policy


@pytest.fixture
def issued() -> Issued:
    return issue("first")


@pytest.fixture
def context(issued: Issued) -> ssl.SSLContext:
    return trusting(issued.pem)


@pytest.fixture
def room() -> Room:
    return Room(2)


@pytest.fixture
def tls(tmp_path: Path, issued: Issued) -> ssl.SSLContext:
    """What the server shows."""
    return Certificate("http.tls", write(tmp_path, issued), "127.0.0.1").context


@pytest.fixture
async def address(broker: Broker, tls: ssl.SSLContext, room: Room) -> AsyncIterator[str]:
    listener = HttpListener(broker.state, broker.dispatch, LIMITS, tls, room)
    address = await listener.open("127.0.0.1", 0)
    yield f"localhost:{address.rpartition(':')[2]}"
    await listener.finish(1)
    await until(lambda: not room.taken)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_requests_are_answered(address: str, context: ssl.SSLContext) -> None:
    async with Rest(address, context=context, scheme="https") as rest:
        await rest.login()
        for number in range(3):
            await rest.post("/streams", {"name": str(number)})
        assert [stream["name"] for stream in await rest.get("/streams")] == ["0", "1", "2"]


async def test_a_request_may_come_with_the_end_of_the_handshake(address: str, context: ssl.SSLContext) -> None:
    """In one packet, so that it is here before anybody can take it."""
    arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(arrived, leaving, server_hostname="localhost")
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, int(port), family=socket.AF_INET)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        writer.write(leaving.read())
        arrived.write(await reader.read(1 << 16))
        tls.do_handshake()
        tls.write(PING)
        writer.write(leaving.read())
        answer = b""
        while not answer.endswith(b"pong"):
            arrived.write(await reader.read(1 << 16))
            with suppress(ssl.SSLWantReadError):
                while part := tls.read():
                    answer += part
        writer.close()


@pytest.mark.parametrize("sent", [PING, bytes(256)], ids=["http", "an Iggy client"])
async def test_a_client_without_tls_is_closed_and_logged_once(
    address: str, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    assert b"pong" not in await exchange(address.replace("localhost", "127.0.0.1"), sent)
    (line,) = warnings(caplog)
    assert line.startswith("closed 127.0.0.1:")
    assert "this port has TLS only, connect to https://" in line


async def test_a_client_that_does_not_trust_the_certificate_is_logged_once(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(shown, address, trusting(issue("other").pem))
    await until(lambda: warnings(caplog))
    (line,) = warnings(caplog)
    assert "TLS failed: " in line
    assert "unknown ca" in line


async def test_a_handshake_that_stalls_is_given_up(
    broker: Broker, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    listener = HttpListener(broker.state, broker.dispatch, replace(LIMITS, login_timeout_s=0.05), tls)
    address = await listener.open("127.0.0.1", 0)
    assert await exchange(address, b"\x16\x03\x01\x02\x00\x01") == b""
    (line,) = warnings(caplog)
    assert "no TLS handshake for 0.05 s" in line
    await listener.finish(1)


async def test_who_leaves_in_the_handshake_is_no_matter(
    address: str, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection(*address.split(":"), family=socket.AF_INET)
    await until(lambda: room.taken)
    writer.close()
    await until(lambda: not room.taken)
    assert warnings(caplog) == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_connections_beyond_the_limit_are_closed_and_logged(
    broker: Broker, address: str, room: Room, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    """The limit is that of all listeners: here others have taken all but one."""
    room.enter("another listener's")
    plain = HttpListener(broker.state, broker.dispatch, LIMITS, room=room)
    where = address if scheme == "https" else await plain.open("127.0.0.1", 0)
    async with Rest(where, context=context, scheme=scheme) as one, Rest(where, context=context, scheme=scheme) as more:
        assert (await one.ask("GET", "/ping")).text == "pong"
        with pytest.raises(httpx.TransportError):
            await more.ask("GET", "/ping")
        assert (await one.ask("GET", "/ping")).text == "pong"
    (line,) = warnings(caplog)
    assert "2 connections are open already" in line
    room.leave()
    await plain.finish(1)
