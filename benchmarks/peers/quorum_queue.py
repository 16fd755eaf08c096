"""A RabbitMQ quorum queue: confirmed publishes, deliveries two batches ahead, an acknowledgement a batch."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from .driver import Driver, Pushed, untyped

aio_pika = untyped("aio_pika")


class QuorumQueue(Driver):
    """A topic is a queue on the default exchange."""

    async def open(self) -> None:
        self._connection = await aio_pika.connect(self.address)
        self._channel = await self._connection.channel(publisher_confirms=True)
        self._pushed = Pushed[Any]()

    async def close(self) -> None:
        await self._connection.close()

    async def versions(self) -> str:
        properties = self._connection.transport.connection.server_properties
        return f"RabbitMQ {properties['version']}, aio-pika {version('aio-pika')}"

    async def create(self, topic: str) -> None:
        await self._channel.declare_queue(topic, durable=True, arguments={"x-queue-type": "quorum"})

    async def delete(self, topic: str) -> None:
        await self._channel.queue_delete(topic)

    async def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        await asyncio.gather(*(self._publish(topic, payload) for payload in payloads))

    async def _publish(self, topic: str, payload: bytes) -> None:
        message = aio_pika.Message(payload, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await self._channel.default_exchange.publish(message, topic)

    async def subscribe(self, topic: str, *, count: int) -> None:
        self._pushed = Pushed[Any]()
        await self._channel.set_qos(prefetch_count=2 * count)
        self._queue = await self._channel.get_queue(topic, ensure=False)
        self._tag = await self._queue.consume(self._pushed.put)

    async def receive(self, count: int) -> Sequence[bytes]:
        messages = await self._pushed.take(count)
        await messages[-1].ack(multiple=True)
        return [message.body for message in messages]

    async def unsubscribe(self) -> None:
        await self._queue.cancel(self._tag)
