"""The archive: a folder, a bucket of a real S3-speaking server, and obstore's other stores."""

import asyncio
import errno
import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore, MemoryStore
from pybroker.broker import archive
from pybroker.broker.archive import MARKER, ArchiveError, DiskArchive, ObjectArchive, open_archive
from pybroker.broker.config import Config, load
from pybroker.broker.retention import Retention, component
from support.broker import TINY_SEGMENTS, Broker, number_option, polled_payloads
from support.s3 import KEY_ID, KEY_SECRET, S3Server, s3_settings
from support.server import free_port

NAME = "stream/topic/0/00000000000000000001/00000000000000000000.log"
ODD_NAME = f"{component('a b/ü%.log')}/{component('..')}/{component('x' * 255)}/1/0.log"
PREFIX = "IGGY_DATA_MAINTENANCE_ARCHIVER"
MIB = 1 << 20
# Two whole chunks or parts of any archive here, and a piece.
LARGE = os.urandom(MIB) * 33 + b"the end"


def configured(path: Path, settings: dict[str, str]) -> Config:
    """Return what a server with these environment variables runs with."""
    return load(None, {"IGGY_SYSTEM_PATH": str(path)} | settings, cwd=path.parent).config


def on_disk(path: str = "archive") -> dict[str, str]:
    return {f"{PREFIX}_ENABLED": "true", f"{PREFIX}_DISK_PATH": path}


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(MARKER, None)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that the tests of this module share."""
    with S3Server(tmp_path_factory.mktemp("s3") / "log") as running:
        yield running


@asynccontextmanager
async def silent_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncGenerator[dict[str, str], None]:
    """Listen, and yield what tells a broker to archive there."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield s3_settings(endpoint=f"http://127.0.0.1:{port}")
    finally:
        server.close()


# A folder.


@pytest.mark.parametrize("data", [b"", b"bytes", LARGE], ids=["nothing", "little", "much"])
async def test_a_folder_holds_the_bytes_that_were_kept(root: Path, data: bytes) -> None:
    kept = DiskArchive(root)
    await kept.keep(NAME, memoryview(data))
    await kept.keep(ODD_NAME, memoryview(b"odd"))
    assert files(root) == {NAME: data, ODD_NAME: b"odd"}


async def test_a_folder_takes_a_name_again(root: Path) -> None:
    kept = DiskArchive(root)
    for data in (LARGE, b"shorter"):
        await kept.keep(NAME, memoryview(data))
    assert files(root) == {NAME: b"shorter"}


async def test_what_a_crash_left_half_written_is_written_over(root: Path) -> None:
    part = root / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half of it" * 100)
    await DiskArchive(root).keep(NAME, memoryview(b"all of it"))
    assert files(root) == {NAME: b"all of it"}


