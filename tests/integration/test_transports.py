"""The whole scenario over every transport: what a client does over one it does over all of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from apache_iggy import (
    Consumer,
    DirectProducerConfig,
    GlobalPermissions,
    IggyClient,
    Partitioning,
    Permissions,
    PollingStrategy,
    SendMessage,
    UserStatus,
)
from msgspec import Struct
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.errors import Status
from pybroker.protocol.model.offsets import ConsumerOffset, GetConsumerOffset, StoreConsumerOffset
from pybroker.protocol.model.tokens import CreateToken, RawToken
from pybroker.protocol.primitives import Consumer as WireConsumer
from pybroker.protocol.primitives import ConsumerKind
from pybroker.protocol.vsr.overrides import CODECS
from support.peers import NEWEST, Peer, PeerError, gather_until, started
from support.transports import GENERATIONS_OF, HTTPS, WITHOUT_GROUPS, Transports, transports
from support.wheel import bounded, make_topic, offsets_of, poll, refused, send, stream_of, texts_of, topic_of

HEADERS = {"text": "żółw", "number": 7, "negative": -1, "yes": True, "ratio": 1.5}
MESSAGE_ID = (1 << 64) - 5  # over HTTP clients end themselves at a larger one
BYTES_SINCE = "0.7.0"  # the one before sends text only
every_transport = pytest.mark.parametrize("transport", GENERATIONS_OF)
every_client = pytest.mark.parametrize(
    ("transport", "generation"),
    # The driver takes connection strings, and there is none for HTTPS.
    [(transport, each) for transport, those in GENERATIONS_OF.items() if transport != HTTPS for each in those],
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transports]:
    with transports(tmp_path_factory.mktemp("transports")) as found:
        yield found


@pytest.fixture
async def client(running: Transports, transport: str) -> IggyClient:
    return await running.connect(transport)


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"message {number}" for number in range(start, start + count)]


@every_client
async def test_clients_of_every_generation_do_the_same(
    running: Transports, transport: str, generation: str, stream: str
) -> None:
    url = running.url(transport)
    async with started(generation) as peer, started(generation) as other:
        with pytest.raises(PeerError, match=r"(?i)invalid ?credentials"):
            await other.call("connect", url=running.url(transport, "iggy:wrong"))
        await peer.call("connect", url=url)
        await peer.call("ping")
        await sees_its_topics(peer, stream)
        await gets_back_what_it_sent(peer, stream)
        await starts_where_each_strategy_says(peer, stream)
        await other.call("connect", url=url)
        await other.call("ping")  # 0.6 does so itself, but late when the machine is busy: docs/compatibility.md
        assert [one.offset for one in await other.poll(stream, "Next", partition_id=1)] == [7, 8, 9, 10, 11]
        await goes_on_after_refusals(peer, stream)
        if transport not in WITHOUT_GROUPS:
            await shares_a_group(peer, other, stream)


async def sees_its_topics(peer: Peer, stream: str) -> None:
    await peer.make_topic(stream, "topic", 2)
    found = await peer.call("get_stream", stream=stream)
    assert (found["name"], found["topics_count"], found["messages_count"]) == (stream, 1, 0)
    topic = await peer.call("get_topic", stream=found["id"], topic=0)
    assert topic == {"id": 0, "name": "topic", "messages_count": 0, "partitions_count": 2}
    assert await peer.call("get_stream", stream="none") is None
    assert await peer.call("get_topic", stream=stream, topic="none") is None


async def gets_back_what_it_sent(peer: Peer, stream: str) -> None:
    payloads = [b"a", "żółw €".encode(), b"x" * 100_000, b"y" * 1_000_000]
    if peer.generation >= BYTES_SINCE:
        payloads += [bytes(range(256)), b"\x00"]
    await peer.send(stream, payloads)
    seen = await peer.poll(stream)
    assert [one.payload for one in seen] == payloads
    assert [(one.offset, one.length) for one in seen] == list(enumerate(map(len, payloads)))
    assert len({one.id for one in seen} - {0}) == len(payloads)
    if peer.generation == NEWEST:
        await peer.send(stream, ["with both"], headers=HEADERS, id=MESSAGE_ID)
        (both,) = await peer.poll(stream, "Last", count=1)
        assert (both.payload, both.headers, both.id) == (b"with both", HEADERS, MESSAGE_ID)


async def starts_where_each_strategy_says(peer: Peer, stream: str) -> None:
    """In partition 1, where the stored offset is 6 then."""
    for start in (0, 4, 8):
        await peer.send(stream, numbered(4, start), partition_id=1)
    everything = await peer.poll(stream, partition_id=1)
    third = everything[8].timestamp
    for strategy, value, count, expected in (
        ("First", 0, 2, everything[:2]),
        ("Offset", 5, 3, everything[5:8]),
        ("Offset", 12, 3, []),
        ("Last", 0, 3, everything[9:]),
        ("Timestamp", third, 99, [one for one in everything if one.timestamp >= third]),
        ("Next", 0, 2, everything[:2]),
    ):
        assert await peer.poll(stream, strategy, value, partition_id=1, count=count) == expected, strategy
    assert await peer.poll(stream, "Next", partition_id=1, count=7, auto_commit=True) == everything[:7]


async def goes_on_after_refusals(peer: Peer, stream: str) -> None:
    with pytest.raises(PeerError, match=r"(?i)already ?exists"):
        await peer.call("create_stream", name=stream)
    elsewhere: tuple[dict[str, Any], ...] = ({"stream": "none"}, {"topic": "none"}, {"partition_id": 9})
    for different in elsewhere:
        where: dict[str, Any] = {"stream": stream, **different}
        with pytest.raises(PeerError, match=r"(?i)not ?found"):
            await peer.poll(**where)
        with pytest.raises(PeerError, match=r"(?i)not ?found"):
            await peer.send(**where, payloads=["lost"])


async def shares_a_group(peer: Peer, other: Peer, stream: str) -> None:
    """Both read a topic of their own together, each message once."""
    await peer.call("create_topic", stream=stream, name="shared", partitions_count=2)
    for member in (peer, other):
        await member.join(stream, topic="shared")
        await member.consume()
    for partition_id in range(2):
        await peer.send(stream, numbered(30, 30 * partition_id), topic="shared", partition_id=partition_id)
    taken = await gather_until([peer, other], 60)
    assert sorted(one.payload.decode() for own in taken for one in own) == sorted(numbered(60))


@every_transport
async def test_streams_topics_and_partitions_are_administered(client: IggyClient, stream: str) -> None:
    await bounded(client.create_stream(f"{stream} old"))
    await bounded(client.update_stream(f"{stream} old", stream))
    assert stream in [one.name for one in await bounded(client.get_streams())]
    await bounded(client.create_topic(stream, "topic", 2))
    await bounded(client.create_partitions(stream, "topic", 2))
    await bounded(client.delete_partitions(stream, "topic", 1))
    assert [one.partitions_count for one in await bounded(client.get_topics(stream))] == [3]
    await send(client, stream, "topic", ["gone"])
    await bounded(client.purge_topic(stream, "topic"))
    await bounded(client.update_topic(stream, "topic", name="renamed"))
    assert (await topic_of(client, stream, "renamed")).messages_count == 0
    await send(client, stream, "renamed", ["gone"])
    await bounded(client.purge_stream(stream))
    assert (await stream_of(client, stream)).messages_count == 0
    await bounded(client.delete_topic(stream, "renamed"))
    assert (await stream_of(client, stream)).topics_count == 0
    await bounded(client.delete_stream(stream))
    assert await bounded(client.get_stream(stream)) is None


@every_transport
async def test_messages_go_where_their_partitioning_says(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "topic", 3)
    for partitioning in (Partitioning.partition_id(2), Partitioning.balanced(), Partitioning.messages_key("key")):
        await bounded(
            client.send_messages(stream, "topic", partitioning, [SendMessage("one", HEADERS), SendMessage("two")])
        )
    found = [await poll(client, stream, "topic", partition_id=number) for number in range(3)]
    assert texts_of(found[2])[:2] == ["one", "two"]
    assert sorted(texts_of([one for own in found for one in own])) == ["one"] * 3 + ["two"] * 3
    headers = [one.user_headers() for one in found[2][:2]]
    assert [one.to_scalar_dict() if one else {} for one in headers] == [HEADERS, {}]


@every_transport
async def test_a_named_consumer_goes_on_from_what_it_committed(
    running: Transports, transport: str, client: IggyClient, stream: str
) -> None:
    await make_topic(client, stream)
    await send(client, stream, "topic", numbered(5))
    reader = Consumer.Single("reader")
    for expected in ([0, 1], [2, 3]):
        polled = await poll(client, stream, "topic", PollingStrategy.Next(), count=2, consumer=reader, auto_commit=True)
        assert offsets_of(polled) == expected
    again = await running.connect(transport)
    assert offsets_of(await poll(again, stream, "topic", PollingStrategy.Next(), consumer=reader)) == [4]


@every_transport
async def test_producers_and_consumers_of_the_client_work(transport: str, client: IggyClient, stream: str) -> None:
    producer = await bounded(
        client.producer(stream, "topic", partitioning=Partitioning.partition_id(0), mode=DirectProducerConfig())
    )
    await bounded(producer.send([SendMessage(text) for text in numbered(20)]))
    await bounded(producer.shutdown())
    if transport in WITHOUT_GROUPS:
        assert texts_of(await poll(client, stream, "topic")) == numbered(20)
        return
    consumer = await bounded(client.consumer_group("group", stream, "topic", polling_strategy=PollingStrategy.First()))
    messages = consumer.iter_messages()
    assert [(await bounded(anext(messages))).payload().decode() for _ in range(20)] == numbered(20)
    await bounded(consumer.store_offset(11, 0))
    assert consumer.get_last_stored_offset(0) == 11
    await bounded(consumer.delete_offset(0))


@every_transport
async def test_groups_are_administered(transport: str, client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "topic", 3)
    await bounded(client.create_consumer_group(stream, "topic", "group"))
    if transport not in WITHOUT_GROUPS:
        await bounded(client.join_consumer_group(stream, "topic", "group"))
        joined = await bounded(client.get_consumer_group(stream, "topic", "group"))
        assert joined is not None
        assert joined.members_count == 1
        await bounded(client.leave_consumer_group(stream, "topic", "group"))
    group = await bounded(client.get_consumer_group(stream, "topic", "group"))
    assert group is not None
    assert (group.name, group.partitions_count, group.members_count) == ("group", 3, 0)
    await bounded(client.delete_consumer_group(stream, "topic", "group"))
    assert await bounded(client.get_consumer_groups(stream, "topic")) == []


@every_transport
async def test_users_may_do_what_they_are_given(
    running: Transports, transport: str, client: IggyClient, stream: str
) -> None:
    name = f"user-{transport}"
    reading = Permissions(GlobalPermissions(read_streams=True))
    await bounded(client.create_user(name, "secret", UserStatus.Active, reading))
    shown = await bounded(client.get_user(name))
    assert shown is not None
    assert shown.permissions == reading
    await bounded(client.change_password(name, "secret", "changed"))
    user = await running.connect(
        transport, name.replace(" ", "%20") if transport not in WITHOUT_GROUPS else name, "changed"
    )
    assert stream not in [one.name for one in await bounded(user.get_streams())]
    await refused(user.create_stream(stream), Status.UNAUTHORIZED)
    await bounded(client.update_permissions(name, Permissions(GlobalPermissions(manage_streams=True))))
    await bounded(user.create_stream(stream))
    await bounded(client.update_user(name, status=UserStatus.Inactive))
    await bounded(client.delete_user(name))
    assert await bounded(client.get_user(name)) is None


@every_transport
async def test_logout_ends_what_a_client_may_do(client: IggyClient) -> None:
    assert "iggy" in [user.username for user in await bounded(client.get_users())]
    assert (await bounded(client.get_stats())).process_id > 0
    await bounded(client.logout_user())
    with pytest.raises(RuntimeError, match="Unauthenticated"):
        await bounded(client.get_users())


@pytest.mark.parametrize("transport", [transport for transport in GENERATIONS_OF if transport not in WITHOUT_GROUPS])
async def test_what_has_no_method_works_as_a_raw_command(
    running: Transports, transport: str, client: IggyClient, stream: str
) -> None:
    """Tokens, which also sign in, and the offsets of single consumers."""
    token = CODECS[RawToken].decode(await ask(client, CreateToken(transport, 0)))
    by_token = IggyClient.from_connection_string(running.url(transport, token.token))
    await bounded(by_token.connect())
    await make_topic(by_token, stream)
    await send(by_token, stream, "topic", numbered(5))
    reader = WireConsumer(ConsumerKind.SINGLE, "reader")
    assert not await ask(client, StoreConsumerOffset(reader, stream, "topic", 0, 3))
    stored = CODECS[ConsumerOffset].decode(await ask(client, GetConsumerOffset(reader, stream, "topic", 0)))
    assert stored == ConsumerOffset(0, 4, 3)


async def ask(client: IggyClient, command: Struct) -> memoryview:
    """Return the body of the reply."""
    row = BY_REQUEST[type(command)]
    return memoryview(await bounded(client.send_binary_request(row.code, bytes(CODECS[row.request].encode(command)))))
