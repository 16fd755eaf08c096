"""A member joins while another has polled messages that it has not committed: none is handled twice."""

import pytest
from pybroker.broker.session import Session
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import GetConsumerGroup, GroupMember, JoinConsumerGroup
from pybroker.protocol.model.messages import RESYNC_PARTITION, Polled
from pybroker.protocol.model.offsets import DeleteConsumerOffset, StoreConsumerOffset
from pybroker.protocol.model.streams import PurgeStream
from pybroker.protocol.model.topics import PurgeTopic
from pybroker.storage.engine import ReadLimit
from support.broker import FIRST, GROUP, NEXT, Broker, polled_offsets, polled_payloads, read_with

JOIN = JoinConsumerGroup("s", "t", "g")
RESYNC = Polled(RESYNC_PARTITION, 0, 0, [])
TIMEOUT_US = 30_000_000


@pytest.fixture
async def broker() -> Broker:
    """Topic "t" with two partitions of ten messages, and group "g" of root alone."""
    broker = Broker()
    await broker.create_topic(2)
    for partition_id in range(2):
        await broker.send(*(b"%d.%d" % (partition_id, number) for number in range(10)), partition_id=partition_id)
    await broker.create_group(broker.root)
    return broker


@pytest.fixture
def newcomer(broker: Broker) -> Session:
    return broker.connect()


async def poll(broker: Broker, member: Session, partition_id: int | None = 1, *, commit: bool = False) -> Polled:
    return await broker.poll(NEXT, 5, consumer=GROUP, partition_id=partition_id, auto_commit=commit, session=member)


def store(offset: int, partition_id: int | None = 1) -> StoreConsumerOffset:
    return StoreConsumerOffset(GROUP, "s", "t", partition_id, offset)


async def partitions_of(broker: Broker, *members: Session) -> list[list[int]]:
    shares = [await broker.sync_group(member) for member in members]
    return [share.partitions for share in shares if share]


async def test_what_was_polled_moves_once_all_of_it_is_committed(broker: Broker, newcomer: Session) -> None:
    await poll(broker, broker.root)
    await broker.ask(JOIN, newcomer)
    assert await partitions_of(broker, broker.root, newcomer) == [[0], []]
    assert await poll(broker, newcomer) == RESYNC
    await broker.ask(store(3))
    assert await partitions_of(broker, broker.root, newcomer) == [[0], []]
    await broker.ask(store(4))
    assert await partitions_of(broker, broker.root, newcomer) == [[0], [1]]
    assert polled_offsets(await poll(broker, newcomer)) == [5, 6, 7, 8, 9]
    assert await poll(broker, broker.root) == RESYNC
    assert await broker.status(store(4)) is Status.CONSUMER_GROUP_PARTITION_NOT_OWNED


@pytest.mark.parametrize("commit", [True, False])
async def test_what_is_committed_or_was_never_polled_moves_at_once(
    broker: Broker, newcomer: Session, commit: bool
) -> None:
    await poll(broker, broker.root, partition_id=1 if commit else 0, commit=commit)
    await broker.ask(JOIN, newcomer)
    assert await partitions_of(broker, broker.root, newcomer) == [[0], [1]]
    assert polled_offsets(await poll(broker, newcomer))[0] == (5 if commit else 0)


async def test_a_poll_that_found_nothing_holds_nothing_up(broker: Broker, newcomer: Session) -> None:
    await broker.ask(store(9))
    assert (await poll(broker, broker.root)).messages_count == 0
    await broker.ask(JOIN, newcomer)
    assert await partitions_of(broker, newcomer) == [[1]]


async def test_messages_from_before_the_stored_offset_hold_nothing_up(broker: Broker, newcomer: Session) -> None:
    await broker.ask(store(7))
    await broker.poll(FIRST, 5, consumer=GROUP, partition_id=1)
    await broker.ask(JOIN, newcomer)
    assert await partitions_of(broker, newcomer) == [[1]]


async def test_old_owner_names_the_partition_but_does_not_get_it_in_turn(broker: Broker, newcomer: Session) -> None:
    await poll(broker, broker.root)
    await broker.ask(JOIN, newcomer)
    turns = [await poll(broker, broker.root, None) for _ in range(3)]
    assert [polled.partition_id for polled in turns] == [0, 0, 0]
    await broker.sync_group(broker.root)
    assert (await poll(broker, broker.root)).partition_id == 1
    assert (await broker.ask(GetConsumerGroup("s", "t", "g"))).members == [
        GroupMember(broker.root.client_id, [0, 1]),
        GroupMember(newcomer.client_id, []),
    ]


async def test_offset_without_a_partition_is_of_the_one_polled_last_also_when_that_leaves(
    broker: Broker, newcomer: Session
) -> None:
    for expected in (0, 1):
        assert (await poll(broker, broker.root, None)).partition_id == expected
    await broker.ask(JOIN, newcomer)
    await broker.ask(store(4, None))
    assert await partitions_of(broker, newcomer) == [[1]]
    assert polled_offsets(await poll(broker, newcomer))[0] == 5
    assert await broker.status(store(4, None)) is Status.CONSUMER_GROUP_PARTITION_NOT_OWNED