async def test_the_file_and_the_names_above_it_are_synced_before_keep_returns(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await DiskArchive(root).keep("a/b.log", memoryview(b"bytes"))
    assert synced == [str(root / "a/b.log.part"), str(root / "a"), str(root), str(root.parent)]


async def test_a_full_disk_keeps_the_old_file_and_gives_the_room_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DiskArchive(root)
    await kept.keep(NAME, memoryview(b"old"))

    def write(_fd: int, _data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(ArchiveError, match=f"{root}.*No space left"):
        await kept.keep(NAME, memoryview(b"new"))
    assert files(root) == {NAME: b"old"}


async def test_a_cancelled_keep_ends_within_a_chunk_and_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, begun, cancelled = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    real = os.fsync

    def fsync(fd: int) -> None:
        """Go on only once the task was cancelled."""
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(cancelled.wait(), loop).result(10)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    task = asyncio.create_task(DiskArchive(root).keep(NAME, memoryview(LARGE)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cancelled.set()
    await loop.shutdown_default_executor()
    assert files(root) == {}


# A bucket.


@pytest.mark.parametrize("data", [b"bytes", LARGE], ids=["one request", "many parts"])
async def test_a_bucket_holds_the_bytes_that_were_kept(tmp_path: Path, bucket: S3Server, data: bytes) -> None:
    kept = await open_archive(configured(tmp_path / "data", bucket.settings()))
    for name in (NAME, ODD_NAME):
        await kept.keep(name, memoryview(b"before"))
        await kept.keep(name, memoryview(data))
    assert bucket.names() == sorted([MARKER, NAME, ODD_NAME])
    assert bucket.read(NAME) == bucket.read(ODD_NAME) == data


@pytest.mark.parametrize("kind", ["memory", "local"])
async def test_any_store_of_obstore_will_do(root: Path, kind: str) -> None:
    root.mkdir()
    store = MemoryStore() if kind == "memory" else LocalStore(root)
    kept = ObjectArchive(store, "a store")
    for name, data in ((NAME, LARGE), (ODD_NAME, b"odd"), (ODD_NAME, b"odd again")):
        await kept.keep(name, memoryview(data))
    assert bytes(store.get(NAME).bytes()) == LARGE
    assert bytes(store.get(ODD_NAME).bytes()) == b"odd again"


async def test_the_endpoint_of_the_configuration_outranks_the_environment(
    tmp_path: Path, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    await open_archive(configured(tmp_path / "data", bucket.settings()))
    assert MARKER in bucket.names()


async def test_the_key_of_the_configuration_is_not_mixed_with_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "somebody-else")
    seen = asyncio.get_running_loop().create_future()

    async def look(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        seen.set_result(await reader.readuntil(b"\r\n\r\n"))

    async with silent_server(look) as settings:
        task = asyncio.create_task(open_archive(configured(tmp_path / "data", settings)))
        request = (await seen).decode().lower()
        task.cancel()
        await asyncio.wait([task])
    assert f"credential={KEY_ID}/" in request
    assert "somebody-else" not in request and "security-token" not in request


async def test_without_a_key_the_environment_has_one(
    tmp_path: Path, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY_SECRET)
    await open_archive(configured(tmp_path / "data", bucket.settings(key_id="", key_secret="")))
    assert MARKER in bucket.names()


# The start.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (on_disk("file/archive"), ["disk.path", "file/archive", "Not a directory"]),
        (on_disk("."), ["disk.path", "own data"]),
        (on_disk("logs/archive"), ["disk.path", "own data"]),
        ({f"{PREFIX}_KIND": "s3"}, ["s3.bucket", "expected the name"]),
        ({f"{PREFIX}_KIND": "s3", f"{PREFIX}_S3_BUCKET": "b", f"{PREFIX}_S3_KEY_ID": "k"}, ["s3", "key_secret"]),
        *(
            ({f"{PREFIX}_KIND": "s3", f"{PREFIX}_S3_BUCKET": "b", f"{PREFIX}_S3_ENDPOINT": text}, ["s3.endpoint"])
            for text in ("127.0.0.1:9000", "ftp://host", "http://", "http://me:secret@host", "https://a b")
        ),
    ],
)
async def test_what_can_not_work_is_refused_with_the_key(
    tmp_path: Path, settings: dict[str, str], words: list[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").touch()
    with pytest.raises(ArchiveError) as refused:
        await open_archive(configured(data, settings))
    assert all(word in str(refused.value) for word in ["data_maintenance.archiver.", *words]), refused.value


@pytest.mark.parametrize("problem", ["bucket missing", "nobody listens", "no such host"])
async def test_a_bucket_that_does_not_answer_is_refused_in_one_line(
    tmp_path: Path, bucket: S3Server, problem: str
) -> None:
    others, words = {
        "bucket missing": ({"bucket": "missing"}, "The specified bucket does not exist"),
        "nobody listens": ({"endpoint": f"http://127.0.0.1:{free_port()}"}, "error sending request"),
        "no such host": ({"endpoint": "http://host.invalid:9000"}, "error sending request"),
    }[problem]
    with pytest.raises(ArchiveError) as refused:
        await open_archive(configured(tmp_path / "data", bucket.settings(**others)))
    text = str(refused.value)
    assert text.startswith("data_maintenance.archiver.s3: can't write") and words in text
    assert "\n" not in text and KEY_SECRET not in text


async def test_a_variable_that_obstore_can_not_use_is_refused_in_one_line(
    tmp_path: Path, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CHECKSUM_ALGORITHM", "mine")
    with pytest.raises(ArchiveError, match=r'^data_maintenance\.archiver\.s3: .*"mine" is not a valid checksum.*$'):
        await open_archive(configured(tmp_path / "data", bucket.settings()))


async def test_a_wrong_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    with S3Server(tmp_path / "log", allowed_max=1) as strict, pytest.raises(ArchiveError) as refused:
        await open_archive(configured(tmp_path / "data", strict.settings()))
    assert "The AWS Access Key Id you provided does not exist in our records" in str(refused.value)
    assert KEY_SECRET not in str(refused.value) and KEY_ID not in str(refused.value)


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ignore(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr(archive, "CHECK_TIMEOUT_S", 0.05)
    async with silent_server(ignore) as settings:
        with pytest.raises(ArchiveError, match=r"s3: no answer in 0\.05 s"):
            await open_archive(configured(tmp_path / "data", settings))


async def test_without_obstore_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ArchiveError, match=r"pip install pybroker\[s3\]"):
        await open_archive(configured(tmp_path / "data", {f"{PREFIX}_KIND": "s3"}))


# With retention.


async def filled(count: int = 5) -> Broker:
    """Return a broker with a topic of one expired message a segment, the last one open."""
    broker = Broker(segment_size=TINY_SEGMENTS)
    await broker.create_topic(1, number_option("message_expiry", 1))
    for number in range(count):
        await broker.send(b"%d" % number)
    broker.clock.now_us += 1_000_000
    return broker


async def left(broker: Broker) -> list[bytes]:
    return polled_payloads(await broker.poll())


async def test_what_can_not_be_archived_is_not_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = await filled()
    with S3Server(tmp_path / "log") as server:
        kept: Any = await open_archive(configured(tmp_path / "data", server.settings()))
        retention = Retention(broker.state, kept)
        server.kill()
        with caplog.at_level(logging.WARNING):
            await retention.clean()
        assert await left(broker) == [b"0", b"1", b"2", b"3", b"4"]
        assert "a later pass tries again" in caplog.text and "bug" not in caplog.text

        server.start()
        await retention.clean()
        assert await left(broker) == [b"4"]
        assert len(server.names()) == 4


async def test_what_was_kept_before_a_crash_is_kept_again_and_deleted(root: Path) -> None:
    broker = await filled()
    log_id = broker.log_ids()[0]
    kept = DiskArchive(root)
    first = bytes(broker.state.logs.of(broker.state.catalog.topic("s", "t")[1].partitions[0]).stored(0))
    await kept.keep(f"s/t/0/{log_id:020}/{0:020}.log", memoryview(first))
    await Retention(broker.state, kept).clean()
    assert await left(broker) == [b"4"]
    found = files(root)
    assert sorted(found) == [f"s/t/0/{log_id:020}/{base:020}.log" for base in range(4)]
    assert found[f"s/t/0/{log_id:020}/{0:020}.log"] == first
