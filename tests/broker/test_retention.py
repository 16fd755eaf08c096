"""What retention deletes, what it keeps, and what it does when that fails or somebody else was faster."""

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from pybroker.broker.app import App, Root
from pybroker.broker.config import Config
from pybroker.broker.retention import Archive, Retention, component
from pybroker.protocol.model.offsets import StoreConsumerOffset
from pybroker.protocol.model.partitions import DeletePartitions, DeleteSegments
from pybroker.protocol.model.streams import DeleteStream, PurgeStream
from pybroker.protocol.model.topics import DeleteTopic, PurgeTopic, UpdateTopic
from pybroker.protocol.primitives import U64_MAX, Option
from support.batches import payloads_of
from support.broker import NEXT, READER, TINY_SEGMENTS, Broker, number_option, polled_offsets

SECOND = 1_000_000
BODY = b"x" * 96
RECORD_SIZE = 400  # of one such message, and so of a segment


def expiry(seconds: int) -> Option:
    return number_option("message_expiry", seconds * SECOND)


def size_max(size: int) -> Option:
    return number_option("max_topic_size", size)


async def fill(broker: Broker, partitions: list[int], *, topic: str = "t") -> None:
    """Send a message a second to these partitions, in this order; each is a segment. The first comes at 1 s."""
    for second, partition_id in enumerate(partitions, 1):
        broker.clock.now_us = second * SECOND
        await broker.send(BODY, partition_id=partition_id, topic=topic)


def held(broker: Broker, topic: str = "t") -> list[list[int]]:
    """Return the offsets that each partition still has; every message has a segment of its own."""
    logs = [broker.state.logs.of(partition) for partition in broker.state.catalog.topic("s", topic)[1].partitions]
    return [log.cuts() if log.bounds.segments else [] for log in logs]


async def clean(broker: Broker, archive: Archive | None = None) -> None:
    await Retention(broker.state, archive).clean()


@pytest.fixture
def broker() -> Broker:
    return Broker(segment_size=TINY_SEGMENTS)


# expiry in seconds, the time, and what is left of six messages that came at seconds 1 to 6
EXPIRED: list[tuple[int, int, list[int]]] = [
    (1, 6, [4, 5]),  # a message that is exactly that old is not older
    (2, 6, [3, 4, 5]),
    (5, 6, [0, 1, 2, 3, 4, 5]),
    (7, 6, [0, 1, 2, 3, 4, 5]),  # longer than the clock has run
    (3, 7, [3, 4, 5]),
    (1, 100, [5]),
]


@pytest.mark.parametrize(("seconds", "now", "left"), EXPIRED)
async def test_expired_segments_go_but_never_the_active_one(
    broker: Broker, seconds: int, now: int, left: list[int]
) -> None:
    await broker.create_topic(1, expiry(seconds))
    await fill(broker, [0] * 6)
    broker.clock.now_us = now * SECOND
    await clean(broker)
    assert held(broker) == [left]
    assert polled_offsets(await broker.poll()) == left


async def test_a_segment_goes_when_its_last_message_is_expired() -> None:
    broker = Broker(segment_size=RECORD_SIZE + 1)  # two messages each
    await broker.create_topic(1, expiry(2))
    await fill(broker, [0] * 6)
    for now, left in ((4, [0, 1, 2, 3, 4, 5]), (5, [2, 3, 4, 5]), (6, [2, 3, 4, 5]), (7, [4, 5])):
        broker.clock.now_us = now * SECOND
        await clean(broker)
        assert polled_offsets(await broker.poll()) == left


async def test_nothing_goes_without_a_limit(broker: Broker) -> None:
    await broker.create_topic(1, expiry(U64_MAX), size_max(U64_MAX))
    await fill(broker, [0] * 3)
    broker.clock.now_us = U64_MAX
    await clean(broker)
    assert held(broker) == [[0, 1, 2]]


async def test_topics_without_limits_of_their_own_have_the_servers() -> None:
    broker = Broker(segment_size=TINY_SEGMENTS)
    system = replace(broker.config.system, topic=replace(broker.config.system.topic, message_expiry_us=SECOND))
    broker.config = broker.state.config = replace(broker.config, system=system)
    await broker.create_topic()
    await fill(broker, [0] * 3)
    await clean(broker)
    assert held(broker) == [[1, 2]]


