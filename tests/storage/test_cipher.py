"""Encryption at rest: what is sealed opens again, a changed byte does not, and nothing plain reaches the disk."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol.batch import HEADER_SIZE, BadBatch, read_header
from pybroker.storage.cipher import _LARGE_SIZE_MIN, Keyring, key_id
from pybroker.storage.engine import LogPolicy, ReadLimit
from pybroker.storage.errors import Corrupt, UnknownKey
from pybroker.storage.local.engine import LocalEngine
from pybroker.storage.local.log import LocalLog
from pybroker.storage.seal import sealed_with
from support.batches import make_batch, make_sized_batch, payloads_of
from support.engines import FakeClock

OLD, NEW = b"o" * 32, b"n" * 32
ALL = ReadLimit(messages=1_000_000, bytes=1 << 30)
POLICY = LogPolicy(segment_size=1 << 30)
SECRET = b"attack at dawn"


def open_engine(root: Path, *keys: bytes) -> LocalEngine:
    return LocalEngine.open(root, FakeClock(), sync_interval_s=3600, keys=Keyring(list(keys)) if keys else None)


async def append(root: Path, payload: bytes, *keys: bytes) -> int:
    """Append one message in a run of its own."""
    engine = open_engine(root, *keys)
    offset = await engine.open_log(1, POLICY).append(make_batch([payload]))
    await engine.close()
    return offset


async def read(root: Path, *keys: bytes) -> list[bytes]:
    engine = open_engine(root, *keys)
    log = engine.open_log(1, POLICY)
    found = payloads_of(await log.read(log.bounds.first, ALL))
    await engine.close()
    return found


def tree(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("logs/*/*.log"))


@given(payloads=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=40))
def test_sealed_record_has_the_same_size_and_opens_to_the_same_bytes(payloads: list[bytes]):
    ring = Keyring([NEW, OLD])
    record = bytes(make_batch(payloads).record)
    sealed = ring.seal(record)
    assert len(sealed) == len(record)
    assert sealed_with(sealed) == ring.writing_id == key_id(NEW)
    assert sealed[HEADER_SIZE:] != record[HEADER_SIZE:]
    assert read_header(sealed) == read_header(record)
    assert bytes(ring.unseal(memoryview(sealed))) == record


@pytest.mark.parametrize("size", [_LARGE_SIZE_MIN - 1, _LARGE_SIZE_MIN, _LARGE_SIZE_MIN + 1])
def test_large_and_small_records_are_sealed_the_same_way(size: int, monkeypatch: pytest.MonkeyPatch):
    ring = Keyring([NEW])
    record = bytes(make_sized_batch(size).record)
    sealed = memoryview(ring.seal(record))
    for limit in (0, 1 << 30):
        monkeypatch.setattr("pybroker.storage.cipher._LARGE_SIZE_MIN", limit)
        assert bytes(ring.unseal(sealed)) == record
        changed = bytearray(sealed)
        changed[-1] ^= 1
        with pytest.raises(BadBatch):
            ring.unseal(memoryview(changed))


def test_any_changed_byte_is_noticed_or_of_no_meaning():
    ring = Keyring([NEW])
    record = bytes(make_batch([SECRET] * 2).record)
    sealed = bytearray(ring.seal(record))
    for position in range(len(sealed)):
        sealed[position] ^= 1
        try:
            opened = bytes(ring.unseal(memoryview(sealed)))
        except (BadBatch, UnknownKey):
            opened = record
        assert opened == record, position
        sealed[position] ^= 1


def test_same_record_is_never_sealed_alike():
    ring = Keyring([NEW])
    record = make_batch([SECRET]).record
    assert ring.seal(record)[HEADER_SIZE:] != ring.seal(record)[HEADER_SIZE:]


def test_plain_header_names_no_key():
    assert sealed_with(make_batch().record) is None
    assert sealed_with(b"short") is None


async def test_nothing_of_a_message_is_on_the_disk(tmp_path: Path):
    await append(tmp_path, SECRET * 100, NEW)
    assert segments(tmp_path)
    assert not [path for path, data in tree(tmp_path).items() if SECRET in data]
    assert await read(tmp_path, NEW) == [SECRET * 100]


async def test_polls_of_parts_and_of_many_records_are_plain(tmp_path: Path):
    engine = open_engine(tmp_path, NEW)
    log = engine.open_log(1, LogPolicy(segment_size=2000))
    texts = [b"%d" % number for number in range(60)]
    for start in range(0, 60, 3):
        await log.append(make_batch(texts[start : start + 3]))
    assert log.bounds.segments > 3
    for offset in range(60):
        assert payloads_of(await log.read(offset, ALL))[offset % 3 :] == texts[offset:]
        (buffer,) = await log.read(offset, ReadLimit(1, 1))
        assert payloads_of([buffer])[offset % 3] == texts[offset]
    await engine.close()


async def test_keys_rotate_and_the_old_ones_still_open(tmp_path: Path):
    assert await append(tmp_path, b"plain") == 0
    assert await append(tmp_path, b"old", OLD) == 1
    assert await append(tmp_path, b"new", NEW, OLD) == 2
    assert await append(tmp_path, b"new too", NEW, OLD) == 3
    assert await read(tmp_path, NEW, OLD) == [b"plain", b"old", b"new", b"new too"]
    assert await read(tmp_path, OLD, NEW) == [b"plain", b"old", b"new", b"new too"]
    # One key a segment, so that its first record tells which.
    assert [sealed_with(path.read_bytes()) for path in segments(tmp_path)] == [None, key_id(OLD), key_id(NEW)]


@pytest.mark.parametrize("keys", [(), (NEW,)])
async def test_missing_key_stops_the_start_before_a_byte_is_touched(tmp_path: Path, keys: tuple[bytes, ...]):
    await append(tmp_path, b"old", OLD)
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b"torn")
    (tmp_path / "logs" / f"{7:020}.dropped").mkdir()
    before = tree(tmp_path)
    with pytest.raises(UnknownKey) as caught:
        open_engine(tmp_path, *keys)
    assert (caught.value.key_id, caught.value.path) == (key_id(OLD), segments(tmp_path)[0])
    assert tree(tmp_path) == before
    assert (tmp_path / "logs" / f"{7:020}.dropped").exists()


async def write_four(root: Path) -> None:
    """Leave four records of one message behind, as a killed process does."""
    engine = open_engine(root, NEW)
    log = engine.open_log(1, POLICY)
    for number in range(4):
        await log.append(make_batch([b"%d" % number]))
    await engine.close()
    next(root.glob("logs/*/checkpoint")).unlink()


async def four_with(root: Path, position: int) -> tuple[LocalEngine, LocalLog]:
    path = segments(root)[0]
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    engine = open_engine(root, NEW)
    return engine, engine.open_log(1, POLICY)


@pytest.mark.parametrize("position", [0, 8, 33, 48, 52, 64, 80, 84, 256, 300])
async def test_damaged_sealed_record_is_refused_and_those_behind_it_are_not(tmp_path: Path, position: int):
    await write_four(tmp_path)
    size = segments(tmp_path)[0].stat().st_size // 4
    engine, log = await four_with(tmp_path, size + position)
    assert payloads_of(await log.read(0, ALL)) == [b"0"]
    with pytest.raises(Corrupt) as caught:
        await log.read(1, ALL)
    assert caught.value.position in range(size, 2 * size)
    assert payloads_of(await log.read(2, ALL)) == [b"2", b"3"]
    assert await log.append(make_batch()) == 4
    await engine.close()


async def test_torn_sealed_record_is_cut(tmp_path: Path):
    await write_four(tmp_path)
    path = segments(tmp_path)[0]
    data = path.read_bytes()
    for size in range(3 * len(data) // 4, len(data)):
        path.write_bytes(data[:size])
        engine = open_engine(tmp_path, NEW)
        log = engine.open_log(1, POLICY)
        assert log.bounds.next == 3, size
        await engine.close()
        path.with_name("checkpoint").unlink()
