"""Old messages go by themselves, and clients that poll, send and delete meanwhile don't notice more than they must."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from apache_iggy import Consumer, Durability, IggyClient, IggyExpiry, MaxTopicSize, PollingStrategy
from pybroker.protocol.errors import Status
from pybroker.protocol.model.partitions import DeleteSegments
from support.raw import RawClient
from support.server import Server, free_port
from support.wheel import ERROR_TEXTS, bounded, connect, offsets_of, poll, send, texts_of, topic_of, until

MIB = 1 << 20
# Two of them fill a segment of a mebibyte, so six messages make three segments.
LARGE = b"x" * (MIB // 2)
SETTINGS = {"IGGY_DATA_MAINTENANCE_MESSAGES_INTERVAL": "50 ms"}
SOON = IggyExpiry.ExpireDuration(timedelta(milliseconds=200))
ROUNDS = 8
# What a client may be told while its stream or topic comes and goes.
GONE = re.compile("|".join(ERROR_TEXTS[status] for status in (Status.STREAM_ID_NOT_FOUND, Status.TOPIC_ID_NOT_FOUND)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own that cleans often, on the same port after a restart."""
    with Server(tmp_path / "data", port=free_port(), settings=SETTINGS) as running:
        yield running


async def make_small(client: IggyClient, partitions_count: int = 1, topic: str = "topic", **limits: Any) -> None:
    """Create a topic of stream "stream" with the smallest segments."""
    if await bounded(client.get_stream("stream")) is None:
        await bounded(client.create_stream("stream"))
    await bounded(client.create_topic("stream", topic, partitions_count, segment_size=MIB, **limits))


async def fill(client: IggyClient, count: int = 6, partition_id: int = 0) -> None:
    for _ in range(count):
        await send(client, "stream", "topic", [LARGE], partition_id)


async def only_active_left(client: IggyClient) -> bool:
    return all(partition.segments_count == 1 for partition in (await topic_of(client, "stream")).partitions)


async def test_a_topic_shrinks_to_its_size_oldest_first(server: Server, client: IggyClient) -> None:
    await make_small(client, 2, max_topic_size=MaxTopicSize.Custom(5 * MIB))
    await fill(client, 6, 0)
    await fill(client, 8, 1)

    async def shrunk() -> bool:
        return (await topic_of(client, "stream")).size <= 5 * MIB

    await until(shrunk)
    first = [offsets_of(await poll(client, "stream", "topic", partition_id=number))[0] for number in (0, 1)]
    assert first == [4, 2]  # the older partition is down to its active segment
    assert await send(client, "stream", "topic", ["on"], 1) == 8
    server.wait_log(lambda lines: any("retention deleted" in line and "topic stream/topic" in line for line in lines))


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
async def test_offsets_go_on_after_everything_expired_and_a_restart(
    server: Server, client: IggyClient, end: str
) -> None:
    await make_small(client, 2, message_expiry=SOON)
    for partition_id in (0, 1):
        await fill(client, 5, partition_id)
    await until(lambda: only_active_left(client))
    assert offsets_of(await poll(client, "stream", "topic")) == [4]
    assert await send(client, "stream", "topic", ["before"]) == 5
    if end == "SIGTERM":
        assert server.stop() == 0
    else:
        server.kill()
    server.start()
    client = await connect(server.address)
    assert offsets_of(await poll(client, "stream", "topic")) == [4, 5]
    assert await send(client, "stream", "topic", ["after"]) == 6
    assert await send(client, "stream", "topic", ["after"], 1) == 5
    assert sorted(int(path.stem) for path in (server.path / "logs").rglob("*.log")) == [4, 4]


async def test_a_consumer_goes_on_at_the_first_message_left(client: IggyClient) -> None:
    await make_small(client)
    await fill(client)
    reader = Consumer.Single("reader")
    read = await poll(client, "stream", "topic", PollingStrategy.Next(), count=1, consumer=reader, auto_commit=True)
    assert offsets_of(read) == [0]
    await bounded(client.update_topic("stream", "topic", "topic", message_expiry=SOON))
    await until(lambda: only_active_left(client))
    after = await poll(client, "stream", "topic", PollingStrategy.Next(), consumer=reader, auto_commit=True)
    assert offsets_of(after) == [4, 5]
    await send(client, "stream", "topic", ["next"])
    again = await poll(client, "stream", "topic", PollingStrategy.Next(), consumer=reader)
    assert texts_of(again) == ["next"]


