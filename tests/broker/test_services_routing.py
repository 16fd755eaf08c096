"""What clients of a cluster ask: where to poll and commit, and to do it as the member that another connection is."""

from collections.abc import Callable

import pytest
from msgspec import Struct
from pybroker.broker.session import Session
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import JoinConsumerGroup, LeaveConsumerGroup
from pybroker.protocol.model.messages import GetPollRouting, PollMessagesOnPrimary
from pybroker.protocol.model.offsets import DeleteConsumerOffset, GetConsumerOffsetRouting, StoreConsumerOffset
from pybroker.protocol.model.system import AttachConsumerSession, ConsumerRouting, GetMe
from pybroker.protocol.model.users import Login, Logout
from pybroker.protocol.primitives import Consumer, ConsumerKind, Identifier
from support.broker import GROUP, NEXT, READER, Broker, polled_offsets

CLIENT = bytes(range(16))
JOIN = JoinConsumerGroup("s", "t", "g")
STORE = StoreConsumerOffset(GROUP, "s", "t", 0, 1)
Route = Callable[..., GetPollRouting | GetConsumerOffsetRouting]
NOBODY = Consumer(ConsumerKind.GROUP, "nobody")


@pytest.fixture
async def broker() -> Broker:
    """Topic "t" with two partitions, three messages in the first, and group "g" without members."""
    broker = Broker()
    broker.state.ports["tcp"] = 8090
    await broker.create_topic(2)
    await broker.send(b"a", b"b", b"c")
    await broker.create_group()
    return broker


@pytest.fixture
async def coordinator(broker: Broker) -> Session:
    """Return the session that is the group's member."""
    session = broker.connect(None)
    await broker.ask(Login("iggy", "iggy", client=CLIENT), session)
    await broker.ask(JOIN, session)
    return session


@pytest.fixture
async def data(broker: Broker, coordinator: Session) -> Session:
    """Return a session that is attached to the member's."""
    session = broker.connect()
    await broker.ask(AttachConsumerSession(CLIENT, coordinator.epoch, 0), session)
    return session


def poll_route(
    consumer: Consumer = GROUP, partition_id: int | None = 0, stream: Identifier = "s", topic: Identifier = "t"
) -> GetPollRouting:
    return GetPollRouting(consumer, stream, topic, partition_id, NEXT, 10, True)


def offset_route(
    consumer: Consumer = GROUP, partition_id: int | None = 0, stream: Identifier = "s", topic: Identifier = "t"
) -> GetConsumerOffsetRouting:
    return GetConsumerOffsetRouting(consumer, stream, topic, partition_id)


def poll(consumer: Consumer = GROUP, *, commit: bool = False) -> PollMessagesOnPrimary:
    return PollMessagesOnPrimary(consumer, "s", "t", 0, NEXT, 10, commit)


@pytest.mark.parametrize("route", [poll_route, offset_route])
@pytest.mark.parametrize("consumer", [GROUP, READER])
async def test_every_route_leads_here(
    broker: Broker,
    coordinator: Session,
    route: Route,
    consumer: Consumer,
) -> None:
    routing = await broker.ask(route(consumer), coordinator)
    assert isinstance(routing, ConsumerRouting)
    assert (routing.client, routing.session, routing.metadata_watermark) == (CLIENT, coordinator.epoch, 0)
    assert (routing.primary.tcp_port, routing.primary.role, routing.primary.status) == (8090, 0, 0)


@pytest.mark.parametrize("route", [poll_route, offset_route])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((GROUP, 0, "none"), Status.STREAM_ID_NOT_FOUND),
        ((GROUP, 0, "s", "none"), Status.TOPIC_ID_NOT_FOUND),
        ((READER, 2), Status.PARTITION_NOT_FOUND),
        ((NOBODY, 0), Status.CONSUMER_GROUP_ID_NOT_FOUND),
        ((GROUP, 2), Status.PARTITION_NOT_FOUND),
    ],
)
async def test_route_to_what_is_not_there_is_refused(
    broker: Broker,
    coordinator: Session,
    route: Route,
    arguments: tuple[Consumer, int, str],
    status: Status,
) -> None:
    assert await broker.status(route(*arguments), coordinator) is status


@pytest.mark.parametrize("route", [poll_route(), offset_route()])
async def test_route_to_a_partition_of_another_member_is_refused(
    broker: Broker, coordinator: Session, route: Struct
) -> None:
    other = broker.connect()
    assert await broker.status(route, other) is Status.CONSUMER_GROUP_MEMBER_NOT_FOUND
    await broker.ask(JOIN, other)
    assert await broker.status(route, coordinator) is Status.OK
    assert await broker.status(route, other) is Status.CONSUMER_GROUP_PARTITION_NOT_OWNED


