"""Actors on the client's Producer and Consumer: what an application gets, the client's own work included."""

from ...client import Client
from ...client.consumer import Consumer
from ...client.producer import Producer
from ...protocol.batch import FRAME_HEADER_SIZE
from .actors import Sender, payloads_of
from .params import Params
from .plan import TOPIC, Actor
from .schedule import Schedule, clock_ns
from .tally import Tally


def producer_of(actor: Actor, params: Params, client: Client) -> Producer:
    """Return a producer whose batches are those of the run."""
    return client.producer(
        actor.stream,
        TOPIC,
        partition=actor.partition,
        batch_size=params.messages_per_batch,
        batch_bytes=params.messages_per_batch * (params.message_size.most + FRAME_HEADER_SIZE) + 1,
    )


def consumer_of(actor: Actor, params: Params, client: Client) -> Consumer:
    if actor.group is not None:
        return client.consumer(
            actor.stream, TOPIC, group=actor.group, create_group=False, batch_size=params.messages_per_batch
        )
    return client.consumer(
        actor.stream, TOPIC, consumer=actor.name, partition=actor.partition, batch_size=params.messages_per_batch
    )


class Producing(Sender):
    """A request is a batch of messages, from the first that is handed over until all are delivered."""

    def __init__(self, params: Params, producer: Producer, tally: Tally) -> None:
        super().__init__(params, tally)
        self._producer = producer
        self._payloads = payloads_of(params)
        self._size = sum(map(len, self._payloads))

    async def _send(self, schedule: Schedule) -> None:
        while (due_ns := await schedule.next()) is not None:
            deliveries = [await self._producer.enqueue(payload) for payload in self._payloads]
            for delivery in deliveries:
                await delivery
            self.tally.add(due_ns, clock_ns(), len(deliveries), self._size)


class Consuming:
    """A request is the wait for a batch, which may be one for messages that nobody has sent yet."""

    def __init__(self, consumer: Consumer, tally: Tally) -> None:
        self.tally = tally
        self._consumer = consumer

    async def run(self, schedule: Schedule) -> None:
        while (due_ns := await schedule.next()) is not None:
            batch = await self._consumer.next_batch()
            self.tally.add(due_ns, clock_ns(), len(batch), sum(len(message.payload) for message in batch))
