"""Every command of pybroker.client, asked of pybroker and of Apache Iggy's own server."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from urllib.parse import quote

import pytest
from pybroker.client import BrokerError, Client, Message, Offset, Timestamp
from pybroker.client.messages import HeaderValue, PolledMessages
from pybroker.protocol.errors import Status
from pybroker.protocol.model.offsets import ConsumerOffset
from pybroker.protocol.primitives import Permissions, StreamPermissions, UserStatus
from support import wheel
from support.agents import read, texts
from support.iggy import PARTITIONS_COUNT, IggyServer, persisted
from support.server import Server

HEADERS: dict[str, HeaderValue] = {"text": "value", "number": 7, "negative": -300, "real": 0.5, "raw": b"\x01"}


def payloads(polled: PolledMessages) -> list[str]:
    return texts(polled.messages)


async def refused(call: Awaitable[object]) -> Status:
    """Return what a call is refused with."""
    with pytest.raises(BrokerError) as caught:
        await call
    return caught.value.status


async def test_a_client_connects_by_url_and_by_token(client: Client, server: Server, stream: str) -> None:
    await client.create_user("tokened", "secret", Permissions(manage_streams=True))
    async with Client(f"iggy://tokened:secret@{server.address}") as user:
        token = await user.create_token("laptop", timedelta(days=1))
        assert [each.name for each in await user.get_tokens()] == ["laptop"]
        async with Client(f"iggy://{quote(token, safe='')}@{server.address}") as other:
            await other.create_stream(stream)
            await user.delete_token("laptop")
            assert await user.get_tokens() == []
    assert await refused(Client(f"iggy://{quote(token, safe='')}@{server.address}").connect()) in (
        Status.INVALID_PERSONAL_ACCESS_TOKEN,
        Status.INVALID_CREDENTIALS,
    )
    assert await refused(Client(f"iggy://tokened:wrong@{server.address}").connect()) is Status.INVALID_CREDENTIALS


@pytest.mark.parametrize("transport", ["tcp", "websocket", "quic"])
async def test_every_transport_works(server: Server, stream: str, transport: str) -> None:
    url = {
        "tcp": server.url,
        "websocket": f"iggy+ws://iggy:iggy@{server.websocket_address}",
        "quic": f"iggy+quic://iggy:iggy@{server.quic_address}?validate_certificate=false",
    }[transport]
    async with Client(url) as client:
        await client.create_stream(stream)
        await client.create_topic(stream, "t")
        await client.send(stream, "t", ["a" * 100_000, "b"])
        polled = await client.poll(stream, "t", start="first")
        assert payloads(polled) == ["a" * 100_000, "b"]
        me = await client.get_me()
        assert me.client.transport.name.lower() == transport


async def test_streams_topics_and_partitions(client: Client, stream: str) -> None:
    created = await client.create_stream(stream)
    assert created.stream.name == stream and created.topics == []
    assert await client.get_stream(created.stream.id) == await client.get_stream(stream)
    await client.update_stream(stream, f"{stream} 2")
    assert await client.get_stream(stream) is None

    stream = f"{stream} 2"
    topic = await client.create_topic(stream, "new", 3, expiry=timedelta(hours=1), options=await persisted(client))
    assert (topic.topic.partitions_count, topic.topic.message_expiry_us) == (3, 3_600_000_000)
    await client.update_topic(stream, "new", "old", expiry=timedelta(hours=2), size_max=2 << 30)
    await client.create_partitions(stream, "old", 2)
    await client.delete_partitions(stream, "old", 1)
    found = await client.get_topic(stream, "old")
    assert found is not None
    assert (found.topic.message_expiry_us, found.topic.max_topic_size) == (7_200_000_000, 2 << 30)
    assert [partition.id for partition in found.partitions] == [0, 1, 2, 3]
    assert [each.name for each in await client.get_topics(stream)] == ["old"]
    await client.delete_topic(stream, "old")
    assert await client.get_topics(stream) == []
    await client.delete_stream(stream)
    assert stream not in [each.name for each in await client.get_streams()]


async def test_sends_choose_their_partition(client: Client, stream: str, topic: str) -> None:
    fixed = [await client.send(stream, topic, ["fixed"], partition=2) for _ in range(2)]
    assert [(sent.partition_id, sent.base_offset) for sent in fixed] == [(2, 0), (2, 1)]
    keyed = [await client.send(stream, topic, ["keyed"], key=key) for key in ("a", "b", b"a", "b")]
    assert [sent.partition_id for sent in keyed[:2]] == [sent.partition_id for sent in keyed[2:]]
    balanced = [await client.send(stream, topic, ["balanced"]) for _ in range(PARTITIONS_COUNT)]
    assert sorted(sent.partition_id for sent in balanced) == list(range(PARTITIONS_COUNT))


async def test_what_is_sent_is_polled(client: Client, stream: str, topic: str) -> None:
    await client.send(stream, topic, [Message("first", id=7, headers=HEADERS), b"second"], partition=0)
    first, second = (await client.poll(stream, topic, partition=0, start="first")).messages
    assert (first.payload, first.id, first.headers, first.offset) == (b"first", 7, HEADERS, 0)
    assert second.id > 0 and second.timestamp_us >= first.timestamp_us > 0
    assert first.origin_timestamp_us > 0


async def test_a_poll_starts_where_it_is_told(client: Client, stream: str, topic: str) -> None:
    for batch in (["0", "1", "2"], ["3"], ["4", "5"]):
        await client.send(stream, topic, batch, partition=0)
    everything = await client.poll(stream, topic, start="first")
    assert (payloads(everything), everything.current_offset) == (list("012345"), 5)
    assert payloads(await client.poll(stream, topic, start=Offset(1), count=3)) == list("123")
    assert payloads(await client.poll(stream, topic, start=Offset(6))) == []
    assert payloads(await client.poll(stream, topic, start="last", count=2)) == list("45")
    since = everything.messages[3].timestamp_us
    assert payloads(await client.poll(stream, topic, start=Timestamp(since))) == list("345")
    for batch in ("01", "23", "45", ""):
        assert payloads(await client.poll(stream, topic, consumer="mine", auto_commit=True, count=2)) == list(batch)
    assert payloads(await client.poll(stream, topic, partition=1, start="first")) == []


async def test_offsets_are_kept_by_consumer(client: Client, stream: str, topic: str) -> None:
    await client.send(stream, topic, list("abc"), partition=0)
    assert await client.get_offset(stream, topic, consumer="mine", partition=0) is None
    await client.store_offset(stream, topic, 1, consumer="mine", partition=0)
    assert await client.get_offset(stream, topic, consumer="mine", partition=0) == ConsumerOffset(0, 2, 1)
    assert payloads(await client.poll(stream, topic, consumer="mine")) == ["c"]
    assert payloads(await client.poll(stream, topic, consumer="other")) == ["a", "b", "c"]
    await client.delete_offset(stream, topic, consumer="mine", partition=0)
    assert await client.get_offset(stream, topic, consumer="mine", partition=0) is None
    assert await refused(client.store_offset(stream, topic, 3, consumer="mine", partition=0)) is Status.INVALID_OFFSET


async def test_users_may_do_what_they_are_permitted(client: Client, server: Server, stream: str, topic: str) -> None:
    place = await client.get_stream(stream)
    assert place is not None
    permissions = Permissions(streams={place.stream.id: StreamPermissions(read_stream=True, poll_messages=True)})
    created = await client.create_user("limited", "secret", permissions)
    assert created.permissions == permissions
    assert await client.get_user(created.user.id) == await client.get_user("limited") == created
    async with Client(f"iggy://limited:secret@{server.address}") as user:
        assert await refused(user.create_stream("other")) is Status.UNAUTHORIZED
        assert await refused(user.send(stream, topic, ["x"], partition=0)) is Status.UNAUTHORIZED
        assert payloads(await user.poll(stream, topic, start="first")) == []
        await client.update_permissions("limited", Permissions(send_messages=True))
        await user.send(stream, topic, ["x"], partition=0)
        await user.change_password("limited", "secret", "secret2")
    await client.update_user("limited", username="limited-2", status=UserStatus.INACTIVE)
    assert ("limited-2", UserStatus.INACTIVE) in [(user.username, user.status) for user in await client.get_users()]
    await client.delete_user("limited-2")
    assert await client.get_user("limited-2") is None


async def test_the_server_tells_of_itself_and_its_clients(client: Client, stream: str, topic: str) -> None:
    await client.ping()
    await client.send(stream, topic, ["x"])
    stats = await client.get_stats()
    assert stats.streams_count >= 1 and stats.messages_count >= 1 and stats.clients_count >= 1
    assert stats.server_version and stats.process_id
    me = await client.get_me()
    assert me.client.user_id == 0
    assert await client.get_client(me.client.client_id) == me
    assert me.client in await client.get_clients()
    assert (await client.get_snapshot())[:2] == b"PK"
    assert len((await client.get_cluster_metadata()).nodes) == 1
    assert "message_expiry" in [option.key for option in await client.describe_options()]


async def test_errors_have_iggys_codes_and_names(client: Client, stream: str, topic: str) -> None:
    await client.create_group(stream, topic, "g")
    for call, code, name in (
        (client.create_stream(stream), 1012, "stream_name_already_exists"),
        (client.delete_stream("missing"), 1009, "stream_id_not_found"),
        (client.create_topic(stream, topic), 2013, "topic_name_already_exists"),
        (client.purge_topic(stream, "missing"), 2010, "topic_id_not_found"),
        (client.create_topic(stream, "many", 2000), 2015, "too_many_partitions"),
        (client.create_topic(stream, "odd", options={"colour": "red"}), 4041, "unsupported_option_key"),
        (client.poll(stream, topic, partition=9), 3007, "partition_not_found"),
        (client.join_group(stream, topic, "missing"), 5000, "consumer_group_id_not_found"),
        (client.create_group(stream, topic, "g"), 5004, "consumer_group_name_already_exists"),
        (client.create_user("iggy", "secret"), 46, "user_already_exists"),
        (client.delete_user("iggy"), 48, "cannot_delete_user"),
        (client.delete_token("missing"), 20, "resource_not_found"),
    ):
        with pytest.raises(BrokerError) as caught:
            await call
        assert (caught.value.code, caught.value.name) == (code, name)
    assert await client.get_topic(stream, "missing") is await client.get_user("missing") is None


async def test_any_number_of_calls_share_a_connection(client: Client, stream: str, topic: str) -> None:
    names = [f"many-{number}" for number in range(20)]
    sent, created, _ = await asyncio.gather(
        asyncio.gather(*(client.send(stream, topic, [str(number)], partition=0) for number in range(100))),
        asyncio.gather(*(client.create_topic(stream, name) for name in names)),
        asyncio.gather(*(client.poll(stream, topic, start="first") for _ in range(50))),
    )
    assert [each.base_offset for each in sent] == list(range(100))
    assert [each.topic.name for each in created] == names
    assert texts(await read(client, 0, stream)) == [str(number) for number in range(100)]


async def test_a_topic_is_purged(client: Client, stream: str, topic: str) -> None:
    for purge in (client.purge_topic(stream, topic), client.purge_stream(stream)):
        for offset in range(3):
            assert (await client.send(stream, topic, ["x"], partition=0)).base_offset == offset
        await client.store_offset(stream, topic, 2, consumer="mine", partition=0)
        await purge
        assert await read(client, 0, stream) == []
        assert await client.get_offset(stream, topic, consumer="mine", partition=0) is None


async def test_the_oldest_segments_are_deleted(client: Client, stream: str) -> None:
    await client.create_stream(stream)
    await client.create_topic(stream, "t", options={"segment_size": 1 << 20, "messages_required_to_save": 1})
    for _ in range(30):
        await client.send(stream, "t", [b"x" * 100_000], partition=0)
    assert [message.offset for message in await read(client, 0, stream)] == list(range(30))
    await client.delete_segments(stream, "t", 0, 1)
    first = (await client.poll(stream, "t", start="first", count=1)).messages[0].offset
    assert 8 <= first <= 12
    assert (await client.poll(stream, "t", start=Offset(0))).messages[0].offset == first
    await client.delete_segments(stream, "t", 0, 100)  # but not the one that is written to
    assert (await client.poll(stream, "t", start="last", count=1)).messages[0].offset == 29


async def test_a_partition_is_flushed(client: Client, server: Server, stream: str, topic: str) -> None:
    await client.send(stream, topic, ["x"], partition=0)
    if isinstance(server, IggyServer):  # it knows the command, and does not do it
        assert await refused(client.flush(stream, topic, 0)) is Status.FEATURE_UNAVAILABLE
    else:
        await client.flush(stream, topic, 0)


async def test_iggys_own_client_and_ours_read_each_other(
    client: Client, server: Server, stream: str, topic: str
) -> None:
    other = await wheel.connect(server.address)
    await wheel.send(other, stream, topic, ["theirs"])
    await client.send(stream, topic, ["ours"], partition=0)
    assert texts(await read(client, 0, stream)) == wheel.texts_of(await wheel.read_all(other, stream, topic))
    assert texts(await read(client, 0, stream)) == ["theirs", "ours"]
