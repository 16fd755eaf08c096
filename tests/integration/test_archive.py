"""What retention deletes from a real server is in its archive, byte for byte, and can be read again."""

import re
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from apache_iggy import IggyClient, IggyExpiry
from pybroker.broker.archive import MARKER
from support.batches import payloads_of
from support.s3 import KEY_SECRET, S3Server
from support.server import Server, run
from support.wheel import bounded, connect, make_topic, offsets_of, read_all, send, until

KINDS = ["disk", "s3"]
MIB = 1 << 20
PAYLOAD_SIZE = 100_000
MESSAGES_COUNT = 60  # 5 sealed segments and one that is appended to
CLEANING = {"IGGY_SYSTEM_SEGMENT_SIZE": "1 MiB", "IGGY_DATA_MAINTENANCE_MESSAGES_INTERVAL": "50 ms"}
ON_DISK = {"IGGY_DATA_MAINTENANCE_ARCHIVER_ENABLED": "true"}
ENCRYPTION = {
    "IGGY_SYSTEM_ENCRYPTION_ENABLED": "true",
    "IGGY_SYSTEM_ENCRYPTION_KEY": b64encode(bytes(range(32))).decode(),
}
EXPIRY = timedelta(milliseconds=100)
STREAM, TOPIC = "the stream", "a/b"
FOLDER = "the%20stream/a%2Fb/0"

Archived = Callable[[], dict[str, bytes]]


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Server]:
    with S3Server(tmp_path / "s3.log") as running:
        yield running


@pytest.fixture(params=KINDS)
def archiving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Server, Archived]]:
    """A server with an archive, and what reads all of the archive's segments."""
    path = tmp_path / "data"
    if request.param == "disk":
        with Server(path, settings=CLEANING | ON_DISK) as server:
            yield server, lambda: segments(path / "archive")
        return
    bucket: S3Server = request.getfixturevalue("bucket")
    with Server(path, settings=CLEANING | bucket.settings()) as server:
        yield server, lambda: in_bucket(bucket)


def segments(folder: Path) -> dict[str, bytes]:
    """Return the whole segments in a folder and below, by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.log"))}


def in_bucket(bucket: S3Server) -> dict[str, bytes]:
    return {name: bucket.read(name) for name in bucket.names() if name != MARKER}


async def fill(server: Server) -> tuple[IggyClient, list[bytes]]:
    """Send messages of different sizes that do not expire yet; return their payloads."""
    client = await connect(server.address)
    await make_topic(client, STREAM, TOPIC)
    payloads = [b"%d " % number + bytes([number]) * (PAYLOAD_SIZE + number) for number in range(MESSAGES_COUNT)]
    for start in range(0, MESSAGES_COUNT, 3):
        assert await send(client, STREAM, TOPIC, payloads[start : start + 3]) == start
    return client, payloads


async def expire(client: IggyClient) -> None:
    """Let all that was sent expire."""
    await bounded(client.update_topic(STREAM, TOPIC, TOPIC, message_expiry=IggyExpiry.ExpireDuration(EXPIRY)))


async def what_stays(server: Server, client: IggyClient) -> list[bytes]:
    """Wait until only the newest segment is left; return the payloads in it."""

    async def is_alone() -> bool:
        return len(list((server.path / "logs").rglob("*.log"))) == 1

    await until(is_alone)
    return [message.payload() for message in await read_all(client, STREAM, TOPIC)]


def payloads_in(archived: dict[str, bytes]) -> list[bytes]:
    """Return the payloads of archived segments in the order of their names, every record verified."""
    return payloads_of([memoryview(archived[name]) for name in sorted(archived)])


async def test_what_expires_is_in_the_archive_byte_for_byte(archiving: tuple[Server, Archived]) -> None:
    server, archived = archiving
    client, payloads = await fill(server)
    before = segments(server.path / "logs")
    assert len(before) > 3 and not archived()

    await expire(client)
    left = await what_stays(server, client)
    after = segments(server.path / "logs")
    gone = {name: data for name, data in before.items() if name not in after}
    assert len(after) == 1 and len(gone) == len(before) - 1
    assert archived() == {f"{FOLDER}/{name}": data for name, data in gone.items()}
    assert payloads_in(archived()) + left == payloads
    assert server.stop() == 0
    assert KEY_SECRET not in server.log()


async def test_nothing_is_deleted_while_the_bucket_is_away(tmp_path: Path, bucket: S3Server) -> None:
    with Server(tmp_path / "data", settings=CLEANING | bucket.settings()) as server:
        client, payloads = await fill(server)
        bucket.kill()
        await expire(client)
        warned = re.compile(r"WARNING.*can't delete old segments of partition .*a later pass tries again: can't write")
        lines = server.wait_log(lambda lines: any(map(warned.search, lines)), timeout_s=20)
        assert KEY_SECRET not in "\n".join(lines)
        assert [message.payload() for message in await read_all(client, STREAM, TOPIC)] == payloads

        bucket.start()
        left = await what_stays(server, client)
        assert payloads_in(in_bucket(bucket)) + left == payloads


def test_an_archive_that_can_not_be_used_stops_the_start_in_one_line(tmp_path: Path, bucket: S3Server) -> None:
    bucket.kill()
    result = run("serve", settings=bucket.settings() | {"IGGY_SYSTEM_PATH": str(tmp_path / "data")})
    (line,) = result.stderr.splitlines()[-1:]
    assert result.returncode == 1
    assert line.startswith("pybroker: data_maintenance.archiver.s3: can't write")
    assert "root user" not in result.stdout and KEY_SECRET not in result.stderr


@pytest.mark.parametrize("which", ["all", "all but the first", "encrypted"])
async def test_another_server_reads_archived_segments(tmp_path: Path, which: str) -> None:
    """As broker/archive.py says how."""
    keys = ENCRYPTION if which == "encrypted" else {}
    with Server(tmp_path / "data", settings=CLEANING | ON_DISK | keys) as server:
        client, payloads = await fill(server)
        await expire(client)
        left = await what_stays(server, client)
    (source,) = (tmp_path / "data" / "archive" / FOLDER).iterdir()
    archived = sorted(source.iterdir())[1 if which == "all but the first" else 0 :]
    is_plain = payloads[int(archived[0].stem)] in archived[0].read_bytes()
    assert is_plain == (which != "encrypted")
    other = tmp_path / "other"
    with Server(other, settings=keys) as server:
        client = await connect(server.address)
        await make_topic(client, "found")
        await send(client, "found", "topic", [b"to be replaced"])
        assert server.stop() == 0
    (folder,) = (other / "logs").iterdir()
    for file in folder.iterdir():
        file.unlink()
    for file in archived:
        shutil.copy(file, folder)
    with Server(other, settings=keys) as server:
        client = await connect(server.address)
        messages = await read_all(client, "found", "topic")
    first = int(archived[0].stem)
    assert offsets_of(messages) == list(range(first, MESSAGES_COUNT - len(left)))
    assert [message.payload() for message in messages] + left == payloads[first:]
