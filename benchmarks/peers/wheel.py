"""pybroker, or Apache Iggy, by Iggy's own client."""

from collections.abc import Sequence
from importlib.metadata import version

from ...client import Client
from .driver import Driver, untyped

iggy = untyped("apache_iggy")
STREAM = "bench"


class Wheel(Driver):
    async def open(self) -> None:
        scheme, rest = self.address.split("://", 1)
        self._client = iggy.IggyClient.from_connection_string(f"{'iggy+tcp' if scheme == 'iggy' else scheme}://{rest}")
        await self._client.connect()
        self._topic = ""

    async def close(self) -> None:
        """Nothing: it ends with the process."""

    async def versions(self) -> str:
        return f"apache-iggy {version('apache-iggy')}"

    async def create(self, topic: str) -> None:
        # Not by Iggy's client: it always names a durability, which Iggy's servers before 0.9.0 don't know.
        async with Client(self.address) as client:
            if await client.get_stream(STREAM) is None:
                await client.create_stream(STREAM)
            await client.create_topic(STREAM, topic)

    async def delete(self, topic: str) -> None:
        await self._client.delete_topic(STREAM, topic)

    async def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        await self._client.send_messages(STREAM, topic, 0, [iggy.SendMessage(payload) for payload in payloads])

    async def subscribe(self, topic: str, *, count: int) -> None:
        self._topic = topic

    async def receive(self, count: int) -> Sequence[bytes]:
        # The client can't store an offset but with a poll.
        messages = await self._client.poll_messages(
            STREAM,
            self._topic,
            partition_id=0,
            consumer=iggy.Consumer.Single(1),
            polling_strategy=iggy.PollingStrategy.Next(),
            count=count,
            auto_commit=True,
        )
        return [message.payload() for message in messages]
