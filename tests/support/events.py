"""A reader of server-sent events for tests: httpx, and from lines to events as browsers have it."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
from support.rest import CALL_TIMEOUT_S, Rest, succeeded


class Event(NamedTuple):
    """name: "message" unless the server gave another. data: its JSON."""

    ident: str
    name: str
    data: Any

    @property
    def place(self) -> tuple[int, int]:
        """The partition and offset of a message."""
        return self.data["partition_id"], self.data["header"]["offset"]


class Events:
    """The events of one stream. ident: what a browser would come back with. comments: how many there were."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.ident = ""
        self.comments = 0
        self._blocks = self._read()

    async def block(self) -> Event | None:
        """Return the event of the next block, None for one without data. Raises StopAsyncIteration at the end."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return await anext(self._blocks)

    async def take(self, count: int) -> list[Event]:
        """Return that many events."""
        taken: list[Event] = []
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while len(taken) < count:
                if event := await self.block():
                    taken.append(event)
        return taken

    async def places(self, count: int) -> list[tuple[int, int]]:
        """Return the partitions and offsets of the next messages."""
        return [event.place for event in await self.take(count)]

    async def rest(self) -> list[Event]:
        """Return what still comes until the stream ends, in the way that HTTP has for it."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return [event async for event in self._blocks if event]

    async def refusal(self) -> str:
        """Return the code of the error that ends the stream, before any other event."""
        (event,) = await self.rest()
        assert (event.name, set(event.data)) == ("error", {"id", "code", "reason", "field"})
        return event.data["code"]

    async def _read(self) -> AsyncIterator[Event | None]:
        fields: dict[str, str] = {}
        async for line in self.response.aiter_lines():
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif line:
                fields[name] = value
            else:
                self.ident = fields.get("id", self.ident)
                data = fields.get("data")
                yield Event(self.ident, fields.get("event", "message"), json.loads(data)) if data else None
                fields = {}


@asynccontextmanager
async def follow(rest: Rest, path: str, *, after: str | None = None, **params: Any) -> AsyncGenerator[Events]:
    """Open a stream and read its first block, which has no event; hang up at the end. after: the last event's id."""
    headers = {} if after is None else {"last-event-id": after}
    async with rest.http.stream("GET", path, params=params, headers=headers) as response:
        if not response.is_success:
            await response.aread()
        assert succeeded(response).headers["content-type"] == "text/event-stream; charset=utf-8"
        events = Events(response)
        assert await events.block() is None
        yield events
