"""Sending and polling: where messages go, what comes back, in which slices."""

import asyncio
import time
import uuid
from typing import Any

import pytest
from apache_iggy import Consumer, HeaderKey, HeaderValue, IggyClient, Partitioning, PollingStrategy, SendMessage
from pybroker.protocol.errors import Status
from pybroker.protocol.model import messages as model
from pybroker.protocol.primitives import Consumer as WireConsumer
from pybroker.protocol.primitives import ConsumerKind, PartitioningKind, PollingKind
from pybroker.protocol.primitives import Partitioning as WirePartitioning
from pybroker.protocol.primitives import PollingStrategy as WireStrategy
from support.batches import make_batch
from support.raw import RawClient, messages_of, read_log
from support.wheel import bounded, make_topic, offsets_of, poll, read_all, refused, send, texts_of, topic_of
from xxhash import xxh3_64_intdigest, xxh32_intdigest

LARGE_SIZE = 20_000_000
BATCH_SIZES = (3, 5, 1, 4)
MESSAGES_COUNT = sum(BATCH_SIZES)

# Every kind that a header's key or value can have, with a value at its edge.
SCALARS: dict[str, Any] = {
    "Raw": b"\x00\xff",
    "String": "wörter",
    "Bool": True,
    "Int8": -(2**7),
    "Int16": -(2**15),
    "Int32": -(2**31),
    "Int64": -(2**63),
    "Int128": -(2**127),
    "UnsignedInt8": 2**8 - 1,
    "UnsignedInt16": 2**16 - 1,
    "UnsignedInt32": 2**32 - 1,
    "UnsignedInt64": 2**64 - 1,
    "UnsignedInt128": 2**128 - 1,
    "Float32": 1.5,
    "Float64": 0.1,
}


