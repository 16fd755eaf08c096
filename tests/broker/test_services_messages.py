"""Sending: which partition, which offset, which time; and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol.batch import read_header
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.model.messages import SendMessages, Sent
from pybroker.protocol.model.partitions import CreatePartitions
from pybroker.protocol.model.topics import DeleteTopic
from pybroker.protocol.primitives import Partitioning, PartitioningKind
from support.batches import make_batch
from support.broker import BALANCED, Broker, join, polled_offsets, polled_payloads
from xxhash import xxh32_intdigest


def in_partition(partition_id: int) -> Partitioning:
    return Partitioning(PartitioningKind.PARTITION, partition_id)


def by_key(key: bytes) -> Partitioning:
    return Partitioning(PartitioningKind.MESSAGES_KEY, key)


async def chosen(broker: Broker, partitioning: Partitioning) -> int:
    """Return the partition that a send went to."""
    return (await broker.ask(SendMessages("s", "t", partitioning, make_batch()))).partition_id


REFUSED = [
    ("x", "t", in_partition(0), Status.STREAM_ID_NOT_FOUND),
    (9, "t", BALANCED, Status.STREAM_ID_NOT_FOUND),
    ("s", "x", in_partition(0), Status.TOPIC_ID_NOT_FOUND),
    ("s", 9, BALANCED, Status.TOPIC_ID_NOT_FOUND),
    ("s", "t", in_partition(2), Status.PARTITION_NOT_FOUND),
    ("s", "t", in_partition(2**32 - 1), Status.PARTITION_NOT_FOUND),
    ("s", "bare", in_partition(0), Status.PARTITION_NOT_FOUND),
    ("s", "bare", BALANCED, Status.NO_PARTITIONS),
    ("s", "bare", by_key(b"k"), Status.NO_PARTITIONS),
]


@pytest.mark.parametrize(("stream", "topic", "partitioning", "status"), REFUSED)
async def test_send_to_what_does_not_exist_is_refused(
    broker: Broker, stream: int | str, topic: int | str, partitioning: Partitioning, status: Status
) -> None:
    await broker.create_topic(2)
    await broker.create_topic(0, name="bare")
    assert await broker.status(SendMessages(stream, topic, partitioning, make_batch())) is status
    assert broker.state.counters.written_bytes == 0


async def test_send_answers_where_the_messages_are(broker: Broker) -> None:
    await broker.create_topic(name="first")
    await broker.create_topic(3)
    assert await broker.send(b"a", b"b", partition_id=2) == Sent(0, 1, 2, 0)
    assert await broker.send(b"c", partition_id=2) == Sent(0, 1, 2, 2)
    assert await broker.send(b"c", partition_id=1) == Sent(0, 1, 1, 0)


async def test_batch_order_is_offset_order(broker: Broker) -> None:
    await broker.create_topic()
    await broker.send(b"a", b"b")
    await broker.send(b"c")
    polled = await broker.poll()
    assert (polled_offsets(polled), polled_payloads(polled)) == ([0, 1, 2], [b"a", b"b", b"c"])


async def test_stored_record_has_the_servers_time_and_the_partition(broker: Broker) -> None:
    await broker.create_topic(2)
    broker.clock.now_us = 123
    await broker.ask(SendMessages("s", "t", in_partition(1), make_batch(origin_timestamp_us=77)))
    header = read_header(join((await broker.poll(partition_id=1)).records))
    assert (header.partition_id, header.base_timestamp_us, header.origin_timestamp_us) == (1, 123, 77)


async def test_balanced_sends_go_round_from_partition_0_one_a_request(broker: Broker) -> None:
    await broker.create_topic(3)
    sent = [(await broker.send(b"a", b"b", partition_id=None)).partition_id for _ in range(7)]
    assert sent == [0, 1, 2, 0, 1, 2, 0]


async def test_balanced_sends_count_for_each_topic_alone(broker: Broker) -> None:
    await broker.create_topic(2)
    await broker.create_topic(2, name="u")
    order = [(await broker.send(partition_id=None, topic=topic)).partition_id for topic in ("t", "u", "t", "u", "t")]
    assert order == [0, 0, 1, 1, 0]


async def test_balanced_sends_use_partitions_added_later(broker: Broker) -> None:
    await broker.create_topic(1)
    await broker.send(partition_id=None)
    await broker.ask(CreatePartitions("s", "t", 2))
    assert {(await broker.send(partition_id=None)).partition_id for _ in range(3)} == {0, 1, 2}


async def test_balanced_sends_to_a_new_topic_start_at_partition_0_also_under_a_used_id(broker: Broker) -> None:
    await broker.create_topic(2)
    await broker.send(partition_id=None)
    await broker.ask(DeleteTopic("s", "t"))
    await broker.create_topic(2)
    assert (await broker.send(partition_id=None)).partition_id == 0


@pytest.mark.parametrize("key", [b"k", b"\0", b"order-17", "🙂".encode(), b"x" * 255])
async def test_key_chooses_the_partition_that_clients_choose(broker: Broker, key: bytes) -> None:
    await broker.create_topic(7)
    assert await chosen(broker, by_key(key)) == xxh32_intdigest(key, seed=0) % 7
    assert await chosen(broker, by_key(key)) == xxh32_intdigest(key, seed=0) % 7


async def test_keys_do_not_move_the_balanced_turn(broker: Broker) -> None:
    await broker.create_topic(3)
    turns = [await chosen(broker, partitioning) for partitioning in (BALANCED, by_key(b"k"), BALANCED, in_partition(0))]
    assert (turns[0], turns[2], await chosen(broker, BALANCED)) == (0, 1, 2)


async def test_written_bytes_are_counted(broker: Broker) -> None:
    await broker.create_topic()
    await broker.send(b"abc")
    assert broker.state.counters.written_bytes == 256 + 48 + 3


@given(batches=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=10))
async def test_offsets_are_contiguous_in_each_partition(batches: list[tuple[int, int]]) -> None:
    broker = Broker()
    await broker.create_topic(3)
    expected = [0, 0, 0]
    for partition_id, count in batches:
        sent = await broker.send(*[b"x"] * count, partition_id=partition_id)
        assert sent.base_offset == expected[partition_id]
        expected[partition_id] += count
    for partition_id, count in enumerate(expected):
        assert polled_offsets(await broker.poll(partition_id=partition_id)) == list(range(count))


async def test_failed_append_tells_nothing_was_kept(broker: Broker) -> None:
    """A log that was dropped takes no more appends: what poisons one is told as Iggy's own status."""
    await broker.create_topic()
    await broker.engine.drop_log(broker.log_ids()[0])
    with pytest.raises(Refused) as caught:
        await broker.send()
    assert caught.value.status is Status.CANNOT_SAVE_MESSAGES_TO_SEGMENT