async def test_asking_for_a_route_is_no_turn(broker: Broker, coordinator: Session) -> None:
    await broker.ask(poll_route(partition_id=None), coordinator)
    polled = await broker.poll(NEXT, consumer=GROUP, partition_id=None, session=coordinator)
    assert polled.partition_id == 0


async def test_poll_on_the_primary_is_a_poll(broker: Broker) -> None:
    assert polled_offsets(await broker.ask(poll(READER, commit=True))) == [0, 1, 2]
    assert polled_offsets(await broker.ask(poll(READER))) == []


async def test_attached_connection_polls_and_commits_as_the_member(
    broker: Broker, coordinator: Session, data: Session
) -> None:
    stranger = broker.connect()
    assert await broker.status(poll(), stranger) is Status.CONSUMER_GROUP_MEMBER_NOT_FOUND
    assert polled_offsets(await broker.ask(poll(), data)) == [0, 1, 2]
    await broker.ask(STORE, data)
    assert polled_offsets(await broker.poll(NEXT, consumer=GROUP, session=coordinator)) == [2]
    assert await broker.status(DeleteConsumerOffset(GROUP, "s", "t", 0), data) is Status.OK
    assert (await broker.ask(GetMe(), data)).groups == []


async def test_what_an_attached_connection_polled_is_the_members_to_commit(
    broker: Broker, coordinator: Session, data: Session
) -> None:
    await broker.send(b"d", partition_id=1)
    await broker.ask(PollMessagesOnPrimary(GROUP, "s", "t", 1, NEXT, 10, False), data)
    newcomer = broker.connect()
    await broker.ask(JOIN, newcomer)
    before = await broker.sync_group(newcomer)
    await broker.ask(StoreConsumerOffset(GROUP, "s", "t", 1, 0), data)
    after = await broker.sync_group(newcomer)
    assert before is not None
    assert after is not None
    assert (before.partitions, after.partitions) == ([], [1])


@pytest.mark.parametrize("how", ["disconnect", "logout", "login"])
async def test_attachment_ends_with_the_members_session(
    broker: Broker, coordinator: Session, data: Session, how: str
) -> None:
    if how == "disconnect":
        broker.dispatch.disconnected(coordinator)
    else:
        await broker.ask(Logout() if how == "logout" else Login("iggy", "iggy", client=CLIENT), coordinator)
    if how == "logout":
        await broker.ask(Login("iggy", "iggy", client=CLIENT), coordinator)
        await broker.ask(JOIN, coordinator)
    assert await broker.status(poll(), data) is Status.CONSUMER_GROUP_MEMBER_NOT_FOUND
    assert await broker.status(STORE, data) is Status.CONSUMER_GROUP_MEMBER_NOT_FOUND


async def test_attachment_ends_with_the_membership(broker: Broker, coordinator: Session, data: Session) -> None:
    await broker.ask(LeaveConsumerGroup("s", "t", "g"), coordinator)
    assert await broker.status(poll(), data) is Status.CONSUMER_GROUP_MEMBER_NOT_FOUND


async def test_end_of_an_attached_connection_ends_nothing_else(
    broker: Broker, coordinator: Session, data: Session
) -> None:
    broker.dispatch.disconnected(data)
    assert await broker.status(STORE, coordinator) is Status.OK


@pytest.mark.parametrize(
    ("user", "client", "fence"),
    [("iggy", CLIENT, 1), ("iggy", bytes(16), 0), ("iggy", CLIENT[::-1], 0), ("bob", CLIENT, 0)],
    ids=["another session", "no client id", "another client id", "another user"],
)
async def test_attaching_to_what_is_not_ones_own_is_refused(
    broker: Broker, coordinator: Session, user: str, client: bytes, fence: int
) -> None:
    session = broker.connect(user)
    command = AttachConsumerSession(client, coordinator.epoch + fence, 0)
    assert await broker.status(command, session) is Status.INVALID_SESSION
    assert await broker.status(poll(), session) is not Status.OK


async def test_attached_connection_is_its_own_again_once_it_signs_in_anew(
    broker: Broker, coordinator: Session, data: Session
) -> None:
    await broker.ask(Login("iggy", "iggy"), data)
    assert await broker.status(poll(), data) is Status.CONSUMER_GROUP_MEMBER_NOT_FOUND
    await broker.ask(JOIN, data)
    assert len((await broker.ask(GetMe(), data)).groups) == 1
    assert await broker.status(STORE, coordinator) is Status.OK
