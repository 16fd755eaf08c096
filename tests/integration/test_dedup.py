"""Deduplication as clients see it: what is sent again is acknowledged, stored once, and leaves no gap."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from apache_iggy import IggyClient, Partitioning, SendMessage
from support.raw import RawClient, read_log
from support.server import Server, free_port
from support.wheel import bounded, connect, send, topic_of, until

DEDUPLICATED = {"message_deduplication": "true"}
PARTITIONS_COUNT = 3
BATCHES_COUNT = 400
CRASHES_COUNT = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, on the same port after a restart."""
    with Server(tmp_path / "data", port=free_port()) as running:
        yield running


def batch_of(*ids: int) -> list[SendMessage]:
    return [SendMessage(f"message {ident}", id=ident) for ident in ids]


def stored(server: Server, partition_id: int = 0) -> list[int]:
    """Return the ids in a partition of stream "s", topic "t", in order; their offsets have no gaps."""
    with RawClient(server.port) as raw:
        raw.login()
        found = read_log(raw, "s", "t", partition_id)
    assert [message.offset for message in found] == list(range(len(found)))
    return [message.id for message in found]


async def make_topic(client: IggyClient, partitions_count: int = 1, **options: str) -> None:
    await bounded(client.create_stream("s"))
    await bounded(client.create_topic("s", "t", partitions_count, options=DEDUPLICATED | options))


@pytest.mark.parametrize("durability", ["replicated", "persisted"])
async def test_what_is_sent_again_is_stored_once_also_after_a_crash(server: Server, durability: str) -> None:
    client = await connect(server.address)
    await make_topic(client, durability=durability)
    assert await send(client, "s", "t", batch_of(1, 2, 3)) == 0
    assert await send(client, "s", "t", batch_of(1, 2, 3)) == 0
    assert await send(client, "s", "t", batch_of(3, 4)) == 3
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    client = await connect(server.address)
    assert await send(client, "s", "t", batch_of(2)) == 1
    assert await send(client, "s", "t", batch_of(4, 5)) == 4
    assert await send(client, "s", "t", batch_of(5, 4)) == 4
    assert await send(client, "s", "t", batch_of(6)) == 5
    assert stored(server) == [1, 2, 3, 4, 5, 6]


async def test_topic_shows_the_option_and_takes_another(server: Server) -> None:
    client = await connect(server.address)
    await make_topic(client)
    assert (await topic_of(client, "s", "t")).options.to_scalar_dict()["message_deduplication"] == "true"
    await bounded(client.update_topic("s", "t", "t", options={"message_deduplication": "false"}))
    assert [await send(client, "s", "t", batch_of(1)) for _ in range(2)] == [0, 1]
    assert stored(server) == [1, 1]


async def test_messages_that_the_client_gives_ids_are_all_stored(server: Server) -> None:
    client = await connect(server.address)
    await make_topic(client)
    assert [await send(client, "s", "t", ["same", "same"]) for _ in range(3)] == [0, 2, 4]
    assert len(set(stored(server))) == 6


async def test_server_setting_holds_for_new_topics_and_bounds_their_windows(tmp_path: Path) -> None:
    settings = {
        "IGGY_SYSTEM_MESSAGE_DEDUPLICATION_ENABLED": "true",
        "IGGY_SYSTEM_MESSAGE_DEDUPLICATION_MAX_ENTRIES": "2",
        "IGGY_SYSTEM_MESSAGE_DEDUPLICATION_EXPIRY": "1 h",
    }
    with Server(tmp_path / "data", settings=settings) as server:
        client = await connect(server.address)
        await bounded(client.create_stream("s"))
        await bounded(client.create_topic("s", "t", 1))
        assert [await send(client, "s", "t", batch_of(ident)) for ident in (1, 2, 3, 2, 1)] == [0, 1, 2, 1, 3]


async def test_producer_that_repeats_itself_through_crashes_stores_each_message_once(server: Server) -> None:
    """It sends a batch until it is acknowledged, and then once more; balanced, so to another partition each time."""
    client = await connect(server.address)
    await make_topic(client, PARTITIONS_COUNT)
    acknowledged: list[int] = []

    async def produce() -> None:
        while len(acknowledged) < 2 * BATCHES_COUNT:
            number = len(acknowledged) // 2
            with suppress(RuntimeError):  # the connection went with the server
                await send(client, "s", "t", batch_of(*range(number * 5 + 1, number * 5 + 6)), Partitioning.balanced())
                acknowledged.append(number)

    async def has_sent(count: int) -> bool:
        return len(acknowledged) >= count

    producing = asyncio.create_task(produce())
    for crash in range(1, CRASHES_COUNT + 1):
        await until(lambda crash=crash: has_sent(crash * BATCHES_COUNT // 2))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    await bounded(producing)
    kept = [stored(server, number) for number in range(PARTITIONS_COUNT)]
    assert sorted(ident for ids in kept for ident in ids) == list(range(1, BATCHES_COUNT * 5 + 1))
