"""Apache Kafka: acks=all; a consumer that commits after each batch."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from .driver import Driver, untyped

aiokafka = untyped("aiokafka")
admin = untyped("aiokafka.admin")

GROUP = "bench"
BATCH_SIZE_MAX = 2_000_000  # bytes: 1000 messages of 1000 bytes are one batch
POLL_TIMEOUT_MS = 30_000


class Kafka(Driver):
    async def open(self) -> None:
        servers = {"bootstrap_servers": self.address}
        self._admin = admin.AIOKafkaAdminClient(**servers)
        sizes = {"max_batch_size": BATCH_SIZE_MAX, "max_request_size": BATCH_SIZE_MAX}
        self._producer = aiokafka.AIOKafkaProducer(**servers, acks="all", **sizes)
        self._consumer: Any = None
        await self._admin.start()
        await self._producer.start()

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
        await self._producer.stop()
        await self._admin.close()

    async def versions(self) -> str:
        return f"Kafka at {self.address}, aiokafka {version('aiokafka')}"

    async def create(self, topic: str) -> None:
        await self._admin.create_topics([admin.NewTopic(topic, num_partitions=1, replication_factor=1)])

    async def delete(self, topic: str) -> None:
        await self._admin.delete_topics([topic])

    async def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        for sent in [await self._producer.send(topic, payload, partition=0) for payload in payloads]:
            await sent

    async def subscribe(self, topic: str, *, count: int) -> None:
        if self._consumer is None:
            kept = {"group_id": GROUP, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
            self._consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=self.address, **kept)
            await self._consumer.start()
        self._consumer.assign([aiokafka.TopicPartition(topic, 0)])

    async def receive(self, count: int) -> Sequence[bytes]:
        found = await self._consumer.getmany(max_records=count, timeout_ms=POLL_TIMEOUT_MS)
        await self._consumer.commit()
        return [record.value for records in found.values() for record in records]
