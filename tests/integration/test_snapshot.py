"""Snapshots and flushes of a real server, asked for on the wire."""

import base64
import os
import tomllib
import zipfile
from collections.abc import Iterator
from io import BytesIO

import pytest
from pybroker.protocol.errors import Status
from pybroker.protocol.model.messages import FlushUnsavedBuffer, SendMessages
from pybroker.protocol.model.streams import CreateStream
from pybroker.protocol.model.system import GetSnapshot, Snapshot
from pybroker.protocol.model.topics import CreateTopic
from pybroker.protocol.primitives import Partitioning, PartitioningKind, SnapshotCompression, SnapshotKind
from support.batches import make_batch
from support.raw import REPLY, Answer, RawClient, read_log, request_frame
from support.server import Server

CODE = 11
PASSWORD = "a password for root"
TEXT = b"meet me at the usual place"
KEY = os.urandom(32)
SETTINGS = {
    "IGGY_ROOT_USERNAME": "admin",
    "IGGY_ROOT_PASSWORD": PASSWORD,
    "IGGY_SYSTEM_ENCRYPTION_ENABLED": "true",
    "IGGY_SYSTEM_ENCRYPTION_KEY": base64.b64encode(KEY).decode(),
    "IGGY_DATA_MAINTENANCE_ARCHIVER_S3_KEY_SECRET": "the secret of a bucket",
    "IGGY_TPC_ADDRESS": "a mistake that is warned of",
}
SECRETS = [PASSWORD.encode(), KEY, base64.b64encode(KEY), b"the secret of a bucket", TEXT]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with Server(folder / "data", settings=SETTINGS, default_root=False) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    with RawClient(server.port) as connected:
        assert connected.login("admin", PASSWORD).kind == REPLY
        yield connected


def send(client: RawClient, stream: str) -> None:
    client.ask(CreateStream(stream))
    client.ask(CreateTopic(stream, 1, "t", ()))
    client.ask(SendMessages(stream, "t", Partitioning(PartitioningKind.PARTITION, 0), make_batch([TEXT])))


def status_of(client: RawClient, body: bytes) -> int:
    answer = client.exchange(request_frame(body, code=CODE, session=client.session, client=client.client))
    assert answer.kind == REPLY
    return answer.status


def test_snapshot_tells_of_the_server_and_keeps_its_secrets(server: Server, client: RawClient) -> None:
    with RawClient(server.port) as stranger:
        stranger.login("admin", PASSWORD + "?")
    send(client, "s")
    answer = client.ask(GetSnapshot(SnapshotCompression.DEFLATED, [SnapshotKind.ALL]))
    assert isinstance(answer, Snapshot)
    with zipfile.ZipFile(BytesIO(answer.zip)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert len(files) == 5
    assert all(files.values())
    assert tomllib.loads(files["server_config.txt"].decode())["tcp"]["address"] == server.address
    log = files["server_logs.txt"].decode()
    assert log.strip() in server.log()
    assert f"listening for tcp on {server.address}" in log
    assert "IGGY_TPC_ADDRESS" in log  # what was said before the broker started
    assert f"\n{server.process_id:9} " in files["process_list.txt"].decode()
    assert f"process {server.process_id}: " in files["resource_usage.txt"].decode()
    assert " logs/" in files["filesystem_overview.txt"].decode()
    assert [name for name, data in files.items() if any(secret in data for secret in SECRETS)] == []


REFUSED = {
    "an unknown kind": bytes([2, 1, 7]),
    "no kind 0": bytes([2, 1, 0]),
    "everything and more": bytes([2, 2, 100, 4]),
    "compression 0": bytes([0, 1, 4]),
    "compression 7": bytes([7, 1, 4]),
    "a kind too few": bytes([2, 2, 4]),
    "nothing": b"",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_a_snapshot_is_refused_and_the_connection_lives(client: RawClient, case: str) -> None:
    assert status_of(client, REFUSED[case]) == Status.INVALID_COMMAND
    assert status_of(client, bytes([2, 1, 4])) == Status.OK


def test_snapshot_is_not_for_strangers(server: Server) -> None:
    with RawClient(server.port) as stranger:
        answer = stranger.ask(GetSnapshot(SnapshotCompression.STORED, [SnapshotKind.TEST]))
        assert isinstance(answer, Answer)
        assert b"test" not in answer.body


@pytest.mark.parametrize("fsync", [True, False])
def test_flush_has_an_empty_answer_and_changes_nothing_to_be_read(client: RawClient, fsync: bool) -> None:
    stream = f"flushed {fsync}"
    send(client, stream)
    assert client.ask(FlushUnsavedBuffer(stream, "t", 0, fsync)) is None
    assert [message.payload for message in read_log(client, stream, "t")] == [TEXT]
    answer = client.ask(FlushUnsavedBuffer(stream, "t", 1, fsync))
    assert (answer.status, answer.body) == (Status.PARTITION_NOT_FOUND, b"")
