"""Members that fall silent lose their partitions; those that say anything, and all in no group, are left alone."""

import asyncio
from contextlib import suppress

import pytest
from msgspec import Struct
from pybroker.broker import sweeper
from pybroker.broker.config import Config
from pybroker.broker.config.schema import with_values
from pybroker.broker.session import Session
from pybroker.broker.sweeper import Sweeper
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import JoinConsumerGroup, LeaveConsumerGroup
from pybroker.protocol.model.streams import GetStream
from pybroker.protocol.model.system import GetMe, Ping
from pybroker.protocol.model.users import Login, Logout
from support.broker import FIRST, GROUP, Broker

SECOND_US = 1_000_000
LIMIT_US = 36 * SECOND_US  # 1.2 times 30 s
JOIN = JoinConsumerGroup("s", "t", "g")


async def make_broker(config: Config | None = None) -> Broker:
    """Return a broker with a topic "t" of three partitions and a group "g" without members."""
    broker = Broker(config=config)
    await broker.create_topic(3)
    await broker.create_group()
    return broker


async def make_member(broker: Broker) -> Session:
    member = broker.connect()
    await broker.ask(JOIN, member)
    sweep(broker, 0)  # it was heard when it joined
    return member


def sweep(broker: Broker, *elapsed_us: int) -> None:
    for each_us in elapsed_us:
        Sweeper(broker.state).sweep(each_us)


async def test_silent_member_leaves_its_partitions_to_the_others() -> None:
    broker = await make_broker()
    silent, talker = await make_member(broker), await make_member(broker)
    sweep(broker, LIMIT_US)
    await broker.ask(Ping(), talker)
    sweep(broker, 1)
    share = await broker.sync_group(talker)
    assert share is not None
    assert share.partitions == [0, 1, 2]
    assert (silent.is_stale, talker.is_stale) == (True, False)


async def test_member_is_silent_for_its_whole_time_before_it_is_given_up() -> None:
    broker = await make_broker()
    member = await make_member(broker)
    sweep(broker, LIMIT_US - 1, 1)
    assert await broker.sync_group(member) is not None


@pytest.mark.parametrize("command", [Ping(), GetMe(), GetStream("none"), GetStream("s")])
async def test_any_request_is_a_sign_of_life(command: Struct) -> None:
    broker = await make_broker()
    member = await make_member(broker)
    for _ in range(4):
        sweep(broker, LIMIT_US)
        await broker.ask(command, member)
    assert await broker.sync_group(member) is not None


async def test_refused_request_is_a_sign_of_life_too() -> None:
    broker = await make_broker()
    member = await make_member(broker)
    for _ in range(4):
        sweep(broker, LIMIT_US)
        assert await broker.status(LeaveConsumerGroup("s", "t", "none"), member) is not Status.OK
    assert await broker.sync_group(member) is not None


async def test_who_is_in_no_group_may_be_silent() -> None:
    broker = await make_broker()
    reader, left, stranger = broker.connect(), await make_member(broker), broker.connect(None)
    await broker.ask(LeaveConsumerGroup("s", "t", "g"), left)
    sweep(broker, LIMIT_US, LIMIT_US)
    assert await broker.status(GetMe(), reader) is Status.OK
    assert await broker.status(GetMe(), left) is Status.OK
    assert await broker.status(Ping(), stranger) is Status.OK


async def test_silence_before_a_join_does_not_count() -> None:
    broker = await make_broker()
    late = broker.connect()
    sweep(broker, LIMIT_US, LIMIT_US)
    await broker.ask(JOIN, late)
    sweep(broker, LIMIT_US, LIMIT_US)
    assert not late.is_stale


@pytest.mark.parametrize("login", [True, False])
async def test_next_command_of_who_was_given_up_is_refused_until_it_signs_in_anew(login: bool) -> None:
    broker = await make_broker()
    member = await make_member(broker)
    sweep(broker, LIMIT_US + 1)
    for _ in range(2):
        assert await broker.status(GetMe(), member) is Status.STALE_CLIENT
        assert await broker.status(JOIN, member) is Status.STALE_CLIENT
    assert await broker.status(Ping(), member) is Status.OK
    await broker.ask(Login("iggy", "iggy") if login else Logout(), member)
    assert await broker.status(GetMe(), member) is (Status.OK if login else Status.UNAUTHENTICATED)


async def test_switched_off_nobody_is_given_up() -> None:
    broker = await make_broker(with_values(Config(), {"heartbeat.enabled": False}))
    member = await make_member(broker)
    sweep(broker, LIMIT_US, LIMIT_US)
    assert await broker.sync_group(member) is not None


async def test_interval_is_as_configured() -> None:
    broker = await make_broker(with_values(Config(), {"heartbeat.interval": SECOND_US}))
    member = await make_member(broker)
    sweep(broker, 1_200_000)
    assert not member.is_stale
    sweep(broker, 1)
    assert member.is_stale


@pytest.mark.parametrize("heartbeats", [True, False])
async def test_partition_that_nobody_commits_is_handed_over_after_the_timeout(heartbeats: bool) -> None:
    values = {"heartbeat.enabled": heartbeats, "consumer_group.rebalancing_timeout": 7 * SECOND_US}
    broker = await make_broker(with_values(Config(), values))
    await broker.send(b"a", partition_id=2)
    owner = await make_member(broker)
    assert (await broker.poll(FIRST, consumer=GROUP, partition_id=2, session=owner)).messages_count == 1
    newcomer = await make_member(broker)
    for elapsed_us, partitions in ((7 * SECOND_US - 1, []), (1, [2])):
        sweep(broker, elapsed_us)
        share = await broker.sync_group(newcomer)
        assert share is not None
        assert share.partitions == partitions


async def test_sweeps_go_on_after_a_failure_until_they_are_cancelled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL_US", 1)
    broker = await make_broker(with_values(Config(), {"heartbeat.interval": 10}))
    member = await make_member(broker)

    def fail() -> list[int]:
        del broker.state.groups.everyone
        raise RuntimeError("told to")

    broker.state.groups.everyone = fail  # type: ignore[method-assign]
    task = asyncio.create_task(Sweeper(broker.state).run())
    async with asyncio.timeout(10):
        while not member.is_stale:
            await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert "told to" in caplog.text
