"""A session of the real 0.9.0 client, as captured: what it asked is understood, what it accepted is what we answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from
from typing import NamedTuple

import pytest
from pybroker.protocol.commands import BY_CODE, BY_OPERATION, BY_REQUEST, Command
from pybroker.protocol.errors import Status
from pybroker.protocol.inbox import Inbox, Pool
from pybroker.protocol.model.users import LoggedIn, Login
from pybroker.protocol.vsr.frames import FRAMED, HEADER_SIZE, NON_REPLICATED, REGISTER
from pybroker.protocol.vsr.overrides import CODECS
from pybroker.protocol.vsr.session import VsrSession
from pybroker.protocol.vsr.wire import VsrWire
from pybroker.protocol.wire import Request

SESSION = Path(__file__).parents[1] / "golden" / "vsr-0.9.jsonl"


class Exchange(NamedTuple):
    number: int
    operation: int
    code: int
    request: bytes
    reply: bytes

    @property
    def command(self) -> Command:
        if self.operation == REGISTER:
            return BY_REQUEST[Login]  # the capture has no login with a token
        return BY_CODE[self.code] if self.operation == NON_REPLICATED else BY_OPERATION[self.operation]

    @property
    def name(self) -> str:
        return f"{self.number}-{self.command.name}"

    @property
    def payload(self) -> bytes:
        """What the reply says, without header and result section."""
        return self.reply[HEADER_SIZE + (4 if self.operation in FRAMED or self.operation == REGISTER else 0) :]

    @property
    def failure(self) -> Status:
        """The status in the result section."""
        framed = self.operation in FRAMED and unpack_from("<I", self.reply, HEADER_SIZE)[0]
        return Status(unpack_from("<I", self.reply, HEADER_SIZE + 8)[0] if framed else 0)


def exchanges() -> Iterator[Exchange]:
    for number, line in enumerate(SESSION.read_text().splitlines()):
        entry = json.loads(line)
        request, reply = bytes.fromhex(entry["req"]), bytes.fromhex(entry["rep"])
        yield Exchange(number, entry["op"], entry["code"], request, reply)


EXCHANGES = list(exchanges())


def take(wire: VsrWire, frame: bytes) -> Request:
    """Feed one frame, return its request."""
    space = wire.space(len(frame))
    assert len(space) >= len(frame)
    space[: len(frame)] = frame
    wire.filled(len(frame))
    (request,) = wire.requests(10)
    return request


def answer_of(exchange: Exchange, wire: VsrWire, request: Request) -> bytes:
    """Answer as the captured server did, from the value its payload stands for."""
    if exchange.failure:
        return b"".join(wire.refuse(request, exchange.failure))
    command = exchange.command
    if isinstance(request.command, Login):
        return b"".join(wire.reply(request, LoggedIn(*unpack_from("<IQ", exchange.payload))))
    reply = CODECS[command.reply].decode(memoryview(exchange.payload)) if command.reply and exchange.payload else None
    return b"".join(wire.reply(request, reply))


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_request_of_the_real_client_decodes_and_encodes_to_the_same_bytes(exchange: Exchange) -> None:
    command = exchange.command
    if command.request is Login:
        return  # read in test_session; no part of the broker writes one
    body = exchange.request[HEADER_SIZE:]
    codec = CODECS[command.request]
    assert codec.encode(codec.decode(memoryview(bytearray(body)))) == body


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_accepted_reply_decodes_and_encodes_to_the_same_bytes(exchange: Exchange) -> None:
    command = exchange.command
    if command.reply in (None, LoggedIn) or exchange.failure:
        return
    codec = CODECS[command.reply]
    assert codec.encode(codec.decode(memoryview(exchange.payload))) == exchange.payload


def test_whole_session_is_answered_as_the_client_accepted_it() -> None:
    wire = VsrWire(VsrSession(), Inbox(Pool()), frame_size_max=1 << 20)
    for exchange in EXCHANGES:
        request = take(wire, exchange.request)
        assert type(request.command) is exchange.command.request, exchange.name
        answer = answer_of(exchange, wire, request)
        assert echoed(answer) == echoed(exchange.reply), exchange.name
        if not isinstance(request.command, Login):  # our login names another server version
            assert answer[48:52] == exchange.reply[48:52]
            assert answer[216:] == exchange.reply[216:], exchange.name


def echoed(reply: bytes) -> dict[str, bytes]:
    """Return the header fields that a reply repeats from its request."""
    return {
        "cluster": reply[32:48],
        "command": reply[60:61],
        "checksum": reply[128:144],
        "client": reply[160:176],
        "timestamp": reply[192:200],
        "request": reply[200:208],
        "operation": reply[208:209],
    }


def test_login_of_the_real_client_is_answered_with_its_session() -> None:
    wire = VsrWire(VsrSession(), Inbox(Pool()), frame_size_max=1 << 20)
    exchange = next(exchange for exchange in EXCHANGES if exchange.operation == REGISTER)
    request = take(wire, exchange.request)
    assert request.command == Login("iggy", "iggy", "rust-sdk/0.11.0", client=exchange.request[128:144])
    answer = b"".join(wire.reply(request, LoggedIn(0, 1)))
    body = answer[HEADER_SIZE:]
    # result section, user id, session, protocol version 0.11.0, then the server's own version text
    assert body[:20] == exchange.reply[HEADER_SIZE:][:20]
    assert body[20] == len(body) - 21 > 0
    assert unpack_from("<I", answer, 48)[0] == len(answer)
