"""A connection over a channel that is a list: what is answered, in which order and writes, and when it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from struct import unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from pybroker.broker.connection import JOINED_SIZE_MAX, WRITE_SIZE
from pybroker.broker.passwords import Passwords
from pybroker.protocol.model.messages import PollMessages, SendMessages
from pybroker.protocol.model.streams import CreateStream, GetStreams
from pybroker.protocol.model.system import GetClient, Ping
from support.batches import make_sized_batch
from support.broker import BALANCED, FIRST, READER, Broker
from support.channel import LIMITS, PING, Peer
from support.raw import login_body, request_frame


@pytest.fixture
async def peer(broker: Broker) -> AsyncIterator[Peer]:
    await broker.create_topic()
    peer = await Peer(broker).settle()
    yield peer
    peer.task.cancel()
    await asyncio.wait([peer.task])


async def large_answers(broker: Broker) -> None:
    """Make every poll of one message an answer that is written at once."""
    await broker.create_topic()
    await broker.ask(SendMessages("s", "t", BALANCED, make_sized_batch(WRITE_SIZE + 1000)))


POLL = PollMessages(READER, "s", "t", 0, FIRST, 1, False)


async def test_pipelined_requests_are_answered_in_order_in_one_write(peer: Peer) -> None:
    peer.feed(*(peer.frame(command) for command in (Ping(), GetStreams(), CreateStream("a"), GetClient(1))))
    await peer.settle()
    assert peer.numbers == [1, 2, 3, 4]
    assert len(peer.channel.writes) == 1


async def test_more_requests_than_a_turn_takes_are_all_answered(peer: Peer) -> None:
    peer.feed(*(peer.frame(GetClient(number)) for number in range(19)))
    await peer.settle()
    assert peer.numbers == list(range(1, 20))
    assert len(peer.channel.writes) == 5


@given(commands=st.lists(st.sampled_from([Ping(), GetStreams(), CreateStream("x")]), max_size=9), data=st.data())
async def test_every_request_has_one_answer_whatever_the_pieces(commands: list[Struct], data: st.DataObject) -> None:
    peer = Peer(Broker())
    stream = b"".join(peer.frame(command) for command in commands)
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        peer.feed(stream[:size])
        stream = stream[size:]
        if data.draw(st.booleans()):
            await peer.settle()
    peer.connection.ended()
    await peer.task
    assert peer.numbers == list(range(1, len(commands) + 1))


async def test_large_answers_are_written_as_they_come(broker: Broker) -> None:
    await large_answers(broker)
    peer = Peer(broker, limits=replace(LIMITS, requests_per_turn_max=100))
    peer.feed(*(peer.frame(POLL) for _ in range(3)))
    await peer.settle()
    assert [len(write) > WRITE_SIZE for write in peer.channel.writes] == [True] * 3


async def test_small_answers_are_joined_and_large_ones_never_copied(broker: Broker) -> None:
    await broker.create_topic()
    await broker.send(b"x")
    peer = Peer(broker)
    await peer.settle()
    peer.feed(*(peer.frame(POLL) for _ in range(3)))
    await broker.send(bytes(JOINED_SIZE_MAX))
    peer.feed(peer.frame(PollMessages(READER, "s", "t", 0, FIRST, 2, False)))
    assert peer.numbers == [1, 2, 3, 4]
    assert peer.channel.buffers == [1, 3], "a head and two records"


@pytest.mark.parametrize("count", [4, 5, 8, 9])
async def test_large_answers_leave_no_request_waiting_for_more_bytes(broker: Broker, count: int) -> None:
    """Also when the last answer of a turn was written at once and more requests are there already."""
    await large_answers(broker)
    peer = Peer(broker, limits=replace(LIMITS, unread_size_max=1 << 20))
    await peer.settle()
    peer.feed(*(peer.frame(POLL) for _ in range(count)))
    await peer.settle()
    assert peer.numbers == list(range(1, count + 1))


async def test_stop_answers_what_arrived_also_after_large_answers(broker: Broker) -> None:
    await large_answers(broker)
    peer = Peer(broker, limits=replace(LIMITS, unread_size_max=1 << 20))
    peer.feed(*(peer.frame(POLL) for _ in range(6)))
    peer.connection.stop()
    await peer.task
    assert peer.numbers == list(range(1, 7))


async def test_slow_reader_is_answered_no_further_and_then_not_read_from(peer: Peer) -> None:
    peer.channel.slow = True
    peer.feed(peer.frame(Ping()))
    await peer.settle()
    for _ in range(9):
        peer.feed(peer.frame(Ping()))
        await peer.settle()
    assert (len(peer.answers), peer.channel.calls) == (1, ["pause"])
    assert peer.wire.unread > LIMITS.unread_size_max
    peer.channel.slow = False
    peer.channel.catch_up()
    await peer.settle()
    assert peer.numbers == list(range(1, 11))
    assert peer.channel.calls == ["pause", "resume"]


async def test_large_frame_of_a_peer_that_is_waited_for_does_not_pause_it(peer: Peer) -> None:
    frame = peer.frame(SendMessages("s", "t", BALANCED, make_sized_batch(100_000)))
    for position in range(0, len(frame), 5000):
        peer.feed(frame[position : position + 5000])
        await peer.settle()
    assert (len(peer.answers), peer.channel.calls) == (1, [])


@pytest.mark.parametrize("how", ["stop", "ended", "lost"])
async def test_end_answers_what_arrived_and_closes(peer: Peer, how: str) -> None:
    peer.feed(*(peer.frame(Ping()) for _ in range(10)), PING[:100])
    getattr(peer.connection, how)()
    await peer.task
    assert peer.numbers == list(range(1, 11))
    assert peer.channel.calls == ["close"]
    assert peer.broker.state.clients.find(peer.session.client_id) is None


async def test_idle_peer_that_is_stopped_just_closes(peer: Peer) -> None:
    peer.connection.stop()
    await peer.task
    assert (peer.channel.writes, peer.channel.calls) == ([], ["close"])


async def test_broken_frame_ends_the_connection_after_the_answers_before_it(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    peer.feed(peer.frame(Ping()), peer.frame(GetStreams()), request_frame(code=1, size=255), peer.frame(Ping()))
    await peer.task
    assert peer.numbers == [1, 2]
    assert peer.channel.calls == ["close"]
    (record,) = caplog.records
    assert (record.levelno, peer.session.address in record.getMessage()) == (logging.WARNING, True)


async def test_payload_that_does_not_decode_is_refused_and_the_connection_lives(peer: Peer) -> None:
    peer.feed(request_frame(b"\0", code=200), request_frame(code=999), peer.frame(Ping()))
    await peer.settle()
    assert [unpack_from("<I", answer, 216)[0] for answer in peer.answers] == [3, 3, 0]
    assert not peer.task.done()


async def test_repeated_command_is_answered_and_not_executed_again(peer: Peer) -> None:
    frame = peer.frame(CreateStream("once"))
    peer.feed(frame, frame)
    await peer.settle()
    first, second = peer.answers
    assert first == second
    assert len(peer.broker.state.catalog.streams) == 2


async def test_peer_that_is_lost_while_it_is_written_to_ends_quietly(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    peer.channel.gone = True
    peer.feed(peer.frame(Ping()))
    await peer.task
    assert peer.channel.calls == ["close"]
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_connection_that_ends_leaves_its_groups(peer: Peer) -> None:
    await peer.broker.create_group(peer.session)
    peer.connection.ended()
    await peer.task
    assert peer.broker.state.groups.joined(peer.session.client_id) == []


async def test_cancelled_connection_gives_up_what_it_holds(peer: Peer) -> None:
    peer.feed(PING[:100])
    peer.task.cancel()
    await asyncio.wait([peer.task])
    assert (peer.channel.calls, peer.wire.unread) == (["close"], 0)
    assert peer.broker.state.clients.find(peer.session.client_id) is None


@pytest.fixture
def quick_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check passwords without a thread."""

    async def matches(_passwords: Passwords, password_hash: str | None, password: str) -> bool:
        return password_hash is not None and password == "iggy"

    monkeypatch.setattr(Passwords, "matches", matches)


