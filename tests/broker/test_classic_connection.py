"""Connections of the classic wire: polls that find nothing wait a little, and a stale client is told so and dropped."""

import asyncio
import os
import struct

import pytest
from msgspec import Struct
from pybroker.broker.connection import Connection
from pybroker.protocol.batch import Buffer
from pybroker.protocol.classic import wire as classic
from pybroker.protocol.classic.wire import IDLE_POLLS_MAX, ClassicWire
from pybroker.protocol.errors import Status
from pybroker.protocol.inbox import Inbox, Pool
from pybroker.protocol.model.messages import PollMessages
from pybroker.protocol.model.system import GetMe, Ping
from support.broker import NEXT, READER, Broker
from support.classic import feed, frame_of
from support.listeners import LIMITS

HOURS = 10_000.0
POLL = PollMessages(READER, "s", "t", 0, NEXT, 10, auto_commit=False)


class FakeChannel:
    """Takes answers at once. more_expected: how often the rest of a request was waited for."""

    unsent = 0
    is_writable = True
    more_expected = 0

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def write(self, buffers: list[Buffer]) -> None:
        self.written += b"".join(buffers)

    async def drained(self) -> None:
        pass

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def expect_more(self) -> None:
        self.more_expected += 1

    def close(self) -> None:
        self.closed = True

    abort = close


class Peer:
    """A connection that is being served, from its peer's side."""

    def __init__(self, broker: Broker) -> None:
        self.session = broker.connect("iggy")
        self.channel = FakeChannel()
        self.wire = ClassicWire(Inbox(Pool()), frame_size_max=1 << 20, random_bytes=os.urandom)
        self.connection = Connection(
            wire=self.wire, session=self.session, channel=self.channel, dispatch=broker.dispatch, limits=LIMITS
        )
        self.task = asyncio.get_running_loop().create_task(self.connection.run())

    async def ask(self, *commands: Struct) -> list[int]:
        """Let requests arrive at once; return the statuses of the answers that are written then."""
        return await self.send(b"".join(map(frame_of, commands)))

    async def send(self, data: bytes) -> list[int]:
        feed(self.wire, data)
        self.connection.received(0)
        await self.settle()
        return self.statuses()

    async def settle(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    def statuses(self) -> list[int]:
        """Return the statuses of what was written since the last time."""
        data, self.channel.written = bytes(self.channel.written), bytearray()
        found: list[int] = []
        position = 0
        while position < len(data):
            status, size = struct.unpack_from("<II", data, position)
            position += 8 + size
            found.append(status)
        assert position == len(data)
        return found


@pytest.fixture
async def peer(monkeypatch: pytest.MonkeyPatch) -> Peer:
    """Return a peer whose topic is empty, and that would wait for hours."""
    monkeypatch.setattr(classic, "IDLE_PAUSE_S", HOURS)
    broker = Broker()
    await broker.create_topic()
    peer = Peer(broker)
    for _ in range(IDLE_POLLS_MAX):
        assert await peer.ask(POLL) == [0]
    return peer


async def test_poll_that_finds_nothing_again_waits_until_something_else_is_asked(peer: Peer) -> None:
    assert await peer.ask(POLL) == []
    assert await peer.ask(Ping()) == [0, 0]
    assert await peer.ask(POLL) == [0]


async def test_poll_does_not_wait_while_another_request_does(peer: Peer) -> None:
    assert await peer.ask(POLL, Ping()) == [0, 0]


async def test_poll_that_waits_is_answered_when_the_connection_ends(peer: Peer) -> None:
    assert await peer.ask(POLL) == []
    peer.connection.stop()
    await peer.task
    assert peer.statuses() == [0]
    assert peer.channel.closed


async def test_poll_that_waits_is_answered_in_time(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classic, "IDLE_PAUSE_S", 1e-6)
    assert await peer.ask(POLL, POLL) == [0, 0]
    feed(peer.wire, frame_of(POLL))
    peer.connection.received(0)
    async with asyncio.timeout(10):
        while not (found := peer.statuses()):
            await asyncio.sleep(0)
    assert found == [0]


async def test_stale_client_is_told_so_and_dropped() -> None:
    broker = Broker()
    peer = Peer(broker)
    peer.session.is_stale = True
    assert await peer.ask(GetMe()) == [Status.STALE_CLIENT]
    await peer.task
    assert peer.channel.closed
    assert broker.state.clients.find(peer.session.client_id) is None


async def test_half_a_request_is_acknowledged_at_once_and_a_whole_one_is_answered(peer: Peer) -> None:
    ping = frame_of(Ping())
    assert await peer.send(ping[:5]) == []
    assert peer.channel.more_expected == 1
    assert await peer.send(ping[5:] + ping) == [0, 0]
    assert peer.channel.more_expected == 1