async def test_age_counts_from_the_record_not_from_the_file(server: Server, client: IggyClient) -> None:
    """Half of the files say they are ancient, and stay; the others say they are new, and go."""
    await make_small(client, 2, message_expiry=IggyExpiry.ExpireDuration(timedelta(hours=1)))
    await make_small(client, topic="passes", message_expiry=SOON)
    await fill(client)
    for path in (server.path / "logs").rglob("*.log"):
        os.utime(path, (0, 0))
    for _ in range(4):
        await send(client, "stream", "passes", [LARGE])

    async def passed() -> bool:
        return (await topic_of(client, "stream", "passes")).partitions[0].segments_count == 1

    await until(passed)
    assert offsets_of(await poll(client, "stream", "topic")) == list(range(6))
    for path in (server.path / "logs").rglob("*.log"):
        os.utime(path, (2**33, 2**33))
    await bounded(client.update_topic("stream", "topic", "topic", message_expiry=SOON))
    await until(lambda: only_active_left(client))


async def test_segments_are_deleted_by_count_but_never_the_active_one(client: IggyClient, server: Server) -> None:
    await make_small(client)
    await fill(client)
    with RawClient(server.port) as raw:
        raw.login()
        for count, left in ((0, 3), (1, 2), (2**32 - 1, 1), (1, 1)):
            assert raw.ask(DeleteSegments("stream", "topic", 0, count)) is None
            assert (await topic_of(client, "stream")).partitions[0].segments_count == left
    assert offsets_of(await poll(client, "stream", "topic")) == [4, 5]
    assert await send(client, "stream", "topic", ["on"]) == 6


class Crowd:
    """Clients that send to and poll topics in a loop, until told to stop."""

    def __init__(self, address: str) -> None:
        self.done: dict[str, int] = {}
        self.errors: set[str] = set()
        self._address = address
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, name: str, call: Callable[[IggyClient], Awaitable[object]]) -> None:
        self.done[name] = 0
        self._tasks.append(asyncio.create_task(self._loop(name, call)))

    async def progress(self) -> None:
        """Return when every loop has begun anew and come round."""
        before = dict(self.done)

        async def moved() -> bool:
            failed = [task for task in self._tasks if task.done()]
            assert not failed, failed
            return all(self.done[name] > count + 1 for name, count in before.items())

        await until(moved)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _loop(self, name: str, call: Callable[[IggyClient], Awaitable[object]]) -> None:
        client = await connect(self._address, redial=False)
        while not self._stop.is_set():
            try:
                await call(client)
            except RuntimeError as error:
                self.errors.add(str(error))
            self.done[name] += 1


def add_users(crowd: Crowd, stream: str, topic: str) -> None:
    """Let two clients send, and one each poll from the first, by time and as a consumer."""
    for number in range(2):
        crowd.add(f"{stream}/{topic} send {number}", lambda client: send(client, stream, topic, [LARGE]))
    for name, strategy in {
        "first": PollingStrategy.First(),
        "time": PollingStrategy.Timestamp(1),
        "next": PollingStrategy.Next(),
    }.items():
        crowd.add(
            f"{stream}/{topic} {name}",
            lambda client, name=name, strategy=strategy: poll(
                client, stream, topic, strategy, count=3, consumer=Consumer.Single(name), auto_commit=True
            ),
        )


async def churn(client: IggyClient, raw: RawClient, crowd: Crowd, limits: dict[str, Any]) -> None:
    """Empty and delete the stream "stream" in every way there is, and make it anew."""
    raw.ask(DeleteSegments("stream", "topic", 0, 1))
    await bounded(client.purge_topic("stream", "topic"))
    await crowd.progress()
    await bounded(client.purge_stream("stream"))
    await crowd.progress()
    await bounded(client.delete_topic("stream", "topic"))
    await crowd.progress()
    await make_small(client, **limits)
    await crowd.progress()
    await bounded(client.delete_stream("stream"))
    await crowd.progress()
    await make_small(client, **limits)
    await crowd.progress()


async def test_clients_go_on_while_what_they_use_is_emptied_and_deleted(server: Server, client: IggyClient) -> None:
    limits: dict[str, Any] = {"message_expiry": SOON, "max_topic_size": MaxTopicSize.Custom(8 * MIB)}
    await make_small(client, **limits)
    await bounded(client.create_stream("calm"))
    await bounded(client.create_topic("calm", "topic", 1, durability=Durability.PERSISTED))
    calm: list[int] = []
    crowd, undisturbed = Crowd(server.address), Crowd(server.address)
    add_users(crowd, "stream", "topic")

    async def send_calmly(other: IggyClient) -> None:
        calm.append(await send(other, "calm", "topic", ["calm"]))

    undisturbed.add("calm", send_calmly)
    with RawClient(server.port) as raw:
        raw.login()
        for _ in range(ROUNDS):
            await churn(client, raw, crowd, limits)
    await crowd.stop()
    await undisturbed.stop()
    assert undisturbed.errors == set()
    assert calm == list(range(len(calm)))
    assert len(offsets_of(await poll(client, "calm", "topic", count=len(calm)))) == len(calm)
    assert crowd.errors
    assert [error for error in crowd.errors if not GONE.search(error)] == []
    assert [line for line in server.log().splitlines() if "Traceback" in line or " ERROR " in line] == []
