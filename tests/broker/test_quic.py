"""The QUIC listener in this process, over the memory engine, and aioquic's own client."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode
from cryptography.x509 import load_pem_x509_certificate
from pybroker.broker.config.schema import Quic, Tls
from pybroker.broker.connection import WRITE_SIZE, Limits
from pybroker.broker.listeners import quic
from pybroker.broker.listeners.peers import Peers
from pybroker.broker.listeners.quic import QuicChannel, QuicListener
from pybroker.broker.listeners.quic_port import bind
from pybroker.broker.tls import Certificate, self_signed
from pybroker.protocol.errors import Status
from pybroker.protocol.inbox import Pool
from pybroker.protocol.model.messages import Polled, PollMessages
from pybroker.protocol.model.streams import CreateStream, GetStream, GetStreams
from pybroker.protocol.model.system import Ping
from pybroker.protocol.primitives import Transport
from support import listeners
from support.broker import FIRST, READER, Broker
from support.classic import frame_of as classic_frame_of
from support.listeners import ANSWER_SIZE, only
from support.quic import TIMEOUT_S, QuicClient, dialled
from support.raw import request_frame

LIMITS = replace(listeners.LIMITS, frame_size_max_before_login=1 << 14)
PING = request_frame(code=1)
POLL = PollMessages(READER, "s", "t", 0, FIRST, 1000, auto_commit=False)
STREAMS_MAX = quic.STREAMS_MIN

Open = Callable[..., Awaitable[str]]


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    (tmp_path / "cert.pem").write_bytes(self_signed("127.0.0.1"))
    file = str(tmp_path / "cert.pem")
    return Certificate("quic.certificate", Tls(enabled=True, cert_file=file, key_file=file), "127.0.0.1")


@pytest.fixture
async def opened(broker: Broker, certificate: Certificate) -> AsyncIterator[list[tuple[QuicListener, Peers]]]:
    """What was opened; it is closed when the test ends."""
    there: list[tuple[QuicListener, Peers]] = []
    yield there
    for listener, peers in there:
        listener.close()
        await peers.close(1)
        async with asyncio.timeout(TIMEOUT_S):
            while not is_port_closed(listener):
                await asyncio.sleep(0.01)


@pytest.fixture
def listen(filled: Broker, certificate: Certificate, opened: list[tuple[QuicListener, Peers]]) -> Open:
    """Open a listener; return its address."""

    async def listen(limits: Limits = LIMITS, *, connections_max: int = 2, keep_alive_us: int = 0) -> str:
        clients = filled.state.clients
        peers = Peers(
            dispatch=filled.dispatch, clients=clients, pool=Pool(), limits=limits, connections_max=connections_max
        )
        settings = Quic(keep_alive_interval_us=keep_alive_us)
        listener = QuicListener(peers, settings, certificate)
        opened.append((listener, peers))
        port = bind("127.0.0.1", 0)
        await listener.serve(port)
        return f"127.0.0.1:{port.getsockname()[1]}"

    return listen


def is_port_closed(listener: QuicListener) -> bool:
    assert listener._port is not None and listener._port._transport is not None
    return listener._port._transport.is_closing()


def channel_of(opened: list[tuple[QuicListener, Peers]]) -> QuicChannel:
    ((_, peers),) = opened
    channel = only(peers)._channel
    assert isinstance(channel, QuicChannel)
    return channel


async def signed_in(client: QuicClient) -> None:
    assert (await client.login()).status == 0


async def is_turned_away(address: str) -> bool:
    """Say whether a newcomer gets no answer."""
    try:
        async with dialled(address, QuicConfiguration(is_client=True, server_name="localhost", idle_timeout=0.3)):
            return False
    except ConnectionError:
        return True


async def test_a_session_is_the_connections_and_not_a_streams(listen: Open, broker: Broker) -> None:
    address = await listen()
    async with dialled(address) as client, dialled(address) as stranger:
        await signed_in(client)
        assert (await client.ask(GetStream("s"))).stream.name == "s"
        stranger.frames.session, stranger.frames.client = client.frames.session, client.frames.client
        assert (await stranger.ask(GetStreams())).status == Status.UNAUTHENTICATED
        sessions = [session for session in broker.state.clients.all() if session is not broker.root]
        assert {session.transport for session in sessions} == {Transport.QUIC}
        assert {session.address.partition(":")[0] for session in sessions} == {"127.0.0.1"}


async def test_each_stream_gets_the_answer_to_its_own_request(listen: Open, broker: Broker) -> None:
    await broker.create_topic(name="large")
    async with dialled(await listen()) as client:
        await signed_in(client)
        asked = [POLL if number % 3 == 0 else GetStream("s" if number % 3 == 1 else "none") for number in range(60)]
        answers = await asyncio.gather(*(client.ask(command) for command in asked))
    for number, answer in enumerate(answers):
        if number % 3 == 0:
            assert isinstance(answer, Polled) and answer.messages_count == 4
        elif number % 3 == 1:
            assert answer.stream.name == "s"
        else:
            assert not isinstance(answer, Polled) and getattr(answer, "stream", None) is None


async def test_a_command_that_is_sent_again_is_done_once(listen: Open) -> None:
    async with dialled(await listen()) as client:
        await signed_in(client)
        frame = client.frames.frame_of(CreateStream("new"))
        first = await client.exchange(frame)
        assert await client.exchange(frame) == first
        assert client.frames.read(first).status == 0


async def test_a_classic_client_is_served(listen: Open) -> None:
    async with dialled(await listen()) as client:
        assert await client.exchange(classic_frame_of(Ping())) == bytes(8)
        assert await client.exchange(classic_frame_of(Ping())) == bytes(8)


async def test_a_request_that_is_cut_short_is_forgotten(listen: Open, opened: list[tuple[QuicListener, Peers]]) -> None:
    async with dialled(await listen()) as client:
        await signed_in(client)
        client.protocol._quic.reset_stream(client.begin(PING[:100]), 0)
        for size in (0, 1, 40, 255, 256) * STREAMS_MAX:
            client.begin(client.frames.frame_of(CreateStream("cut"))[:size], finish=True)
        assert [stream.name for stream in (await client.ask(GetStreams())).streams] == ["s"]
        async with asyncio.timeout(TIMEOUT_S):
            while channel_of(opened)._held:
                await client.ask(Ping())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PING + PING, id="two frames"),
        pytest.param(PING + b"x", id="a byte too many"),
        pytest.param(request_frame(b"x" * LIMITS.frame_size_max_before_login), id="a frame too large before login"),
        pytest.param(request_frame(command=9), id="no request"),
    ],
)
async def test_what_is_no_request_ends_the_connection(listen: Open, data: bytes) -> None:
    async with dialled(await listen()) as client:
        assert await client.exchange(data) == b""
        await client.closed()


@pytest.mark.parametrize("sign_in", [False, True])
async def test_what_a_peer_may_have_kept_is_bounded(
    listen: Open, opened: list[tuple[QuicListener, Peers]], sign_in: bool
) -> None:
    """A client that never finishes its streams is closed, and what it was granted does not grow before."""
    async with dialled(await listen()) as client:
        if sign_in:
            await signed_in(client)
        else:
            await client.exchange(PING)
        channel = channel_of(opened)
        size = (LIMITS.frame_size_max if sign_in else LIMITS.frame_size_max_before_login) + LIMITS.unread_size_max
        client.begin(bytes(size))
        client.begin(bytes(size))
        await client.closed()
        assert channel._held <= 2 * size
        assert channel.connection is not None and channel.connection.wire.unread == 0


async def test_bytes_out_of_order_count_as_kept(listen: Open, opened: list[tuple[QuicListener, Peers]]) -> None:
    """aioquic makes room for the gap before a byte that came early."""
    async with dialled(await listen()) as client:
        await client.exchange(PING)
        stream_id = client.begin(b"")
        client.protocol._quic.send_stream_data(stream_id, bytes(500_000))
        client.protocol._quic._streams[stream_id].sender._pending.subtract(0, 499_999)
        client.protocol.transmit()
        await client.closed()


async def test_a_client_with_more_requests_than_streams_waits_its_turn(listen: Open) -> None:
    async with dialled(await listen()) as client:
        answers = await asyncio.gather(*(client.exchange(PING) for _ in range(10 * STREAMS_MAX)))
        assert {client.frames.read(answer).status for answer in answers} == {0}


@pytest.mark.parametrize("is_unidirectional", [False, True])
async def test_streams_beyond_the_limit_end_the_connection(listen: Open, is_unidirectional: bool) -> None:
    async with dialled(await listen()) as client:
        quic_client = client.protocol._quic
        quic_client._remote_max_streams_bidi = quic_client._remote_max_streams_uni = 1000
        quic_client._remote_max_stream_data_uni = 1000
        for stream_id in [2] if is_unidirectional else range(0, 4 * STREAMS_MAX + 4, 4):
            quic_client.send_stream_data(stream_id, b"\0")
        client.protocol.transmit()
        await client.closed()
        assert quic_client._close_event is not None
        assert quic_client._close_event.error_code == QuicErrorCode.STREAM_LIMIT_ERROR


async def test_connections_beyond_the_limit_are_closed(listen: Open) -> None:
    address = await listen(connections_max=1)
    async with dialled(address) as first, dialled(address) as second:
        await second.closed()
        await signed_in(first)


async def test_unsent_answers_of_a_slow_peer_stay_within_the_limit(
    listen: Open, opened: list[tuple[QuicListener, Peers]]
) -> None:
    async with dialled(await listen()) as client:
        await signed_in(client)
        channel = channel_of(opened)
        heard = client.protocol.datagram_received
        asked = [asyncio.create_task(client.ask(POLL)) for _ in range(STREAMS_MAX)]
        client.protocol.datagram_received = lambda data, addr: None
        async with asyncio.timeout(TIMEOUT_S):
            while channel._caught_up is None:
                await asyncio.sleep(0)
        assert channel.unsent < LIMITS.unread_size_max + WRITE_SIZE + 2 * ANSWER_SIZE
        client.protocol.datagram_received = heard
        assert {answer.messages_count for answer in await asyncio.gather(*asked)} == {4}


async def test_a_request_that_never_gets_whole_ends_the_connection(listen: Open) -> None:
    async with dialled(await listen(replace(LIMITS, login_timeout_s=0.05))) as client:
        await signed_in(client)
        client.begin(PING[:-1])
        await client.closed()


async def test_a_quiet_peer_is_asked_whether_it_is_there(listen: Open) -> None:
    async with dialled(await listen(keep_alive_us=10_000)) as client:
        await signed_in(client)
        count = 0
        heard = client.protocol.datagram_received

        def received(data: bytes | str, addr: object) -> None:
            nonlocal count
            count += 1
            heard(data, addr)  # pyright: ignore[reportArgumentType]

        client.protocol.datagram_received = received
        async with asyncio.timeout(TIMEOUT_S):
            while count < 20:
                await asyncio.sleep(0.01)


async def test_under_load_a_newcomer_has_to_prove_its_address(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    address = await listen()
    async with dialled(address) as client:
        assert client.protocol._quic._retry_count == 0
    monkeypatch.setattr(quic, "UNPROVEN_MAX", 0)
    async with dialled(address) as client:
        assert client.protocol._quic._retry_count == 1
        await signed_in(client)


async def test_handshakes_beyond_the_limit_are_not_begun(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    address = await listen()
    monkeypatch.setattr(quic, "HANDSHAKES_MAX", 0)
    assert await is_turned_away(address)


async def test_a_handshake_that_stalls_is_given_up(
    listen: Open, opened: list[tuple[QuicListener, Peers]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quic, "HANDSHAKE_TIMEOUT_S", 0.05)
    host, _, port = (await listen()).rpartition(":")
    ((listener, peers),) = opened
    assert listener._port is not None
    hello = QuicConnection(configuration=QuicConfiguration(is_client=True, server_name="localhost"))
    hello.connect((host, int(port)), now=0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stalled:
        for data, _ in hello.datagrams_to_send(now=0):
            stalled.sendto(data, (host, int(port)))
        async with asyncio.timeout(TIMEOUT_S):
            while not listener._port._shaking_hands:
                await asyncio.sleep(0)
            while listener._port._shaking_hands:
                await asyncio.sleep(0.01)
    assert not len(peers) and not listener._port._channels


async def test_a_client_may_change_its_address(listen: Open, opened: list[tuple[QuicListener, Peers]]) -> None:
    async with dialled(await listen()) as client:
        await signed_in(client)
        before = channel_of(opened)._quic.get_peer_address()
        other = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.bind(("::", 0))
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: client.protocol, sock=other)
        assert (await client.ask(GetStream("s"))).stream.name == "s"
        async with asyncio.timeout(TIMEOUT_S):
            while channel_of(opened)._quic.get_peer_address() == before:
                await client.ask(Ping())
        await client.ask(Ping())
        transport.close()


async def test_noise_on_the_port_harms_nobody(listen: Open) -> None:
    address = await listen()
    host, _, port = address.rpartition(":")
    async with dialled(address) as client:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            for size in (0, 1, 5, 6, 7, 20, 21, 1200, 1400):
                for first in (0x00, 0x40, 0xC0, 0xFF):
                    data = bytes([first]) + os.urandom(size)
                    noise.sendto(data[:size], (host, int(port)))
                    noise.sendto((data[:1] + b"\0\0\0\1\x08" + data[6:])[:size], (host, int(port)))
        await signed_in(client)


async def test_who_comes_after_a_reload_sees_the_new_certificate(
    listen: Open, certificate: Certificate, tmp_path: Path
) -> None:
    address = await listen()
    async with dialled(address) as before:
        new = self_signed("127.0.0.1")
        (tmp_path / "cert.pem").write_bytes(new)
        certificate.reload()
        async with dialled(address) as after:
            assert after.protocol._quic.tls._peer_certificate == load_pem_x509_certificate(new)
            assert before.protocol._quic.tls._peer_certificate != load_pem_x509_certificate(new)
            await signed_in(before)


async def test_closed_listener_keeps_who_is_there_and_takes_nobody(
    listen: Open, opened: list[tuple[QuicListener, Peers]]
) -> None:
    address = await listen()
    ((listener, peers),) = opened
    async with dialled(address) as client:
        await signed_in(client)
        listener.close()
        assert await is_turned_away(address)
        assert (await client.ask(GetStream("s"))).stream.name == "s"
        assert not is_port_closed(listener)
        await peers.close(1)
        await client.closed()
    assert not peers._tasks
    assert is_port_closed(listener)