@pytest.mark.usefixtures("quick_login")
async def test_frames_may_be_large_only_after_login(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    login = request_frame(login_body(), operation=1, request=0)
    wrong = request_frame(login_body(password="wrong"), operation=1, request=0)
    large = request_frame(bytes(2000), code=1)
    for first, answers in ((login, 2), (wrong, 1), (PING, 1)):
        peer = Peer(broker, signed_in=False)
        peer.feed(first, large)
        await peer.settle()
        assert len(peer.answers) == answers
        peer.connection.ended()
        await peer.task
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("quick_login")
async def test_logout_makes_frames_small_again(peer: Peer) -> None:
    peer.feed(request_frame(operation=3), request_frame(bytes(2000), code=1))
    await peer.task
    assert len(peer.answers) == 1


# signed in, bytes that arrived, and whether a peer that sends no more is aborted after the time for a login
STALLS = [
    (False, b"", True),
    (False, PING, True),
    (False, PING[:100], True),
    (True, b"", False),
    (True, PING, False),
    (True, PING[:1], True),
    (True, PING + PING[:255], True),
]


@pytest.mark.parametrize(("signed_in", "arrived", "aborted"), STALLS)
async def test_peer_that_stalls_is_aborted_and_an_idle_one_is_not(
    broker: Broker, signed_in: bool, arrived: bytes, aborted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    peer = await Peer(broker, signed_in=signed_in).settle()
    peer.feed(arrived)
    await peer.settle()
    peer.connection.check(0)
    peer.connection.check(LIMITS.login_timeout_s)
    assert "abort" not in peer.channel.calls
    peer.connection.check(1)
    assert ("abort" in peer.channel.calls) == aborted
    assert len(caplog.records) == int(aborted)
    peer.connection.lost()
    await peer.task


async def test_peer_that_goes_on_sending_is_not_aborted(peer: Peer) -> None:
    for position in range(0, 250, 5):
        peer.feed(PING[position : position + 5])
        await peer.settle()
        peer.connection.check(LIMITS.login_timeout_s)
    assert "abort" not in peer.channel.calls


async def test_peer_that_reads_no_answers_is_aborted(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    peer.channel.slow = True
    peer.feed(peer.frame(Ping()))
    await peer.settle()
    peer.connection.check(LIMITS.write_timeout_s)
    assert "abort" not in peer.channel.calls
    peer.connection.check(1)
    assert peer.channel.calls == ["abort"]
    assert "reads no answers" in caplog.text
    peer.channel.gone = True
    peer.channel.catch_up()
    await peer.task


async def test_peer_that_reads_its_answers_slowly_is_not_aborted(peer: Peer) -> None:
    """Every check finds the connection waiting, but each time for another answer."""
    peer.channel.slow = True
    peer.feed(peer.frame(Ping()))
    await peer.settle()
    for _ in range(50):
        peer.connection.check(1)
        peer.feed(peer.frame(Ping()))
        peer.channel.catch_up()
        await peer.settle()
    assert "abort" not in peer.channel.calls


async def test_peer_that_takes_one_large_answer_slowly_is_not_aborted(peer: Peer) -> None:
    peer.channel.slow = True
    peer.feed(peer.frame(Ping()))
    await peer.settle()
    for unsent in range(100, 50, -1):
        peer.channel.unsent = unsent
        peer.connection.check(LIMITS.write_timeout_s / 2)
    assert "abort" not in peer.channel.calls
    for _ in range(3):
        peer.connection.check(LIMITS.write_timeout_s / 2)
    assert "abort" in peer.channel.calls
    peer.channel.gone = True
    peer.channel.catch_up()
    await peer.task


async def test_failed_login_is_an_eviction_and_the_connection_lives(broker: Broker) -> None:
    peer = Peer(broker, signed_in=False)
    peer.feed(request_frame(b"", operation=1, request=0), PING)
    await peer.settle()
    assert [answer[60] for answer in peer.answers] == [13, 8]
    peer.connection.ended()
    await peer.task
