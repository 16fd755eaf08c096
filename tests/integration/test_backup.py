"""`pybroker backup` of a server at work, `pybroker restore`, `pybroker verify`, and a server on what was restored."""

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from apache_iggy import Consumer, IggyClient, PollingStrategy, SendMessage
from pybroker.protocol.commands import BY_REQUEST
from pybroker.protocol.model import offsets, streams, topics
from pybroker.protocol.model.partitions import DeleteSegments
from pybroker.protocol.primitives import Consumer as WireConsumer
from pybroker.protocol.primitives import ConsumerKind
from pybroker.protocol.vsr.overrides import CODECS
from support.raw import RawClient, read_log
from support.server import Server, run
from support.wheel import bounded, connect, poll, send

STREAM = "stream"
PLACES = [("kept", 0), ("kept", 1), ("trimmed", 0)]
BACKUPS_COUNT = {"linked": 2, "copied": 1}
MESSAGES_BEFORE = 2000
PAYLOAD = b"x" * 1000  # 1000 to a segment of 1 MiB
READER = "reader"

Place = tuple[str, int]  # topic, partition id


class Ledger:
    """Which message ids were acknowledged at which offsets, and how often each kind of work was done."""

    def __init__(self) -> None:
        self.acknowledged: dict[Place, dict[int, int]] = defaultdict(dict)
        self.done: dict[str, int] = defaultdict(int)
        self._next_id = 1

    def new_ids(self, count: int) -> list[int]:
        self._next_id += count
        return list(range(self._next_id - count, self._next_id))

    def copy(self) -> dict[Place, dict[int, int]]:
        return {place: dict(known) for place, known in self.acknowledged.items()}


async def send_on(client: IggyClient, ledger: Ledger, place: Place) -> None:
    while True:
        ids = ledger.new_ids(1 + len(ledger.acknowledged[place]) % 20)
        messages = [SendMessage(PAYLOAD, id=number) for number in ids]
        base = await send(client, STREAM, place[0], messages, place[1])
        ledger.acknowledged[place].update(enumerate(ids, base))
        await asyncio.sleep(0.005)  # or what there is to copy grows as fast as it is copied


async def read_on(client: IggyClient, ledger: Ledger, place: Place) -> None:
    """Poll, and store an offset with each poll."""
    topic, number = place
    while True:
        found = await poll(
            client,
            STREAM,
            topic,
            PollingStrategy.Next(),
            partition_id=number,
            consumer=Consumer.Single(READER),
            auto_commit=True,
        )
        ledger.done["read"] += len(found)
        await asyncio.sleep(0 if found else 0.01)


async def ask(client: IggyClient, command: Any) -> None:
    row = BY_REQUEST[type(command)]
    await bounded(client.send_binary_request(row.code, bytes(CODECS[row.request].encode(command))))


async def trim_on(client: IggyClient, ledger: Ledger) -> None:
    while True:
        await ask(client, DeleteSegments(STREAM, "trimmed", 0, 1))
        ledger.done["trimmed"] += 1
        await asyncio.sleep(0.02)


async def churn_on(client: IggyClient, ledger: Ledger) -> None:
    """Create, fill, purge and delete topics, with stored offsets in them."""
    while True:
        number = ledger.done["churned"]
        topic = f"churn {number}"
        await bounded(client.create_topic(STREAM, topic, 2))
        for step in range(2):
            assert await send(client, STREAM, topic, [f"{step} {each}" for each in range(10)]) == 0
            await poll(client, STREAM, topic, auto_commit=True)
            if not step:
                await bounded(client.purge_topic(STREAM, topic))
        if number:
            await bounded(client.delete_topic(STREAM, f"churn {number - 1}"))
        ledger.done["churned"] += 1
        await asyncio.sleep(0.5)


async def until_begun(ledger: Ledger, works: list["asyncio.Task[None]"]) -> None:
    """Wait until every kind of work has been done."""
    while not (
        all(len(ledger.acknowledged[place]) > MESSAGES_BEFORE for place in PLACES)
        and all(ledger.done[kind] > 1 for kind in ("read", "trimmed", "churned"))
    ):
        for work in works:
            if work.done():
                work.result()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["linked", "copied"])
