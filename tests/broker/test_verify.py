"""What `pybroker verify` says of each damage in docs/format.md, what --repair does, and what is served afterwards."""

import errno
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from pybroker.broker import events
from pybroker.broker.catalog import Catalog
from pybroker.broker.datadir import cli
from pybroker.broker.datadir.manifest import INCOMPLETE
from pybroker.broker.datadir.verify import NotData, Totals, verify
from pybroker.broker.logs import Logs
from pybroker.broker.offsets import Offsets
from pybroker.protocol.primitives import Compression, ConsumerKind
from pybroker.storage.cipher import Keyring, key_id
from pybroker.storage.engine import ReadLimit
from pybroker.storage.errors import Corrupt, Locked
from pybroker.storage.local.disk import Disk
from pybroker.storage.local.engine import LocalEngine
from support.batches import make_batch, make_sized_batch, payloads_of
from support.datadir import CLOCK, RECORD_SIZE, flip, folder, segment, tree

SETTINGS = events.TopicSettings(
    compression=Compression.NONE,
    message_expiry_us=0,
    max_topic_size=0,
    segment_size=1000,  # three records
    persisted=False,
    offsets_persisted=False,
    messages_required_to_save=0,
    size_of_messages_required_to_save=0,
    preallocate_segments=False,
)
COUNT = 8  # messages in each of the two partitions
EVERYTHING = {f"s/t/{number}": list(range(COUNT)) for number in (0, 1)}
GROUP, SINGLE = ConsumerKind.GROUP, ConsumerKind.SINGLE
KEY = bytes(range(32))


class Data:
    """A data directory that is open, as the broker opens it."""

    def __init__(self, root: Path, keys: Keyring | None = None) -> None:
        self.engine = LocalEngine.open(root, CLOCK, sync_interval_s=3600, keys=keys)
        self.catalog = Catalog(self.engine.journal)
        self.offsets = Offsets(self.engine.offsets)
        self.logs = Logs(self.engine, self.offsets)

    async def record(self, event: events.AnyEvent) -> None:
        self.catalog.record(event)
        await self.catalog.sync()

    async def store(self, log_id: int, offset: int, kind: ConsumerKind = SINGLE, consumer: int = 7) -> None:
        self.offsets.store(log_id, kind, consumer, offset)


async def make_data(root: Path, *, keys: Keyring | None = None) -> None:
    """Make topic t of stream s: two partitions, the logs 0 and 1, of three segments; and a group."""
    data = Data(root, keys)
    await data.record(events.UserCreated(0, "iggy", "hash", CLOCK()))
    await data.record(events.StreamCreated(0, "s", CLOCK()))
    await data.record(events.TopicCreated(0, 0, "t", 2, SETTINGS, (), CLOCK()))
    await data.record(events.GroupCreated(0, 0, 0, "g"))
    (topic,) = data.catalog.topics()
    data.logs.open(topic)
    for partition in topic.partitions:
        for _ in range(COUNT):
            await data.logs.of(partition).append(make_sized_batch(RECORD_SIZE))
        await data.store(partition.log_id, COUNT - 1)
        await data.store(partition.log_id, 3, GROUP, 0)
    await data.engine.close()


async def served(root: Path) -> dict[str, list[int]]:
    """Start as the broker does, and return the offsets that can be read by partition; each takes another message."""
    data = Data(root)
    await data.logs.reconcile(data.catalog)
    found: dict[str, list[int]] = {}
    for stream in data.catalog.streams:
        for topic in stream.topics:
            for partition in topic.partitions:
                log = data.logs.of(partition)
                readable = found[f"{stream.name}/{topic.name}/{partition.id}"] = []
                for offset in range(log.bounds.first, COUNT):
                    try:
                        buffers = await log.read(offset, ReadLimit(1, 1))
                    except Corrupt:
                        continue
                    readable += [offset] * len(payloads_of(buffers))
                await log.append(make_batch())
    await data.engine.close()
    return found


def run(root: Path, *, repair: bool = False, keys: Keyring | None = None) -> tuple[list[str], Totals]:
    """Verify, and return the lines of what was found."""
    lines: list[str] = []
    totals = verify(root, report=lines.append, progress=lambda _done, _total: None, keys=keys, repair=repair)
    return lines, totals


