"""How much a connection has on its way, and what it leaves to the calls that wait."""

import asyncio

import pytest
from pybroker.client import Client, ConnectionLost, Retry, Timeout
from pybroker.client.connection import IN_FLIGHT_SIZE_MAX, Connection
from pybroker.client.tcp import IN_FLIGHT_MAX, TcpLink
from pybroker.protocol.errors import Status
from pybroker.protocol.model.messages import Sent
from pybroker.protocol.model.streams import GetStream
from pybroker.protocol.model.users import LoggedIn
from pybroker.protocol.vsr.frames import RequestHeader
from pybroker.protocol.wire import Request
from support.agents import until
from support.scripted import Scripted

LARGE = b"x" * 5_000_000


def connection_of(client: Client) -> Connection:
    assert client._ready is not None
    return client._ready


async def test_requests_on_their_way_have_a_limit(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10) as client:
        calls = [asyncio.create_task(client.get_stream(number)) for number in range(IN_FLIGHT_MAX + 100)]
        await until(lambda: script.requests.qsize() == IN_FLIGHT_MAX)
        connection = connection_of(client)
        assert (len(connection._asked), len(connection._queue)) == (IN_FLIGHT_MAX, 100)
        for number in range(len(calls)):
            dialogue, request = await script.asked()
            assert request.command == GetStream(number)
            dialogue.answer(request, None)
        assert await asyncio.gather(*calls) == [None] * len(calls)


async def test_bytes_on_their_way_have_a_limit(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10) as client:
        sends = [asyncio.create_task(client.send("s", "t", [LARGE])) for _ in range(8)]
        fitting = IN_FLIGHT_SIZE_MAX // len(LARGE) + 1
        await until(lambda: script.requests.qsize() == fitting)
        connection = connection_of(client)
        assert IN_FLIGHT_SIZE_MAX <= connection._in_flight < IN_FLIGHT_SIZE_MAX + len(LARGE) + 1000
        assert len(connection._queue) == len(sends) - fitting
        for number in range(len(sends)):
            dialogue, request = await script.asked()
            dialogue.answer(request, Sent(1, 2, 3, number))
        assert [sent.base_offset for sent in await asyncio.gather(*sends)] == list(range(8))
        assert connection._in_flight == 0


async def test_nothing_is_written_to_a_server_that_does_not_read(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10) as client:
        script.reads.clear()
        sends = [asyncio.create_task(client.send("s", "t", [LARGE])) for _ in range(3)]
        connection = connection_of(client)
        await until(lambda: connection._paused)
        link = connection._link
        assert isinstance(link, TcpLink) and link._transport.get_write_buffer_size() < 2 * len(LARGE)
        assert connection._queue
        script.reads.set()
        for number in range(len(sends)):
            dialogue, request = await script.asked()
            dialogue.answer(request, Sent(1, 2, 3, number))
        await asyncio.gather(*sends)


async def test_calls_that_were_never_sent_go_to_the_next_connection(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10, retry=Retry(first_s=0.001)) as client:
        script.reads.clear()
        sends = [asyncio.create_task(client.send("s", "t", [LARGE])) for _ in range(10)]
        await until(lambda: connection_of(client)._paused)
        sent = len(connection_of(client)._asked)
        script.dialogues[0].writer.transport.abort()
        script.reads.set()
        await until(lambda: sum(send.done() for send in sends) == sent)
        for number in range(len(sends) - sent):
            dialogue, request = await script.asked()
            dialogue.answer(request, Sent(1, 2, 3, number))
        ended = await asyncio.gather(*sends, return_exceptions=True)
        assert [type(each).__name__ for each in ended] == ["ConnectionLost"] * sent + ["Sent"] * (len(sends) - sent)


def number_of(request: Request) -> int:
    assert isinstance(request.tag, RequestHeader)
    return request.tag.request


@pytest.mark.parametrize(
    ("status", "is_same"), [(Status.TRANSIENT_NOT_COMMITTED, True), (Status.TRANSIENT_NOT_ACCEPTED, False)]
)
async def test_what_a_server_can_not_do_for_now_is_asked_again(script: Scripted, status: Status, is_same: bool) -> None:
    async with Client(script.url, timeout_s=10) as client:
        call = asyncio.create_task(client.store_offset("s", "t", 7, partition=0))
        dialogue, first = await script.asked()
        dialogue.answer(first, status)
        other = asyncio.create_task(client.ping())
        dialogue.answer((await script.asked())[1], None)
        await other
        dialogue, again = await script.asked()
        assert again.command == first.command
        assert (number_of(again) == number_of(first)) is is_same
        dialogue.answer(again, None)
        await call
        assert connection_of(client)._in_flight == 0


async def test_a_sign_in_that_can_not_be_done_for_now_is_asked_again(script: Scripted) -> None:
    script.login = None
    connecting = asyncio.create_task(Client(script.url, timeout_s=10).connect())
    for reply in (Status.TRANSIENT_NOT_COMMITTED, Status.TRANSIENT_NOT_ACCEPTED, LoggedIn(0, 1)):
        dialogue, request = await script.asked()
        dialogue.answer(request, reply)
    await connecting


async def test_a_call_that_is_never_accepted_ends_with_its_time(script: Scripted) -> None:
    async with Client(script.url, timeout_s=0.2) as client:
        call = asyncio.create_task(client.create_stream("s"))
        answering = asyncio.create_task(refuse_all(script))
        with pytest.raises(Timeout):
            await call
        answering.cancel()


async def refuse_all(script: Scripted) -> None:
    while True:
        dialogue, request = await script.asked()
        dialogue.answer(request, Status.TRANSIENT_NOT_ACCEPTED)


async def test_what_may_be_done_yet_is_lost_with_its_connection(script: Scripted) -> None:
    async with Client(script.url, timeout_s=10) as client:
        call = asyncio.create_task(client.create_stream("s"))
        dialogue, request = await script.asked()
        connection_of(client).pause()
        dialogue.answer(request, Status.TRANSIENT_NOT_COMMITTED)
        await until(lambda: bool(connection_of(client)._queue))
        dialogue.writer.transport.abort()
        with pytest.raises(ConnectionLost):
            await call
