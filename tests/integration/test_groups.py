"""Consumer groups by command: members, their partitions, and who may poll what."""

import pytest
from apache_iggy import Consumer, IggyClient, PollingStrategy
from pybroker.protocol.errors import Status
from pybroker.protocol.model import groups, messages, offsets, system
from pybroker.protocol.model.messages import RESYNC_PARTITION
from pybroker.protocol.primitives import Consumer as WireConsumer
from pybroker.protocol.primitives import ConsumerKind, PollingKind
from pybroker.protocol.primitives import PollingStrategy as WireStrategy
from support.raw import RawClient
from support.server import Server
from support.wheel import bounded, connect, make_topic, poll, refused, send, texts_of, until

GROUP = WireConsumer(ConsumerKind.GROUP, "group")


async def make_group(client: IggyClient, stream: str, partitions_count: int = 4) -> None:
    """Create a topic with a group, and in each partition a message with its id."""
    await make_topic(client, stream, "topic", partitions_count)
    await bounded(client.create_consumer_group(stream, "topic", "group"))
    for partition_id in range(partitions_count):
        await send(client, stream, "topic", [str(partition_id)], partition_id)


async def owned(client: IggyClient, stream: str) -> list[list[int]]:
    """Return the partitions of each member of the group."""
    group = await bounded(client.get_consumer_group(stream, "topic", "group"))
    assert group is not None
    return [member.partitions for member in group.members]


def join(member: RawClient, stream: str) -> None:
    assert member.ask(groups.JoinConsumerGroup(stream, "topic", "group")) is None


def sync(member: RawClient, stream: str) -> groups.GroupAssignment | None:
    return member.ask(groups.SyncConsumerGroup(stream, "topic", "group"))


async def test_groups_are_made_found_listed_and_deleted(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "topic", 3)
    for name in ("first", "second"):
        await bounded(client.create_consumer_group(stream, "topic", name))
    await refused(client.create_consumer_group(stream, "topic", "first"), Status.CONSUMER_GROUP_NAME_ALREADY_EXISTS)
    listed = await bounded(client.get_consumer_groups(stream, "topic"))
    assert [(group.id, group.name, group.partitions_count, group.members_count) for group in listed] == [
        (0, "first", 3, 0),
        (1, "second", 3, 0),
    ]
    for found in (1, "second"):
        group = await bounded(client.get_consumer_group(stream, "topic", found))
        assert group is not None
        assert (group.id, group.name, group.partitions_count, group.members) == (1, "second", 3, [])
    await bounded(client.delete_consumer_group(stream, "topic", "second"))
    assert await bounded(client.get_consumer_group(stream, "topic", "second")) is None
    assert len(await bounded(client.get_consumer_groups(stream, "topic"))) == 1


async def test_commands_about_groups_that_are_not_there_are_refused(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream)
    missing = Status.CONSUMER_GROUP_ID_NOT_FOUND
    await refused(client.delete_consumer_group(stream, "topic", "none"), missing)
    await refused(client.join_consumer_group(stream, "topic", "none"), missing)
    await refused(client.leave_consumer_group(stream, "topic", "none"), missing)
    await refused(client.create_consumer_group(stream, "none", "group"), Status.TOPIC_ID_NOT_FOUND)
    await refused(client.get_consumer_groups("none", "topic"), Status.STREAM_ID_NOT_FOUND)
    await bounded(client.create_consumer_group(stream, "topic", "group"))
    await refused(client.leave_consumer_group(stream, "topic", "group"), Status.CONSUMER_GROUP_MEMBER_NOT_FOUND)
    with pytest.raises(RuntimeError):
        await poll(client, stream, "topic", consumer=Consumer.Group("group"), partition_id=None)


async def test_members_share_the_partitions(server: Server, client: IggyClient, stream: str) -> None:
    await make_group(client, stream)
    members = [await connect(server.address) for _ in range(3)]
    shares: list[list[int]] = []
    for member in members:
        await bounded(member.join_consumer_group(stream, "topic", "group"))
        await bounded(member.join_consumer_group(stream, "topic", "group"))  # twice is once
        shares.append(sorted(map(len, await owned(client, stream))))
        assert sorted(number for share in await owned(client, stream) for number in share) == [0, 1, 2, 3]
    assert shares == [[4], [2, 2], [1, 1, 2]]
    await bounded(members[0].leave_consumer_group(stream, "topic", "group"))
    assert sorted(map(len, await owned(client, stream))) == [2, 2]


async def test_each_member_reads_its_own_partitions(server: Server, client: IggyClient, stream: str) -> None:
    await make_group(client, stream)
    members = [client, await connect(server.address)]
    for member in members:
        await bounded(member.join_consumer_group(stream, "topic", "group"))
    found = [
        {
            text
            for _ in range(4)
            for text in texts_of(
                await poll(
                    member,
                    stream,
                    "topic",
                    PollingStrategy.Next(),
                    consumer=Consumer.Group("group"),
                    partition_id=None,
                    auto_commit=True,
                )
            )
        }
        for member in members
    ]
    assert [len(part) for part in found] == [2, 2]
    assert found[0] | found[1] == {"0", "1", "2", "3"}


