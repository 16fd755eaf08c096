"""The REST API of a running server: by the real client, by httpx, over TLS, and after a restart."""

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from apache_iggy import Consumer, HttpConfig, IggyClient, Partitioning, PollingStrategy, SendMessage
from support.peers import NEWEST, started
from support.rest import Rest, message, new_topic, to_partition
from support.server import Server
from support.wheel import bounded, connect, make_topic, offsets_of, poll, send, stream_of, texts_of, topic_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"
EXAMPLES_TIMEOUT_S = 20
SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture
async def wheel(server: Server) -> IggyClient:
    """The real client over HTTP, signed in."""
    client = IggyClient(HttpConfig(api_url=f"http://{server.http_address}", retries=0))
    await bounded(client.connect())
    await bounded(client.login_user("iggy", "iggy"))
    return client


@pytest.fixture
async def rest(server: Server) -> AsyncIterator[Rest]:
    async with Rest(server.http_address) as rest:
        await rest.login()
        yield rest


async def test_the_client_makes_shows_changes_and_deletes_streams_and_topics(wheel: IggyClient, stream: str) -> None:
    await make_topic(wheel, stream, "topic", 2)
    topic = await topic_of(wheel, stream)
    assert (topic.name, topic.partitions_count, topic.messages_count) == ("topic", 2, 0)
    await bounded(wheel.create_partitions(stream, "topic", 1))
    await bounded(wheel.delete_partitions(stream, "topic", 2))
    assert [one.partitions_count for one in await bounded(wheel.get_topics(stream))] == [1]
    await bounded(wheel.update_topic(stream, "topic", name="renamed"))
    assert (await topic_of(wheel, stream, "renamed")).id == topic.id
    await bounded(wheel.purge_topic(stream, "renamed"))
    await bounded(wheel.delete_topic(stream, "renamed"))
    assert (await stream_of(wheel, stream)).topics_count == 0
    await bounded(wheel.delete_stream(stream))
    assert await bounded(wheel.get_stream(stream)) is None


async def test_the_client_polls_what_it_sent(wheel: IggyClient, stream: str) -> None:
    await make_topic(wheel, stream)
    given: dict[str, Any] = {"count": 1, "name": "x", "ratio": 0.5, "flag": True}
    sent = SendMessage("with headers", user_headers=given)
    assert await send(wheel, stream, "topic", [sent, b"\x00\xff"]) == 0
    await send(wheel, stream, "topic", ["balanced"], Partitioning.balanced())
    await send(wheel, stream, "topic", ["keyed"], Partitioning.messages_key("key"))
    first, second, *rest = await poll(wheel, stream, "topic")
    assert (first.payload(), second.payload()) == (b"with headers", b"\x00\xff")
    headers = first.user_headers()
    assert headers is not None
    assert headers.to_scalar_dict() == given
    assert texts_of(rest) == ["balanced", "keyed"]
    last = await poll(wheel, stream, "topic", PollingStrategy.Last(), count=1)
    assert offsets_of(last) == [3]


async def test_the_client_goes_on_from_what_it_committed(wheel: IggyClient, stream: str) -> None:
    await make_topic(wheel, stream)
    await send(wheel, stream, "topic", ["1", "2", "3"])
    reader = Consumer.Single("reader")
    for expected in ([0, 1], [2], []):
        polled = await poll(wheel, stream, "topic", PollingStrategy.Next(), count=2, consumer=reader, auto_commit=True)
        assert offsets_of(polled) == expected


async def test_the_client_makes_shows_and_deletes_groups(wheel: IggyClient, stream: str) -> None:
    await make_topic(wheel, stream, "topic", 3)
    await bounded(wheel.create_consumer_group(stream, "topic", "group"))
    group = await bounded(wheel.get_consumer_group(stream, "topic", "group"))
    assert group is not None
    assert (group.name, group.partitions_count, group.members_count) == ("group", 3, 0)
    await bounded(wheel.delete_consumer_group(stream, "topic", "group"))
    assert await bounded(wheel.get_consumer_groups(stream, "topic")) == []


async def test_the_client_is_signed_out_by_its_logout(wheel: IggyClient) -> None:
    assert [user.username for user in await bounded(wheel.get_users())] == ["iggy"]
    await bounded(wheel.logout_user())
    with pytest.raises(RuntimeError, match="Unauthenticated"):
        await bounded(wheel.get_users())


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


@pytest.mark.parametrize("generation", ["0.7.0", "0.8.0", NEWEST])
async def test_a_client_of_every_generation_sends_and_polls(server: Server, stream: str, generation: str) -> None:
    async with started(generation) as peer:
        await peer.call("connect", url=f"iggy+http://iggy:iggy@{server.http_address}")
        await peer.call("login", username="iggy", password="iggy")
        await peer.make_topic(stream)
        await peer.send(stream, ["one", "two"])
        assert [(one.offset, one.payload) for one in await peer.poll(stream)] == [(0, b"one"), (1, b"two")]


def test_the_examples_of_the_documentation_run_as_printed(tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
    with Server(tmp_path / "data") as server:
        assert "127.0.0.1:3000" in script
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:3000", server.http_address)],
            capture_output=True,
            text=True,
            timeout=EXAMPLES_TIMEOUT_S,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("first order")
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
