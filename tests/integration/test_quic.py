"""The real client over QUIC: what it does over TCP, and what only QUIC limits."""

import os
import signal
from pathlib import Path

import pytest
from apache_iggy import IggyClient
from pybroker.broker.services.messages import QUIC_POLL_SIZE_MAX
from pybroker.broker.tls import self_signed
from pybroker.protocol.model.groups import GetConsumerGroup
from pybroker.protocol.model.system import GetClients
from pybroker.protocol.primitives import Transport
from support import wheel
from support.raw import RawClient
from support.server import Server, run

LARGE_SIZE = 12_000_000  # more than the client takes in an answer


@pytest.fixture
async def quic(server: Server) -> IggyClient:
    return await connect(server)


async def connect(server: Server) -> IggyClient:
    client = IggyClient.from_connection_string(f"iggy+quic://iggy:iggy@{server.quic_address}")
    await wheel.bounded(client.connect())
    return client


async def test_a_large_batch_arrives_whole_and_is_read_in_parts(
    quic: IggyClient, client: IggyClient, stream: str
) -> None:
    """A record of 12 MB has to be cut, or a client that takes 10 MB could never get past it."""
    await wheel.make_topic(quic, stream)
    payload = os.urandom(LARGE_SIZE // 12)
    await wheel.send(client, stream, "topic", [payload] * 12)
    await wheel.send(quic, stream, "topic", [payload] * 5)
    first = await wheel.poll(quic, stream, "topic")
    assert 0 < len(first) * len(payload) <= QUIC_POLL_SIZE_MAX
    polled = await wheel.read_all(quic, stream, "topic")
    assert wheel.offsets_of(polled) == list(range(17))
    assert {message.payload() for message in polled} == {payload}


async def test_a_member_over_quic_shares_its_group_with_one_over_tcp(
    quic: IggyClient, client: IggyClient, server: Server, raw: RawClient, stream: str
) -> None:
    await wheel.make_topic(quic, stream, partitions_count=4)
    await wheel.bounded(quic.create_consumer_group(stream, "topic", "group"))
    for member in (quic, client):
        await wheel.bounded(member.join_consumer_group(stream, "topic", "group"))
    details = raw.ask(GetConsumerGroup(stream, "topic", "group"))
    assert sorted(len(member.partitions) for member in details.members) == [2, 2]
    await wheel.bounded(quic.leave_consumer_group(stream, "topic", "group"))
    details = raw.ask(GetConsumerGroup(stream, "topic", "group"))
    assert [len(member.partitions) for member in details.members] == [4]


async def test_clients_are_listed_with_their_transport(quic: IggyClient, raw: RawClient) -> None:
    await wheel.bounded(quic.ping())
    transports = {client.transport for client in raw.ask(GetClients()).clients}
    assert transports == {Transport.QUIC, Transport.TCP}


async def test_a_client_comes_back_after_a_restart(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.write_bytes(self_signed("127.0.0.1"))
    files = {f"IGGY_QUIC_CERTIFICATE_{name}_FILE": str(certificate) for name in ("CERT", "KEY")}
    with Server(tmp_path / "data", settings=files) as server:
        client = await connect(server)
        await wheel.make_topic(client, "s")
        assert server.stop() == 0
        server.start()
        again = await connect(server)
        assert await wheel.send(again, "s", "topic", ["x"]) == 0
        server.signal(signal.SIGHUP)
        await wheel.bounded((await connect(server)).ping())


def test_a_certificate_that_can_not_be_used_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("nonsense")
    settings = {
        "IGGY_SYSTEM_PATH": str(tmp_path / "data"),
        "IGGY_TCP_ADDRESS": "127.0.0.1:0",
        "IGGY_WEBSOCKET_ADDRESS": "127.0.0.1:0",
        "IGGY_HTTP_ADDRESS": "127.0.0.1:0",
        "IGGY_QUIC_ADDRESS": "127.0.0.1:0",
        "IGGY_QUIC_CERTIFICATE_CERT_FILE": str(file),
        "IGGY_QUIC_CERTIFICATE_KEY_FILE": str(file),
    }
    ended = run("serve", "--with-default-root-credentials", settings=settings)
    assert ended.returncode == 1
    assert f"quic.certificate.cert_file {file}" in ended.stderr
