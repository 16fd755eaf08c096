"""Every command as a method, asked of a broker."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from pybroker.client import BrokerError, Client, InvalidRequest, Message, Offset, PolledMessages, Timestamp
from pybroker.client.commands import Commands
from pybroker.protocol.commands import COMMANDS
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import Group, GroupMember
from pybroker.protocol.model.messages import GetPollRouting, PollMessagesOnPrimary, Sent
from pybroker.protocol.model.offsets import ConsumerOffset, GetConsumerOffsetRouting
from pybroker.protocol.model.system import AttachConsumerSession
from pybroker.protocol.model.tokens import LoginWithToken
from pybroker.protocol.model.users import Login, Logout
from pybroker.protocol.primitives import U64_MAX, Permissions, UserStatus
from support.broker import Broker

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
# The client's own, and what is only for who knows several servers: `call` asks it.
WITHOUT_METHOD = {
    Login,
    LoginWithToken,
    Logout,
    AttachConsumerSession,
    GetPollRouting,
    GetConsumerOffsetRouting,
    PollMessagesOnPrimary,
}


class Noting(Client):
    """A client that knows what it has asked."""

    asked: set[type[msgspec.Struct]]

    async def call(self, command: msgspec.Struct) -> msgspec.Struct | None:
        self.asked.add(type(command))
        return await super().call(command)


@pytest.fixture
async def client(url: str) -> AsyncIterator[Noting]:
    """A client that is signed in, with a stream s that has a topic t of two partitions."""
    async with Noting(url, timeout_s=10) as client:
        client.asked = set()
        await client.create_stream("s")
        await client.create_topic("s", "t", 2)
        yield client


def payloads(polled: PolledMessages) -> list[bytes]:
    return [message.payload for message in polled.messages]


async def streams_and_topics(client: Client) -> None:
    created = await client.create_stream("orders")
    assert await client.get_stream("orders") == await client.get_stream(created.stream.id) == created
    assert [stream.name for stream in await client.get_streams()] == ["s", "orders"]
    await client.update_stream("orders", "sales")
    assert await client.get_stream("orders") is None

    topic = await client.create_topic("sales", "new", 3, expiry=timedelta(hours=1), durability="persisted")
    assert (topic.topic.partitions_count, topic.topic.message_expiry_us) == (3, 3_600_000_000)
    await client.update_topic("sales", "new", "old", expiry=timedelta(hours=2), size_max=2 << 30)
    found = await client.get_topic("sales", "old")
    assert found is not None and found.topic.message_expiry_us == 7_200_000_000
    assert found.topic.max_topic_size == 2 << 30
    assert [each.name for each in await client.get_topics("sales")] == ["old"]
    await client.purge_topic("sales", "old")
    await client.purge_stream("sales")
    await client.delete_topic("sales", "old")
    await client.delete_stream("sales")
    assert await client.get_topics("s") != [] and len(await client.get_streams()) == 1


async def partitions(client: Client) -> None:
    await client.create_partitions("s", "t", 2)
    await client.delete_partitions("s", "t", 1)
    await client.delete_segments("s", "t", 0, 1)
    found = await client.get_topic("s", "t")
    assert found is not None and found.topic.partitions_count == 3


async def sending_and_polling(client: Client) -> None:
    assert await client.send("s", "t", [b"a", "b", Message("c", id=7)], partition=0) == Sent(0, 0, 0, 0)
    await client.flush("s", "t", 0)
    everything = await client.poll("s", "t", partition=0, start="first")
    assert payloads(everything) == [b"a", b"b", b"c"] and everything.current_offset == 2
    assert payloads(await client.poll("s", "t", start=Offset(1), count=1)) == [b"b"]
    assert payloads(await client.poll("s", "t", start="last", count=1)) == [b"c"]
    assert payloads(await client.poll("s", "t", start=Timestamp(everything.messages[0].timestamp_us))) != []
    assert payloads(await client.poll("s", "t", consumer="mine", auto_commit=True, count=2)) == [b"a", b"b"]
    assert await client.get_offset("s", "t", consumer="mine", partition=0) == ConsumerOffset(0, 2, 1)
    await client.store_offset("s", "t", 0, consumer="mine", partition=0)
    assert payloads(await client.poll("s", "t", consumer="mine")) == [b"b", b"c"]
    await client.delete_offset("s", "t", consumer="mine", partition=0)
    assert await client.get_offset("s", "t", consumer="mine", partition=0) is None


async def groups(client: Client) -> None:
    created = await client.create_group("s", "t", "g")
    assert await client.get_groups("s", "t") == [created.group]
    await client.join_group("s", "t", "g")
    found = await client.get_group("s", "t", "g")
    assert found is not None and found.group == Group(created.group.id, 3, 1, "g")
    assert [type(member) for member in found.members] == [GroupMember]
    assignment = await client.sync_group("s", "t", "g")
    assert assignment is not None and assignment.partitions == [0, 1, 2]
    assert payloads(await client.poll("s", "t", group="g", partition=0)) == [b"a", b"b", b"c"]
    await client.store_offset("s", "t", 1, group="g", partition=0)
    await client.leave_group("s", "t", "g")
    assert await client.sync_group("s", "t", "g") is None
    await client.delete_group("s", "t", "g")
    assert await client.get_group("s", "t", "g") is None


async def users_and_tokens(client: Client) -> None:
    created = await client.create_user("alice", "secret", Permissions(read_streams=True))
    assert await client.get_user("alice") == await client.get_user(created.user.id) == created
    await client.update_user("alice", username="alicia", status=UserStatus.INACTIVE)
    await client.update_permissions("alicia", None)
    await client.change_password("alicia", "secret", "secret2")
    assert [(user.username, user.status) for user in await client.get_users()][-1] == ("alicia", UserStatus.INACTIVE)
    await client.delete_user("alicia")
    assert await client.get_user("alicia") is None
    assert await client.create_token("laptop", timedelta(days=1))
    assert await client.create_token("phone")
    assert [token.name for token in await client.get_tokens() if not token.expires_at_us] == ["phone"]
    await client.delete_token("laptop")
    assert len(await client.get_tokens()) == 1


async def server(client: Client) -> None:
    await client.ping()
    assert (await client.get_stats()).streams_count == 1
    assert (await client.get_snapshot())[:2] == b"PK"
    assert len((await client.get_cluster_metadata()).nodes) == 1
    assert "message_expiry" in [option.key for option in await client.describe_options()]
    me = await client.get_me()
    assert await client.get_client(me.client.client_id) == me
    assert me.client in await client.get_clients()
    assert await client.get_client(1_000_000) is None


async def test_every_command_has_a_method(client: Noting) -> None:
    await streams_and_topics(client)
    await partitions(client)
    await sending_and_polling(client)
    await groups(client)
    await users_and_tokens(client)
    await server(client)
    assert {row.request for row in COMMANDS} - client.asked == WITHOUT_METHOD


def test_the_page_names_every_method() -> None:
    table = PAGE.read_text().partition("## Calls")[2].partition("`call(command)`")[0]
    named = {name for line in table.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)`", line)}
    assert named == {name for name in dir(Commands) if not name.startswith("_")} - {"call"}


async def test_a_key_always_leads_to_the_same_partition(client: Noting) -> None:
    sent = [await client.send("s", "t", ["x"], key=key) for key in ("a", "b", b"a", "b", "c", "d", "e", "f")]
    assert sent[0].partition_id == sent[2].partition_id and sent[1].partition_id == sent[3].partition_id
    assert {each.partition_id for each in sent} == {0, 1}


async def test_sends_without_a_key_go_round(client: Noting) -> None:
    sent = [await client.send("s", "t", ["x"]) for _ in range(4)]
    assert sorted(each.partition_id for each in sent) == [0, 0, 1, 1]


async def test_a_send_has_a_partition_or_a_key(client: Noting) -> None:
    for partition, key in ((1, "key"), (None, ""), (None, b"k" * 256)):
        with pytest.raises(InvalidRequest, match="either a partition or a key"):
            await client.send("s", "t", ["x"], partition=partition, key=key)


async def test_a_topics_options_go_by_name(client: Noting, broker: Broker) -> None:
    options = {"segment_size": "2 MiB", "preallocate_segments": True, "messages_required_to_save": 500}
    created = await client.create_topic("s", "tuned", options=options)
    values = {option.key: option.value for option in created.topic.options}
    assert (values["segment_size"], values["preallocate_segments"]) == (b"2 MiB", b"true")
    assert created.topic.message_expiry_us == U64_MAX
    with pytest.raises(BrokerError) as caught:
        await client.create_topic("s", "odd", options={"colour": "red"})
    assert caught.value.status is Status.UNSUPPORTED_OPTION_KEY


async def test_a_str_is_a_name_even_when_it_is_a_number(client: Noting) -> None:
    await client.create_stream("0")
    found = await client.get_stream("0")
    assert found is not None and found.stream.id == 1
    first = await client.get_stream(0)
    assert first is not None and first.stream.name == "s"


async def test_what_another_may_not_do_is_unauthorized(client: Noting, address: str) -> None:
    async with Client(f"iggy://bob:bob@{address}") as bob:
        with pytest.raises(BrokerError, match=r"create_stream: unauthorized \(41\)"):
            await bob.create_stream("mine")
        await bob.ping()
