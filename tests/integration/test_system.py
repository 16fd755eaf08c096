"""About the server and its clients: liveness, statistics, options, who is connected."""

import os
import time

import pytest
from apache_iggy import HeaderValue, IggyClient
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.errors import Status
from pybroker.protocol.model import groups, system
from pybroker.protocol.primitives import Transport
from pybroker.protocol.vsr.overrides import CODECS
from support.raw import RawClient
from support.server import Server
from support.wheel import bounded, connect, make_topic, new_client, refused, send

TOPIC_OPTIONS = {
    "compression_algorithm": HeaderValue.String("none"),
    "message_expiry": HeaderValue.UnsignedInt64(2**64 - 1),
    "max_topic_size": HeaderValue.UnsignedInt64(2**64 - 1),
    "segment_size": HeaderValue.UnsignedInt64(2**30),
    "durability": HeaderValue.String("replicated"),
    "consumer_offset_durability": HeaderValue.String("replicated"),
    "messages_required_to_save": HeaderValue.UnsignedInt32(1024),
    "size_of_messages_required_to_save": HeaderValue.UnsignedInt64(2**20),
    "preallocate_segments": HeaderValue.Bool(False),
    "message_deduplication": HeaderValue.Bool(False),
}


async def ask(client: IggyClient, command: system.GetMe | system.GetClient | system.GetClients) -> object:
    """Ask through the wheel what it has no method for."""
    row = BY_REQUEST[type(command)]
    body = await bounded(client.send_binary_request(row.code, bytes(CODECS[row.request].encode(command))))
    assert row.reply is not None
    return CODECS[row.reply].decode(memoryview(body)) if body else None


async def test_ping_is_answered_with_and_without_a_login(server: Server, client: IggyClient) -> None:
    await bounded(client.ping())
    with RawClient(server.port) as stranger:
        assert stranger.ask(system.Ping()) is None


async def test_stats_count_what_there_is(fresh_server: Server) -> None:
    client = await connect(fresh_server.address)
    await make_topic(client, "stats", "topic", 3)
    await bounded(client.create_consumer_group("stats", "topic", "group"))
    await send(client, "stats", "topic", ["one", "two"])
    stats = await bounded(client.get_stats())
    assert stats.process_id == fresh_server.process_id
    counts = (stats.streams_count, stats.topics_count, stats.partitions_count, stats.segments_count)
    assert counts == (1, 1, 3, 3)
    assert (stats.messages_count, stats.consumer_groups_count, stats.clients_count) == (2, 1, 1)
    assert stats.messages_size_bytes > 2 * 48
    assert stats.iggy_server_version.startswith("0.9.0")
    assert stats.iggy_server_semver == 9000
    assert abs(stats.start_time / 1e6 - time.time()) < 3600
    assert stats.memory_usage > 0
    assert stats.total_disk_space >= stats.free_disk_space > 0
    assert stats.hostname == os.uname().nodename
    assert stats.cache_metrics == {}


async def test_describe_options_names_every_topic_option_with_its_default(client: IggyClient) -> None:
    specs = await bounded(client.describe_options("topic"))
    assert {spec.key: spec.default_value for spec in specs} == TOPIC_OPTIONS
    assert all(spec.description for spec in specs)


@pytest.mark.parametrize("scope", ["stream", "user"])
async def test_describe_options_of_other_scopes_is_empty(client: IggyClient, scope: str) -> None:
    assert await bounded(client.describe_options(scope)) == []


def test_describe_options_of_an_unknown_scope_is_refused(raw: RawClient) -> None:
    assert raw.ask(system.DescribeOptions(4)).status == Status.INVALID_COMMAND


async def test_cluster_metadata_names_one_healthy_leader(server: Server, client: IggyClient) -> None:
    body = await bounded(client.send_binary_request(12, b""))
    metadata = CODECS[system.ClusterMetadata].decode(memoryview(body))
    (node,) = metadata.nodes
    assert (node.tcp_port, node.role, node.status) == (server.port, 0, 0)


async def test_a_client_is_found_under_the_id_that_it_is_told(client: IggyClient) -> None:
    me = await ask(client, system.GetMe())
    assert isinstance(me, system.ClientDetails)
    assert (me.client.user_id, me.client.transport) == (0, Transport.TCP)
    assert me.client.address.startswith("127.0.0.1:")
    assert await ask(client, system.GetClient(me.client.client_id)) == me
    everyone = await ask(client, system.GetClients())
    assert isinstance(everyone, system.Clients)
    assert me.client in everyone.clients
    assert await ask(client, system.GetClient(2**32 - 1)) is None


async def test_a_clients_groups_are_listed_with_it(client: IggyClient, stream: str, raw: RawClient) -> None:
    await make_topic(client, stream)
    raw.ask(groups.CreateConsumerGroup(stream, "topic", "group"))
    raw.ask(groups.JoinConsumerGroup(stream, "topic", "group"))
    me = raw.ask(system.GetMe())
    assert me.client.groups_count == len(me.groups) == 1


async def test_a_client_that_has_not_signed_in_is_listed_without_a_user(server: Server, raw: RawClient) -> None:
    with RawClient(server.port) as stranger:
        stranger.ask(system.Ping())
        address = "{}:{}".format(*stranger.socket.getsockname())
        listed = {client.address: client.user_id for client in raw.ask(system.GetClients()).clients}
        assert listed[address] == 2**32 - 1


async def test_a_client_signs_out_and_in_again(server: Server, client: IggyClient) -> None:
    await bounded(client.logout_user())
    await bounded(client.login_user("iggy", "iggy"))
    await bounded(client.get_stats())


async def test_a_wrong_password_is_refused_and_the_right_one_taken_afterwards(server: Server) -> None:
    await refused(connect(server.address, password="wrong", redial=False), Status.INVALID_CREDENTIALS)
    await refused(connect(server.address, username="nobody", redial=False), Status.INVALID_CREDENTIALS)
    client = new_client(server.address)
    await bounded(client.connect())
    await refused(client.login_user("iggy", "wrong"), Status.INVALID_CREDENTIALS)
    await bounded(client.login_user("iggy", "iggy"))
    await bounded(client.get_stats())


@pytest.mark.parametrize("code", [9999, 0, 38], ids=["unknown", "zero", "old login"])
async def test_an_unknown_code_is_refused(client: IggyClient, code: int) -> None:
    with pytest.raises(RuntimeError):
        await bounded(client.send_binary_request(code, b""))
    await bounded(client.ping())
