"""A bare client over QUIC, in the test's own loop: a stream for each request."""

import asyncio
import ssl
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aioquic.asyncio.client import connect  # pyright: ignore[reportUnknownVariableType]
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from msgspec import Struct
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.vsr.overrides import CODECS

from .raw import REGISTER, REPLY, Answer, RawClient, login_body, request_frame

TIMEOUT_S = 10.0


class Frames(RawClient):
    """Builds the frames of one session and reads the answers, without a socket."""

    def __init__(self) -> None:
        self.client = uuid.uuid4().int
        self.session = 0
        self.request = 0
        self._unread = b""

    def login_frame(self) -> bytes:
        return request_frame(login_body(), operation=REGISTER, client=self.client, request=0)

    def read(self, data: bytes) -> Answer:
        """Read what has to be exactly one frame. Raises ConnectionError when it is less."""
        self._unread = data
        answer = self.receive()
        assert not self._unread
        return answer

    def _exactly(self, size: int) -> bytes:
        if len(self._unread) < size:
            raise ConnectionError(f"{len(self._unread)} of {size} bytes")
        data, self._unread = self._unread[:size], self._unread[size:]
        return data


class QuicClient:
    """One connection. Every method waits at most TIMEOUT_S."""

    def __init__(self, protocol: QuicConnectionProtocol) -> None:
        self.protocol = protocol
        self.frames = Frames()

    def begin(self, data: bytes, *, finish: bool = False) -> int:
        """Send `data` on a new stream and wait for nothing; return the stream's id."""
        connection = self.protocol._quic
        stream_id = connection.get_next_available_stream_id()
        connection.send_stream_data(stream_id, data, end_stream=finish)
        self.protocol.transmit()
        return stream_id

    async def exchange(self, data: bytes) -> bytes:
        """Send `data` on a new stream; return what comes back on it, nothing when the server closes."""
        reader, writer = await self.protocol.create_stream()
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(TIMEOUT_S):
            return await reader.read()

    async def login(self) -> Answer:
        answer = self.frames.read(await self.exchange(self.frames.login_frame()))
        if answer.kind == REPLY:
            self.frames.session = int.from_bytes(answer.body[4:12], "little")
        return answer

    async def ask(self, command: Struct) -> Any:
        """Return the decoded reply, None for an empty one, or the whole Answer if it failed."""
        answer = self.frames.read(await self.exchange(self.frames.frame_of(command)))
        row = BY_REQUEST[type(command)]
        if answer.kind != REPLY or answer.status:
            return answer
        return CODECS[row.reply].decode(memoryview(answer.body)) if row.reply and answer.body else None

    async def closed(self) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await self.protocol.wait_closed()


@asynccontextmanager
async def dialled(address: str, configuration: QuicConfiguration | None = None) -> AsyncGenerator[QuicClient]:
    """Connect, offering no ALPN and trusting anybody, as Iggy's clients do."""
    host, _, port = address.rpartition(":")
    chosen = configuration or QuicConfiguration(is_client=True, server_name="localhost")
    chosen.verify_mode = ssl.CERT_NONE
    async with connect(host, int(port), configuration=chosen, local_port=0) as protocol:
        yield QuicClient(protocol)