def without(*lost: int) -> dict[str, list[int]]:
    """Return EVERYTHING without some offsets of partition 1."""
    return EVERYTHING | {"s/t/1": [offset for offset in range(COUNT) if offset not in lost]}


def index(root: Path, base: int) -> Path:
    return segment(root, base).with_suffix(".index")


def point(root: Path) -> Path:
    return folder(root) / "checkpoint"


def tear(root: Path) -> None:
    with segment(root, 6).open("ab") as file:
        file.write(segment(root, 6).read_bytes()[:100])


def tear_killed(root: Path) -> None:
    point(root).unlink()
    index(root, 6).unlink()
    segment(root, 6).write_bytes(segment(root, 6).read_bytes()[:-100])


def damage_behind_the_checkpoint(root: Path) -> None:
    point(root).unlink()
    flip(segment(root, 3), 300)


def damage_a_header(root: Path) -> None:
    flip(segment(root, 3), 33)


def damage_a_payload(root: Path) -> None:
    flip(segment(root, 3), RECORD_SIZE + 300)


def shorten_sealed(root: Path) -> None:
    segment(root, 3).write_bytes(segment(root, 3).read_bytes()[: RECORD_SIZE + 50])


def lose_a_segment(root: Path) -> None:
    segment(root, 3).unlink()
    index(root, 3).unlink()


def end_early_before_an_empty_one(root: Path) -> None:
    point(root).unlink()
    segment(root, 6).write_bytes(b"")
    segment(root, 3).write_bytes(segment(root, 3).read_bytes()[: RECORD_SIZE + 50])
    index(root, 3).unlink()
    index(root, 6).unlink()


def lose_an_index(root: Path) -> None:
    index(root, 3).unlink()


def damage_an_index(root: Path) -> None:
    flip(index(root, 3), 5)


def damage_the_checkpoint(root: Path) -> None:
    flip(point(root), 5)


def lose_the_checkpoint(root: Path) -> None:
    point(root).unlink()


def tear_a_journal(root: Path) -> None:
    with (root / "offsets.journal").open("ab") as file:
        file.write(b"torn")


Damage = Callable[[Path], None]

# What is done to partition 1: the file, the byte and what verify says of it; whether that is wrong; whether --repair
# mends it; what is served after the repair.
DAMAGES: list[tuple[Damage, str, bool, bool, dict[str, list[int]]]] = [
    (tear, f"{6:020}.log: byte 800: torn tail, 100 bytes", True, True, EVERYTHING),
    (tear_killed, f"{6:020}.log: byte 400: torn tail, 300 bytes", True, True, without(7)),
    (damage_behind_the_checkpoint, "byte 0: damaged up to byte 400: ", True, False, without(3)),
    (damage_a_header, "byte 0: damaged up to byte 400: ", True, False, without(3)),
    (damage_a_payload, "byte 400: damaged up to byte 800: ", True, False, without(4)),
    (shorten_sealed, "byte 400: damaged up to byte 450: ", True, False, without(4, 5)),
    (lose_a_segment, f"{0:020}.log: byte 1200: the log goes on with offset 6", True, False, without(3, 4, 5)),
    (end_early_before_an_empty_one, f"{3:020}.log: byte 400: torn tail, 50 bytes", True, True, without(4, 5, 6, 7)),
    (lose_an_index, f"{3:020}.index: byte 0: missing; --repair builds it", False, True, EVERYTHING),
    (damage_an_index, f"{3:020}.index: byte 0: damaged, or of another segment", True, True, EVERYTHING),
    (damage_the_checkpoint, "checkpoint: byte 0: damaged; the next start goes without it", True, False, EVERYTHING),
    (tear_a_journal, "offsets.journal: byte 172: torn tail, 4 bytes", True, True, EVERYTHING),
]


@pytest.mark.parametrize(
    ("harm", "line", "is_wrong", "mended", "left"), DAMAGES, ids=[row[0].__name__ for row in DAMAGES]
)
async def test_damage_is_told_and_the_rest_served_after_a_repair(
    tmp_path: Path, harm: Damage, line: str, is_wrong: bool, mended: bool, left: dict[str, list[int]]
) -> None:
    await make_data(tmp_path)
    harm(tmp_path)
    before = tree(tmp_path)
    lines, totals = run(tmp_path)
    (told,) = [each for each in lines if line in each]
    assert told.startswith(str(tmp_path))
    assert bool(totals.problems) == is_wrong
    assert tree(tmp_path) == before
    lines, totals = run(tmp_path, repair=True)
    assert [each.endswith("; done") for each in lines if line in each] == [mended]
    assert (run(tmp_path)[1].problems == 0) == (totals.problems == 0)
    assert await served(tmp_path) == left


