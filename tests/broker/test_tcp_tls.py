"""TCP with TLS, on both event loops, in this process, over the memory engine."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography.hazmat.primitives.serialization import Encoding
from pybroker.broker.connection import WRITE_SIZE
from pybroker.broker.listeners.peers import Peers
from pybroker.broker.listeners.tcp import TcpListener
from pybroker.broker.listeners.tls import TlsChannel, tls_channels
from pybroker.broker.tls import Certificate, self_signed
from pybroker.protocol.model.messages import Polled, PollMessages
from pybroker.protocol.model.system import Ping
from support.broker import FIRST, READER
from support.certificates import Issued, issue, shown, trusting, write
from support.listeners import ANSWER_SIZE, ASKED, LIMITS, only
from support.raw import RawClient, messages_of

OWN = self_signed("127.0.0.1")


# Its successor, a hook, would give every test of the folder both loops.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy.:pytest.PytestDeprecationWarning")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy(), uvloop.EventLoopPolicy()], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def issued() -> Issued:
    return issue("first")


@pytest.fixture
def certificate(tmp_path: Path, issued: Issued) -> Certificate:
    return Certificate("tcp.tls", write(tmp_path, issued), "127.0.0.1")


@pytest.fixture
def listener(peers: Peers, certificate: Certificate) -> Iterator[TcpListener]:
    listener = TcpListener(peers, channel=tls_channels(certificate.context))
    yield listener
    listener.close()


@pytest.fixture
async def address(listener: TcpListener) -> str:
    return await listener.open("127.0.0.1", 0)


@pytest.fixture
def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def signed_in(port: int, tls: ssl.SSLContext) -> RawClient:
    client = RawClient(port, tls=tls)
    assert client.login().status == 0
    return client


async def in_thread(work: Callable[[], None]) -> None:
    await asyncio.wait_for(asyncio.to_thread(work), 20)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def poll(client: RawClient) -> bytes:
    return client.frame_of(PollMessages(READER, "s", "t", 0, FIRST, 1000, auto_commit=False))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_requests_are_answered_with_either_version(port: int, issued: Issued, version: ssl.TLSVersion) -> None:
    def work() -> None:
        tls = trusting(issued.pem)
        tls.minimum_version = tls.maximum_version = version
        with signed_in(port, tls) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.version() == version.name.replace("_", ".")
            polled = client.ask(PollMessages(READER, "s", "t", 0, FIRST, 1000, auto_commit=False))
            assert isinstance(polled, Polled)
            assert [message.payload for message in messages_of(polled)] == [b"x" * (ANSWER_SIZE // 4)] * 4

    await in_thread(work)


async def test_answers_to_requests_that_came_at_once_arrive_in_order(port: int, issued: Issued) -> None:
    def work() -> None:
        with signed_in(port, trusting(issued.pem)) as client:
            client.socket.sendall(b"".join(client.frame_of(Ping()) + poll(client) for _ in range(50)))
            sizes = [len(client.receive().body) for _ in range(100)]
            assert sizes == [sizes[0], sizes[1]] * 50
            assert sizes[1] > ANSWER_SIZE > sizes[0]

    await in_thread(work)


async def test_bytes_may_come_one_by_one(port: int, issued: Issued) -> None:
    """From the hello to the answer, each byte in a packet of its own."""

    def work() -> None:
        arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting(issued.pem).wrap_bio(arrived, leaving, server_hostname="localhost")
        with RawClient(port) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def trickle(step: Callable[[], object]) -> object:
                for _ in range(1000):
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        for byte in leaving.read():
                            client.socket.sendall(bytes([byte]))
                        arrived.write(client.socket.recv(1 << 16))
                raise AssertionError("no end of it")

            trickle(tls.do_handshake)
            tls.write(client.frame_of(Ping()))
            assert trickle(tls.read)

    await in_thread(work)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="this system has no such option")
async def test_the_first_half_of_a_request_is_acknowledged_at_once(port: int, peers: Peers, issued: Issued) -> None:
    """A client that waits for that with the second half must not wait for the system's 40 ms."""
    client = await asyncio.to_thread(signed_in, port, trusting(issued.pem))
    for _ in range(20):  # by now the system expects an answer to ride on
        await asyncio.to_thread(client.ask, Ping())
    await in_thread(lambda: client.socket.sendall(poll(client)[:256]))
    await until(lambda: only(peers).wire.unread == 256)
    channel = only(peers)._channel
    assert isinstance(channel, TlsChannel)
    assert channel._open().get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
    client.close()