async def test_messages_come_back_as_they_were_sent(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_topic(client, stream)
    before_us = time.time_ns() // 1000
    sent = [SendMessage("text", id=5), SendMessage(b"\x00\xff"), SendMessage("last", id=2**128 - 1)]
    assert await send(client, stream, "topic", sent) == 0
    found = await poll(client, stream, "topic")
    assert [message.payload() for message in found] == [b"text", b"\x00\xff", b"last"]
    assert offsets_of(found) == [0, 1, 2]
    assert (found[0].id(), found[2].id()) == (5, 2**128 - 1)
    assert found[1].id() > 0
    assert {message.partition_id() for message in found} == {0}
    assert [message.length() for message in found] == [4, 2, 4]
    assert before_us <= found[0].origin_timestamp() <= found[0].timestamp() <= time.time_ns() // 1000
    assert [message.checksum() for message in found] == [stored.checksum for stored in read_log(raw, stream, "topic")]
    topic = await topic_of(client, stream)
    assert (topic.messages_count, topic.partitions[0].current_offset) == (3, 2)
    assert topic.size == topic.partitions[0].size == 256 + 3 * 48 + 4 + 2 + 4


async def test_user_headers_of_every_kind_round_trip(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    headers = {
        getattr(HeaderKey, kind)(value): getattr(HeaderValue, kind)(value)
        for kind, value in SCALARS.items()
    }  # fmt: skip
    await send(client, stream, "topic", [SendMessage("kinds", headers), SendMessage("none")])
    kinds, none = await poll(client, stream, "topic")
    assert kinds.user_headers() == headers
    assert not none.user_headers()


async def test_user_headers_of_plain_values_round_trip(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    headers = {"text": "value", "number": 7, "negative": -300, "real": 0.5, "flag": False, "raw": b"\x01"}
    await send(client, stream, "topic", [SendMessage("plain", headers)])
    (message,) = await poll(client, stream, "topic")
    found = message.user_headers()
    assert found is not None
    assert found.to_scalar_dict() == headers


async def test_a_message_of_20_mb_round_trips(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    payload = bytes(range(256)) * (LARGE_SIZE // 256)
    await send(client, stream, "topic", [payload])
    await send(client, stream, "topic", ["small"])
    large, small = await poll(client, stream, "topic")
    assert xxh3_64_intdigest(large.payload()) == xxh3_64_intdigest(payload)
    assert small.payload() == b"small"


async def test_sends_answer_with_where_they_went(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "topic", 2)
    topic = await topic_of(client, stream)
    for base_offset in (0, 2, 4):
        messages = [SendMessage("a"), SendMessage("b")]
        (place,) = (await bounded(client.send_messages(stream, "topic", 1, messages))).confirmations
        assert (place.topic_id, place.partition_id, place.base_offset) == (topic.id, 1, base_offset)
    stream_ids = {each.name: each.id for each in await bounded(client.get_streams())}
    assert place.stream_id == stream_ids[stream]
    assert await send(client, stream, "topic", ["other"], 0) == 0


async def test_streams_and_topics_are_found_by_id(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    ids = {each.name: each.id for each in await bounded(client.get_streams())}
    response = await bounded(client.send_messages(ids[stream], 0, 0, [SendMessage("by id")]))
    assert response.confirmations[0].stream_id == ids[stream]
    assert texts_of(await poll(client, stream, "topic")) == ["by id"]


async def test_balanced_sends_take_the_partitions_in_turn(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_topic(client, stream, "topic", 3)
    for number in range(6):
        await send(client, stream, "topic", [str(number)], Partitioning.balanced())
    for partition_id in range(3):
        found = texts_of(await poll(client, stream, "topic", partition_id=partition_id))
        assert found == [str(partition_id), str(partition_id + 3)]
    balanced = WirePartitioning(PartitioningKind.BALANCED)
    replies = [raw.ask(model.SendMessages(stream, "topic", balanced, make_batch())) for _ in range(4)]
    assert [reply.partition_id for reply in replies] == [0, 1, 2, 0]


@pytest.mark.parametrize("key", [b"k", "schlüssel".encode(), b"x" * 255, b"\x00\xff"])
async def test_messages_of_a_key_go_to_one_partition(
    client: IggyClient, stream: str, raw: RawClient, key: bytes
) -> None:
    await make_topic(client, stream, "topic", 5)
    partition_id = xxh32_intdigest(key) % 5
    await send(client, stream, "topic", ["wheel"], Partitioning.messages_key(key))
    by_key = WirePartitioning(PartitioningKind.MESSAGES_KEY, key)
    assert raw.ask(model.SendMessages(stream, "topic", by_key, make_batch())).partition_id == partition_id
    assert len(await poll(client, stream, "topic", partition_id=partition_id)) == 2


async def send_batches(client: IggyClient, stream: str) -> None:
    """Send MESSAGES_COUNT messages, numbered, in batches of BATCH_SIZES."""
    numbers = iter(range(MESSAGES_COUNT))
    for size in BATCH_SIZES:
        await send(client, stream, "topic", [str(next(numbers)) for _ in range(size)])


async def test_polls_start_and_stop_anywhere_in_batches(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_topic(client, stream)
    await send_batches(client, stream)
    consumer = WireConsumer(ConsumerKind.SINGLE, 1)
    for start in range(MESSAGES_COUNT + 2):
        for count in range(MESSAGES_COUNT + 2):
            strategy = WireStrategy(PollingKind.OFFSET, start)
            polled = raw.ask(model.PollMessages(consumer, stream, "topic", 0, strategy, count, False))
            found = messages_of(polled)  # with the checksum of every part recomputed
            expected = range(MESSAGES_COUNT)[start : start + count]
            assert [message.offset for message in found] == list(expected)
            assert [message.payload for message in found] == [str(number).encode() for number in expected]
            assert (polled.partition_id, polled.current_offset) == (0, MESSAGES_COUNT - 1)


async def test_polling_strategies_start_where_they_say(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    await send_batches(client, stream)
    everything = list(range(MESSAGES_COUNT))
    cases: list[tuple[PollingStrategy, int, list[int]]] = [
        (PollingStrategy.First(), 2, [0, 1]),
        (PollingStrategy.First(), 1000, everything),
        (PollingStrategy.Last(), 1, [12]),
        (PollingStrategy.Last(), 6, everything[-6:]),
        (PollingStrategy.Last(), 1000, everything),
        (PollingStrategy.Offset(4), 3, [4, 5, 6]),
        (PollingStrategy.Offset(12), 3, [12]),
        (PollingStrategy.Offset(13), 3, []),
        (PollingStrategy.Offset(2**64 - 1), 3, []),
        (PollingStrategy.Next(), 4, [0, 1, 2, 3]),
    ]
    for strategy, count, expected in cases:
        assert offsets_of(await poll(client, stream, "topic", strategy, count=count)) == expected


async def test_polls_by_timestamp_return_batches_from_that_time_on(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    await send_batches(client, stream)
    everything = await poll(client, stream, "topic")
    stamps = [message.timestamp() for message in everything]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) == len(BATCH_SIZES)
    for asked in sorted({0, *stamps, *(stamp + 1 for stamp in stamps), stamps[-1] + 10**12}):
        found = await poll(client, stream, "topic", PollingStrategy.Timestamp(asked))
        assert offsets_of(found) == [offset for offset, stamp in enumerate(stamps) if stamp >= asked]


async def test_next_goes_on_behind_what_auto_commit_stored(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    await send_batches(client, stream)
    reader, other = Consumer.Single("reader"), Consumer.Single("other")
    following = PollingStrategy.Next()
    found: list[int] = []
    while part := await poll(client, stream, "topic", following, count=5, consumer=reader, auto_commit=True):
        found += offsets_of(part)
    assert found == list(range(MESSAGES_COUNT))
    assert len(await poll(client, stream, "topic", following, consumer=other)) == MESSAGES_COUNT
    assert len(await poll(client, stream, "topic", following, consumer=other)) == MESSAGES_COUNT
    await send(client, stream, "topic", ["more"])
    assert texts_of(await poll(client, stream, "topic", following, consumer=reader, auto_commit=True)) == ["more"]
    await poll(client, stream, "topic", count=2, consumer=reader, auto_commit=True)  # back to offset 1
    assert offsets_of(await poll(client, stream, "topic", following, count=1, consumer=reader)) == [2]


async def test_a_single_consumer_without_a_partition_reads_the_first(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "topic", 2)
    await send(client, stream, "topic", ["zero"], 0)
    await send(client, stream, "topic", ["one"], 1)
    assert texts_of(await poll(client, stream, "topic", partition_id=None)) == ["zero"]


async def test_an_empty_partition_polls_empty_with_every_strategy(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    strategies = [
        PollingStrategy.First(),
        PollingStrategy.Last(),
        PollingStrategy.Next(),
        PollingStrategy.Offset(0),
        PollingStrategy.Offset(7),
        PollingStrategy.Timestamp(0),
    ]
    for strategy in strategies:
        assert await poll(client, stream, "topic", strategy, auto_commit=True) == []


async def test_polls_go_over_the_ends_of_segments(client: IggyClient, stream: str) -> None:
    await bounded(client.create_stream(stream))
    await bounded(client.create_topic(stream, "topic", 1, segment_size=1 << 20))
    ids: list[int] = []
    for _ in range(30):
        ids += (batch := [uuid.uuid4().int for _ in range(10)])
        await send(client, stream, "topic", [SendMessage(b"x" * 20_000, id=message_id) for message_id in batch])
    assert (await topic_of(client, stream)).partitions[0].segments_count > 3
    found = await read_all(client, stream, "topic")
    assert [message.id() for message in found] == ids
    assert offsets_of(found) == list(range(300))
    middle = await poll(client, stream, "topic", PollingStrategy.Offset(55), count=190)
    assert offsets_of(middle) == list(range(55, 245))


async def test_clients_that_send_at_once_get_offsets_of_their_own(
    clients: list[IggyClient], stream: str, raw: RawClient
) -> None:
    await make_topic(clients[0], stream)

    async def produce(client: IggyClient, name: str) -> dict[int, bytes]:
        placed: dict[int, bytes] = {}
        for number in range(50):
            payloads = [f"{name}-{number}-{part}".encode() for part in range(number % 4 + 1)]
            base = await send(client, stream, "topic", payloads)
            placed |= {base + part: payload for part, payload in enumerate(payloads)}
        return placed

    runs = await asyncio.gather(*(produce(client, str(name)) for name, client in enumerate(clients)))
    placed = {offset: payload for run in runs for offset, payload in run.items()}
    assert len(placed) == sum(map(len, runs))
    assert {stored.offset: stored.payload for stored in read_log(raw, stream, "topic")} == placed


@pytest.mark.parametrize(
    ("stream_name", "topic_name", "partition_id", "status"),
    [
        ("none", "topic", 0, Status.STREAM_ID_NOT_FOUND),
        (None, "none", 0, Status.TOPIC_ID_NOT_FOUND),
        (None, "topic", 1, Status.PARTITION_NOT_FOUND),
        (None, "topic", 2**32 - 1, Status.PARTITION_NOT_FOUND),
    ],
)
async def test_sends_and_polls_of_what_is_not_there_are_refused(
    client: IggyClient, stream: str, stream_name: str | None, topic_name: str, partition_id: int, status: Status
) -> None:
    await make_topic(client, stream)
    name = stream_name or stream
    await refused(client.send_messages(name, topic_name, partition_id, [SendMessage("lost")]), status)
    await refused(poll(client, name, topic_name, partition_id=partition_id), status)


async def test_a_topic_without_partitions_refuses_balanced_sends(
    client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_topic(client, stream, "topic", 0)
    balanced = WirePartitioning(PartitioningKind.BALANCED)
    assert raw.ask(model.SendMessages(stream, "topic", balanced, make_batch())).status == Status.NO_PARTITIONS
