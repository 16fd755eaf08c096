"""Deduplication: which messages are stored once, for how long, and how many ids a topic remembers."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pybroker.broker import events
from pybroker.broker.catalog import Catalog
from pybroker.broker.config import Config
from pybroker.broker.config.schema import Deduplication
from pybroker.broker.topic_options import defaults
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.model.messages import SendMessages, Sent
from pybroker.protocol.model.partitions import CreatePartitions, DeletePartitions
from pybroker.protocol.model.streams import DeleteStream, PurgeStream
from pybroker.protocol.model.topics import DeleteTopic, PurgeTopic, UpdateTopic
from pybroker.protocol.primitives import Partitioning, PartitioningKind
from pybroker.storage.memory import MemoryJournal
from support.batches import make_batch
from support.broker import BALANCED, Broker, polled_offsets, polled_payloads, text_option

SECOND_US = 1_000_000
EXPIRY_US = 60 * SECOND_US
ON = text_option("message_deduplication", "true")
OFF = text_option("message_deduplication", "false")


def config_of(**changes: Any) -> Config:
    config = Config()
    return replace(config, system=replace(config.system, message_deduplication=Deduplication(**changes)))


@pytest.fixture
async def broker() -> Broker:
    """A broker with topic "t" of one partition, which remembers four ids for a minute."""
    broker = Broker(config=config_of(max_entries=4, expiry_us=EXPIRY_US))
    await broker.create_topic(1, ON)
    return broker


async def send(broker: Broker, *ids: int, partition_id: int | None = 0, topic: str = "t") -> Sent:
    """Send one batch of messages with these ids; each has its id as payload."""
    payloads = [b"%d" % ident for ident in ids]
    batch = make_batch(payloads, message_ids=ids)
    partitioning = BALANCED if partition_id is None else Partitioning(PartitioningKind.PARTITION, partition_id)
    return await broker.ask(SendMessages("s", topic, partitioning, batch))


async def stored(broker: Broker, partition_id: int = 0) -> list[int]:
    """Return the ids of what is stored; their offsets have no gaps."""
    polled = await broker.poll(partition_id=partition_id)
    assert polled_offsets(polled) == list(range(polled.messages_count))
    return [int(payload) for payload in polled_payloads(polled)]


async def test_batch_sent_again_is_answered_with_its_place_and_not_stored(broker: Broker) -> None:
    await send(broker, 1)
    assert await send(broker, 2, 3) == Sent(0, 0, 0, 1)
    written = broker.state.counters.written_bytes
    assert await send(broker, 2, 3) == Sent(0, 0, 0, 1)
    assert await send(broker, 3) == Sent(0, 0, 0, 2)
    assert broker.state.counters.written_bytes == written
    assert await stored(broker) == [1, 2, 3]
    assert await send(broker, 4) == Sent(0, 0, 0, 3)


async def test_batch_with_some_repeats_stores_the_rest_without_a_gap(broker: Broker) -> None:
    await send(broker, 1, 2)
    assert await send(broker, 3, 1, 4, 2) == Sent(0, 0, 0, 2)
    assert await stored(broker) == [1, 2, 3, 4]
    assert await send(broker, 4) == Sent(0, 0, 0, 3)


async def test_id_twice_in_a_batch_is_stored_once_and_the_first_wins(broker: Broker) -> None:
    batch = make_batch([b"1", b"2", b"11", b"3"], message_ids=[1, 2, 1, 3])
    await broker.ask(SendMessages("s", "t", BALANCED, batch))
    assert await stored(broker) == [1, 2, 3]
    assert await send(broker, 3) == Sent(0, 0, 0, 2)


async def test_messages_without_an_id_are_never_repeats(broker: Broker) -> None:
    await send(broker, 0, 0, 5)
    await send(broker, 0)
    assert await send(broker, 0, 5, 0) == Sent(0, 0, 0, 4)
    assert len(await stored(broker)) == 6
    assert await send(broker, 5) == Sent(0, 0, 0, 2)


async def test_repeat_to_another_partition_is_answered_with_the_first_one() -> None:
    broker = Broker()
    await broker.create_topic(3, ON)
    assert await send(broker, 1, partition_id=2) == Sent(0, 0, 2, 0)
    assert await send(broker, 1, partition_id=0) == Sent(0, 0, 2, 0)
    assert await send(broker, 1, partition_id=None) == Sent(0, 0, 2, 0)
    assert (await send(broker, 2, partition_id=None)).partition_id == 0
    assert await send(broker, 1, 2, partition_id=1) == Sent(0, 0, 2, 0)
    assert [await stored(broker, number) for number in range(3)] == [[2], [], [1]]


async def test_topics_do_not_share_ids(broker: Broker) -> None:
    await broker.create_topic(1, ON, name="u")
    assert await send(broker, 1) == Sent(0, 0, 0, 0)
    assert await send(broker, 1, topic="u") == Sent(0, 1, 0, 0)


async def test_topic_that_does_not_ask_stores_everything_and_keeps_no_window() -> None:
    broker = Broker()
    await broker.create_topic()
    await send(broker, 1)
    await send(broker, 1)
    assert await stored(broker) == [1, 1]
    assert len(broker.state.windows) == 0


async def test_servers_default_holds_for_topics_that_do_not_say() -> None:
    broker = Broker(config=config_of(enabled=True))
    await broker.create_topic(1)
    await broker.create_topic(1, OFF, name="u")
    assert [(await send(broker, 1)).base_offset for _ in range(2)] == [0, 0]
    assert [(await send(broker, 1, topic="u")).base_offset for _ in range(2)] == [0, 1]


async def test_ids_are_remembered_until_they_expire(broker: Broker) -> None:
    await send(broker, 1)
    broker.clock.now_us += EXPIRY_US - 1
    await send(broker, 1)
    await send(broker, 2)
    assert await stored(broker) == [1, 2]
    broker.clock.now_us += 1
    assert await send(broker, 2, 1) == Sent(0, 0, 0, 2)
    assert await stored(broker) == [1, 2, 1]


async def test_message_stored_again_after_its_id_expired_is_the_one_that_counts(broker: Broker) -> None:
    await send(broker, 1)
    broker.clock.now_us += EXPIRY_US
    assert await send(broker, 1) == Sent(0, 0, 0, 1)
    broker.clock.now_us += EXPIRY_US - 1
    await send(broker, 2)
    assert await send(broker, 1) == Sent(0, 0, 0, 1)


async def test_repeat_does_not_prolong_the_time(broker: Broker) -> None:
    await send(broker, 1)
    broker.clock.now_us += EXPIRY_US // 2
    await send(broker, 1)
    broker.clock.now_us += EXPIRY_US // 2
    assert await send(broker, 1) == Sent(0, 0, 0, 1)


async def test_oldest_ids_give_way_to_new_ones(broker: Broker) -> None:
    await send(broker, 1, 2, 3)
    await send(broker, 4, 5)
    assert await send(broker, 2) == Sent(0, 0, 0, 1)
    assert await send(broker, 1) == Sent(0, 0, 0, 5)
    assert await stored(broker) == [1, 2, 3, 4, 5, 1]


async def test_batch_larger_than_the_window_leaves_its_last_ids(broker: Broker) -> None:
    await send(broker, *range(1, 11))
    assert await send(broker, 7) == Sent(0, 0, 0, 6)
    assert await send(broker, 6) == Sent(0, 0, 0, 10)


@given(
    sends=st.lists(
        st.tuples(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 40), st.booleans()), max_size=12
    )
)
async def test_what_is_stored_is_what_a_plain_list_says(sends: list[tuple[list[int], int, bool]]) -> None:
    """Batches, pauses in seconds, restarts: the window is the newest four ids of the last minute."""
    broker = Broker(config=config_of(max_entries=4, expiry_us=EXPIRY_US))
    await broker.create_topic(2, ON)
    log: list[tuple[int, int]] = []  # id, time
    expected: list[list[int]] = [[], []]
    for number, (ids, pause_s, restarts) in enumerate(sends):
        broker.clock.now_us += pause_s * SECOND_US
        if restarts:
            await broker.restart()
        now = broker.clock.now_us
        window = {ident for ident, time in log[-4:] if time + EXPIRY_US > now}
        new = [ident for ident in dict.fromkeys(ids) if ident not in window]
        await send(broker, *ids, partition_id=number % 2)
        expected[number % 2] += new
        log += [(ident, now) for ident in new]
    assert [await stored(broker, number) for number in range(2)] == expected


async def test_window_survives_a_restart(broker: Broker) -> None:
    await broker.ask(CreatePartitions("s", "t", 1))
    await send(broker, 1, 2)
    broker.clock.now_us += 1
    await send(broker, 3, partition_id=1)
    await broker.restart()
    assert await send(broker, 3, 2) == Sent(0, 0, 1, 0)
    assert await send(broker, 2) == Sent(0, 0, 0, 1)
    assert await send(broker, 4) == Sent(0, 0, 0, 2)
    await send(broker, 5)  # 1 gives way, in whatever partition the others are
    assert await send(broker, 1) == Sent(0, 0, 0, 4)


async def test_time_goes_on_over_a_restart(broker: Broker) -> None:
    await send(broker, 1)
    broker.clock.now_us += 1
    await send(broker, 2)
    broker.clock.now_us += EXPIRY_US - 1
    await broker.restart()
    assert await send(broker, 2) == Sent(0, 0, 0, 1)
    assert await send(broker, 1) == Sent(0, 0, 0, 2)


async def test_window_of_many_partitions_is_bounded_as_a_whole() -> None:
    broker = Broker(config=config_of(max_entries=4, expiry_us=EXPIRY_US))
    await broker.create_topic(4, ON)
    for ident in range(1, 13):
        broker.clock.now_us += 1
        await send(broker, ident, partition_id=ident % 4)
    await broker.restart()
    assert await send(broker, 12, 9, 11, 10) == Sent(0, 0, 0, 2)
    assert await send(broker, 8) == Sent(0, 0, 0, 3)


async def test_concurrent_first_sends_after_a_restart_share_one_load(broker: Broker) -> None:
    await send(broker, 1)
    await broker.restart()
    log = broker.state.logs.of(broker.state.catalog.topic("s", "t")[1].partitions[0])
    reads: list[int] = []
    read = log.read

    def counted(offset: int, limit: Any) -> Any:
        reads.append(offset)
        return read(offset, limit)

    log.read = counted
    sent = await asyncio.gather(*(send(broker, 1) for _ in range(3)), *(send(broker, 2) for _ in range(3)))
    assert [each.base_offset for each in sent] == [0, 0, 0, 1, 1, 1]
    assert reads == [0]


async def test_cancelled_load_is_begun_anew_by_who_waits_for_it(broker: Broker) -> None:
    await send(broker, 1)
    await broker.restart()
    first, second = asyncio.ensure_future(send(broker, 1)), asyncio.ensure_future(send(broker, 1))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == Sent(0, 0, 0, 0)
    assert await stored(broker) == [1]


async def test_topic_deleted_while_its_window_is_loaded_refuses_the_send(broker: Broker) -> None:
    await send(broker, 1)
    await broker.restart()
    sending = asyncio.ensure_future(send(broker, 1))
    await asyncio.sleep(0)
    await broker.ask(DeleteTopic("s", "t"))
    with pytest.raises(Refused) as caught:
        await sending
    assert caught.value.status is Status.TOPIC_ID_NOT_FOUND


@pytest.mark.parametrize("command", [PurgeTopic("s", "t"), PurgeStream("s")])
async def test_purge_empties_the_window(broker: Broker, command: Any) -> None:
    await send(broker, 1)
    await broker.ask(command)
    assert await send(broker, 1) == Sent(0, 0, 0, 0)
    assert await stored(broker) == [1]


@pytest.mark.parametrize("command", [DeleteTopic("s", "t"), DeleteStream("s")])
async def test_new_topic_under_a_used_id_has_a_window_of_its_own(broker: Broker, command: Any) -> None:
    await send(broker, 1)
    await broker.ask(command)
    assert len(broker.state.windows) == 0
    await broker.create_topic(1, ON)
    assert await send(broker, 1) == Sent(0, 0, 0, 0)
    assert await stored(broker) == [1]


async def test_repeat_of_what_a_deleted_partition_held_is_stored(broker: Broker) -> None:
    await broker.ask(CreatePartitions("s", "t", 1))
    await send(broker, 1, partition_id=1)
    await broker.ask(DeletePartitions("s", "t", 1))
    await broker.ask(CreatePartitions("s", "t", 1))
    assert await send(broker, 1, partition_id=1) == Sent(0, 0, 1, 0)
    assert await stored(broker, 1) == [1]
    assert await send(broker, 1, partition_id=0) == Sent(0, 0, 1, 0)


async def test_deduplication_can_be_turned_on_and_off(broker: Broker) -> None:
    await send(broker, 1)
    await broker.ask(UpdateTopic("s", "t", "t", (OFF,)))
    await send(broker, 1, 2)
    await broker.ask(UpdateTopic("s", "t", "t", (ON,)))
    assert await send(broker, 2) == Sent(0, 0, 0, 2)
    assert await stored(broker) == [1, 1, 2]


async def test_idle_windows_are_let_go_and_come_back(broker: Broker) -> None:
    for name in ("u", "v"):
        await broker.create_topic(1, ON, name=name)
    for topic in ("t", "u", "v"):
        await send(broker, 1, topic=topic)
    assert len(broker.state.windows) == 3
    broker.clock.now_us += EXPIRY_US
    await send(broker, 2)
    await send(broker, 2)
    assert len(broker.state.windows) == 1
    assert await send(broker, 1, topic="u") == Sent(0, 1, 0, 1)
    assert await send(broker, 1, topic="u") == Sent(0, 1, 0, 1)
    assert await send(broker, 2) == Sent(0, 0, 0, 1)


async def test_clock_that_goes_back_forgets_nothing_early(broker: Broker) -> None:
    await send(broker, 1)
    broker.clock.now_us -= SECOND_US
    await send(broker, 2)
    broker.clock.now_us += EXPIRY_US
    assert await send(broker, 1, 2) == Sent(0, 0, 0, 0)
    broker.clock.now_us += SECOND_US
    assert await send(broker, 1, 2) == Sent(0, 0, 0, 2)


async def test_ids_of_refused_sends_are_not_remembered(broker: Broker) -> None:
    await send(broker, 1)
    with pytest.raises(Refused):
        await send(broker, 2, partition_id=7)
    assert await send(broker, 2) == Sent(0, 0, 0, 1)


def test_journal_from_before_there_was_deduplication_loads() -> None:
    journal = MemoryJournal()
    journal.append(events.encode(events.StreamCreated(0, "s", 1)))
    created = events.TopicCreated(0, 0, "t", 1, defaults(config_of(enabled=True)), (), 1)
    fields: list[Any] = msgspec.msgpack.decode(events.encode(created))
    assert fields[5].pop() is True
    journal.append(msgspec.msgpack.encode(fields))
    assert Catalog(journal).topic("s", "t")[1].settings.message_deduplication is False
