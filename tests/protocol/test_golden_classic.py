"""Sessions of real 0.8 clients, the Python wheel and the Go SDK, as captured: what both sides sent is what we make."""

import json
from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from
from typing import NamedTuple

import pytest
from pybroker.protocol.classic.overrides import CODECS
from pybroker.protocol.classic.wire import BY_CODE, ClassicWire
from pybroker.protocol.commands import Command
from pybroker.protocol.errors import Status
from pybroker.protocol.inbox import Inbox, Pool
from pybroker.protocol.wire import Request

GOLDEN = Path(__file__).parents[1] / "golden"
SESSIONS = ("classic-0.8", "classic-0.8-go")
HEAD_SIZE = 8
# What neither client asks: snapshot, me, flush, purges, deletion of segments.
UNSEEN = {11, 20, 102, 205, 305, 503}
# What we write in other bytes that mean the same.
REWRITTEN = {
    "classic-0.8-5-create_topic": "no replication factor, which is 1",
    "classic-0.8-7-create_topic": "no replication factor, which is 1",
    "classic-0.8-go-8-create_topic": "no replication factor, which is 1",
    "classic-0.8-go-60-update_user": "a byte too many",
    "classic-0.8-go-64-update_permissions": "streams in no order",
}


class Exchange(NamedTuple):
    session: str
    number: int
    code: int
    request: bytes
    reply: bytes

    @property
    def command(self) -> Command:
        return BY_CODE[self.code]

    @property
    def name(self) -> str:
        return f"{self.session}-{self.number}-{self.command.name}"

    @property
    def status(self) -> Status:
        return Status(unpack_from("<I", self.reply)[0])

    @property
    def payload(self) -> bytes:
        return self.reply[HEAD_SIZE:]


def exchanges() -> Iterator[Exchange]:
    for session in SESSIONS:
        for number, line in enumerate((GOLDEN / f"{session}.jsonl").read_text().splitlines()):
            entry = json.loads(line)
            yield Exchange(session, number, entry["code"], bytes.fromhex(entry["req"]), bytes.fromhex(entry["rep"]))


EXCHANGES = list(exchanges())
every_exchange = pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)


def take(wire: ClassicWire, frame: bytes) -> Request:
    """Feed one frame, return its request."""
    rest = memoryview(frame)
    while rest:
        space = wire.space(len(rest))
        count = min(len(space), len(rest))
        space[:count] = rest[:count]
        wire.filled(count)
        rest = rest[count:]
    (request,) = wire.requests(10)
    return request


def new_wire() -> ClassicWire:
    return ClassicWire(Inbox(Pool()), frame_size_max=1 << 20, random_bytes=bytes)


def test_captures_have_every_command_but_those_that_no_client_asked() -> None:
    assert {exchange.code for exchange in EXCHANGES} == set(BY_CODE) - UNSEEN


@every_exchange
def test_request_of_the_real_client_decodes_and_encodes_to_the_same_bytes(exchange: Exchange) -> None:
    body = exchange.request[HEAD_SIZE:]
    codec = CODECS[exchange.command.request]
    command = codec.decode(memoryview(bytearray(body)))
    encoded = codec.encode(command)
    assert (encoded == body) == (exchange.name not in REWRITTEN)
    assert codec.encode(codec.decode(memoryview(encoded))) == encoded


@every_exchange
def test_accepted_reply_decodes_and_encodes_to_the_same_bytes(exchange: Exchange) -> None:
    if exchange.command.reply is None or not exchange.payload:
        return
    codec = CODECS[exchange.command.reply]
    assert codec.encode(codec.decode(memoryview(exchange.payload))) == exchange.payload


@pytest.mark.parametrize("session", SESSIONS)
def test_whole_session_is_answered_as_the_client_accepted_it(session: str) -> None:
    wire = new_wire()
    for exchange in EXCHANGES:
        if exchange.session != session:
            continue
        request = take(wire, exchange.request)
        assert type(request.command) is exchange.command.request, exchange.name
        assert answer_of(exchange, wire, request) == exchange.reply, exchange.name


def answer_of(exchange: Exchange, wire: ClassicWire, request: Request) -> bytes:
    """Answer as the captured server did, from the value its payload stands for."""
    if exchange.status:
        return b"".join(wire.refuse(request, exchange.status))
    reply = exchange.command.reply
    decoded = CODECS[reply].decode(memoryview(exchange.payload)) if reply and exchange.payload else None
    return b"".join(wire.reply(request, decoded))
