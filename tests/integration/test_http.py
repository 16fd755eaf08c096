"""The REST API of a running server: by the real client, by httpx, over TLS, and after a restart."""

import asyncio
import re
import ssl
import subprocess
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from apache_iggy import IggyClient
from support.raw import RawClient
from support.rest import Rest, message, new_topic, to_partition
from support.server import Server
from support.wheel import bounded, connect, poll, send, texts_of, until

DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"
EXAMPLES_TIMEOUT_S = 20
SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture
async def rest(server: Server) -> AsyncIterator[Rest]:
    async with Rest(server.http_address) as rest:
        await rest.login()
        yield rest


async def test_messages_cross_between_http_and_tcp(rest: Rest, client: IggyClient, stream: str) -> None:
    made = await rest.post("/streams", {"name": stream})
    topic = f"/streams/{made['id']}/topics/topic"
    await rest.post(f"/streams/{made['id']}/topics", new_topic("topic"))
    await rest.post(f"{topic}/messages", to_partition(message(b"by http", id=5)))
    await send(client, stream, "topic", ["by tcp"])
    assert texts_of(await poll(client, stream, "topic")) == ["by http", "by tcp"]
    polled = await rest.get(f"{topic}/messages")
    assert [one["header"]["offset"] for one in polled["messages"]] == [0, 1]
    assert polled["messages"][0]["header"]["id"] == 5
    addresses = {one["transport"] for one in await rest.get("/clients")}
    assert addresses >= {"TCP", "HTTP"}


async def test_many_requests_at_once_are_all_answered(server: Server, rest: Rest, stream: str) -> None:
    made = await rest.post("/streams", {"name": stream})
    topic = f"/streams/{made['id']}/topics/topic"
    await rest.post(f"/streams/{made['id']}/topics", new_topic("topic"))
    sends = (rest.post(f"{topic}/messages", to_partition(message(str(n).encode()))) for n in range(100))
    answers = await asyncio.gather(*sends)
    assert sorted(answer["confirmations"][0]["base_offset"] for answer in answers) == list(range(100))


def test_the_examples_of_the_documentation_run_as_printed(tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
    with Server(tmp_path / "data") as server:
        assert "127.0.0.1:3000" in script
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:3000", server.http_address)],
            capture_output=True,
            text=True,
            timeout=EXAMPLES_TIMEOUT_S,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("first orderCreate a stream\nready")
    assert zipfile.is_zipfile(next(tmp_path.glob("iggy_snapshot_*.zip")))
    assert '"code"' not in done.stdout


async def test_the_bound_port_is_told(server: Server, rest: Rest) -> None:
    (node,) = (await rest.get("/cluster/metadata"))["nodes"]
    assert node["endpoints"]["http"] == int(server.http_address.rpartition(":")[2])


async def test_a_token_with_a_secret_of_the_configuration_outlives_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path / "data", settings={"IGGY_HTTP_JWT_ENCODING_SECRET": SECRET}) as server:
        async with Rest(server.http_address) as rest:
            token = (await rest.login())["access_token"]["token"]
            await rest.post("/streams", {"name": "kept"})
        assert server.stop() == 0
        server.start()
        async with Rest(server.http_address, token=token) as rest:
            assert [stream["name"] for stream in await rest.get("/streams")] == ["kept"]
        assert SECRET not in server.log()
        assert SECRET not in (server.path / "runtime" / "current_config.toml").read_text()
        assert token not in server.log()


async def test_https_is_served_with_a_certificate(tmp_path: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Server(tmp_path / "data", settings={"IGGY_HTTP_TLS_ENABLED": "true"}) as server:
        async with Rest(server.http_address, context=context, scheme="https") as rest:
            await rest.login()
            assert await rest.get("/streams") == []
        assert server.stop() == 0


async def test_without_http_nothing_else_changes(tmp_path: Path) -> None:
    with Server(tmp_path / "data", settings={"IGGY_HTTP_ENABLED": "false"}) as server:
        await bounded((await connect(server.address)).create_stream("s"))
        assert "http" not in {line.split("listening for ")[-1].split()[0] for line in server.log().splitlines()}


async def test_http_and_other_connections_have_one_limit(tmp_path: Path) -> None:
    with Server(tmp_path / "data", settings={"IGGY_PYBROKER_CONNECTIONS_MAX": "1"}) as server:
        async with Rest(server.http_address) as rest:
            with RawClient(server.port) as client:
                client.login()
                with pytest.raises(httpx.TransportError):
                    await rest.ask("GET", "/ping")
            assert sum("1 connections are open already" in line for line in server.log().splitlines()) == 1

            async def answers() -> bool:
                try:
                    return (await rest.ask("GET", "/ping")).text == "pong"
                except httpx.TransportError:
                    return False  # the other's end is not noticed yet

            await until(answers)
            with pytest.raises(ConnectionError):
                RawClient(server.port).login()
