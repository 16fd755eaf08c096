"""Peers that stall: none holds a connection, or memory, for ever."""

import asyncio
from dataclasses import replace

import pytest
from pybroker.broker.listeners.http import listener as module
from pybroker.broker.listeners.http.listener import HttpListener
from support.broker import Broker
from support.rest import LIMITS, Rest, exchange

SHORT_S = 0.05
TIMEOUT_S = 20
ANSWER_SIZE = 20_000_000  # more than the sockets' buffers take


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and have little patience."""
    monkeypatch.setattr(module, "CHECK_INTERVAL_S", SHORT_S / 5)
    monkeypatch.setattr(module, "KEEP_ALIVE_S", SHORT_S)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.mark.parametrize("data", [b"", b"GET /ping HT", b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\nGET /pi"], ids=repr)
async def test_a_peer_that_never_finishes_its_request_is_closed(broker: Broker, data: bytes) -> None:
    listener = HttpListener(broker.state, broker.dispatch, replace(LIMITS, login_timeout_s=0.05))
    address = await listener.open("127.0.0.1", 0)
    assert (await exchange(address, data)).count(b"pong") == data.count(b"\r\n\r\n")
    await listener.finish(1)


async def test_a_body_that_never_arrives_ends_the_request(broker: Broker) -> None:
    listener = HttpListener(broker.state, broker.dispatch, replace(LIMITS, login_timeout_s=0.05))
    address = await listener.open("127.0.0.1", 0)
    head = b"POST /users/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
    assert (await exchange(address, head)).startswith(b"HTTP/1.1 408")
    await listener.finish(1)


async def test_a_peer_that_does_not_read_its_answer_is_closed(broker: Broker) -> None:
    await broker.create_topic()
    await broker.send(*[b"x" * 1_000_000] * (ANSWER_SIZE // 1_000_000))
    listener = HttpListener(broker.state, broker.dispatch, replace(LIMITS, write_timeout_s=SHORT_S))
    address = await listener.open("127.0.0.1", 0)
    async with Rest(address) as rest:
        token = (await rest.login())["access_token"]["token"]
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    head = f"GET /streams/s/topics/t/messages?count=1000 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(TIMEOUT_S):
        await reader.readuntil(b"\r\n")
        while listener._shared.connections:
            await asyncio.sleep(SHORT_S)
    assert broker.state.counters.unsent_bytes == 0
    writer.close()
    await listener.finish(1)
