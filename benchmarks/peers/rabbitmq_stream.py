"""A RabbitMQ stream, by the protocol of its own; the offset is stored after each batch."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from .driver import Driver, Pushed, untyped

rstream = untyped("rstream")

CONSUMER = "bench"
CHUNKS_AHEAD = 10  # the client's default
CONFIRM_TIMEOUT_S = 30


class RabbitmqStream(Driver):
    async def open(self) -> None:
        parts = urlsplit(self.address)
        user: dict[str, Any] = {"username": parts.username or "", "password": parts.password or ""}
        self._producer = rstream.Producer(parts.hostname or "", parts.port or 5552, **user)
        await self._producer.start()
        self._consumer = rstream.Consumer(parts.hostname or "", parts.port or 5552, **user)
        self._unconfirmed = 0
        self._confirmed = asyncio.Event()
        self._topic = ""
        self._subscription = 0
        self._pushed = Pushed[tuple[bytes, int]]()

    async def close(self) -> None:
        await self._consumer.close()
        await self._producer.close()

    async def versions(self) -> str:
        return f"rstream {version('rstream')}"

    async def create(self, topic: str) -> None:
        await self._producer.create_stream(topic)

    async def delete(self, topic: str) -> None:
        """Nothing: it goes with the server. The client would try to get its publishers' stream back."""

    async def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        if len(payloads) == 1:
            await self._producer.send_wait(topic, payloads[0], timeout=CONFIRM_TIMEOUT_S)
            return
        self._unconfirmed = len(payloads)
        self._confirmed.clear()
        await self._producer.send_batch(topic, list(payloads), on_publish_confirm=self._confirm)
        await self._confirmed.wait()

    def _confirm(self, status: Any) -> None:
        if not status.is_confirmed:
            raise RuntimeError(f"message {status.message_id} was refused: {status.response_code}")
        self._unconfirmed -= 1
        if not self._unconfirmed:
            self._confirmed.set()

    async def subscribe(self, topic: str, *, count: int) -> None:
        self._topic = topic
        self._pushed = Pushed[tuple[bytes, int]]()
        self._subscription = await self._consumer.subscribe(topic, self._deliver, initial_credit=CHUNKS_AHEAD)

    async def _deliver(self, message: Any, context: Any) -> None:
        await self._pushed.put((message, context.offset))

    async def receive(self, count: int) -> Sequence[bytes]:
        messages = await self._pushed.take(count)
        await self._consumer.store_offset(self._topic, CONSUMER, messages[-1][1])
        return [payload for payload, _ in messages]

    async def unsubscribe(self) -> None:
        await self._consumer.unsubscribe(self._subscription)
