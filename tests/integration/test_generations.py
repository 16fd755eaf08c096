"""A client of each generation alone: what it sends, polls, consumes and stores comes back as it should."""

from typing import Any

import pytest
from pybroker.protocol.model.offsets import GetConsumerOffset
from pybroker.protocol.model.tokens import CreateToken
from pybroker.protocol.primitives import Consumer, ConsumerKind
from support.peers import GENERATIONS, Peer, PeerError, Seen, connected, gather_until, started
from support.raw import RawClient
from support.server import Server
from support.wheel import until

every_generation = pytest.mark.parametrize("generation", GENERATIONS)
# From here on a client sends bytes that are no text, and shows the partition of a message.
BYTES_SINCE = "0.7.0"
LARGE_SIZE = 20 << 20
# Some generations give the name of the error, some its text.
ALREADY_EXISTS = r"(?i)already ?exists"
NOT_FOUND = r"(?i)not ?found"
WRONG_TOKEN = r"(?i)resource ?not ?found|invalid ?personal ?access ?token"
INVALID_CREDENTIALS = r"(?i)invalid ?credentials"


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"message {number}" for number in range(start, start + count)]


def texts(messages: list[Seen]) -> list[str]:
    return [message.payload.decode() for message in messages]


def offsets(messages: list[Seen]) -> list[int]:
    return [message.offset for message in messages]


async def consumed(member: Peer, count: int) -> list[Seen]:
    (messages,) = await gather_until([member], count)
    return messages


def stored_offset(server: Server, stream: str) -> int | None:
    """Return what the group has stored for partition 0."""
    with RawClient(server.port) as raw:
        raw.login()
        stored = raw.ask(GetConsumerOffset(Consumer(ConsumerKind.GROUP, "group"), stream, "topic", 0))
        return stored and stored.stored_offset


def new_token(server: Server, name: str) -> str:
    """Return a new token of the root user's."""
    with RawClient(server.port) as raw:
        raw.login()
        return str(raw.ask(CreateToken(name, 0)).token)


@every_generation
async def test_messages_come_back_as_they_were_sent(server: Server, stream: str, generation: str) -> None:
    payloads = [b"a", "żółw €".encode(), b"x" * 100_000, b" "]
    if generation >= BYTES_SINCE:
        payloads += [bytes(range(256)), b"\x00"]
    async with connected(server, generation) as (peer,):
        await peer.make_topic(stream)
        await peer.send(stream, payloads)
        await peer.send(stream, payloads[::-1])
        messages = await peer.poll(stream)
    assert [message.payload for message in messages] == payloads + payloads[::-1]
    assert [message.length for message in messages] == [len(message.payload) for message in messages]
    assert offsets(messages) == [*range(len(messages))]
    assert len({message.id for message in messages} - {0}) == len(messages)
    assert {message.partition_id for message in messages} == {0 if generation >= BYTES_SINCE else None}
    first, second = messages[: len(payloads)], messages[len(payloads) :]
    assert len({message.timestamp for message in first}) == len({message.timestamp for message in second}) == 1
    assert first[0].timestamp <= second[0].timestamp


@every_generation
async def test_large_message_comes_back(server: Server, stream: str, generation: str) -> None:
    payload = b"x" * LARGE_SIZE
    async with connected(server, generation) as (peer,):
        await peer.make_topic(stream)
        await peer.send(stream, [payload, "after it"])
        large, small = await peer.poll(stream)
    assert large.payload == payload
    assert small.payload == b"after it"


@every_generation
async def test_each_strategy_starts_where_it_says(server: Server, stream: str, generation: str) -> None:
    async with connected(server, generation) as (peer,):
        await peer.make_topic(stream)
        for start in (0, 4, 8):
            await peer.send(stream, numbered(4, start))
        everything = await peer.poll(stream)
        assert texts(everything) == numbered(12)
        assert await peer.poll(stream, "First", count=2) == everything[:2]
        assert await peer.poll(stream, "Offset", 5, count=3) == everything[5:8]
        assert await peer.poll(stream, "Offset", 12) == []
        assert await peer.poll(stream, "Last", count=3) == everything[9:]
        third = everything[8].timestamp
        assert await peer.poll(stream, "Timestamp", third) == [m for m in everything if m.timestamp >= third]
        assert await peer.poll(stream, "Timestamp", everything[-1].timestamp + 1) == []
        assert await peer.poll(stream, "Next", count=7, auto_commit=True) == everything[:7]
        assert await peer.poll(stream, "Next", count=7, auto_commit=True) == everything[7:]
        assert await peer.poll(stream, "Next", auto_commit=True) == []


@every_generation
async def test_consumer_goes_on_where_another_connection_of_it_stopped(
    server: Server, stream: str, generation: str
) -> None:
    async with connected(server, generation) as (peer,):
        await peer.make_topic(stream)
        await peer.send(stream, numbered(10))
        assert texts(await peer.poll(stream, "Next", count=6, auto_commit=True)) == numbered(6)
    async with connected(server, generation) as (peer,):
        assert texts(await peer.poll(stream, "Next")) == numbered(4, 6)


