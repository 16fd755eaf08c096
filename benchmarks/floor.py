"""The floor: what the loop, the channel and the inbox cost when nobody looks at the bytes.

The broker's own loop, TcpChannel and Inbox receive the same requests. A send is written to a file and answered with
as many bytes as the broker answers; a poll is answered with as many bytes out of the file. Nothing is decoded,
verified, stamped or indexed, and the answer is given where the bytes arrive, without a task.

A request that is neither empties the file; its body says how many bytes a poll gets (u32).
`python -m pybroker.benchmarks.floor FILE` prints its port and serves until it is killed.
"""

import asyncio
import os
import sys
from pathlib import Path
from struct import Struct
from typing import cast

from ..broker.config import Config
from ..broker.connection import Connection
from ..broker.listeners.tcp import TcpChannel
from ..broker.loops import loop_factory
from ..protocol.batch import Buffer
from ..protocol.commands import BY_REQUEST
from ..protocol.inbox import Inbox, Pool
from ..protocol.model.messages import PollMessages, SendMessages
from ..protocol.vsr.frames import HEADER_SIZE, NON_REPLICATED

SENT_SIZE = 24
POLLED_HEAD_SIZE = 16
REQUESTS_PER_TURN_MAX = 1024

_SEND = BY_REQUEST[SendMessages].operation
_POLL = BY_REQUEST[PollMessages].code
_SIZE = Struct("<I")
_ASKED = Struct("<176xB19xI")  # operation, code
_REPLY = Struct("<48xI8xB195x")  # size, command
_REPLY_COMMAND = 8


class FloorConnection:
    """Stands where a Connection and its wire stand."""

    def __init__(self, channel: TcpChannel, pool: Pool, fd: int) -> None:
        self.wire = self
        self._channel = channel
        self._inbox = Inbox(pool, _measure)
        self._fd = fd
        self._end = 0
        self._position = 0
        self._poll_size = 0
        self._sent = _reply(SENT_SIZE)
        self._polled = b""

    def space(self, _hint: int) -> memoryview:
        return self._inbox.space()

    def received(self, count: int) -> None:
        self._inbox.filled(count)
        for frame in self._inbox.frames(REQUESTS_PER_TURN_MAX):
            self._channel.write(self._answer(frame))

    def ended(self) -> None:
        self._channel.close()

    def lost(self) -> None:
        self._inbox.close()

    def _answer(self, frame: memoryview) -> list[Buffer]:
        operation, code = _ASKED.unpack_from(frame)
        if operation == _SEND:
            self._end += os.pwrite(self._fd, frame, self._end)
            return [self._sent]
        if operation == NON_REPLICATED and code == _POLL:
            return [self._polled, self._read()]
        return self._reset(_SIZE.unpack_from(frame, HEADER_SIZE)[0])

    def _read(self) -> bytes:
        if self._position + self._poll_size > self._end:
            self._position = 0
        data = os.pread(self._fd, self._poll_size, self._position)
        self._position += self._poll_size
        return data

    def _reset(self, poll_size: int) -> list[Buffer]:
        os.ftruncate(self._fd, 0)
        self._end = self._position = 0
        self._poll_size = poll_size
        self._polled = _reply(POLLED_HEAD_SIZE + poll_size)[: HEADER_SIZE + POLLED_HEAD_SIZE]
        return [_reply(0)]


def _measure(block: memoryview, start: int, end: int, _size_max: int) -> int:
    return _SIZE.unpack_from(block, start + 48)[0] if end - start >= HEADER_SIZE else 0


def _reply(size: int) -> bytes:
    """Return a reply whose body has `size` bytes, or as many as the first kibibyte holds."""
    return _REPLY.pack(HEADER_SIZE + size, _REPLY_COMMAND) + bytes(min(size, 1024))


async def _serve(path: Path) -> None:
    pool, fd = Pool(), os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    unsent_size_max = Config().pybroker.unread_size_max

    def connect(channel: TcpChannel, _address: str) -> Connection:
        channel.set_unsent_size_max(unsent_size_max)
        return cast(Connection, FloorConnection(channel, pool, fd))

    server = await asyncio.get_running_loop().create_server(lambda: TcpChannel(connect), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(Path(sys.argv[1])))