# the partitions that took a message each second, the most bytes, and what is left in each partition
SHRUNK: list[tuple[list[int], int, list[list[int]]]] = [
    ([0, 0, 0], 3 * RECORD_SIZE, [[0, 1, 2], []]),
    ([0, 0, 0], 3 * RECORD_SIZE - 1, [[1, 2], []]),
    ([0, 0, 0], 1, [[2], []]),
    ([0, 1, 0, 1, 0, 1], 3 * RECORD_SIZE, [[2], [1, 2]]),  # the oldest of all first
    ([1, 1, 1, 0, 0, 0], 4 * RECORD_SIZE, [[0, 1, 2], [2]]),
    ([1, 1, 1, 0, 0, 0], 3 * RECORD_SIZE, [[1, 2], [2]]),  # the older one is down to its active segment
    ([0, 1, 1, 1], 2 * RECORD_SIZE, [[0], [2]]),  # the oldest message of all lies in an active segment
    ([0, 1], 1, [[0], [0]]),
]


@pytest.mark.parametrize(("partitions", "size", "left"), SHRUNK)
async def test_a_topic_that_is_too_large_loses_its_oldest_segments(
    broker: Broker, partitions: list[int], size: int, left: list[list[int]]
) -> None:
    await broker.create_topic(2, size_max(size))
    await fill(broker, partitions)
    await clean(broker)
    assert held(broker) == left


@pytest.mark.parametrize(("seconds", "messages", "left"), [(4, 2, [4, 5]), (1, 5, [4, 5]), (9, 9, [0, 1, 2, 3, 4, 5])])
async def test_both_limits_hold_together(broker: Broker, seconds: int, messages: int, left: list[int]) -> None:
    await broker.create_topic(1, expiry(seconds), size_max(messages * RECORD_SIZE))
    await fill(broker, [0] * 6)
    await clean(broker)
    assert held(broker) == [left]


async def test_changed_limits_hold_from_the_next_pass_on(broker: Broker) -> None:
    await broker.create_topic()
    await fill(broker, [0] * 6)
    for option, left in ((size_max(5 * RECORD_SIZE), [1, 2, 3, 4, 5]), (expiry(1), [4, 5])):
        await broker.ask(UpdateTopic("s", "t", "t", (option,)))
        await clean(broker)
        assert held(broker) == [left]


async def test_offsets_go_on_after_everything_expired_and_after_a_restart(broker: Broker) -> None:
    await broker.create_topic(1, expiry(1))
    await fill(broker, [0] * 6)
    broker.clock.now_us = 100 * SECOND
    await clean(broker)
    assert (await broker.send(BODY)).base_offset == 6
    await broker.restart()
    await clean(broker)
    assert (await broker.send(BODY)).base_offset == 7
    assert held(broker) == [[6, 7]]


async def test_a_consumer_holds_nothing_up_and_goes_on_at_the_first_message_left(broker: Broker) -> None:
    await broker.create_topic(1, expiry(2))
    await fill(broker, [0] * 6)
    await broker.ask(StoreConsumerOffset(READER, "s", "t", 0, 0))
    await clean(broker)
    assert polled_offsets(await broker.poll(NEXT, auto_commit=True)) == [3, 4, 5]
    await broker.send(BODY)
    assert polled_offsets(await broker.poll(NEXT)) == [6]