@every_generation
async def test_streams_and_topics_are_described(server: Server, stream: str, generation: str) -> None:
    async with connected(server, generation) as (peer,):
        await peer.make_topic(stream, "topic", 3)
        await peer.send(stream, numbered(5), partition_id=2)
        found = await peer.call("get_stream", stream=stream)
        topic = {"id": 0, "name": "topic", "messages_count": 5, "partitions_count": 3}
        assert found == {"id": found["id"], "name": stream, "messages_count": 5, "topics_count": 1}
        assert await peer.call("get_topic", stream=stream, topic="topic") == topic
        assert await peer.call("get_topic", stream=found["id"], topic=0) == topic
        assert await peer.call("get_stream", stream="none") is None
        assert await peer.call("get_topic", stream=stream, topic="none") is None


@every_generation
async def test_refused_requests_leave_the_connection_usable(server: Server, stream: str, generation: str) -> None:
    async with connected(server, generation) as (peer,):
        await peer.make_topic(stream)
        with pytest.raises(PeerError, match=ALREADY_EXISTS):
            await peer.call("create_stream", name=stream)
        with pytest.raises(PeerError, match=ALREADY_EXISTS):
            await peer.call("create_topic", stream=stream, name="topic", partitions_count=1)
        elsewhere: tuple[dict[str, Any], ...] = ({"stream": "none"}, {"topic": "none"}, {"partition_id": 9})
        for different in elsewhere:
            where: dict[str, Any] = {"stream": stream, **different}
            with pytest.raises(PeerError, match=NOT_FOUND):
                await peer.poll(**where)
            with pytest.raises(PeerError, match=NOT_FOUND):
                await peer.send(**where, payloads=["lost"])
        await peer.send(stream, ["kept"])
        assert texts(await peer.poll(stream)) == ["kept"]


@every_generation
async def test_client_signs_in_after_a_wrong_password(server: Server, stream: str, generation: str) -> None:
    async with started(generation) as peer:
        await peer.call("open", address=server.address)
        await peer.call("ping")
        with pytest.raises(PeerError, match=INVALID_CREDENTIALS):
            await peer.call("login", username="iggy", password="wrong")
        await peer.call("login", username="iggy", password="iggy")
        await peer.make_topic(stream)


@every_generation
async def test_client_signs_in_with_a_token(server: Server, stream: str, generation: str) -> None:
    async with started(generation) as peer:
        await peer.call("connect", url=f"iggy+tcp://{new_token(server, generation)}@{server.address}")
        await peer.make_topic(stream)
        assert (await peer.call("get_stream", stream=stream))["topics_count"] == 1
    async with started(generation) as peer:
        with pytest.raises(PeerError, match=WRONG_TOKEN):
            await peer.call("connect", url=f"iggy+tcp://{'x' * 60}@{server.address}")


@every_generation
async def test_group_member_handles_every_message_once(server: Server, stream: str, generation: str) -> None:
    async with connected(server, generation) as (peer,):
        await peer.make_topic(stream, "topic", 3)
        await peer.join(stream)
        await peer.consume()
        for partition_id in range(3):
            await peer.send(stream, numbered(30, 30 * partition_id), partition_id=partition_id)
        messages = await consumed(peer, 90)
        assert sorted(texts(messages)) == sorted(numbered(90))
        for partition_id in range(3):
            wanted = numbered(30, 30 * partition_id)
            assert [text for text in texts(messages) if text in wanted] == wanted


@every_generation
async def test_group_goes_on_where_a_dead_member_stopped(server: Server, stream: str, generation: str) -> None:
    async with connected(server, generation, generation) as (first, second):
        await first.make_topic(stream)
        await first.send(stream, numbered(20))
        await first.join(stream)
        await first.consume()
        assert texts(await consumed(first, 20)) == numbered(20)

        async def everything_stored() -> bool:
            return stored_offset(server, stream) == 19

        await until(everything_stored)
        await first.kill()
        await second.join(stream)
        await second.consume()
        await second.send(stream, numbered(5, 20))
        assert texts(await consumed(second, 5)) == numbered(5, 20)


@pytest.mark.parametrize("generation", GENERATIONS[1:])  # 0.6 joins when it begins to consume, not before
async def test_group_offset_is_stored_and_deleted_by_hand(server: Server, stream: str, generation: str) -> None:
    async with connected(server, generation) as (peer,):
        await peer.make_topic(stream)
        await peer.send(stream, numbered(10))
        await peer.join(stream, commit="never")
        await peer.call("store_offset", partition_id=0, offset=6)
        assert stored_offset(server, stream) == 6
        await peer.call("delete_offset", partition_id=0)
        assert stored_offset(server, stream) is None
        await peer.call("store_offset", partition_id=0, offset=7)
        await peer.consume()
        assert texts(await consumed(peer, 2)) == numbered(2, 8)
