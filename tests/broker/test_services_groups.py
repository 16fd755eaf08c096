"""Consumer groups as commands: create, look up, join, leave, sync, delete."""

import pytest
from msgspec import Struct
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import (
    CreateConsumerGroup,
    DeleteConsumerGroup,
    GetConsumerGroup,
    GetConsumerGroups,
    Group,
    GroupAssignment,
    GroupDetails,
    GroupMember,
    JoinConsumerGroup,
    LeaveConsumerGroup,
    SyncConsumerGroup,
)
from pybroker.protocol.model.system import GetMe, GroupReference
from pybroker.protocol.model.users import Logout
from support.broker import Broker

GET = GetConsumerGroup("s", "t", "g")
JOIN = JoinConsumerGroup("s", "t", "g")
LEAVE = LeaveConsumerGroup("s", "t", "g")
SYNC = SyncConsumerGroup("s", "t", "g")
DELETE = DeleteConsumerGroup("s", "t", "g")


@pytest.fixture
async def broker() -> Broker:
    """Topic "t" with three partitions and group "g" without members."""
    broker = Broker()
    await broker.create_topic(3)
    await broker.create_group()
    return broker


IN_PARENT = [GetConsumerGroup, CreateConsumerGroup, DeleteConsumerGroup, JoinConsumerGroup, LeaveConsumerGroup]
REFUSED = [
    *((kind("x", "t", "g"), Status.STREAM_ID_NOT_FOUND) for kind in (*IN_PARENT, SyncConsumerGroup)),
    *((kind("s", "x", "g"), Status.TOPIC_ID_NOT_FOUND) for kind in (*IN_PARENT, SyncConsumerGroup)),
    (GetConsumerGroups("x", "t"), Status.STREAM_ID_NOT_FOUND),
    (GetConsumerGroups("s", 9), Status.TOPIC_ID_NOT_FOUND),
    (CreateConsumerGroup("s", "t", "g"), Status.CONSUMER_GROUP_NAME_ALREADY_EXISTS),
    *(
        (kind("s", "t", group), Status.CONSUMER_GROUP_ID_NOT_FOUND)
        for kind in (DeleteConsumerGroup, JoinConsumerGroup, LeaveConsumerGroup, SyncConsumerGroup)
        for group in ("x", 1)
    ),
    (LEAVE, Status.CONSUMER_GROUP_MEMBER_NOT_FOUND),
]


@pytest.mark.parametrize(("command", "status"), REFUSED, ids=lambda value: str(value)[:60])
async def test_refused_command_has_iggys_status_and_changes_nothing(
    broker: Broker, command: Struct, status: Status
) -> None:
    before = await broker.ask(GetConsumerGroups("s", "t"))
    assert await broker.status(command) is status
    assert await broker.ask(GetConsumerGroups("s", "t")) == before


async def test_created_group_is_shown_whole(broker: Broker) -> None:
    assert await broker.ask(CreateConsumerGroup("s", "t", "h")) == GroupDetails(Group(1, 3, 0, "h"), [])
    assert await broker.ask(GetConsumerGroup("s", "t", 1)) == GroupDetails(Group(1, 3, 0, "h"), [])
    groups = (await broker.ask(GetConsumerGroups("s", "t"))).groups
    assert groups == [Group(0, 3, 0, "g"), Group(1, 3, 0, "h")]


async def test_missing_group_reads_as_nothing(broker: Broker) -> None:
    assert await broker.ask(GetConsumerGroup("s", "t", "x")) is None
    assert await broker.ask(GetConsumerGroup("s", "t", 7)) is None


async def test_names_are_of_a_topic(broker: Broker) -> None:
    await broker.create_topic(name="u")
    await broker.create_group(topic="u")
    assert (await broker.ask(GetConsumerGroup("s", "u", "g"))).group.id == 0


async def test_members_share_the_partitions(broker: Broker) -> None:
    members = [broker.connect(), broker.connect()]
    for member in members:
        await broker.ask(JOIN, member)
    details = await broker.ask(GET)
    ids = [member.client_id for member in members]
    assert details == GroupDetails(Group(0, 3, 2, "g"), [GroupMember(ids[0], [0, 1]), GroupMember(ids[1], [2])])


async def test_member_learns_its_partitions_and_the_generation(broker: Broker) -> None:
    first, second = broker.connect(), broker.connect()
    assert await broker.ask(SYNC, first) is None
    await broker.ask(JOIN, first)
    assert await broker.ask(SYNC, first) == GroupAssignment(1, [0, 1, 2])
    await broker.ask(JOIN, second)
    assert await broker.ask(SYNC, first) == GroupAssignment(2, [0, 1])
    assert await broker.ask(SYNC, second) == GroupAssignment(2, [2])
    await broker.ask(LEAVE, first)
    assert await broker.ask(SYNC, second) == GroupAssignment(3, [0, 1, 2])
    assert await broker.ask(SYNC, first) is None


async def test_joining_twice_is_fine_and_leaving_twice_is_not(broker: Broker) -> None:
    member = broker.connect()
    for _ in range(2):
        assert await broker.status(JOIN, member) is Status.OK
    assert (await broker.ask(SYNC, member)).generation == 1
    assert await broker.status(LEAVE, member) is Status.OK
    assert await broker.status(LEAVE, member) is Status.CONSUMER_GROUP_MEMBER_NOT_FOUND


@pytest.mark.parametrize("how", ["disconnect", "logout"])
async def test_member_that_goes_leaves_its_groups(broker: Broker, how: str) -> None:
    gone, left = broker.connect(), broker.connect()
    await broker.create_group(gone, name="h")
    for member in (gone, left):
        await broker.ask(JOIN, member)
    if how == "disconnect":
        broker.dispatch.disconnected(gone)
    else:
        await broker.ask(Logout(), gone)
    assert (await broker.ask(SYNC, left)).partitions == [0, 1, 2]
    assert (await broker.ask(GetConsumerGroup("s", "t", "h"))).members == []


async def test_client_shows_the_groups_it_is_in(broker: Broker) -> None:
    member = broker.connect()
    await broker.create_group(name="h")
    await broker.ask(JOIN, member)
    await broker.ask(JoinConsumerGroup(0, 0, 1), member)
    details = await broker.ask(GetMe(), member)
    assert details.client.groups_count == 2
    assert details.groups == [GroupReference(0, 0, 0), GroupReference(0, 0, 1)]


async def test_deleted_group_has_no_members_left(broker: Broker) -> None:
    member = broker.connect()
    await broker.ask(JOIN, member)
    await broker.ask(DELETE)
    assert (await broker.ask(GetMe(), member)).groups == []
    assert await broker.status(SYNC, member) is Status.CONSUMER_GROUP_ID_NOT_FOUND
    assert (await broker.ask(CreateConsumerGroup("s", "t", "g"))).group == Group(0, 3, 0, "g")
    assert await broker.ask(SYNC, member) is None


async def test_freed_ids_come_back_last_first_also_after_a_restart(broker: Broker) -> None:
    for name in ("h", "i", "j"):
        await broker.create_group(name=name)
    for group in (1, 3, 0):
        await broker.ask(DeleteConsumerGroup("s", "t", group))
    await broker.restart()
    created = [await broker.ask(CreateConsumerGroup("s", "t", name)) for name in ("a", "b", "c", "d")]
    assert [details.group.id for details in created] == [0, 3, 1, 4]


async def test_groups_survive_a_restart_and_members_do_not(broker: Broker) -> None:
    await broker.ask(JOIN, broker.connect())
    await broker.restart()
    assert await broker.ask(GET) == GroupDetails(Group(0, 3, 0, "g"), [])