async def test_what_was_deleted_is_logged_once_for_a_topic(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await broker.create_topic(2, expiry(2), size_max(2 * RECORD_SIZE))
    await fill(broker, [0, 1] * 3)
    await broker.create_topic(1, name="other")
    await clean(broker)
    assert caplog.messages == [f"retention deleted 4 segments, {4 * RECORD_SIZE} bytes, of topic s/t"]
    await clean(broker)
    assert len(caplog.messages) == 1


class Shelf:
    """An archive in memory. refused: names that begin so can't be kept. meanwhile: done while a segment is kept."""

    def __init__(self, refused: str = "?", meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        self.kept: dict[str, list[bytes]] = {}
        self._refused = refused
        self._meanwhile = meanwhile

    async def keep(self, name: str, data: memoryview) -> None:
        await asyncio.sleep(0)
        if name.startswith(self._refused):
            raise OSError(errno.ENOSPC, "the archive is full")
        self.kept[name] = payloads_of([data])
        if self._meanwhile is not None:
            await self._meanwhile()


@pytest.mark.parametrize("limit", [expiry(2), size_max(3 * RECORD_SIZE)], ids=["expiry", "size"])
async def test_what_goes_is_archived_first_and_in_order(broker: Broker, limit: Option) -> None:
    await broker.create_topic(1, limit)
    for second in range(1, 7):
        broker.clock.now_us = second * SECOND
        await broker.send(BODY + bytes([second]))
    shelf = Shelf()
    await clean(broker, shelf)
    left = held(broker)[0]
    assert left[0] >= 3
    names = [f"s/t/0/{broker.log_ids()[0]:020}/{base:020}.log" for base in range(left[0])]
    assert list(shelf.kept.items()) == [(name, [BODY + bytes([base])]) for base, name in enumerate(names, 1)]


async def test_what_can_not_be_archived_stays_and_the_rest_goes(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.create_topic(2, expiry(1))
    await fill(broker, [0, 1] * 3)
    await clean(broker, Shelf(refused="s/t/0/"))
    assert held(broker) == [[0, 1, 2], [2]]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "WARNING",
            "can't delete old segments of partition s/t/0, a later pass tries again: [Errno 28] the archive is full",
        )
    ]
    await clean(broker, Shelf())
    assert held(broker) == [[2], [2]]


async def test_a_partition_that_can_not_be_archived_is_not_made_up_for_by_the_others(broker: Broker) -> None:
    await broker.create_topic(2, size_max(3 * RECORD_SIZE))
    await fill(broker, [0, 0, 0, 1, 1, 1, 1])
    await clean(broker, Shelf(refused="s/t/0/"))
    assert held(broker) == [[0, 1, 2], [1, 2, 3]]


MEANWHILE = {
    "purge": PurgeTopic("s", "t"),
    "purge of the stream": PurgeStream("s"),
    "delete": DeleteTopic("s", "t"),
    "delete of the stream": DeleteStream("s"),
    "fewer partitions": DeletePartitions("s", "t", 1),
    "segments deleted": DeleteSegments("s", "t", 0, 2),
}


@pytest.mark.parametrize("limit", [expiry(1), size_max(1)], ids=["expiry", "size"])
@pytest.mark.parametrize("what", MEANWHILE)
async def test_a_log_that_goes_while_it_is_archived_disturbs_nothing(
    broker: Broker, caplog: pytest.LogCaptureFixture, what: str, limit: Option
) -> None:
    await broker.create_topic(1, limit)
    await fill(broker, [0] * 5)
    await broker.create_topic(1, limit, name="other")
    await fill(broker, [0] * 5, topic="other")
    broker.clock.now_us = 100 * SECOND
    shelf = Shelf(meanwhile=lambda: broker.status(MEANWHILE[what]))
    await clean(broker, shelf)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    of_topic = [name for name in shelf.kept if name.startswith("s/t/")]
    assert len(of_topic) == (2 if what == "segments deleted" else 1)
    if "of the stream" not in what:
        assert held(broker, "other") == [[4]]


async def test_another_partition_that_loses_its_segments_meanwhile_disturbs_nothing(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.create_topic(2, size_max(1))
    await fill(broker, [0, 1] * 3)
    await clean(broker, Shelf(meanwhile=lambda: broker.status(DeleteSegments("s", "t", 1, 9))))
    assert held(broker) == [[2], [2]]
    assert caplog.messages == []


COMPONENTS = [
    ("orders", "orders"),
    ("a b", "a%20b"),
    ("a/b", "a%2Fb"),
    ("..", "%2E%2E"),
    (".", "%2E"),
    ("...", "..."),
    ("100%", "100%25"),
    ("a\0\n", "a%00%0A"),
    ("é", "%C3%A9"),
    ("/" * 255, "%2F" * 85),
]


@pytest.mark.parametrize(("name", "encoded"), COMPONENTS)
def test_any_name_is_one_component_of_a_path(name: str, encoded: str) -> None:
    assert component(name) == encoded


async def test_the_task_goes_on_after_a_pass_failed(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    maintenance = broker.config.data_maintenance
    messages = replace(maintenance.messages, interval_us=10_000)
    broker.state.config = replace(broker.config, data_maintenance=replace(maintenance, messages=messages))
    await broker.create_topic(1, expiry(1))
    await fill(broker, [0] * 3)
    cleaned = asyncio.Event()
    broken = [RuntimeError("no time")]

    def clock() -> int:
        if broken:
            raise broken.pop()
        return broker.clock()

    broker.state.clock = clock

    async def tell() -> None:
        cleaned.set()

    task = asyncio.create_task(Retention(broker.state, Shelf(meanwhile=tell)).run())
    await asyncio.wait_for(cleaned.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.message.partition(",")[0] for record in caplog.records] == ["retention failed"]


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_app_owns_the_task_if_it_is_asked_for(tmp_path: Path, enabled: bool) -> None:
    config = Config()
    maintenance = config.data_maintenance
    messages = replace(maintenance.messages, cleaner_enabled=enabled)
    app = App(
        replace(
            config,
            system=replace(config.system, path=tmp_path / "data"),
            tcp=replace(config.tcp, address="127.0.0.1:0"),
            websocket=replace(config.websocket, address="127.0.0.1:0"),
            data_maintenance=replace(maintenance, messages=messages),
        ),
        Root("iggy", "iggy"),
    )
    before = asyncio.all_tasks()
    await app.start()
    tasks = [task for task in asyncio.all_tasks() - before if task.get_name() == "retention"]
    assert len(tasks) == enabled
    await app.close()
    assert all(task.cancelled() for task in tasks)
