"""NATS JetStream: publish with so many acknowledgements outstanding as a batch has messages, and fetch."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from .driver import Driver, untyped

nats = untyped("nats")
api = untyped("nats.js.api")

TIMEOUT_S = 30.0
UNACKNOWLEDGED_MAX = 4000
CONSUMER = "bench"


class JetStream(Driver):
    async def open(self) -> None:
        self._nats = await nats.connect(self.address)
        self._stream = self._nats.jetstream(timeout=TIMEOUT_S, publish_async_max_pending=UNACKNOWLEDGED_MAX)
        self._subscription: Any = None

    async def close(self) -> None:
        await self._nats.close()

    async def versions(self) -> str:
        found = self._nats.connected_server_version
        return f"NATS {found.major}.{found.minor}.{found.patch}, nats-py {version('nats-py')}"

    async def create(self, topic: str) -> None:
        await self._stream.add_stream(name=topic, subjects=[topic], storage=api.StorageType.FILE)

    async def delete(self, topic: str) -> None:
        await self._stream.delete_stream(topic)

    async def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        if len(payloads) == 1:
            await self._stream.publish(topic, payloads[0])
            return
        for sent in [await self._stream.publish_async(topic, payload) for payload in payloads]:
            await sent

    async def subscribe(self, topic: str, *, count: int) -> None:
        config = api.ConsumerConfig(ack_policy=api.AckPolicy.ALL, max_ack_pending=UNACKNOWLEDGED_MAX)
        self._subscription = await self._stream.pull_subscribe(topic, CONSUMER, stream=topic, config=config)

    async def receive(self, count: int) -> Sequence[bytes]:
        messages = await self._subscription.fetch(count, timeout=TIMEOUT_S)
        await messages[-1].ack_sync()
        return [message.data for message in messages]

    async def unsubscribe(self) -> None:
        await self._subscription.unsubscribe()
