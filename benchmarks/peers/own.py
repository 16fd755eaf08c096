"""pybroker by its own client."""

from collections.abc import Sequence

from ... import __version__
from ...client import Client
from ...client.catalog import Durability
from .driver import Driver

STREAM = "bench"
CONSUMER = "bench"


class Own(Driver):
    """Answered when written."""

    durability: Durability = "replicated"

    async def open(self) -> None:
        self._client = Client(self.address)
        await self._client.connect()
        self._topic = ""

    async def close(self) -> None:
        await self._client.close()

    async def versions(self) -> str:
        return f"pybroker {(await self._client.get_stats()).server_version}, its client {__version__}"

    async def create(self, topic: str) -> None:
        if await self._client.get_stream(STREAM) is None:
            await self._client.create_stream(STREAM)
        await self._client.create_topic(STREAM, topic, durability=self.durability)

    async def delete(self, topic: str) -> None:
        await self._client.delete_topic(STREAM, topic)

    async def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        await self._client.send(STREAM, topic, payloads, partition=0)

    async def subscribe(self, topic: str, *, count: int) -> None:
        self._topic = topic

    async def receive(self, count: int) -> Sequence[bytes]:
        polled = await self._client.poll(STREAM, self._topic, partition=0, consumer=CONSUMER, count=count)
        messages = polled.messages
        await self._client.store_offset(STREAM, self._topic, messages[-1].offset, partition=0, consumer=CONSUMER)
        return [message.payload for message in messages]


class OwnPersisted(Own):
    """Answered when on disk."""

    durability: Durability = "persisted"
