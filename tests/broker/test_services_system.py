"""About the server and who is connected."""

import os
import re
from pathlib import Path
from time import process_time

import pytest
from pybroker.broker import topic_options
from pybroker.broker.config import Config
from pybroker.broker.config.schema import with_values
from pybroker.protocol.errors import Status
from pybroker.protocol.model.system import (
    Client,
    ClientDetails,
    Clients,
    ClusterMetadata,
    ClusterNode,
    DescribeOptions,
    GetClient,
    GetClients,
    GetClusterMetadata,
    GetMe,
    GetStats,
    Ping,
)
from pybroker.protocol.primitives import U32_MAX, Transport
from pybroker.protocol.vsr.overrides import CODECS
from support.broker import Broker


async def test_ping_has_an_empty_answer_also_before_login(broker: Broker) -> None:
    assert await broker.ask(Ping()) is None
    assert await broker.ask(Ping(), broker.connect(None)) is None


async def test_client_is_shown_to_itself_and_to_others(broker: Broker) -> None:
    session = broker.connect("bob")
    details = ClientDetails(Client(session.client_id, 1, Transport.TCP, session.address, 0), [])
    assert await broker.ask(GetMe(), session) == details
    assert await broker.ask(GetClient(session.client_id)) == details
    assert await broker.ask(GetClient(999)) is None
    assert await broker.status(GetClient(0)) is Status.INVALID_CLIENT_ID


async def test_clients_are_listed_as_they_came_and_without_those_that_went(broker: Broker) -> None:
    gone, stranger = broker.connect(), broker.connect(None)
    broker.dispatch.disconnected(gone)
    listed = await broker.ask(GetClients())
    assert isinstance(listed, Clients)
    assert [(client.client_id, client.user_id) for client in listed.clients] == [
        (broker.root.client_id, 0),
        (stranger.client_id, U32_MAX),
    ]


async def test_client_ids_are_never_0_and_never_given_twice(broker: Broker) -> None:
    ids: list[int] = []
    for _ in range(5):
        session = broker.connect()
        ids.append(session.client_id)
        broker.dispatch.disconnected(session)
    assert 0 not in ids
    assert len(set(ids)) == 5


async def test_cluster_is_exactly_one_healthy_leader(broker: Broker) -> None:
    broker.state.ports["tcp"] = 8090
    metadata = await broker.ask(GetClusterMetadata())
    assert isinstance(metadata, ClusterMetadata)
    (node,) = metadata.nodes
    assert node == ClusterNode(node.name, node.ip, 8090, 0, 0, 0, role=0, status=0)


@pytest.mark.parametrize(
    ("scope", "count", "status"),
    [
        (0, None, Status.INVALID_COMMAND),
        (1, len(topic_options.ROWS), Status.OK),
        (2, 0, Status.OK),
        (3, 0, Status.OK),
        (4, None, Status.INVALID_COMMAND),
    ],
)
async def test_options_are_described_by_scope(broker: Broker, scope: int, count: int | None, status: Status) -> None:
    assert await broker.status(DescribeOptions(scope)) is status
    if count is not None:
        specs = await broker.ask(DescribeOptions(scope))
        assert len(specs.specs) == count
        assert CODECS[type(specs)].encode(specs)


async def test_stats_count_what_there_is(broker: Broker) -> None:
    await broker.create_topic(2)
    await broker.create_topic(1, name="u")
    await broker.create_group()
    broker.connect(None)
    await broker.send(b"abc", b"d")
    await broker.send(b"e", topic="u")
    await broker.poll()
    broker.clock.now_us += 500
    stats = await broker.ask(GetStats())
    assert (stats.streams_count, stats.topics_count, stats.partitions_count, stats.groups_count) == (1, 2, 3, 1)
    assert (stats.messages_count, stats.messages_size, stats.clients_count) == (3, 356 + 305, 2)
    assert (stats.written_bytes, stats.read_bytes) == (356 + 305, 356)
    assert (stats.started_at_us, stats.run_time_us) == (1_000_000, 500)
    assert (stats.process_id, stats.semver, stats.cache_metrics) == (os.getpid(), 9000, [])
    assert stats.memory_usage > 0
    assert stats.total_memory >= stats.available_memory > 0
    assert stats.server_version.startswith("0.9.0")
    assert CODECS[type(stats)].encode(stats)


async def test_stats_tell_what_the_process_costs(tmp_path: Path) -> None:
    broker = Broker(config=with_values(Config(), {"system.path": tmp_path}))
    start_s = process_time()
    while process_time() < start_s + 0.05:  # the system counts in hundredths
        pass
    stats = await broker.ask(GetStats())
    assert stats.cpu_usage > 0
    assert 0 < stats.total_cpu_usage <= 100
    assert 1 << 20 < stats.memory_usage < stats.total_memory
    assert stats.threads_count >= 1
    assert 0 < stats.free_disk <= stats.total_disk
    assert all((stats.hostname, stats.os_name, stats.os_version, stats.kernel_version))


@pytest.mark.skipif(not Path("/etc/os-release").exists(), reason="only Linux distributions have this file")
async def test_stats_name_the_distribution() -> None:
    stats = await Broker().ask(GetStats())
    release = Path("/etc/os-release").read_text()
    assert re.search(f'^NAME="?{re.escape(stats.os_name)}"?$', release, re.MULTILINE)
    assert stats.os_version in release
