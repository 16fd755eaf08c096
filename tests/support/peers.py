"""Real clients of every generation beside each other: each a process in the environment of its own wheel."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .server import Server

# `make test` makes an environment for each; the newest is the one that the tests run in.
OLDER = ("0.6.0", "0.7.0", "0.8.0")
NEWEST = "0.9.0"
GENERATIONS = (*OLDER, NEWEST)

CALL_TIMEOUT_S = 20.0
LINE_SIZE_MAX = 64 << 20
WAIT_INTERVAL_S = 0.02
POLL_COUNT = 1000
_DRIVER = Path(__file__).with_name("driver.py")


class PeerError(RuntimeError):
    """The client raised; the text is "class: message", as this generation words it."""


class Seen(NamedTuple):
    """A message as a client shows it. partition_id and headers are None where the generation does not show them."""

    offset: int
    id: int
    payload: bytes
    timestamp: int
    checksum: int
    length: int
    partition_id: int | None
    headers: dict[str, Any] | None


def python_of(generation: str) -> str:
    """Return the interpreter that has this generation of the client. Skips the test where `make` has made none."""
    if generation == NEWEST:
        return sys.executable
    path = Path(sys.prefix, "clients", generation, "bin", "python")
    if not path.exists():
        pytest.skip(f"no environment for apache-iggy {generation} at {path}: `make test` makes it")
    return str(path)


class Peer:
    """One client. Every call is bounded in time and raises PeerError where the client raises."""

    def __init__(self, generation: str, process: Process) -> None:
        self.generation = generation
        self._process = process

    async def call(self, call: str, **arguments: Any) -> Any:
        """Do one of the driver's calls."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": call, **arguments}).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), CALL_TIMEOUT_S)
        assert line, f"the client {self.generation} died in {call}: {await self._process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["ok"]

    async def make_topic(self, stream: str, topic: str = "topic", partitions_count: int = 1) -> None:
        await self.call("create_stream", name=stream)
        await self.call("create_topic", stream=stream, name=topic, partitions_count=partitions_count)

    async def send(
        self,
        stream: str,
        payloads: Iterable[bytes | str],
        topic: str = "topic",
        partition_id: int = 0,
        **known: Any,
    ) -> None:
        """Send messages in one request. known: headers and id, for a generation that knows them."""
        data = [payload.encode() if isinstance(payload, str) else payload for payload in payloads]
        texts = [payload.hex() for payload in data]
        await self.call("send", stream=stream, topic=topic, partition_id=partition_id, payloads=texts, **known)

    async def poll(
        self,
        stream: str,
        strategy: str = "First",
        value: int = 0,
        *,
        topic: str = "topic",
        partition_id: int = 0,
        count: int = POLL_COUNT,
        auto_commit: bool = False,
    ) -> list[Seen]:
        """Poll once as consumer 0."""
        where = {"stream": stream, "topic": topic, "partition_id": partition_id}
        return _seen(
            await self.call("poll", **where, strategy=strategy, value=value, count=count, auto_commit=auto_commit)
        )

    async def join(self, stream: str, *, group: str = "group", topic: str = "topic", commit: str = "handled") -> None:
        await self.call("join", group=group, stream=stream, topic=topic, commit=commit)

    async def consume(self) -> None:
        """Begin to take messages as the member of the group that was joined."""
        await self.call("consume")

    async def take(self) -> list[Seen]:
        """Return what was consumed since the last time."""
        return _seen(await self.call("take"))

    async def kill(self) -> None:
        """End it as a crash does; its connection closes."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def _seen(messages: list[dict[str, Any]]) -> list[Seen]:
    return [Seen(**message)._replace(payload=bytes.fromhex(message["payload"])) for message in messages]


@asynccontextmanager
async def started(generation: str) -> AsyncGenerator[Peer]:
    """Run a client that is not connected."""
    process = await asyncio.create_subprocess_exec(
        python_of(generation), str(_DRIVER), stdin=PIPE, stdout=PIPE, limit=LINE_SIZE_MAX
    )
    peer = Peer(generation, process)
    try:
        yield peer
    finally:
        await peer.kill()


@asynccontextmanager
async def connected(server: Server, *generations: str, url: str | None = None) -> AsyncGenerator[list[Peer]]:
    """Run a client of each generation, signed in as root. They dial a server that is away ten times a second.

    url: where they connect, without options; over TCP unless told otherwise.
    """
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(started(generation)) for generation in generations]
        whole = f"{url or server.url}?reconnection_interval=100ms&reestablish_after=100ms"
        await asyncio.gather(*(peer.call("connect", url=whole) for peer in peers))
        yield peers


async def gather_until(peers: Sequence[Peer], count: int, timeout_s: float = CALL_TIMEOUT_S) -> list[list[Seen]]:
    """Take from consuming members until they have `count` messages between them; return each one's."""
    taken: list[list[Seen]] = [[] for _ in peers]
    deadline = asyncio.get_running_loop().time() + timeout_s
    while sum(map(len, taken)) < count:
        assert asyncio.get_running_loop().time() < deadline, f"{[*map(len, taken)]} of {count} in {timeout_s:g} s"
        for own, peer in zip(taken, peers, strict=True):
            own.extend(await peer.take())
        await asyncio.sleep(WAIT_INTERVAL_S)
    return taken