async def test_lost_offsets_are_told_by_the_names_of_stream_topic_and_partition(tmp_path: Path) -> None:
    await make_data(tmp_path)
    lose_a_segment(tmp_path)
    assert run(tmp_path)[0] == [
        f"{segment(tmp_path)}: byte 1200: the log goes on with offset 6 (offsets 3..5 of s/t/1)"
    ]
    (tmp_path / "catalog.journal").write_bytes(b"")
    assert run(tmp_path)[0] == [
        f"{tmp_path}/catalog.journal: byte 0: there are messages but no catalog of them: put catalog.journal and "
        "catalog.snapshot back",
        f"{segment(tmp_path)}: byte 1200: the log goes on with offset 6 (offsets 3..5 of log 1)",
    ]


async def test_sound_directory_is_counted_and_left_as_it_is(tmp_path: Path) -> None:
    await make_data(tmp_path)
    before = tree(tmp_path)
    lines, totals = run(tmp_path, repair=True)
    assert lines == []
    size = 2 * COUNT * RECORD_SIZE
    assert totals == Totals(logs=2, segments=6, records=2 * COUNT, messages=2 * COUNT, size=size)
    assert tree(tmp_path) == before
    (tmp_path / "lock").unlink()
    run(tmp_path)
    assert not (tmp_path / "lock").exists(), "a directory without a lock is not given one by looking at it"


async def test_progress_ends_with_all_bytes(tmp_path: Path) -> None:
    await make_data(tmp_path)
    seen: list[tuple[int, int]] = []
    verify(tmp_path, report=lambda _: None, progress=lambda done, total: seen.append((done, total)))
    total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.suffix in (".log", ".journal"))
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


async def test_directory_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await make_data(tmp_path)
    engine = LocalEngine.open(tmp_path, CLOCK)
    with pytest.raises(Locked):
        run(tmp_path)
    assert cli.verify([str(tmp_path)]) == 1
    assert "in use by process" in capsys.readouterr().err
    await engine.close()


@pytest.mark.parametrize("name", ["missing", "file", "empty"])
def test_what_is_no_data_directory_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotData):
        run(tmp_path / name)
    assert cli.verify([str(tmp_path / name)]) == 2
    assert str(tmp_path / name) in capsys.readouterr().err


