"""Keeps what retention deletes: in a folder, or in a bucket of any S3-compatible storage.

A segment is kept under `<stream>/<topic>/<partition>/<log id>/<base offset>.log`, its bytes as they were stored. So it
is an ordinary segment file (docs/format.md), encrypted if the data directory was. Only what retention deletes comes
here; what a client deletes or purges does not. An archive belongs to one data directory: another one, or the same
after `--fresh`, counts its logs from 0 again and could write over what is there.

Crash invariant: a segment is whole under its name or not there, and it is there before its original is deleted. A
crash in between keeps it again, over the first copy. What a crash leaves of one that was being written is a `.part`
file, or parts of an upload that S3 does not list; neither is ever read, and a bucket's lifecycle rule removes the
latter.

To read archived segments, start a server with a data directory of its own, create a topic with one partition and no
expiry, send it a message, and stop the server. Empty the one folder under `logs/` and put in it `.log` files of one
`<log id>` folder, all of them or any run without a gap. After the start the topic holds their messages under their
old offsets. Encrypted ones need the keys they were written with.
"""

import asyncio
import os
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

from .config import Config
from .config.schema import S3Archive

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import ObjectStore, S3Config, S3Credential

# What a disk is given at a time, synced each time: a large file that is synced as a whole holds up the others' syncs.
CHUNK_SIZE: Final = 16 * 1024 * 1024
# 4 parts of 8 MiB in flight: with more, an upload is no faster and the loop waits longer for its turn.
PART_SIZE: Final = 8 * 1024 * 1024
PARTS_IN_FLIGHT_MAX: Final = 4
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
REQUEST_TIMEOUT: Final = timedelta(seconds=60)
RETRIES_MAX: Final = 3
RETRY_TIMEOUT: Final = timedelta(seconds=120)
CHECK_TIMEOUT_S: Final = 20.0

# Written at every start, which shows whether the archive can be. No stream's folder has a space in its name.
MARKER: Final = "pybroker archive.txt"
_MARKER_TEXT: Final = b"Segments that pybroker's retention deleted: stream/topic/partition/log id/first offset.log\n"

_KEY: Final = "data_maintenance.archiver"
_ENDPOINT: Final = re.compile(r"https?://([^\s/@:\[\]]+|\[[0-9a-f:.]+\])(:\d+)?/?", re.IGNORECASE)
_S3_MESSAGE: Final = re.compile("<Message>([^<]*)")


class ArchiveError(OSError):
    """A segment is not in the archive. The text says where it should be and what went wrong, without secrets."""


class DiskArchive:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def keep(self, name: str, data: memoryview) -> None:
        """Return when the folder durably holds `data` in the file `name`, whatever was there before.

        Raises ArchiveError. Cancelled, it ends within a chunk.
        """
        stop = Event()
        try:
            await asyncio.to_thread(_write, self._root, self._root / name, data, stop)
        except asyncio.CancelledError:
            stop.set()
            raise
        except OSError as error:
            raise ArchiveError(f"can't write {self._root / name}: {error.strerror or error}") from error


class ObjectArchive:
    """A bucket, or any other store of obstore's. `where` names it to people."""

    def __init__(self, store: "ObjectStore", where: str) -> None:
        self._store = store
        self._where = where

    async def keep(self, name: str, data: memoryview) -> None:
        """Return when the store has confirmed all of `data` as the object `name`, whatever was there before.

        The bytes are read in obstore's threads, without Python, and never copied whole. Raises ArchiveError.
        """
        try:
            await self._store.put_async(name, data, chunk_size=PART_SIZE, max_concurrency=PARTS_IN_FLIGHT_MAX)
        except Exception as error:  # what obstore raises has no narrower base
            raise ArchiveError(f"can't write {name} to {self._where}: {_reason(error)}") from None


async def open_archive(config: Config) -> DiskArchive | ObjectArchive:
    """Return the archive that `config` asks for, after a first write to it. Raises ArchiveError, naming the key."""
    settings = config.data_maintenance.archiver
    if settings.kind == "disk":
        archive, key = _open_disk(config), f"{_KEY}.disk.path"
    else:
        archive, key = _open_s3(settings.s3), f"{_KEY}.s3"
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await archive.keep(MARKER, memoryview(_MARKER_TEXT))
    except TimeoutError:
        raise ArchiveError(f"{key}: no answer in {CHECK_TIMEOUT_S:g} s") from None
    except ArchiveError as error:
        raise ArchiveError(f"{key}: {error}") from error
    return archive


