"""Event streams of a running server: over a restart, beside other transports, and as the documentation has it."""

import re
import subprocess
from itertools import takewhile
from pathlib import Path

from apache_iggy import IggyClient
from support.events import follow
from support.rest import Rest, message, new_topic, text64, to_partition
from support.server import Server
from support.wheel import send

DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"
SECRET = "a secret of more than thirty-two bytes"
EXAMPLE_S = 1
EXAMPLE_TIMEOUT_S = 30


async def test_what_other_transports_send_is_pushed(server: Server, client: IggyClient, stream: str) -> None:
    async with Rest(server.http_address) as rest:
        await rest.login()
        await rest.post("/streams", {"name": stream})
        await rest.post(f"/streams/{stream}/topics", new_topic("topic"))
        async with follow(rest, f"/streams/{stream}/topics/topic/messages/stream") as events:
            for text in ("by tcp", "and again"):
                await send(client, stream, "topic", [text])
                (event,) = await events.take(1)
                assert event.data["payload"] == text64(text.encode())


async def test_a_stream_goes_on_after_a_restart(tmp_path: Path) -> None:
    topic = "/streams/s/topics/t"
    with Server(tmp_path / "data", settings={"IGGY_HTTP_JWT_ENCODING_SECRET": SECRET}) as server:
        async with Rest(server.http_address) as rest:
            token = (await rest.login())["access_token"]["token"]
            await rest.post("/streams", {"name": "s"})
            await rest.post("/streams/s/topics", new_topic("t", 2))
            for partition_id in (0, 1):
                sent = to_partition(*[message(b"x")] * 3, partition_id=partition_id)
                await rest.post(f"{topic}/messages", sent)
            async with follow(rest, f"{topic}/messages/stream", kind="first") as events:
                before = await events.places(4)
                cut = events.ident
                assert server.stop() == 0
                assert {event.name for event in await events.rest()} <= {"message"}
        server.start()
        async with (
            Rest(server.http_address, token=token) as rest,
            follow(rest, f"{topic}/messages/stream", after=cut) as events,
        ):
            after = await events.places(2)
        assert sorted(before + after) == [(partition_id, offset) for partition_id in (0, 1) for offset in range(3)]


def test_the_example_of_the_documentation_shows_what_was_sent(tmp_path: Path) -> None:
    shell = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    before = takewhile(lambda block: "logout" not in block, shell)
    (example,) = re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    bounded = example.replace("curl -sN", f"curl -sN --max-time {EXAMPLE_S}")
    with Server(tmp_path / "data") as server:
        script = "\n".join([*before, bounded]).replace("127.0.0.1:3000", server.http_address)
        done = subprocess.run(
            ["bash", "-uo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=EXAMPLE_TIMEOUT_S,
        )
    shown = re.findall(r'^data: {"partition_id":0,.*"payload":"(.*?)"', done.stdout, re.MULTILINE)
    assert shown == [text64(b"first order"), text64(b"second order")], done.stderr
