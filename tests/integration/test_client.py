"""The thin client against a broker process: killed and started again, over TLS, and as its page says."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pybroker.client import Client, ConnectError, ConnectionLost, Message, Retry
from support.certificates import issue, write
from support.programs import programs, run
from support.server import Server, free_port

FAST = Retry(first_s=0.01, max_s=0.1)
KILLS = 4
PAGE = Path(__file__).parents[2] / "docs" / "client.md"


async def create_many(client: Client, name: str, acknowledged: list[str], stop: asyncio.Event) -> int:
    """Create streams until told to stop; return how often nobody can say whether one was created."""
    lost = number = 0
    while not stop.is_set():
        number += 1
        stream = f"{name}-{number}"
        try:
            assert (await client.create_stream(stream)).stream.name == stream
            acknowledged.append(stream)
        except ConnectionLost:
            lost += 1
    return lost


async def read_many(client: Client, stop: asyncio.Event) -> None:
    """Read, which never fails, until told to stop."""
    while not stop.is_set():
        found = await client.get_stream("first")
        assert found is not None and found.stream.name == "first"


async def test_a_killed_broker_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    stop, acknowledged = asyncio.Event(), list[str]()
    with Server(tmp_path / "data", port=free_port()) as server:
        async with Client(server.url, timeout_s=20, retry=FAST) as client, asyncio.TaskGroup() as group:
            await client.create_stream("first")
            writers = [group.create_task(create_many(client, name, acknowledged, stop)) for name in "abc"]
            readers = [group.create_task(read_many(client, stop)) for _ in range(3)]
            for kill in range(1, KILLS + 1):
                before = len(acknowledged)
                while len(acknowledged) < before + 20:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await client.ping()
                assert client.connection_id > kill
            stop.set()
            lost = sum([await writer for writer in writers])
            await asyncio.gather(*readers)
            kept = {stream.name for stream in await client.get_streams()}
            assert kept >= {"first", *acknowledged}
            assert len(kept) <= 1 + len(acknowledged) + lost


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Server]:
    """A server with a certificate for "localhost", which is at server.pem."""
    write(tmp_path, issue("first"))
    files = {"CERT_FILE": str(tmp_path / "server.pem"), "KEY_FILE": str(tmp_path / "server.key"), "ENABLED": "true"}
    settings = {
        f"IGGY_{listener}_TLS_{key}": value for listener in ("TCP", "WEBSOCKET") for key, value in files.items()
    }
    with Server(tmp_path / "data", settings=settings) as server:
        yield server


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_a_client_works_over_tls(secured: Server, tmp_path: Path, transport: str) -> None:
    tls = f"tls_domain=localhost&tls_ca_file={tmp_path / 'server.pem'}"
    tcp, websocket = secured.url, f"iggy+wss://iggy:iggy@{secured.websocket_address}"
    url = f"{tcp}?tls=true&{tls}" if transport == "tcp" else f"{websocket}?{tls}"
    payloads = [bytes([number]) * 1_000_000 for number in range(20)]
    async with Client(url) as client:
        await client.create_stream("s")
        await client.create_topic("s", "t")
        await asyncio.gather(*(client.send("s", "t", [Message(payload)]) for payload in payloads))
        polled = await client.poll("s", "t", start="first")
        assert [message.payload for message in polled.messages] == payloads


async def test_a_certificate_that_can_not_be_verified_is_no_connection(secured: Server, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(issue("other").pem)
    known = f"{secured.url}?tls=true&tls_ca_file={tmp_path / 'server.pem'}"
    for url, said in (
        (f"{secured.url}?tls=true&tls_domain=localhost&tls_ca_file={other}", "certificate verify failed"),
        (f"{secured.url}?tls=true&tls_domain=localhost", "certificate verify failed"),
        (known, "not valid for '127.0.0.1'"),
        (f"{known}&tls_domain=elsewhere", "not valid for 'elsewhere'"),
        (f"{secured.url}?tls=true&tls_ca_file={tmp_path / 'none.pem'}", "it has to be a PEM file"),
    ):
        with pytest.raises(ConnectError, match=said):
            await Client(url).connect()


async def test_any_certificate_is_good_where_it_is_not_checked(secured: Server) -> None:
    url = f"{secured.url}?tls=true"
    for client in (Client(f"{url}&tls_validate_certificate=false"), Client(url, tls_verify=False)):
        async with client:
            await client.ping()


async def test_a_client_without_tls_is_told_that_there_is_no_connection(secured: Server) -> None:
    with pytest.raises(ConnectError):
        await Client(secured.url, timeout_s=20).connect()


def test_the_first_program_runs_as_printed(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        assert run(programs(PAGE)[0], server).splitlines() == ["0 order 1 {'priority': 3}", "1 order 2 {}"]
