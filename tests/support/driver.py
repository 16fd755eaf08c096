"""A client of whichever generation of apache-iggy this Python has, driven by lines of JSON.

A line is {"call": one of CALLS, its arguments...}; each is answered by one line, {"ok": value} or {"error": text}, in
order. Bytes are hex in both directions. peers.py runs this file in the environment of its generation, so it imports
nothing of ours; and takes the client untyped, because what is typed here is the newest.
"""

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import sys
from datetime import timedelta
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

iggy: Any = importlib.import_module("apache_iggy")
GENERATION = tuple(int(part) for part in version("apache-iggy").split("."))

BATCH_LENGTH = 10
# Without one, a consumer polls without pause.
POLL_INTERVAL = timedelta(milliseconds=5)
COMMITS = {
    "polled": lambda: iggy.AutoCommit.When(iggy.AutoCommitWhen.PollingMessages()),
    "handled": lambda: iggy.AutoCommit.After(iggy.AutoCommitAfter.ConsumingEachMessage()),
    "never": iggy.AutoCommit.Disabled,
}


class Driver:
    """One client and, once it has joined, its consumer."""

    def __init__(self) -> None:
        self.client: Any = None
        self.consumer: Any = None
        self.consuming: asyncio.Task[None] | None = None
        self.stop = asyncio.Event()
        self.taken: list[dict[str, Any]] = []

    async def connect(self, url: str) -> None:
        """Connect and sign in."""
        self.client = iggy.IggyClient.from_connection_string(url)
        await self.client.connect()
        if url.startswith("iggy+http:"):  # it connects without signing in
            login = urlsplit(url)
            await self.client.login_user(login.username, login.password)

    async def open(self, address: str) -> None:
        """Connect without signing in."""
        self.client = iggy.IggyClient(address)
        await self.client.connect()

    async def login(self, username: str, password: str) -> None:
        await self.client.login_user(username, password)

    async def ping(self) -> None:
        await self.client.ping()

    async def create_stream(self, name: str) -> None:
        await self.client.create_stream(name)

    async def create_topic(self, stream: str, name: str, partitions_count: int) -> None:
        await self.client.create_topic(stream, name, partitions_count)

    async def get_stream(self, stream: str | int) -> dict[str, Any] | None:
        return facts(await self.client.get_stream(stream), "id", "name", "messages_count", "topics_count")

    async def get_topic(self, stream: str | int, topic: str | int) -> dict[str, Any] | None:
        return facts(await self.client.get_topic(stream, topic), "id", "name", "messages_count", "partitions_count")

    async def send(
        self,
        stream: str,
        topic: str,
        partition_id: int,
        payloads: list[str],
        headers: dict[str, Any] | None = None,
        id: int | None = None,  # noqa: A002
    ) -> None:
        """Send messages in one request; headers and id are for the generations that know them."""
        messages = [new_message(bytes.fromhex(payload), headers, id) for payload in payloads]
        await self.client.send_messages(stream, topic, partition_id, messages)

    async def poll(
        self, stream: str, topic: str, partition_id: int, strategy: str, value: int, count: int, auto_commit: bool
    ) -> list[dict[str, Any]]:
        """Poll once as consumer 0. strategy: a class of PollingStrategy; value: of Offset and Timestamp."""
        make = getattr(iggy.PollingStrategy, strategy)
        arguments = {
            "partition_id": partition_id,
            "polling_strategy": make(value) if strategy in ("Offset", "Timestamp") else make(),
            "count": count,
            "auto_commit": auto_commit,
        }
        if GENERATION >= (0, 9):  # the older are consumer 0 always
            arguments["consumer"] = iggy.Consumer.Single(0)
        messages = await self.client.poll_messages(stream, topic, **arguments)
        return [seen(message) for message in messages]

    async def join(self, group: str, stream: str, topic: str, commit: str) -> None:
        """Create the group unless it is there, and join it. commit: one of COMMITS."""
        consumer = self.client.consumer_group(
            group,
            stream,
            topic,
            polling_strategy=iggy.PollingStrategy.Next(),
            batch_length=BATCH_LENGTH,
            auto_commit=COMMITS[commit](),
            poll_interval=POLL_INTERVAL,
        )
        self.consumer = await consumer if inspect.isawaitable(consumer) else consumer

    async def consume(self) -> None:
        """Begin to take messages, until `pause`."""
        self.stop.clear()
        self.consuming = asyncio.ensure_future(self.consumer.consume_messages(self._take, self.stop))

    async def _take(self, message: Any) -> None:
        self.taken.append(seen(message))

    async def take(self) -> list[dict[str, Any]]:
        """Return what was consumed since the last time."""
        if self.consuming is not None and self.consuming.done():
            self.consuming.result()
        taken, self.taken = self.taken, []
        return taken

    async def pause(self) -> None:
        assert self.consuming is not None
        self.stop.set()
        await self.consuming
        self.consuming = None

    async def store_offset(self, partition_id: int, offset: int) -> None:
        await self.consumer.store_offset(offset, partition_id)

    async def delete_offset(self, partition_id: int) -> None:
        await self.consumer.delete_offset(partition_id)


def new_message(payload: bytes, headers: dict[str, Any] | None, id_: int | None) -> Any:
    if GENERATION < (0, 7):
        return iggy.SendMessage(payload.decode())  # it takes text only
    if GENERATION < (0, 9):
        return iggy.SendMessage(payload)
    return iggy.SendMessage(payload, headers, id_)


def seen(message: Any) -> dict[str, Any]:
    """Return what this generation shows of a message."""
    headers = message.user_headers() if hasattr(message, "user_headers") else None
    return {
        "offset": message.offset(),
        "id": message.id(),
        "payload": message.payload().hex(),
        "timestamp": message.timestamp(),
        "checksum": message.checksum(),
        "length": message.length(),
        "partition_id": message.partition_id() if hasattr(message, "partition_id") else None,
        "headers": headers.to_scalar_dict() if headers else None,
    }


def facts(details: Any, *names: str) -> dict[str, Any] | None:
    return details and {name: getattr(details, name) for name in names}


CALLS = [name for name in vars(Driver) if not name.startswith("_")]


async def answer(driver: Driver, line: str) -> dict[str, Any]:
    request = json.loads(line)
    name = request.pop("call")
    assert name in CALLS, name
    try:
        return {"ok": await getattr(driver, name)(**request)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


async def main() -> None:
    driver = Driver()
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await answer(driver, line)), flush=True)  # noqa: T201


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
    os._exit(0)  # the client sometimes aborts when the interpreter ends
