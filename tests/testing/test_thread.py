"""A broker in a thread: for tests without an event loop, and beside any other."""

import asyncio
import threading
import zipfile
from collections.abc import Iterator
from io import BytesIO

import pytest
from pybroker.broker.app import StartError
from pybroker.protocol.model.streams import CreateStream, GetStream
from pybroker.protocol.model.system import GetSnapshot, GetStats
from pybroker.protocol.primitives import SnapshotCompression, SnapshotKind
from pybroker.testing import RunningBroker, running
from support.raw import REPLY, RawClient


@pytest.fixture
def served() -> Iterator[RunningBroker]:
    with running() as broker:
        yield broker


def test_broker_serves_a_test_without_a_loop(served: RunningBroker) -> None:
    with RawClient(served.port) as client:
        assert client.login().kind == REPLY


async def test_broker_serves_while_the_loop_of_its_test_stands_still(served: RunningBroker) -> None:
    with RawClient(served.port) as client:
        assert client.login().kind == REPLY
    async with asyncio.timeout(20), served.client() as client:
        await client.ping()


def test_restarted_broker_has_kept_everything_at_the_same_address(served: RunningBroker) -> None:
    address = served.address
    with RawClient(served.port) as client:
        client.login()
        client.ask(CreateStream("kept"))
    served.restart()
    assert served.address == address
    with RawClient(served.port) as client:
        client.login()
        assert client.ask(GetStream("kept")).stream.name == "kept"


def test_system_commands_need_no_data_directory(served: RunningBroker) -> None:
    with RawClient(served.port) as client:
        client.login()
        assert client.ask(GetStats()).total_disk == 0
        snapshot = client.ask(GetSnapshot(SnapshotCompression.STORED, [SnapshotKind.ALL]))
    names = zipfile.ZipFile(BytesIO(snapshot.zip)).namelist()
    assert "server_config.txt" in names
    assert "filesystem_overview.txt" not in names


def test_brokers_run_side_by_side() -> None:
    with running() as one, running() as other:
        for served in (one, other):
            with RawClient(served.port) as client:
                client.login()
                client.ask(CreateStream("same name"))


def test_thread_ends_with_its_broker() -> None:
    before = threading.enumerate()
    with running() as served:
        port = served.port
        assert len(threading.enumerate()) > len(before)
    assert threading.enumerate() == before
    with pytest.raises(ConnectionRefusedError):
        RawClient(port)


def test_broker_that_cannot_start_says_why_and_its_thread_ends(served: RunningBroker) -> None:
    before = threading.enumerate()
    with (
        pytest.raises(StartError, match=r"can't listen on tcp\.address"),
        running(settings={"tcp.address": served.address}),
    ):
        pass
    assert threading.enumerate() == before


def test_what_a_test_raises_ends_the_broker_and_goes_on() -> None:
    before = threading.enumerate()
    with pytest.raises(ZeroDivisionError), running():
        _ = 1 / 0
    assert threading.enumerate() == before
