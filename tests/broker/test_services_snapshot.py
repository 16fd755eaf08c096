"""Snapshots: which files are in the zip, what they tell, what they keep to themselves, and what is refused."""

import base64
import logging
import os
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from msgspec.structs import replace
from pybroker.broker.config import Config
from pybroker.broker.config.schema import Archiver, DataMaintenance, Encryption, S3Archive
from pybroker.broker.logtail import TAIL
from pybroker.broker.services import snapshot, snapshot_files
from pybroker.protocol.errors import Status
from pybroker.protocol.model.system import GetSnapshot
from pybroker.protocol.primitives import SnapshotCompression, SnapshotKind
from support.broker import Broker

FILES = {
    SnapshotKind.FILESYSTEM: "filesystem_overview.txt",
    SnapshotKind.PROCESSES: "process_list.txt",
    SnapshotKind.RESOURCES: "resource_usage.txt",
    SnapshotKind.TEST: "test.txt",
    SnapshotKind.LOGS: "server_logs.txt",
    SnapshotKind.CONFIG: "server_config.txt",
}
EVERYTHING = sorted(set(FILES.values()) - {"test.txt"})
DEFLATED = SnapshotCompression.DEFLATED
SECRET = "hunter2-and-more-of-it"
KEY = SECRET.encode().ljust(32, b"!")


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    """A broker whose data directory has files, and whose configuration has secrets."""
    (tmp_path / "logs" / "1").mkdir(parents=True)
    (tmp_path / "logs" / "1" / "0.log").write_bytes(bytes(1000))
    (tmp_path / "logs" / "1" / "7.log").write_bytes(bytes(234))
    (tmp_path / "catalog.journal").write_bytes(bytes(77))
    config = Config()
    archiver = Archiver(s3=S3Archive(key_id="AKIA", key_secret=SECRET, bucket="b"))
    return Broker(
        config=replace(
            config,
            system=replace(config.system, path=tmp_path, encryption=Encryption(enabled=True, key=KEY)),
            data_maintenance=DataMaintenance(archiver=archiver),
        )
    )


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of ours that the tail listens to."""
    logger = logging.getLogger("pybroker.broker.test")
    logger.addHandler(TAIL)
    yield logger
    logger.removeHandler(TAIL)


async def take(broker: Broker, *kinds: SnapshotKind, compression: SnapshotCompression = DEFLATED) -> dict[str, bytes]:
    """Return the files of a snapshot, unpacked, their checksums verified."""
    with zipfile.ZipFile(BytesIO((await broker.ask(GetSnapshot(compression, list(kinds)))).zip)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(set(names)) == len(names)
        return {name: archive.read(name) for name in names}


@pytest.mark.parametrize("kind", FILES)
async def test_each_kind_is_a_text_of_its_own(broker: Broker, kind: SnapshotKind, logger: logging.Logger) -> None:
    logger.warning("something")
    files = await take(broker, kind)
    assert list(files) == [FILES[kind]]
    assert files[FILES[kind]].decode()


async def test_all_is_everything_but_the_test(broker: Broker) -> None:
    assert sorted(await take(broker, SnapshotKind.ALL)) == EVERYTHING


async def test_kinds_come_as_they_were_asked_for_and_once(broker: Broker) -> None:
    kinds = (SnapshotKind.CONFIG, SnapshotKind.TEST, SnapshotKind.CONFIG)
    assert list(await take(broker, *kinds)) == ["server_config.txt", "test.txt"]
    assert await take(broker) == {}


@pytest.mark.parametrize(
    "kinds", [(SnapshotKind.ALL, SnapshotKind.TEST), (SnapshotKind.TEST, SnapshotKind.ALL), (SnapshotKind.ALL,) * 2]
)
async def test_all_stands_alone(broker: Broker, kinds: tuple[SnapshotKind, ...]) -> None:
    assert await broker.status(GetSnapshot(DEFLATED, list(kinds))) is Status.INVALID_COMMAND


@pytest.mark.parametrize(
    ("compression", "method"),
    [
        (SnapshotCompression.STORED, zipfile.ZIP_STORED),
        (SnapshotCompression.DEFLATED, zipfile.ZIP_DEFLATED),
        (SnapshotCompression.BZIP2, zipfile.ZIP_BZIP2),
        (SnapshotCompression.ZSTD, zipfile.ZIP_DEFLATED),
        (SnapshotCompression.LZMA, zipfile.ZIP_LZMA),
        (SnapshotCompression.XZ, zipfile.ZIP_LZMA),
    ],
)
async def test_files_are_packed_as_asked_or_as_is_nearest(
    broker: Broker, compression: SnapshotCompression, method: int
) -> None:
    answer = await broker.ask(GetSnapshot(compression, [SnapshotKind.TEST, SnapshotKind.PROCESSES]))
    with zipfile.ZipFile(BytesIO(answer.zip)) as archive:
        assert {info.compress_type for info in archive.infolist()} == {method}
        assert archive.read("test.txt") == b"test\n"


async def test_one_is_made_at_a_time(broker: Broker) -> None:
    command = GetSnapshot(DEFLATED, [SnapshotKind.TEST])
    with snapshot._one_at_a_time:
        assert await broker.status(command) is Status.SNAPSHOT_FILE_COMPLETION_FAILED
    assert await broker.status(command) is Status.OK


async def test_part_that_fails_is_left_out_and_logged(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    system = replace(broker.config.system, path=tmp_path / "gone")
    broker.state.config = replace(broker.config, system=system)
    files = await take(broker, SnapshotKind.TEST, SnapshotKind.FILESYSTEM, SnapshotKind.CONFIG)
    assert list(files) == ["test.txt", "server_config.txt"]
    assert "filesystem_overview.txt" in caplog.text
    assert str(tmp_path / "gone") in caplog.text


async def test_folders_are_told_with_their_files_and_bytes(broker: Broker, tmp_path: Path) -> None:
    text = (await take(broker, SnapshotKind.FILESYSTEM))["filesystem_overview.txt"].decode()
    assert str(tmp_path) in text
    rows = [line.split() for line in text.splitlines()[-3:]]
    assert rows == [["1", "77", "."], ["0", "0", "logs"], ["2", "1234", "logs/1"]]


async def test_names_need_not_be_utf8(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "zwölf" / os.fsdecode(b"\xff")).mkdir(parents=True)
    text = (await take(broker, SnapshotKind.FILESYSTEM))["filesystem_overview.txt"].decode()
    assert text.endswith("zwölf/\\udcff\n")


@pytest.mark.parametrize(("folders", "files", "rows"), [(2, 100, [1, 0]), (9, 2, [1, 0, 1]), (9, 1, [1, 0, 0])])
async def test_large_directories_are_not_looked_at_to_their_end(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, folders: int, files: int, rows: list[int]
) -> None:
    monkeypatch.setattr(snapshot_files, "FOLDERS_MAX", folders)
    monkeypatch.setattr(snapshot_files, "FILES_MAX", files)
    text = (await take(broker, SnapshotKind.FILESYSTEM))["filesystem_overview.txt"].decode()
    _, _, listed = text.partition("folder\n")
    assert [int(line.split()[0]) for line in listed.splitlines()] == rows


async def test_logs_are_the_newest_lines(broker: Broker, logger: logging.Logger) -> None:
    logger.warning("the disk is %d %% full", 97)
    text = (await take(broker, SnapshotKind.LOGS))["server_logs.txt"].decode()
    assert text.endswith("the disk is 97 % full\n")


async def test_resources_are_those_of_this_process(broker: Broker) -> None:
    broker.clock.now_us += 12_000_000
    broker.connect("bob")
    text = (await take(broker, SnapshotKind.RESOURCES))["resource_usage.txt"].decode()
    assert "12 s since the start" in text
    assert "connections: 2;" in text


async def test_config_is_the_one_in_force_with_real_ports_and_without_secrets(broker: Broker) -> None:
    broker.state.ports["tcp"] = 12345
    config = tomllib.loads((await take(broker, SnapshotKind.CONFIG))["server_config.txt"].decode())
    assert config["tcp"]["address"] == "127.0.0.1:12345"
    assert config["system"]["encryption"] == {"enabled": True, "key_file": ""}
    assert "key_secret" not in config["data_maintenance"]["archiver"]["s3"]


async def test_processes_are_named_and_nothing_they_were_started_with_is_told(broker: Broker, tmp_path: Path) -> None:
    # The system keeps 15 bytes of a name; the rest could be had from the command line, with all that is in it.
    program = tmp_path / "a-program-with-a-long-name"
    program.symlink_to("/bin/sleep")
    arguments = [f"{program.name} --token={SECRET}", "60"]
    with subprocess.Popen(arguments, executable=program, env={"PASSWORD": SECRET}) as process:
        try:
            files = await take(broker, SnapshotKind.ALL)
        finally:
            process.kill()
    rows = [line.split(maxsplit=2) for line in files["process_list.txt"].decode().splitlines()[3:]]
    assert [row[2] for row in rows if row[0] == str(process.pid)] == [program.name[:15]]
    secrets = [SECRET.encode(), KEY, base64.b64encode(KEY)]
    assert [name for name, data in files.items() if any(secret in data for secret in secrets)] == []
