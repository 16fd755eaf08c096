"""What a connection answers at once, where bytes arrive, and what it leaves to its task because it has to wait."""

import asyncio
import errno
import gc
from collections.abc import AsyncIterator
from struct import unpack_from
from threading import Event

import pytest
from msgspec import Struct
from pybroker.broker.connection import WRITE_SIZE
from pybroker.protocol.errors import Status
from pybroker.protocol.model.messages import PollMessages, SendMessages
from pybroker.protocol.model.streams import GetStreams
from pybroker.protocol.model.system import Ping
from pybroker.protocol.primitives import PollingKind, PollingStrategy
from support.batches import make_batch, make_sized_batch
from support.broker import BALANCED, FIRST, READER, Broker, text_option
from support.channel import Peer
from support.engines import Stage

POLL = PollMessages(READER, "s", "t", 0, FIRST, 1, False)
LAST = PollMessages(READER, "s", "t", 0, PollingStrategy(PollingKind.LAST), 1, False)


def send() -> Struct:
    return SendMessages("s", "t", BALANCED, make_batch((b"payload",)))


@pytest.fixture
async def peer(stage: Stage) -> AsyncIterator[Peer]:
    """A peer of a broker whose topic is persisted: a send waits until `stage.disk` lets it sync."""
    broker = Broker(stage=stage)
    await broker.create_topic(1, text_option("durability", "persisted"))
    await broker.send()
    peer = await Peer(broker).settle()
    stage.disk.sync_gate = Event()
    yield peer
    peer.task.cancel()
    await asyncio.wait([peer.task])


async def answered(peer: Peer, count: int) -> None:
    async with asyncio.timeout(10):
        while len(peer.answers) < count:
            await asyncio.sleep(0.001)


async def test_what_needs_no_wait_is_answered_before_anything_else_runs(peer: Peer) -> None:
    peer.feed(peer.frame(Ping()), peer.frame(POLL))
    assert peer.numbers == [1, 2]
    assert len(peer.channel.writes) == 1


async def test_other_commands_are_left_to_the_task_and_keep_their_place(peer: Peer) -> None:
    peer.feed(peer.frame(Ping()), peer.frame(GetStreams()), peer.frame(Ping()))
    assert not peer.answers
    await peer.settle()
    assert peer.numbers == [1, 2, 3]


async def test_command_that_waits_is_answered_before_those_behind_it(peer: Peer, stage: Stage) -> None:
    peer.feed(peer.frame(Ping()), peer.frame(send()), peer.frame(Ping()))
    peer.feed(peer.frame(POLL))
    await peer.settle()
    assert not peer.answers
    assert stage.disk.sync_gate is not None
    stage.disk.sync_gate.set()
    await answered(peer, 4)
    assert peer.numbers == [1, 2, 3, 4]
    peer.feed(peer.frame(Ping()))
    assert peer.numbers == [1, 2, 3, 4, 5], "the task rests again"


async def test_command_that_is_refused_after_a_wait_has_its_place_too(peer: Peer, stage: Stage) -> None:
    stage.disk.sync_fault = OSError(errno.EIO, "the disk is gone")
    assert stage.disk.sync_gate is not None
    stage.disk.sync_gate.set()
    peer.feed(peer.frame(send()), peer.frame(Ping()))
    await answered(peer, 2)
    assert peer.numbers == [1, 2]
    assert unpack_from("<I", peer.answers[0], 216) == (Status.CANNOT_SAVE_MESSAGES_TO_SEGMENT,)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("is_taken_over", [False, True])
async def test_connection_that_ends_while_a_command_waits_leaves_nothing(
    peer: Peer, stage: Stage, is_taken_over: bool
) -> None:
    timing = peer.broker.state.counters.requests[SendMessages][peer.session.transport]
    before = sum(timing.counts)
    peer.feed(peer.frame(send()))
    if is_taken_over:
        await peer.settle()
    peer.task.cancel()
    await asyncio.wait([peer.task])
    gc.collect()
    assert sum(timing.counts) == before + is_taken_over, "what was begun has ended"
    assert peer.broker.state.clients.find(peer.session.client_id) is None


async def test_bytes_that_arrive_while_answers_are_written_are_answered_in_order(peer: Peer) -> None:
    """A channel may hand over more from within a write, as QUIC's does."""
    later = [peer.frame(Ping()) for _ in range(3)]

    def more() -> None:
        if later:
            peer.feed(later.pop(0))

    peer.channel.written = more
    peer.feed(peer.frame(Ping()))
    await peer.settle()
    assert peer.numbers == [4, 1, 2, 3]


async def test_large_answer_is_written_before_the_next_request_is_taken(peer: Peer, stage: Stage) -> None:
    """Or a peer that reads nothing would have two of them held."""
    assert stage.disk.sync_gate is not None
    stage.disk.sync_gate.set()
    await peer.broker.ask(SendMessages("s", "t", BALANCED, make_sized_batch(WRITE_SIZE + 1000)))
    peer.channel.slow = True
    peer.feed(*(peer.frame(LAST) for _ in range(3)))
    await peer.settle()
    assert peer.numbers == [1]
    assert peer.broker.state.counters.unsent_bytes == len(peer.answers[0])
    peer.channel.slow = False
    peer.channel.catch_up()
    await peer.settle()
    assert peer.numbers == [1, 2, 3]


async def test_slow_peer_is_waited_for_also_when_it_was_answered_at_once(peer: Peer) -> None:
    peer.channel.slow = True
    peer.feed(peer.frame(Ping()))
    assert peer.numbers == [1]
    await peer.settle()
    unsent = peer.broker.state.counters.unsent_bytes
    assert unsent == len(peer.answers[0])
    peer.feed(peer.frame(Ping()))
    await peer.settle()
    assert peer.numbers == [1], "it reads no answers"
    peer.channel.slow = False
    peer.channel.catch_up()
    await peer.settle()
    assert (peer.numbers, peer.broker.state.counters.unsent_bytes) == ([1, 2], 0)