async def test_unsent_answers_of_a_slow_peer_stay_within_the_limit(port: int, peers: Peers, issued: Issued) -> None:
    client = await asyncio.to_thread(signed_in, port, trusting(issued.pem))
    await in_thread(lambda: client.socket.sendall(poll(client) * ASKED))
    channel = only(peers)._channel
    await until(lambda: channel.unsent >= LIMITS.unread_size_max)
    for _ in range(100):
        await asyncio.sleep(0)
        assert LIMITS.unread_size_max <= channel.unsent < LIMITS.unread_size_max + WRITE_SIZE + 2 * ANSWER_SIZE
    answers = await asyncio.to_thread(lambda: [client.receive() for _ in range(ASKED)])
    assert {len(answer.body) for answer in answers} == {len(answers[0].body)}
    client.close()


async def test_both_sides_take_their_leave(port: int, peers: Peers, issued: Issued) -> None:
    def work() -> None:
        with signed_in(port, trusting(issued.pem)) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            client.socket.unwrap()  # raises where the server just closes

    await in_thread(work)
    await until(lambda: not peers)


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", bytes(256), b"\x0c"], ids=["http", "an Iggy client", "a byte"]
)
async def test_a_client_without_tls_is_closed_and_logged_once(
    port: int, peers: Peers, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    def work() -> None:
        with RawClient(port) as client:
            client.socket.sendall(sent)
            with pytest.raises(ConnectionError):
                client.receive()

    await in_thread(work)
    await until(lambda: not peers)
    (line,) = warnings(caplog)
    assert "need a TLS hello, have" in line
    assert "tls=true" in line


async def test_a_damaged_record_closes_the_connection(
    port: int, peers: Peers, issued: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        with signed_in(port, trusting(issued.pem)) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            raw = socket.socket(fileno=client.socket.detach())
            with raw:
                raw.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
                raw.settimeout(10)
                while raw.recv(1 << 16):
                    pass

    await in_thread(work)
    await until(lambda: not peers)
    (line,) = warnings(caplog)
    assert "TLS failed" in line


async def test_a_client_that_does_not_trust_the_certificate_is_logged_once(
    port: int, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            RawClient(port, tls=trusting(OWN))

    await in_thread(work)
    await until(lambda: not peers)
    (line,) = warnings(caplog)
    assert "TLS failed: " in line
    assert "unknown ca" in line


async def test_versions_before_1_2_are_refused(port: int, issued: Issued, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        tls = trusting(issued.pem)
        with pytest.warns(DeprecationWarning):
            tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
        tls.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError):
            RawClient(port, tls=tls)

    await in_thread(work)
    assert any("unsupported protocol" in line for line in warnings(caplog))


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half a hello"])
async def test_a_handshake_that_stalls_is_given_up(
    port: int, peers: Peers, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    client = await asyncio.to_thread(RawClient, port)
    await in_thread(lambda: client.socket.sendall(sent))
    await until(lambda: len(peers) == 1 and only(peers)._waiter is not None)
    only(peers).check(LIMITS.login_timeout_s + 1)
    await until(lambda: not peers)
    (line,) = warnings(caplog)
    assert "no login for 20 s" in line
    client.close()


async def test_a_reload_changes_what_new_clients_see_and_drops_nobody(
    address: str, port: int, tmp_path: Path, certificate: Certificate, issued: Issued
) -> None:
    old, new = trusting(issued.pem), issue("second")
    client = await asyncio.to_thread(signed_in, port, old)
    write(tmp_path, new)
    certificate.reload()
    assert await asyncio.to_thread(shown, address, trusting(new.pem)) == new.certificate.public_bytes(Encoding.DER)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(shown, address, old)
    assert await asyncio.to_thread(client.ask, Ping()) is None
    client.close()
