"""Members of consumer groups that hang: others get their partitions, and they come back when they wake up."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_iggy import IggyClient
from pybroker.protocol.errors import Status
from pybroker.protocol.model import groups, system
from support.raw import EVICTION, REPLY, Answer, RawClient
from support.server import Server
from support.wheel import bounded, make_topic, until

MEMBER = Path(__file__).with_name("member.py")
REASON_STALE = 13
# Members that wait in their sleep for long: the client redials no sooner than 5 s after it connected last.
WAKE_TIMEOUT_S = 40.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that gives members up after 1.2 s."""
    folder = tmp_path_factory.mktemp("server")
    with Server(folder / "data", settings={"IGGY_HEARTBEAT_INTERVAL": "1 s"}) as running:
        yield running


def join(member: RawClient, stream: str) -> None:
    assert member.ask(groups.JoinConsumerGroup(stream, "topic", "group")) is None


def owned(member: RawClient, stream: str) -> list[int]:
    share = member.ask(groups.SyncConsumerGroup(stream, "topic", "group"))
    assert isinstance(share, groups.GroupAssignment)
    return share.partitions


async def make_group(client: IggyClient, stream: str) -> None:
    await make_topic(client, stream, "topic", 2)
    await bounded(client.create_consumer_group(stream, "topic", "group"))


@pytest.mark.parametrize("writes", [False, True])
async def test_silent_member_is_evicted_told_and_disconnected(
    server: Server, client: IggyClient, stream: str, raw: RawClient, writes: bool
) -> None:
    await make_group(client, stream)
    with RawClient(server.port) as silent, RawClient(server.port) as reader:
        for other in (silent, reader):
            other.login()
        for member in (silent, raw):
            join(member, stream)
        assert len(owned(raw, stream)) == 1

        async def has_all() -> bool:
            return len(owned(raw, stream)) == 2

        await until(has_all)
        command = groups.LeaveConsumerGroup(stream, "topic", "group") if writes else system.GetMe()
        answer = silent.ask(command)
        assert isinstance(answer, Answer)
        if writes:
            assert (answer.kind, answer.reason) == (EVICTION, REASON_STALE)
        else:
            assert (answer.kind, answer.status) == (REPLY, Status.STALE_CLIENT)
        with pytest.raises(ConnectionError):
            silent.receive()
        assert isinstance(reader.ask(system.GetMe()), system.ClientDetails), "silent too, but in no group"


async def test_hung_program_loses_its_partitions_and_joins_anew_when_it_wakes(
    server: Server, client: IggyClient, stream: str, raw: RawClient
) -> None:
    await make_group(client, stream)
    arguments = (str(MEMBER), server.address, stream, "topic", "group", "1000")
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await bounded(process.stdout.readline()) == b"joined\n"
        process.send_signal(signal.SIGSTOP)

        async def members() -> int:
            group = await bounded(client.get_consumer_group(stream, "topic", "group"))
            assert group is not None
            return group.members_count

        async def is_empty() -> bool:
            return await members() == 0

        async def is_back() -> bool:
            return await members() == 1

        await until(is_empty)
        process.send_signal(signal.SIGCONT)
        await until(is_back, WAKE_TIMEOUT_S)
    finally:
        process.kill()
        await process.wait()
