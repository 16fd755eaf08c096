"""Snapshots over HTTP: as Iggy has them, a zip to be saved."""

import zipfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from msgspec.structs import replace
from pybroker.broker.config import Config
from pybroker.broker.listeners.http.decode import SnapshotOf
from pybroker.broker.listeners.http.listener import HttpListener
from support.broker import Broker
from support.rest import LIMITS, Rest, succeeded

FILES = {
    "FilesystemOverview": "filesystem_overview.txt",
    "ProcessList": "process_list.txt",
    "ResourceUsage": "resource_usage.txt",
    "Test": "test.txt",
    "ServerLogs": "server_logs.txt",
    "ServerConfig": "server_config.txt",
}


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    """A client signed in as root."""
    config = Config()
    broker = Broker(config=replace(config, system=replace(config.system, path=tmp_path)))
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    async with Rest(await listener.open("127.0.0.1", 0)) as rest:
        await rest.login()
        yield rest
    await listener.finish(1)


async def names_in(rest: Rest, body: dict[str, Any]) -> list[str]:
    response = succeeded(await rest.ask("POST", "/snapshot", body))
    with zipfile.ZipFile(BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


async def test_a_snapshot_is_a_zip_with_a_name(rest: Rest) -> None:
    body = {"compression": "Deflated", "snapshot_types": ["Test"]}
    response = succeeded(await rest.ask("POST", "/snapshot", body))
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-disposition"] == 'attachment; filename="iggy_snapshot_19700101_000001.zip"'
    with zipfile.ZipFile(BytesIO(response.content)) as archive:
        assert archive.read("test.txt") == b"test\n"


async def test_each_part_is_a_file_and_all_but_the_test_are_everything(rest: Rest) -> None:
    assert await names_in(rest, {"snapshot_types": list(FILES)}) == list(FILES.values())
    everything = sorted(set(FILES.values()) - {"test.txt"})
    assert sorted(await names_in(rest, {"snapshot_types": ["All"]})) == everything
    assert sorted(await names_in(rest, {})) == everything


async def test_every_way_of_packing_is_taken(rest: Rest) -> None:
    for compression in get_args(get_type_hints(SnapshotOf)["compression"]):
        assert await names_in(rest, {"compression": compression, "snapshot_types": ["Test"]}) == ["test.txt"]


async def test_what_makes_no_sense_is_refused(rest: Rest) -> None:
    assert await rest.code("POST", "/snapshot", {"snapshot_types": ["All", "Test"]}) == (400, "invalid_command")
    for body in ({"compression": "Rar"}, {"snapshot_types": ["Secrets"]}, {"snapshot_types": "All"}, "All"):
        assert (await rest.ask("POST", "/snapshot", body)).status_code == 422


async def test_a_snapshot_needs_the_right_to_read_servers(rest: Rest) -> None:
    await rest.login("bob")
    assert await rest.code("POST", "/snapshot", {"snapshot_types": ["Test"]}) == (403, "unauthorized")