async def test_more_members_than_partitions_leave_some_idle(
    server: Server, client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_group(client, stream, 1)
    join(raw, stream)
    with RawClient(server.port) as idle:
        idle.login()
        join(idle, stream)
        shares = [sync(member, stream) for member in (raw, idle)]
        assert sorted(len(share.partitions) for share in shares if share) == [0, 1]
        commands = [poll_of(stream, None), poll_of(stream, 0)]
        answers = [idle.ask(command) for command in commands]
        assert [(answer.partition_id, answer.messages_count) for answer in answers] == [(RESYNC_PARTITION, 0)] * 2


def poll_of(stream: str, partition_id: int | None) -> messages.PollMessages:
    return messages.PollMessages(GROUP, stream, "topic", partition_id, WireStrategy(PollingKind.NEXT), 10, True)


async def test_a_member_that_lost_a_partition_is_told_to_ask_anew(
    server: Server, client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_group(client, stream, 2)
    assert sync(raw, stream) is None
    join(raw, stream)
    before = sync(raw, stream)
    assert before is not None
    assert before.partitions == [0, 1]
    with RawClient(server.port) as other:
        other.login()
        join(other, stream)
        after = sync(raw, stream)
        assert after is not None
        assert after.generation > before.generation
        (lost,) = set(before.partitions) - set(after.partitions)
        assert raw.ask(poll_of(stream, lost)).partition_id == RESYNC_PARTITION
        assert other.ask(poll_of(stream, lost)).messages_count == 1
    await until(lambda: has_all(raw, stream, 2))
    assert raw.ask(poll_of(stream, lost)).messages_count == 0  # the other one stored its offset


async def has_all(member: RawClient, stream: str, partitions_count: int) -> bool:
    share = sync(member, stream)
    return share is not None and share.partitions == list(range(partitions_count))


async def test_a_change_of_partitions_is_dealt_to_the_members(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_group(client, stream, 2)
    join(raw, stream)
    generations: list[int] = []
    for change in (client.create_partitions, client.delete_partitions):
        await bounded(change(stream, "topic", 1))
        share = sync(raw, stream)
        assert share is not None
        generations.append(share.generation)
        assert share.partitions == ([0, 1, 2] if change == client.create_partitions else [0, 1])
    assert generations[0] < generations[1]


async def test_whoever_disconnects_or_signs_out_leaves_its_groups(
    server: Server, client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_group(client, stream)
    join(raw, stream)
    leaver = await connect(server.address)
    await bounded(leaver.join_consumer_group(stream, "topic", "group"))
    assert len(await owned(client, stream)) == 2
    await bounded(leaver.logout_user())
    assert await owned(client, stream) == [[0, 1, 2, 3]]
    raw.close()

    async def nobody_left() -> bool:
        return await owned(client, stream) == []

    await until(nobody_left)


async def test_a_deleted_group_has_no_members_when_it_is_made_again(
    client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_group(client, stream)
    join(raw, stream)
    await bounded(client.delete_consumer_group(stream, "topic", "group"))
    await bounded(client.create_consumer_group(stream, "topic", "group"))
    assert await owned(client, stream) == []
    assert sync(raw, stream) is None
    assert raw.ask(poll_of(stream, 0)).status == Status.CONSUMER_GROUP_MEMBER_NOT_FOUND


async def test_what_a_member_polled_moves_to_a_newcomer_once_it_is_committed(
    server: Server, client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_group(client, stream, 2)
    join(raw, stream)
    by_name = messages.PollMessages(GROUP, stream, "topic", 1, WireStrategy(PollingKind.NEXT), 10, False)
    assert raw.ask(by_name).messages_count == 1
    with RawClient(server.port) as newcomer:
        newcomer.login()
        join(newcomer, stream)
        shares: list[list[int]] = []
        for command in (None, offsets.StoreConsumerOffset(GROUP, stream, "topic", 1, 0)):
            if command is not None:
                assert raw.ask(command) is None
            shares += [share.partitions for member in (raw, newcomer) if (share := sync(member, stream))]
        assert shares == [[0], [], [0], [1]]
        assert raw.ask(by_name).partition_id == RESYNC_PARTITION
        assert newcomer.ask(by_name).messages_count == 0


async def test_a_routed_connection_polls_and_commits_as_the_member(
    server: Server, client: IggyClient, stream: str, raw: RawClient
) -> None:
    """The client asks this only of clusters, so the frames are made here."""
    await make_group(client, stream, 1)
    join(raw, stream)
    target = (GROUP, stream, "topic", 0)
    following = (WireStrategy(PollingKind.NEXT), 10, False)
    route = raw.ask(messages.GetPollRouting(*target, *following))
    assert (route.client, route.session) == (raw.client.to_bytes(16, "little"), raw.session)
    assert route.primary.tcp_port == server.port
    assert raw.ask(offsets.GetConsumerOffsetRouting(*target)) == route
    with RawClient(server.port) as data:
        data.login()
        poll_there = messages.PollMessagesOnPrimary(*target, *following)
        assert data.ask(poll_there).status == Status.CONSUMER_GROUP_MEMBER_NOT_FOUND
        wrong = system.AttachConsumerSession(route.client, route.session + 1, 0)
        assert data.ask(wrong).status == Status.INVALID_SESSION
        assert data.ask(system.AttachConsumerSession(route.client, route.session, 0)) is None
        assert data.ask(poll_there).messages_count == 1
        assert data.ask(offsets.StoreConsumerOffset(*target, 0)) is None
        assert data.ask(poll_there).messages_count == 0
        raw.close()

        async def is_cut_off() -> bool:
            answer = data.ask(poll_there)
            return not isinstance(answer, messages.Polled) and answer.status == Status.CONSUMER_GROUP_MEMBER_NOT_FOUND

        await until(is_cut_off)
