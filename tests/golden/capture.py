"""Record what a real classic client and the server say to each other: a line of JSON for each exchange.

    PYTHONPATH=tests .venv/bin/python tests/golden/capture.py > tests/golden/classic-0.8.jsonl
    PYTHONPATH=tests .venv/bin/python tests/golden/capture.py PORT > FILE

The first runs the wheel 0.8.0 through all it can do. The second waits for any one client that dials PORT, and records
until it has closed all its connections. What was recorded already is left out: polls that found nothing, pings.
"""

import asyncio
import json
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from struct import unpack_from
from typing import Any

import pytest
from support.peers import PeerError, gather_until, started
from support.server import Server

GENERATION = "0.8.0"
FRAME_HEAD_SIZE = 8
IDLE_S = 1.0
FROM_THE_FIRST = {"strategy": "First", "value": 0, "count": 1, "auto_commit": False}


class Recorder:
    """A port before a server's; passes everything on and keeps the exchanges."""

    def __init__(self, server_port: int) -> None:
        self.exchanges: dict[tuple[bytes, bytes], None] = {}
        self.connections: set[asyncio.Task[None]] = set()
        self._server_port = server_port

    async def open(self, port: int = 0) -> int:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", port)
        return int(self._listener.sockets[0].getsockname()[1])

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self.connections.add(task)
        await asyncio.wait([task])
        self.connections.discard(task)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Pass on one request and its reply at a time, as classic clients do."""
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            while True:
                request = await _frame(reader, size_at=0, counted=4)
                to_server.write(request)
                reply = await _frame(from_server, size_at=4, counted=FRAME_HEAD_SIZE)
                writer.write(reply)
                self.exchanges[request, reply] = None
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            to_server.close()


async def _frame(reader: StreamReader, *, size_at: int, counted: int) -> bytes:
    """Read one frame. size_at: where its size stands, which counts what follows `counted` bytes."""
    head = await reader.readexactly(FRAME_HEAD_SIZE)
    (size,) = unpack_from("<I", head, size_at)
    return head + await reader.readexactly(counted + size - FRAME_HEAD_SIZE)


async def converse(port: int) -> None:
    """Let the wheel do all that it can, and much that it is refused."""
    async with started(GENERATION) as peer:

        async def refused(call: str, **arguments: Any) -> None:
            with pytest.raises(PeerError):
                await peer.call(call, **arguments)

        await peer.call("open", address=f"127.0.0.1:{port}")
        await peer.call("ping")
        await refused("login", username="iggy", password="wrong")
        await peer.call("login", username="iggy", password="iggy")
        await peer.make_topic("stream", "topic", 2)
        await refused("create_stream", name="stream")
        await refused("create_topic", stream="none", name="topic", partitions_count=1)
        for name in ("stream", "none"):
            await peer.call("get_stream", stream=name)
        for name in ("topic", "none"):
            await peer.call("get_topic", stream="stream", topic=name)
        for partition_id in (0, 1):
            await peer.send("stream", ["one", b"\x00two", "three"], partition_id=partition_id)
        for strategy, value in (("First", 0), ("Last", 0), ("Offset", 1), ("Timestamp", 1), ("Next", 0)):
            await peer.poll("stream", strategy, value, count=2, auto_commit=strategy == "Next")
        await refused("poll", stream="stream", topic="topic", partition_id=9, **FROM_THE_FIRST)
        await peer.join("stream", commit="never")
        await peer.call("store_offset", partition_id=0, offset=2)
        await peer.call("delete_offset", partition_id=0)
        await refused("delete_offset", partition_id=0)
        await peer.consume()
        await gather_until([peer], 6)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "data") as server:
        recorder = Recorder(server.port)
        port = await recorder.open(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
        if len(sys.argv) > 1:
            await all_closed(recorder)
        else:
            await converse(port)
        for request, reply in recorder.exchanges:
            code = unpack_from("<I", request, 4)[0]
            print(json.dumps({"code": code, "req": request.hex(), "rep": reply.hex()}))  # noqa: T201


async def all_closed(recorder: Recorder) -> None:
    """Wait until a client came and went."""
    while not recorder.exchanges or recorder.connections:
        await asyncio.sleep(IDLE_S)


if __name__ == "__main__":
    asyncio.run(main())