async def test_exit_status_says_whether_anything_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await make_data(tmp_path)
    assert cli.verify([str(tmp_path)]) == 0
    counts = "2 logs, 6 segments, 16 records, 16 messages, 6400 bytes"
    assert capsys.readouterr().out == f"{tmp_path}: {counts}, 0 problems\n"
    tear(tmp_path)
    assert cli.verify([str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("1 problems\n")
    assert cli.verify(["--repair", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(f"{counts}, 0 problems, 1 repaired\n")
    damage_a_payload(tmp_path)
    assert cli.verify(["--repair", str(tmp_path)]) == 1
    with pytest.raises(SystemExit) as caught:
        cli.verify([])
    assert caught.value.code == 2


async def test_event_that_does_not_fold_is_told_by_its_byte(tmp_path: Path) -> None:
    await make_data(tmp_path)
    size = (tmp_path / "catalog.journal").stat().st_size
    engine = LocalEngine.open(tmp_path, CLOCK)
    engine.journal.load()
    engine.journal.append(events.encode(events.TopicPurged(5, 0)))
    await engine.close()
    (line,) = run(tmp_path)[0]
    assert line.startswith(
        f"{tmp_path}/catalog.journal: byte {size}: event 5 does not fit what comes before it: KeyError"
    )


async def test_snapshot_that_is_no_catalog_is_told(tmp_path: Path) -> None:
    await make_data(tmp_path)
    engine = LocalEngine.open(tmp_path, CLOCK)
    engine.journal.load()
    engine.journal.snapshot(msgspec.msgpack.encode([1, 2]))
    await engine.close()
    (line,) = run(tmp_path)[0]
    assert line.startswith(f"{tmp_path}/catalog.snapshot: byte 0: can't be decoded: ")


async def test_log_of_two_partitions_is_told(tmp_path: Path) -> None:
    await make_data(tmp_path)
    data = Data(tmp_path)
    data.catalog.topics()[0].partitions[0].log_id = 1
    data.engine.journal.snapshot(msgspec.msgpack.encode(data.catalog._state))
    await data.engine.close()
    lines, totals = run(tmp_path)
    assert f"{tmp_path}/catalog.journal: byte 0: log 1 belongs to s/t/0 and to s/t/1" in lines
    assert totals.problems == 1


async def test_offsets_behind_the_end_are_told_by_their_consumers(tmp_path: Path) -> None:
    await make_data(tmp_path)
    data = Data(tmp_path)
    await data.store(1, COUNT, GROUP, 0)
    await data.store(0, COUNT + 1)
    await data.record(events.PartitionsCreated(0, 0, 1, CLOCK()))
    await data.store(2, 0)
    data.engine.offsets.put(b"short", 1)
    await data.engine.close()
    lines, totals = run(tmp_path, repair=True)
    start = f"{tmp_path}/offsets.journal: byte 0: "
    assert sorted(lines) == sorted(
        [
            f"{start}s/t/0/consumer 7 has processed offset 9, the log ends before offset 8",
            f"{start}s/t/1/group g has processed offset 8, the log ends before offset 8",
            f"{start}s/t/2/consumer 7 has processed offset 0, the log ends before offset 0",
            f"{start}key {b'short'.hex()} is none of a consumer",
        ]
    )
    assert totals.problems == 4


async def test_what_a_crash_leaves_is_mentioned_only(tmp_path: Path) -> None:
    await make_data(tmp_path)
    data = Data(tmp_path)
    await data.record(events.GroupDeleted(0, 0, 0))
    await data.record(events.PartitionsDeleted(0, 0, 1))
    await data.engine.close()
    lines, totals = run(tmp_path)
    assert totals.problems == 0
    assert f"{folder(tmp_path)}: byte 0: no partition has this log; the next start removes it" in lines
    assert len(lines) == 4
    assert await served(tmp_path) == {"s/t/0": list(range(COUNT))}
    assert run(tmp_path)[0] == []


async def test_run_of_changes_that_is_none_is_told(tmp_path: Path) -> None:
    await make_data(tmp_path)
    engine = LocalEngine.open(tmp_path, CLOCK)
    engine.offsets._journal.append(b"short")
    await engine.close()
    assert run(tmp_path)[0] == [f"{tmp_path}/offsets.journal: byte 172: is not a run of changes"]


async def test_encrypted_records_need_their_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = Keyring([KEY])
    await make_data(tmp_path, keys=keys)
    assert run(tmp_path, keys=keys)[1].unopened == {}
    assert run(tmp_path)[1].unopened == {key_id(KEY): 2 * COUNT}
    assert cli.verify([str(tmp_path)]) == 0
    assert (
        f"16 records are encrypted with key {key_id(KEY)}: only their headers were verified" in capsys.readouterr().out
    )
    flip(segment(tmp_path), 300)
    assert run(tmp_path, keys=keys)[1].problems == 1


async def test_key_of_the_configuration_opens_encrypted_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await make_data(tmp_path / "data", keys=Keyring([KEY]))
    (tmp_path / "keys").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    config = tmp_path / "server.toml"
    config.write_text(f'[system.encryption]\nenabled = true\nkey_file = "{tmp_path}/keys"\n')
    assert cli.verify([str(tmp_path / "data"), "--config", str(config)]) == 0
    assert "encrypted" not in capsys.readouterr().out
    (tmp_path / "keys").unlink()
    assert cli.verify([str(tmp_path / "data"), "--config", str(config)]) == 1
    assert "keys can't be read" in capsys.readouterr().err


async def test_backup_that_was_not_finished_is_told(tmp_path: Path) -> None:
    await make_data(tmp_path)
    (tmp_path / INCOMPLETE).write_bytes(b"")
    assert run(tmp_path)[0][-1] == f"{tmp_path}/{INCOMPLETE}: byte 0: this backup was not finished; make another one"


async def test_directory_that_can_not_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_disk: Disk, path: Path) -> bytes | None:
        raise OSError(errno.EACCES, "Permission denied", str(path))

    await make_data(tmp_path)
    monkeypatch.setattr(Disk, "read_file", refuse)
    assert cli.verify([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pybroker: [Errno 13] Permission denied: '{tmp_path}/")
