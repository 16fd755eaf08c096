"""A server that does what a test tells it: it signs everybody in, and keeps their requests until they are answered."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import Struct
from pybroker.protocol.batch import Buffer
from pybroker.protocol.errors import Status
from pybroker.protocol.inbox import Inbox, Pool
from pybroker.protocol.model.messages import SendMessages
from pybroker.protocol.model.tokens import LoginWithToken
from pybroker.protocol.model.users import LoggedIn, Login
from pybroker.protocol.vsr.session import VsrSession
from pybroker.protocol.vsr.wire import VsrWire
from pybroker.protocol.wire import Request

_SIZE_MAX = 1 << 20
_LOGINS = (Login, LoginWithToken)


class Scripted:
    """login: how a sign-in is answered; None for not at all. answers: whether other requests are, with nothing.
    reads: cleared, what arrives stays in the sockets.
    """

    def __init__(self) -> None:
        self.url = ""
        self.login: LoggedIn | Status | None = LoggedIn(0, 1)
        self.answers = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.requests: asyncio.Queue[tuple[Dialogue, Request]] = asyncio.Queue()
        self.dialogues: list[Dialogue] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialogue = Dialogue(writer)
        self.dialogues.append(dialogue)
        try:
            while data := await reader.read(_SIZE_MAX):
                for request in dialogue.requests(data):
                    self._take(dialogue, request)
                await self.reads.wait()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def asked(self) -> "tuple[Dialogue, Request]":
        """Return the next request that nobody has answered."""
        async with asyncio.timeout(10):
            return await self.requests.get()

    def _take(self, dialogue: "Dialogue", request: Request) -> None:
        if isinstance(request.command, _LOGINS) and self.login is not None:
            dialogue.answer(request, self.login)
        elif self.answers:
            dialogue.answer(request, None)
        else:
            self.requests.put_nowait((dialogue, request))


class Dialogue:
    """One connection, as the server has it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._wire = VsrWire(VsrSession(), Inbox(Pool()), frame_size_max=64 << 20)

    def requests(self, data: bytes) -> list[Request]:
        """Return the requests that these bytes complete. What they hold of a batch is not kept."""
        found: list[Request] = []
        while data:
            space = self._wire.space(len(data))
            part, data = data[: len(space)], data[len(space) :]
            space[: len(part)] = part
            self._wire.filled(len(part))
            for request in self._wire.requests(1000):
                if isinstance(request.command, SendMessages):
                    request.command.batch.record = memoryview(bytes(request.command.batch.record))
                found.append(request)
        return found

    def answer(self, request: Request, reply: Struct | Status | None) -> None:
        answer = self._wire.refuse(request, reply) if isinstance(reply, Status) else self._wire.reply(request, reply)
        self.write(answer)

    def write(self, buffers: list[Buffer]) -> None:
        self.writer.write(b"".join(buffers))


@asynccontextmanager
async def scripted() -> AsyncGenerator[Scripted]:
    """Run a scripted server on 127.0.0.1."""
    script = Scripted()
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0, limit=_SIZE_MAX)
    host, port = server.sockets[0].getsockname()[:2]
    script.url = f"iggy://iggy:iggy@{host}:{port}"
    try:
        yield script
    finally:
        server.close()
        for dialogue in script.dialogues:
            dialogue.writer.close()
