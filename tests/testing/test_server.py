"""A broker in the loop of its test: what it serves, what it keeps, what it leaves behind."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from pybroker.broker.app import LISTENERS, StartError
from pybroker.broker.config import ConfigError
from pybroker.testing import Broker, broker
from support.server import Server
from support.streams import signed_in
from support.wheel import connect, make_topic, read_all, send, texts_of

TIMEOUT_S = 20.0
FOOTPRINT = Path(__file__).with_name("footprint.py")


async def send_and_read(address: str, *texts: str, stream: str = "stream") -> list[str]:
    """Send with Iggy's client, to a new topic, and return what is there then."""
    client = await connect(address, redial=False)
    await make_topic(client, stream)
    await send(client, stream, "topic", texts)
    return texts_of(await read_all(client, stream, "topic"))


async def test_broker_serves_iggys_client() -> None:
    async with broker() as served:
        assert served.url == f"iggy://iggy:iggy@{served.address}"
        assert served.address == f"127.0.0.1:{served.port}"
        assert await send_and_read(served.address, "first", "second") == ["first", "second"]


async def test_brokers_side_by_side_know_nothing_of_each_other(tmp_path: Path) -> None:
    async with broker() as one, broker() as other, broker(path=tmp_path) as third:
        brokers = (one, other, third)
        assert len({served.address for served in brokers}) == 3
        for number, served in enumerate(brokers):
            assert await send_and_read(served.address, f"of {number}") == [f"of {number}"]


async def test_own_client_is_signed_in_as_root() -> None:
    async with asyncio.timeout(TIMEOUT_S), broker() as served, served.client() as client:
        await client.ping()


@pytest.mark.parametrize("listeners", [("http",), LISTENERS])
async def test_only_the_listeners_that_are_asked_for_are_there(listeners: tuple[str, ...]) -> None:
    async with broker(listeners=listeners) as served:
        assert sorted(served.addresses) == sorted(listeners)
        assert all(address.startswith("127.0.0.1:") for address in served.addresses.values())
        assert not any(address.endswith(":0") for address in served.addresses.values())


async def test_no_tcp_is_said_to_whom_asks_for_its_address() -> None:
    async with broker(listeners=("http",)) as served:
        with pytest.raises(LookupError, match='"tcp" among its listeners'):
            _ = served.url
    with pytest.raises(LookupError, match="start it"):
        _ = Broker().address


@pytest.mark.parametrize("in_memory", [True, False])
async def test_restarted_broker_has_kept_everything_at_the_same_addresses(in_memory: bool, tmp_path: Path) -> None:
    async with broker(path=None if in_memory else tmp_path, listeners=LISTENERS) as served:
        addresses = dict(served.addresses)
        assert await send_and_read(served.address, "kept") == ["kept"]
        for _ in range(2):
            await served.restart()
            assert served.addresses == addresses
        client = await connect(served.address, redial=False)
        assert texts_of(await read_all(client, "stream", "topic")) == ["kept"]
        assert await send(client, "stream", "topic", ["next"]) == 1


async def test_directory_stays_and_opens_in_a_real_server(tmp_path: Path) -> None:
    async with broker(path=tmp_path / "data") as served:
        assert await send_and_read(served.address, "kept") == ["kept"]
    with Server(tmp_path / "data") as process:
        client = await connect(process.address, redial=False)
        assert texts_of(await read_all(client, "stream", "topic")) == ["kept"]


async def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    async with broker(path=tmp_path):
        with pytest.raises(StartError, match=r"another system\.path"):
            await Broker(path=tmp_path).start()


async def test_memory_writes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with broker() as served:
        assert await send_and_read(served.address, "text") == ["text"]
    assert list(tmp_path.iterdir()) == []


async def test_environment_and_files_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IGGY_TCP_ENABLED", "false")
    monkeypatch.setenv("IGGY_ROOT_USERNAME", "somebody")
    (tmp_path / ".env").write_text("IGGY_TCP_WIRE=classic\n")
    async with broker() as served:
        assert await signed_in(served.address)


async def test_settings_are_in_force() -> None:
    async with broker(settings={"tcp.wire": "classic"}) as served:
        with pytest.raises(asyncio.IncompleteReadError):
            await signed_in(served.address)


@pytest.mark.parametrize(
    ("listeners", "settings", "message"),
    [
        (("tpc",), {}, r"unknown key 'tpc\.enabled'; did you mean tcp\.enabled\?"),
        (("tcp",), {"tcp.wires": "vsr"}, r"unknown key 'tcp\.wires'; did you mean tcp\.wire\?"),
        (("tcp",), {"tcp.wire": "new"}, r"settings: tcp\.wire: given \"new\", expected"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    listeners: tuple[str, ...], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Broker(listeners=listeners, settings=settings)


async def test_clock_is_the_brokers() -> None:
    async with broker(clock=lambda: 5_000_000) as served:
        client = await connect(served.address, redial=False)
        await make_topic(client, "stream")
        await send(client, "stream", "topic", ["text"])
        assert [message.timestamp() for message in await read_all(client, "stream", "topic")] == [5_000_000]


def test_closed_broker_leaves_nothing_behind(tmp_path: Path) -> None:
    """In a process of its own: the clients of other tests come and go in this one."""
    done = subprocess.run([sys.executable, FOOTPRINT, tmp_path], capture_output=True, text=True, timeout=TIMEOUT_S * 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
