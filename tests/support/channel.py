"""A connection over a channel that is a list."""

import asyncio
from collections.abc import Callable
from struct import unpack_from

from msgspec import Struct
from pybroker.broker.connection import Connection, Limits
from pybroker.broker.session import Session
from pybroker.protocol.batch import Buffer
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.inbox import Inbox, Pool
from pybroker.protocol.vsr.overrides import CODECS
from pybroker.protocol.vsr.session import VsrSession
from pybroker.protocol.vsr.wire import VsrWire
from support.broker import Broker
from support.raw import request_frame

CLIENT = 1
LIMITS = Limits(
    frame_size_max=1 << 20,
    frame_size_max_before_login=1000,
    unread_size_max=2000,
    requests_per_turn_max=4,
    login_timeout_s=30,
    write_timeout_s=20,
)
PING = request_frame(code=1)


class FakeChannel:
    """writes: the bytes of each write; buffers: in how many they came. A slow one lets `drained` wait until `catch_up`.

    written: told of each write, before it returns.
    """

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.buffers: list[int] = []
        self.calls: list[str] = []
        self.slow = False
        self.unsent = 0
        self.gone = False
        self.written: Callable[[], None] = lambda: None
        self._caught_up = asyncio.Event()

    def write(self, buffers: list[Buffer]) -> None:
        self.writes.append(b"".join(buffers))
        self.buffers.append(len(buffers))
        self.written()

    @property
    def is_writable(self) -> bool:
        return not self.slow and not self.gone

    async def drained(self) -> None:
        if self.slow:
            self._caught_up.clear()
            await self._caught_up.wait()
        if self.gone:
            raise ConnectionResetError("the peer is gone")

    def catch_up(self) -> None:
        self._caught_up.set()

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def expect_more(self) -> None: ...

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


class Peer:
    """A connection that is being served, from its peer's side."""

    def __init__(self, broker: Broker, *, signed_in: bool = True, limits: Limits = LIMITS) -> None:
        self.broker = broker
        self.session: Session = broker.connect("iggy" if signed_in else None)
        self.channel = FakeChannel()
        self.number = 0
        vsr = VsrSession()
        size_max = limits.frame_size_max if signed_in else limits.frame_size_max_before_login
        self.wire = VsrWire(vsr, Inbox(Pool()), frame_size_max=size_max)
        if signed_in:
            vsr.bind(CLIENT.to_bytes(16, "little"), self.session.epoch)
        self.connection = Connection(
            wire=self.wire, session=self.session, channel=self.channel, dispatch=broker.dispatch, limits=limits
        )
        self.task = asyncio.get_running_loop().create_task(self.connection.run())

    def frame(self, command: Struct) -> bytes:
        row = BY_REQUEST[type(command)]
        self.number += 1
        return request_frame(
            bytes(CODECS[row.request].encode(command)),
            operation=row.operation or 2,
            code=0 if row.operation else row.code,
            session=self.session.epoch,
            request=self.number,
            client=CLIENT,
        )

    def feed(self, *frames: bytes) -> None:
        """Let bytes arrive, in as many receives as the space asks for."""
        data, position = b"".join(frames), 0
        while position < len(data):
            space = self.wire.space(0)
            count = min(len(space), len(data) - position)
            space[:count] = data[position : position + count]
            position += count
            self.connection.received(count)

    async def settle(self) -> "Peer":
        """Run until nothing moves but on new bytes: every wait in here is on the fake channel."""
        for _ in range(100):
            await asyncio.sleep(0)
        return self

    @property
    def answers(self) -> list[bytes]:
        """Return the frames that were written, one by one."""
        data, position = b"".join(self.channel.writes), 0
        frames: list[bytes] = []
        while position < len(data):
            (size,) = unpack_from("<I", data, position + 48)
            frames.append(data[position : position + size])
            position += size
        return frames

    @property
    def numbers(self) -> list[int]:
        """Return the request numbers of the answers."""
        return [unpack_from("<Q", answer, 200)[0] for answer in self.answers]