def _open_disk(config: Config) -> DiskArchive:
    data = config.system.path.resolve()
    root = (data / config.data_maintenance.archiver.disk.path).resolve()
    if root == data or root.is_relative_to(data / "logs"):
        raise ArchiveError(f"{_KEY}.disk.path: {root} holds the broker's own data, choose another folder")
    return DiskArchive(root)


def _open_s3(settings: S3Archive) -> ObjectArchive:
    try:
        from obstore.store import S3Store
    except ImportError:
        raise ArchiveError(f'{_KEY}.kind: "s3" needs more packages, run: pip install pybroker[s3]') from None
    _check_s3(settings)
    try:
        store = S3Store(
            settings.bucket,
            config=_s3_config(settings),
            client_options={"allow_http": True, "connect_timeout": CONNECT_TIMEOUT, "timeout": REQUEST_TIMEOUT},
            retry_config={"max_retries": RETRIES_MAX, "retry_timeout": RETRY_TIMEOUT},
            credential_provider=_s3_credentials(settings) if settings.key_id else None,
        )
    except Exception as error:  # an AWS_... variable that it can't use
        raise ArchiveError(f"{_KEY}.s3: {_reason(error)}") from None
    return ObjectArchive(store, f"bucket {settings.bucket} at {settings.endpoint or 'Amazon S3'}")


def _s3_config(settings: S3Archive) -> "S3Config":
    config: S3Config = {"region": settings.region}
    if settings.endpoint:
        config["virtual_hosted_style_request"] = False
        # Both names, because the environment fills in what is missing, and AWS_ENDPOINT_URL_S3 outranks `endpoint`.
        config["endpoint"] = config["aws_endpoint_url_s3"] = settings.endpoint
    return config


def _s3_credentials(settings: S3Archive) -> "Callable[[], S3Credential]":
    """Provide the key of the configuration. As a part of the config, an AWS_SESSION_TOKEN of others would join it."""
    key: S3Credential = {
        "access_key_id": settings.key_id,
        "secret_access_key": settings.key_secret,
        "token": None,
        "expires_at": None,
    }
    return lambda: key


def _check_s3(settings: S3Archive) -> None:
    """Raise ArchiveError for what obstore would take and stumble over later."""
    if not settings.bucket:
        raise ArchiveError(f"{_KEY}.s3.bucket: expected the name of a bucket that exists")
    if bool(settings.key_id) != bool(settings.key_secret):
        raise ArchiveError(f"{_KEY}.s3: set both key_id and key_secret, or neither")
    if settings.endpoint and not _ENDPOINT.fullmatch(settings.endpoint):
        raise ArchiveError(
            f"{_KEY}.s3.endpoint: expected http:// or https:// and a host, such as http://127.0.0.1:9000"
        )


def _reason(error: Exception) -> str:
    """Say in one line what obstore met: it adds pages of debug output, and a server's answer is XML."""
    text = str(error).partition("\n\nDebug source")[0]
    message = _S3_MESSAGE.search(text)
    line = " ".join(text.partition("<")[0].split())
    return f"{line} {message[1]}" if message else line


def _write(root: Path, path: Path, data: memoryview, stop: Event) -> None:
    """Write a file below `root`, durably and in one step. Blocks. `stop` ends it early, with OSError."""
    top = next(folder for folder in (root, *root.parents) if folder.exists())
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        _write_chunks(part, data, stop)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()  # on a full disk it takes the room that others need
        raise
    _sync_folders(path.parent, top)


def _write_chunks(path: Path, data: memoryview, stop: Event) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        position = 0
        while position < len(data):
            if stop.is_set():
                raise InterruptedError("stopped")
            position += os.write(fd, data[position : position + CHUNK_SIZE])
            os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folders(folder: Path, top: Path) -> None:
    """Make the names in `folder` durable, and those in the folders above it up to `top`."""
    for each in (folder, *folder.parents):
        fd = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if each == top:
            return
