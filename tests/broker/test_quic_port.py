"""The port that QUIC has before anybody comes by QUIC."""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator

import pytest
from pybroker.broker.config.schema import Quic, Tls
from pybroker.broker.listeners.peers import Peers
from pybroker.broker.listeners.quic_port import QuicPort
from pybroker.broker.tls import Certificate
from pybroker.protocol.inbox import Pool
from support.broker import Broker
from support.listeners import LIMITS
from support.quic import TIMEOUT_S, dialled

MADE = Tls(enabled=True, cert_file="", key_file="")


@pytest.fixture
async def port(filled: Broker) -> AsyncIterator[QuicPort]:
    peers = Peers(dispatch=filled.dispatch, clients=filled.state.clients, pool=Pool(), limits=LIMITS, connections_max=2)
    port = QuicPort(peers, Quic(), Certificate("quic.certificate", MADE, "127.0.0.1"))
    yield port
    port.close()
    await port.finish()
    await peers.close(1)


def knock(address: str) -> None:
    host, _, number = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"no QUIC", (host, int(number)))


def is_free(address: str) -> bool:
    host, _, number = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        try:
            other.bind((host, int(number)))
        except OSError:
            return False
    return True


async def until_loaded(port: QuicPort) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while port._listener is None:
            await asyncio.sleep(0.005)


async def test_the_first_client_and_the_next_are_served(port: QuicPort, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    address = await port.open("127.0.0.1", 0)
    assert port._listener is None and caplog.messages == []
    async with dialled(address) as first, dialled(address) as second:
        assert (await first.login()).status == (await second.login()).status == 0
    (made,) = [message for message in caplog.messages if "made a self-signed certificate" in message]
    assert "SHA-256 fingerprint" in made


async def test_what_is_no_quic_is_passed_over(port: QuicPort) -> None:
    address = await port.open("127.0.0.1", 0)
    knock(address)
    await until_loaded(port)
    async with dialled(address) as client:
        assert (await client.login()).status == 0


async def test_a_port_that_nobody_used_is_given_back(port: QuicPort) -> None:
    address = await port.open("127.0.0.1", 0)
    assert not is_free(address)
    port.close()
    assert is_free(address)


async def test_a_port_that_is_closed_while_it_loads_is_given_back(port: QuicPort) -> None:
    address = await port.open("127.0.0.1", 0)
    knock(address)
    async with asyncio.timeout(TIMEOUT_S):
        while port._loading is None:
            await asyncio.sleep(0)
    port.close()
    await port.finish()
    async with asyncio.timeout(TIMEOUT_S):
        while not is_free(address):
            await asyncio.sleep(0.005)


async def test_a_port_that_is_taken_is_refused(port: QuicPort) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            await port.open("127.0.0.1", other.getsockname()[1])


async def test_what_cannot_be_served_is_logged_and_given_up(
    port: QuicPort, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pybroker.broker.listeners.quic", None)
    address = await port.open("127.0.0.1", 0)
    knock(address)
    async with asyncio.timeout(TIMEOUT_S):
        while not is_free(address):
            await asyncio.sleep(0.005)
    (message,) = caplog.messages
    assert message.startswith("QUIC can't be served")
