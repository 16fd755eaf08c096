"""The TCP listener on asyncio's own loop, in this process, over the memory engine."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from pybroker.broker.connection import WRITE_SIZE
from pybroker.broker.listeners.peers import Peers
from pybroker.broker.listeners.tcp import TcpChannel, TcpListener
from pybroker.protocol.model.messages import PollMessages
from pybroker.protocol.model.system import Ping
from support.broker import FIRST, READER, Broker
from support.listeners import ANSWER_SIZE, ASKED, LIMITS, only
from support.raw import RawClient


@pytest.fixture
def listener(peers: Peers) -> Iterator[TcpListener]:
    listener = TcpListener(peers)
    yield listener
    listener.close()


async def dial(listener: TcpListener) -> RawClient:
    address = await listener.open("127.0.0.1", 0)
    client = await asyncio.to_thread(RawClient, int(address.rpartition(":")[2]))
    assert (await asyncio.to_thread(client.login)).status == 0
    return client


def channel_of(peers: Peers) -> TcpChannel:
    channel = only(peers)._channel
    assert isinstance(channel, TcpChannel)
    return channel


async def test_unsent_answers_of_a_slow_peer_stay_within_the_limit(
    broker: Broker, listener: TcpListener, peers: Peers
) -> None:
    client = await dial(listener)
    poll = client.frame_of(PollMessages(READER, "s", "t", 0, FIRST, 1000, auto_commit=False))
    await asyncio.to_thread(client.socket.sendall, poll * ASKED)
    channel = channel_of(peers)
    async with asyncio.timeout(10):
        while channel._drained is None:
            await asyncio.sleep(0)
    # What was one write when the limit was passed: a turn's small answers, or one that is large.
    assert channel.unsent < LIMITS.unread_size_max + WRITE_SIZE + 2 * ANSWER_SIZE
    answers = await asyncio.to_thread(lambda: [client.receive() for _ in range(ASKED)])
    assert {len(answer.body) for answer in answers} == {len(answers[0].body)}
    client.close()


async def test_answers_to_requests_that_came_at_once_arrive_in_order(listener: TcpListener) -> None:
    client = await dial(listener)
    frames = b"".join(client.frame_of(Ping()) for _ in range(100))
    await asyncio.to_thread(client.socket.sendall, frames)
    answers = await asyncio.to_thread(lambda: [client.receive() for _ in range(100)])
    assert not any(answer.status for answer in answers)
    client.close()


async def test_silent_peers_are_asked_whether_they_are_there(listener: TcpListener, peers: Peers) -> None:
    client = await dial(listener)
    peer = channel_of(peers)._open().get_extra_info("socket")
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    client.close()


async def test_closed_listener_leaves_nobody_connected(broker: Broker, listener: TcpListener, peers: Peers) -> None:
    client = await dial(listener)
    listener.close()
    await peers.close(1)
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(client.ask, Ping())
    assert not peers._tasks
    client.close()
