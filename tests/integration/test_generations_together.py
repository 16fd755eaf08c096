"""Clients of all generations at once: one topic, one group, one set of offsets, and a server that starts again."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pybroker.protocol.model.groups import GetConsumerGroup
from support.peers import GENERATIONS, NEWEST, Peer, PeerError, Seen, connected, gather_until
from support.raw import RawClient
from support.server import Server, free_port
from support.wheel import until

# 0.6 has a message header of its own, so what it shows as checksum is another one; the newest shows that of its frame.
SAME_CHECKSUM = ("0.7.0", "0.8.0")
PARTITIONS_COUNT = 8
# A 0.6 client that connects again polls before it sends, and is not known yet.
REJOINING = ("0.7.0", "0.8.0", NEWEST, NEWEST)
HEADERS = {"text": "żółw", "number": 7, "negative": -1, "yes": True, "ratio": 1.5, "raw": "bytes"}


@pytest.fixture
def restartable(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, on the same port after a restart."""
    with Server(tmp_path / "data", port=free_port()) as running:
        yield running


def common(messages: Sequence[Seen]) -> list[tuple[int, int, bytes, int, int]]:
    """Return what every generation shows of a message."""
    return [(message.offset, message.id, message.payload, message.timestamp, message.length) for message in messages]


def texts(members: Sequence[Sequence[Seen]]) -> list[str]:
    """Return all that the members of a group were given, in the order of the text."""
    return sorted(message.payload.decode() for messages in members for message in messages)


@asynccontextmanager
async def members(server: Server, stream: str, generations: Sequence[str] = GENERATIONS) -> AsyncGenerator[list[Peer]]:
    """Run a client of each generation that consumes as a member of one group, and wait until each has its share."""
    async with connected(server, *generations) as peers:
        await peers[0].make_topic(stream, "topic", PARTITIONS_COUNT)
        for peer in peers:
            await peer.join(stream)
            await peer.consume()
        await shared(server, stream, len(peers))
        yield peers