async def test_backups_of_a_server_at_work_hold_what_was_acknowledged(tmp_path: Path, way: str) -> None:
    ledger = Ledger()
    backups: list[tuple[Path, dict[Place, dict[int, int]]]] = []
    with Server(tmp_path / "data") as server:
        client = await connect(server.address)
        await bounded(client.create_stream(STREAM))
        for topic, count in (("kept", 2), ("trimmed", 1)):
            await bounded(client.create_topic(STREAM, topic, count, segment_size=1 << 20))
        clients = [await connect(server.address) for _ in range(8)]
        works = [asyncio.create_task(send_on(clients.pop(), ledger, place)) for place in PLACES]
        works += [asyncio.create_task(read_on(clients.pop(), ledger, place)) for place in PLACES]
        works.append(asyncio.create_task(trim_on(clients.pop(), ledger)))
        works.append(asyncio.create_task(churn_on(clients.pop(), ledger)))
        await until_begun(ledger, works)
        for number in range(BACKUPS_COUNT[way]):
            before, target = ledger.copy(), tmp_path / f"backup {number}"
            arguments = ["--copy"] if way == "copied" else []
            result = await asyncio.to_thread(run, "backup", str(server.path), str(target), *arguments)
            assert result.returncode == 0, result.stderr
            check_sharing(server.path, target, way)
            backups.append((target, before))
        for work in works:
            assert not work.done() or work.result() is None
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        del client
        server.kill()
    for target, before in backups:
        await asyncio.to_thread(check_backup, target, before)


def check_sharing(source: Path, target: Path, way: str) -> None:
    manifest = json.loads((target / "backup.json").read_text())
    assert manifest["segments"] == manifest["linked"] + manifest["reflinked"] + manifest["copied"]
    shared = {path.stat().st_ino for path in (source / "logs").rglob("*.log") if path.stat().st_nlink > 1}
    own = [path for path in (target / "logs").rglob("*.log") if path.stat().st_nlink == 1]
    assert bool(manifest["linked"]) == bool(shared) == (way == "linked")
    if way == "copied":
        assert len(own) == manifest["segments"]


def check_backup(target: Path, acknowledged: dict[Place, dict[int, int]]) -> None:
    """Restore a backup, start a server on it, and hold it against what was acknowledged before it began."""
    restored = target.with_name(f"{target.name} restored")
    result = run("restore", str(target), str(restored))
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    for folder in (target, restored):
        result = run("verify", str(folder))
        assert (result.returncode, ", 0 problems" in result.stdout) == (0, True), result.stdout
    with Server(restored) as server, RawClient(server.port) as raw:
        raw.login()
        for (topic, number), known in acknowledged.items():
            found = {message.offset: message.id for message in read_log(raw, STREAM, topic, number)}
            first = min(found)
            assert list(found) == list(range(first, first + len(found)))
            assert first == 0 or topic == "trimmed"
            kept = {offset: ident for offset, ident in known.items() if offset >= first}
            assert kept.items() <= found.items()
        check_offsets(raw)
        assert server.stop() == 0


def check_offsets(raw: RawClient) -> None:
    """Check that no stored offset lies behind what its partition holds."""
    counted = 0
    stream = raw.ask(streams.GetStream(STREAM))
    for topic in stream.topics:
        details = raw.ask(topics.GetTopic(STREAM, topic.id))
        for number in range(details.topic.partitions_count):
            for consumer in (READER, 0):
                command = offsets.GetConsumerOffset(
                    WireConsumer(ConsumerKind.SINGLE, consumer), STREAM, topic.id, number
                )
                stored = raw.ask(command)
                if isinstance(stored, offsets.ConsumerOffset):
                    found = read_log(raw, STREAM, topic.id, number)
                    assert stored.stored_offset <= found[-1].offset
                    counted += 1
    assert counted >= len(PLACES)
