"""Rounds of: clients send and read, the server is killed, started again, and everything is read.

What was acknowledged is at its offset with its id, its payload and its checksum; what was once read at an offset
stays there; no message is there twice; no stored offset goes back. Repeat a run with PYBROKER_SEED.
"""

import asyncio
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_iggy import Consumer, Durability, IggyClient, PollingStrategy, SendMessage
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.model import offsets
from pybroker.protocol.primitives import Consumer as WireConsumer
from pybroker.protocol.primitives import ConsumerKind
from pybroker.protocol.vsr.overrides import CODECS
from support.raw import RawClient, Stored, read_log
from support.server import Server
from support.wheel import bounded, connect, poll, send
from xxhash import xxh3_64_digest

Place = tuple[str, int]  # topic, partition id

STREAM = "torture"
TOPICS = {"written": 3, "persisted": 2}
PLACES: list[Place] = [(topic, number) for topic, count in TOPICS.items() for number in range(count)]
SENDERS_COUNT = 4
BATCH_COUNT_MAX = 20
PAYLOAD_SIZES = (10, 100, 100, 100, 30_000)
RUN_S = (0.05, 0.6)
READER = "reader"  # stores by polling
WRITER = "writer"  # stores by command


def payload_of(message_id: int) -> bytes:
    """Return the payload that belongs to an id; its size is one of PAYLOAD_SIZES."""
    digest = xxh3_64_digest(message_id.to_bytes(16, "little"))
    return digest * (PAYLOAD_SIZES[digest[0] % len(PAYLOAD_SIZES)] // 8 + 1)


class Ledger:
    """What the server has promised."""

    def __init__(self) -> None:
        self.next_id = 1
        self.sent: dict[int, Place] = {}
        self.acknowledged: dict[Place, dict[int, int]] = defaultdict(dict)  # message ids by offset
        self.read: dict[Place, list[Stored]] = defaultdict(list)
        self.stored: dict[tuple[str, Place], int] = {}

    def new_messages(self, place: Place, count: int) -> list[int]:
        ids = list(range(self.next_id, self.next_id + count))
        self.next_id += count
        self.sent |= dict.fromkeys(ids, place)
        return ids

    def acknowledge(self, place: Place, base_offset: int, ids: list[int]) -> None:
        for offset, message_id in enumerate(ids, base_offset):
            other = self.acknowledged[place].setdefault(offset, message_id)
            assert other == message_id, f"offset {offset} of {place} was given to {other} and {message_id}"

    def check(self, place: Place, found: list[Stored]) -> None:
        """Hold a log, read from start to end with every checksum recomputed, against the promises."""
        assert [message.offset for message in found] == list(range(len(found)))
        for message in found:
            assert self.sent[message.id] == place
            assert message.payload == payload_of(message.id)
        assert len({message.id for message in found}) == len(found)
        ids = [message.id for message in found]
        lost = {offset: kept for offset, kept in self.acknowledged[place].items() if ids[offset : offset + 1] != [kept]}
        assert not lost, f"{len(lost)} acknowledged messages of {place} are not there, the first at {min(lost)}"
        before = self.read[place]
        assert found[: len(before)] == before
        self.read[place] = found


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    seed = int(os.environ.get("PYBROKER_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PYBROKER_SEED={seed}")  # noqa: T201
    return random.Random(seed)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as running:
        yield running


async def send_on(client: IggyClient, ledger: Ledger, rng: random.Random) -> None:
    """Send until the server is gone."""
    while True:
        place = rng.choice(PLACES)
        ids = ledger.new_messages(place, rng.randint(1, BATCH_COUNT_MAX))
        messages = [SendMessage(payload_of(message_id), id=message_id) for message_id in ids]
        ledger.acknowledge(place, await send(client, STREAM, place[0], messages, place[1]), ids)


async def read_on(client: IggyClient, ledger: Ledger, rng: random.Random) -> None:
    """Poll on, and store offsets both ways, until the server is gone."""
    while True:
        topic, number = place = rng.choice(PLACES)
        following = PollingStrategy.Next()
        consumer = Consumer.Single(READER)
        found = await poll(
            client, STREAM, topic, following, count=50, partition_id=number, consumer=consumer, auto_commit=True
        )
        if not found:
            continue
        assert found[0].offset() == ledger.stored.get((READER, place), found[0].offset() - 1) + 1
        ledger.stored[READER, place] = found[-1].offset()
        await store(client, place, found[-1].offset())
        ledger.stored[WRITER, place] = found[-1].offset()


async def store(client: IggyClient, place: Place, offset: int) -> None:
    consumer = WireConsumer(ConsumerKind.SINGLE, WRITER)
    command = offsets.StoreConsumerOffset(consumer, STREAM, place[0], place[1], offset)
    row = BY_REQUEST[type(command)]
    await bounded(client.send_binary_request(row.code, bytes(CODECS[row.request].encode(command))))


async def run_until_killed(server: Server, ledger: Ledger, rng: random.Random) -> None:
    """Let clients work, and kill the server under them."""
    clients = [await connect(server.address, redial=False) for _ in range(SENDERS_COUNT + 1)]
    work = [asyncio.ensure_future(send_on(client, ledger, rng)) for client in clients[:-1]]
    work.append(asyncio.ensure_future(read_on(clients[-1], ledger, rng)))
    await asyncio.to_thread(_kill_after, server, rng.uniform(*RUN_S))
    for failure in await bounded(asyncio.gather(*work, return_exceptions=True)):
        if not isinstance(failure, RuntimeError):  # what the wheel raises when the server is gone
            raise AssertionError("work stopped before the server") from failure
        assert "isconnected" in str(failure) or "onnection" in str(failure), failure


def _kill_after(server: Server, delay_s: float) -> None:
    """Kill from a thread of its own: the clients must be at work at that moment."""
    time.sleep(delay_s)
    server.kill()


def check_all(server: Server, ledger: Ledger) -> None:
    """Read everything and hold it against the ledger."""
    with RawClient(server.port) as raw:
        raw.login()
        for topic, number in PLACES:
            ledger.check((topic, number), read_log(raw, STREAM, topic, number))
        for (name, (topic, number)), promised in ledger.stored.items():
            consumer = WireConsumer(ConsumerKind.SINGLE, name)
            stored = raw.ask(offsets.GetConsumerOffset(consumer, STREAM, topic, number))
            assert stored is not None, f"{name}'s offset in {topic}/{number} was {promised} and is gone"
            assert stored.stored_offset >= promised, f"{name}'s offset in {topic}/{number} went back to {stored}"
            if name == READER:  # a poll whose reply was lost may have moved it on
                ledger.stored[name, (topic, number)] = stored.stored_offset


async def test_nothing_acknowledged_is_lost_whenever_the_server_is_killed(
    server: Server, rng: random.Random, pytestconfig: pytest.Config
) -> None:
    ledger = Ledger()
    client = await connect(server.address, redial=False)
    await bounded(client.create_stream(STREAM))
    for topic, count in TOPICS.items():
        durability = Durability.PERSISTED if topic == "persisted" else Durability.REPLICATED
        await bounded(client.create_topic(STREAM, topic, count, segment_size=1 << 20, durability=durability))
    del client
    rounds: int = pytestconfig.option.rounds
    for number in range(rounds):
        await run_until_killed(server, ledger, rng)
        await asyncio.to_thread(server.start)
        check_all(server, ledger)
        acknowledged = sum(map(len, ledger.acknowledged.values()))
        found = sum(map(len, ledger.read.values()))
        print(f"round {number + 1}: {acknowledged} acknowledged, {found} found")  # noqa: T201
    assert any(ledger.acknowledged.values())
    assert server.stop() == 0