async def shared(server: Server, stream: str, count: int) -> None:
    """Wait until the group has `count` members that share the partitions evenly."""

    async def is_shared() -> bool:
        return sorted(map(len, shares(server, stream))) == [PARTITIONS_COUNT // count] * count

    await until(is_shared)


def shares(server: Server, stream: str) -> list[tuple[int, ...]]:
    """Return the partitions of each member of the group."""
    with RawClient(server.port) as raw:
        raw.login()
        group = raw.ask(GetConsumerGroup(stream, "topic", "group"))
        return [member.partitions for member in group.members] if group else []


async def fill(sender: Peer, stream: str, label: str, count: int) -> list[str]:
    """Send `count` messages to every partition; return their texts, sorted."""
    sent: list[str] = []
    for partition_id in range(PARTITIONS_COUNT):
        part = [f"{label} {partition_id} {number:03}" for number in range(count)]
        await sender.send(stream, part, partition_id=partition_id)
        sent += part
    return sorted(sent)


async def test_what_any_generation_sends_every_generation_sees_alike(server: Server, stream: str) -> None:
    async with connected(server, *GENERATIONS) as peers:
        await peers[0].make_topic(stream)
        for number in range(3):
            for peer in peers:
                await peer.send(stream, [f"{peer.generation} {number} {part}" for part in range(5)])
        views = {peer.generation: await peer.poll(stream) for peer in peers}
    newest = common(views[NEWEST])
    assert [message[2].decode() for message in newest] == [
        f"{generation} {number} {part}" for number in range(3) for generation in GENERATIONS for part in range(5)
    ]
    assert len({message[1] for message in newest} - {0}) == len(newest)
    assert all(common(view) == newest for view in views.values())
    first, second = (views[generation] for generation in SAME_CHECKSUM)
    assert [message.checksum for message in first] == [message.checksum for message in second]


async def test_polls_that_cut_a_batch_are_alike(server: Server, stream: str) -> None:
    async with connected(server, *GENERATIONS) as peers:
        await peers[0].make_topic(stream)
        for peer in peers:
            await peer.send(stream, [f"{peer.generation} {number}" for number in range(10)])
        newest = peers[-1]
        for offset, count in ((3, 4), (0, 1), (9, 2), (15, 24), (39, 5)):
            wanted = common(await newest.poll(stream, "Offset", offset, count=count))
            assert [message[0] for message in wanted] == [*range(offset, min(offset + count, 40))]
            for peer in peers:
                assert common(await peer.poll(stream, "Offset", offset, count=count)) == wanted, peer.generation


async def test_chosen_id_and_headers_travel_past_clients_that_know_neither(server: Server, stream: str) -> None:
    async with connected(server, *GENERATIONS) as peers:
        newest = peers[-1]
        await newest.make_topic(stream)
        await newest.send(stream, ["with both"], headers=HEADERS, id=(1 << 127) + 5)
        await newest.send(stream, ["plain"])
        for peer in peers:
            both, plain = await peer.poll(stream)
            assert (both.id, both.payload, both.length) == ((1 << 127) + 5, b"with both", 9), peer.generation
            assert plain.payload == b"plain"
        assert [message.headers for message in await newest.poll(stream)] == [HEADERS, None]


async def test_consumer_goes_on_where_it_stopped_in_another_generation(server: Server, stream: str) -> None:
    async with connected(server, *GENERATIONS) as peers:
        await peers[0].make_topic(stream)
        await peers[0].send(stream, [str(number) for number in range(3 * 2 * len(peers))])
        read: list[int] = []
        for peer in peers * 2:
            read += [message.offset for message in await peer.poll(stream, "Next", count=3, auto_commit=True)]
        assert read == [*range(3 * 2 * len(peers))]


async def test_members_of_every_generation_share_a_group_without_loss_or_doubles(server: Server, stream: str) -> None:
    async with members(server, stream) as peers:
        sent: list[str] = []
        for peer in peers:
            sent += await fill(peer, stream, peer.generation, 20)
        taken = await gather_until(peers, len(sent))
        assert texts(taken) == sorted(sent)
        # Each had two partitions of its own.
        assert [len({message.payload.split()[1] for message in messages}) for messages in taken] == [2] * len(peers)


async def test_members_that_join_a_group_at_work_take_over_without_loss_or_doubles(server: Server, stream: str) -> None:
    async with connected(server, *GENERATIONS) as peers:
        await peers[0].make_topic(stream, "topic", PARTITIONS_COUNT)
        sent: list[str] = []
        for number, peer in enumerate(peers):
            await peer.join(stream)
            await peer.consume()
            sent += await fill(peers[0], stream, str(number), 25)
        taken = await gather_until(peers, len(sent))
        assert texts(taken) == sorted(sent)


async def test_group_survives_the_death_of_members_of_any_generation(server: Server, stream: str) -> None:
    async with members(server, stream) as peers:
        living = list(peers)
        while living:
            sent = await fill(living[-1], stream, f"for {len(living)}", 10)
            taken = await gather_until(living, len(sent))
            assert set(sent) <= set(texts(taken))
            await living.pop(0).kill()


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
async def test_clients_of_every_generation_go_on_after_a_restart(restartable: Server, stream: str, end: str) -> None:
    async with connected(restartable, *GENERATIONS) as peers:
        await peers[0].make_topic(stream)
        for peer in peers:
            await peer.send(stream, [f"before {peer.generation}"])
        before = common(await peers[0].poll(stream))
        await asyncio.to_thread(restart, restartable, end)
        for peer in peers:
            await back(peer, stream)
            await peer.send(stream, [f"after {peer.generation}"])
        after = [common(await peer.poll(stream)) for peer in peers]
        assert all(view == after[0] for view in after)
        assert after[0][: len(peers)] == before
        assert [message[2].decode() for message in after[0][len(peers) :]] == [f"after {name}" for name in GENERATIONS]


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
async def test_members_of_a_group_go_on_after_a_restart(restartable: Server, stream: str, end: str) -> None:
    async with members(restartable, stream, REJOINING) as peers:
        before = await fill(peers[0], stream, "before", 5)
        assert texts(await gather_until(peers, len(before))) == before
        await asyncio.to_thread(restart, restartable, end)
        await shared(restartable, stream, len(peers))
        await back(peers[0], stream)
        after = await fill(peers[0], stream, "after", 5)
        taken: list[str] = []

        async def all_taken() -> bool:
            taken.extend([message.payload.decode() for peer in peers for message in await peer.take()])
            return set(after) <= set(taken)

        await until(all_taken)
        assert sorted(text for text in taken if text in after) == after


async def back(peer: Peer, stream: str) -> None:
    """Wait until a client is connected again. What it asks meanwhile may fail, in some generations."""

    async def answers() -> bool:
        try:
            await peer.poll(stream)
        except PeerError as error:
            assert "Disconnected" in str(error)
            return False
        return True

    await until(answers)


def restart(server: Server, end: str) -> None:
    if end == "SIGTERM":
        assert server.stop() == 0
    else:
        server.kill()
    server.start()