async def test_auto_commit_of_the_old_owner_lets_go(broker: Broker, newcomer: Session) -> None:
    await poll(broker, broker.root)
    await broker.ask(JOIN, newcomer)
    await broker.sync_group(broker.root)
    assert polled_offsets(await poll(broker, broker.root, commit=True)) == [0, 1, 2, 3, 4]
    assert await partitions_of(broker, newcomer) == [[1]]
    assert polled_offsets(await poll(broker, newcomer)) == [5, 6, 7, 8, 9]


async def test_messages_polled_while_the_partition_leaves_hold_it_up_too(broker: Broker, newcomer: Session) -> None:
    await poll(broker, broker.root)
    await broker.ask(JOIN, newcomer)
    await broker.sync_group(broker.root)
    await broker.poll(FIRST, 8, consumer=GROUP, partition_id=1)
    await broker.ask(store(4))
    assert await partitions_of(broker, newcomer) == [[]]
    await broker.ask(store(7))
    assert await partitions_of(broker, newcomer) == [[1]]


async def test_uncommitted_messages_are_given_again_after_the_timeout(broker: Broker, newcomer: Session) -> None:
    await poll(broker, broker.root)
    await broker.ask(JOIN, newcomer)
    broker.state.groups.wait(TIMEOUT_US, TIMEOUT_US)
    assert polled_offsets(await poll(broker, newcomer, None)) == [0, 1, 2, 3, 4]
    assert await broker.status(store(4)) is Status.CONSUMER_GROUP_PARTITION_NOT_OWNED


async def test_uncommitted_messages_are_given_again_when_their_member_goes(broker: Broker, newcomer: Session) -> None:
    await poll(broker, broker.root)
    await broker.ask(JOIN, newcomer)
    broker.dispatch.disconnected(broker.root)
    assert await partitions_of(broker, newcomer) == [[0, 1]]
    assert polled_offsets(await poll(broker, newcomer)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("command", [PurgeTopic("s", "t"), PurgeStream("s")])
async def test_purged_messages_hold_nothing_up(
    broker: Broker, newcomer: Session, command: PurgeTopic | PurgeStream
) -> None:
    await poll(broker, broker.root, 0)
    await poll(broker, broker.root, 1)
    await broker.ask(JOIN, newcomer)
    await broker.ask(command)
    assert await partitions_of(broker, broker.root, newcomer) == [[0], [1]]
    third = broker.connect()
    await broker.ask(JOIN, third)
    broker.dispatch.disconnected(newcomer)
    assert await partitions_of(broker, broker.root, third) == [[0], [1]]


async def test_a_forgotten_offset_holds_nothing_up(broker: Broker, newcomer: Session) -> None:
    await poll(broker, broker.root, commit=True)
    await broker.ask(DeleteConsumerOffset(GROUP, "s", "t", 1))
    await broker.ask(JOIN, newcomer)
    assert polled_offsets(await poll(broker, newcomer)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("commit", [True, False])
async def test_a_poll_that_the_disk_kept_waiting_gives_nothing_that_another_has_by_then(
    broker: Broker, newcomer: Session, commit: bool
) -> None:
    log = broker.state.logs.of(broker.state.catalog.topic("s", "t")[1].partitions[1])
    read = log.read

    async def slow(offset: int, limit: ReadLimit) -> list[memoryview]:
        read_as_ever()
        await broker.ask(JOIN, newcomer)
        assert polled_offsets(await poll(broker, newcomer)) == [0, 1, 2, 3, 4]
        return await read(offset, limit)

    read_as_ever = read_with(log, slow)
    assert await poll(broker, broker.root, commit=commit) == RESYNC
    assert polled_offsets(await poll(broker, newcomer)) == [0, 1, 2, 3, 4], "nothing was committed"


@pytest.mark.parametrize("joins_after", range(0, 9, 2))
async def test_each_message_goes_to_one_member_when_all_commit_what_they_handled(
    broker: Broker, newcomer: Session, joins_after: int
) -> None:
    """Members poll, and commit one round later what they handled, as a client with a buffer does."""
    members = [broker.root]
    handled: list[bytes] = []
    buffered: dict[int, list[tuple[int, int]]] = {}
    for number in range(40):
        if number == joins_after:
            await broker.ask(JOIN, newcomer)
            members.append(newcomer)
        for member in members:
            for partition_id, offset in buffered.pop(member.client_id, []):
                await broker.ask(store(offset, partition_id), member)
            for partition_id in (await partitions_of(broker, member))[0]:
                polled = await broker.poll(NEXT, 2, consumer=GROUP, partition_id=partition_id, session=member)
                handled += polled_payloads(polled)
                if offsets := polled_offsets(polled):
                    buffered.setdefault(member.client_id, []).append((partition_id, offsets[-1]))
    assert sorted(handled) == sorted(b"%d.%d" % (partition, number) for partition in range(2) for number in range(10))
    assert await partitions_of(broker, *members) == [[0], [1]]
