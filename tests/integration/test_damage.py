"""Damage on the disk under a real server: it is told with file and byte, never served, and costs nothing else."""

from pathlib import Path

import pytest
from apache_iggy import PollingStrategy
from pybroker.protocol.errors import Status
from support.server import Server
from support.wheel import connect, make_topic, poll, refused, send, texts_of

SENDS = 6


async def fill(server: Server) -> None:
    client = await connect(server.address)
    await make_topic(client, "s")
    for number in range(SENDS):
        await send(client, "s", "topic", [f"message {number}"])


def damage(root: Path, text: bytes) -> tuple[Path, int]:
    """Change a letter of a payload; return file and byte."""
    for path in sorted(root.glob("logs/*/*.log")):
        data = bytearray(path.read_bytes())
        position = data.find(text)
        if position >= 0:
            data[position] ^= 1
            path.write_bytes(data)
            return path, position
    raise AssertionError("no such payload")


@pytest.mark.parametrize("ending", ["stop", "kill"])
@pytest.mark.parametrize("number", [0, 3])
async def test_damaged_message_is_refused_and_the_others_are_served(tmp_path: Path, number: int, ending: str):
    with Server(tmp_path / "data") as server:
        await fill(server)
        getattr(server, ending)()
    path, position = damage(tmp_path / "data", b"message %d" % number)
    with Server(tmp_path / "data") as server:
        client = await connect(server.address)
        before = await poll(client, "s", "topic", PollingStrategy.First()) if number else []
        assert texts_of(before) == [f"message {each}" for each in range(number)]
        await refused(poll(client, "s", "topic", PollingStrategy.Offset(number)), Status.CANNOT_READ_MESSAGE)
        behind = await poll(client, "s", "topic", PollingStrategy.Offset(number + 1))
        assert texts_of(behind) == [f"message {each}" for each in range(number + 1, SENDS)]
        assert await send(client, "s", "topic", ["later"]) == SENDS
        told = [line for line in server.log().splitlines() if str(path) in line]
        assert told and f"offset {number} can't be read" in told[-1]
        byte = int(told[-1].partition(": byte ")[2].partition(":")[0])
        assert position - 400 < byte <= position
