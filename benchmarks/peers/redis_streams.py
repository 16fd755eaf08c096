"""Redis Streams: XADD, many in one pipeline; XREADGROUP and XACK."""

from collections.abc import Sequence
from importlib.metadata import version

from .driver import Driver, untyped

redis = untyped("redis.asyncio")

GROUP = "bench"
FIELD = "payload"


class RedisStreams(Driver):
    async def open(self) -> None:
        self._redis = redis.Redis.from_url(self.address, single_connection_client=True)
        await self._redis.initialize()
        self._stream = ""

    async def close(self) -> None:
        await self._redis.aclose()

    async def versions(self) -> str:
        info = await self._redis.info("server")
        return f"Redis {info['redis_version']}, redis-py {version('redis')} with hiredis {version('hiredis')}"

    async def create(self, topic: str) -> None:
        await self._redis.xgroup_create(topic, GROUP, id="0", mkstream=True)

    async def delete(self, topic: str) -> None:
        await self._redis.delete(topic)

    async def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        if len(payloads) == 1:
            await self._redis.xadd(topic, {FIELD: payloads[0]})
            return
        pipeline = self._redis.pipeline(transaction=False)
        for payload in payloads:
            pipeline.xadd(topic, {FIELD: payload})
        await pipeline.execute()

    async def subscribe(self, topic: str, *, count: int) -> None:
        self._stream = topic

    async def receive(self, count: int) -> Sequence[bytes]:
        ((_, entries),) = await self._redis.xreadgroup(GROUP, "bench", {self._stream: ">"}, count=count)
        await self._redis.xack(self._stream, GROUP, *(ident for ident, _ in entries))
        return [fields[FIELD.encode()] for _, fields in entries]
