"""Bytes that change at rest, in everything that is stored, while the broker is stopped."""

from collections.abc import Callable
from pathlib import Path

from pybroker.protocol.batch import HEADER_SIZE, BadBatch, read_header
from pybroker.storage.errors import Corrupt, UnknownKey
from pybroker.storage.local.codec import Codec
from pybroker.storage.local.journal import parse_journal
from pybroker.storage.seal import SEAL_END, sealed_with

from .ledger import Damage, LogLedger
from .messages import Violation
from .world import LOGS, ROOT, World, folder_of


def damage_record(world: World) -> None:
    """Flip a byte of a stored record, and start again."""
    _stop(world)
    ledgers = [ledger for ledger in world.ledgers.values() if not ledger.shaken]
    if ledgers:
        ledger = world.rng.choice(ledgers)
        places = [damage for path in _segments(world, ledger) for damage in _records(world, path)]
        places = [damage for damage in places if ledger.can_be_damaged(damage)]
        if places:
            _flip_record(world, ledger, world.rng.choice(places))
    world.start()


def _flip_record(world: World, ledger: LogLedger, damage: Damage) -> None:
    world.disk.flip(damage.path, damage.position)
    damage.image = _image(world, damage)
    ledger.damages.append(damage)
    world.say(f"    flipped byte {damage.position} of {damage.path}, in the record of {damage.offsets}")
    world.tally.counts["bytes flipped in records"] += 1


def repair_record(world: World) -> None:
    """Put a flipped byte back, as from a copy: all is there again."""
    if not any(ledger.damages for ledger in world.ledgers.values()):
        return
    _stop(world)
    for ledger in world.ledgers.values():
        for damage in [damage for damage in ledger.damages if _image(world, damage) == damage.image]:
            world.disk.flip(damage.path, damage.position)
            ledger.damages.remove(damage)
            world.tally.counts["damaged records repaired from a copy"] += 1
    world.start()


def damage_index(world: World) -> None:
    """Flip a byte of an index after a clean stop: it only saves time."""
    world.settle()
    world.close()
    paths = [path for path in world.disk.files(ROOT) if path.suffix == ".index"]
    if paths:
        path = world.rng.choice(paths)
        size = world.disk.size(path)
        if size:
            world.disk.flip(path, world.rng.randrange(size))
            world.tally.counts["bytes flipped in indexes"] += 1
    world.start()


def damage_checkpoint(world: World) -> None:
    """Flip a byte of a checkpoint after a clean stop: more has to be verified."""
    world.settle()
    world.close()
    paths = [path for path in world.disk.files(ROOT) if path.name == "checkpoint" and world.disk.size(path)]
    if paths:
        path = world.rng.choice(paths)
        world.disk.flip(path, world.rng.randrange(world.disk.size(path)))
        world.tally.counts["bytes flipped in checkpoints"] += 1
    world.start()


def damage_journal(world: World) -> None:
    """Flip a byte in a journal before its last event, or in a snapshot: the start says which file, and changes none.

    Not after a power failure, or a failed sync: what is damaged then may never have been durable, and is cut.
    """
    if world.has_doubts:
        return
    world.crash(power=False)
    name = world.rng.choice(("catalog", "offsets"))
    place = _place_in(world, ROOT / name)
    if place is not None:
        path, position = place
        world.disk.flip(path, position)
        world.say(f"    flipped byte {position} of {path}")
        _check_refused(world, path, position)
        world.disk.flip(path, position)
        world.tally.counts["bytes flipped in journals and snapshots, reported"] += 1
    world.start()


def _place_in(world: World, path: Path) -> tuple[Path, int] | None:
    journal, snapshot = path.with_suffix(".journal"), path.with_suffix(".snapshot")
    contents = parse_journal(path, world.disk.read_file(journal) or b"", world.disk.read_file(snapshot))
    if contents.state is not None and world.rng.random() < 0.5:
        return snapshot, world.rng.randrange(world.disk.size(snapshot))
    if len(contents.later) > 1:
        return journal, world.rng.randrange(contents.later[0].position, contents.later[-1].position)
    return None


def _check_refused(world: World, path: Path, position: int) -> None:
    before = world.disk.read_file(path)
    try:
        world.start()
    except Corrupt as error:
        if error.path != path or error.position > position:
            raise Violation(f"byte {position} of {path} is damaged, told is {error}") from error
    else:
        raise Violation(f"byte {position} of {path} is damaged, and nobody is told")
    if world.disk.read_file(path) != before:
        raise Violation(f"the damaged {path} was changed")
    world.crash(power=False)


def lose_keys(world: World) -> None:
    """Start without the keys: the start says which one it lacks, and changes no file."""
    _stop(world)
    if any(_is_sealed(world, path) for path in world.disk.files(LOGS)):
        before = _tree(world)
        world.keys.is_lost = True
        try:
            world.start()
        except UnknownKey:
            world.tally.counts["starts without the keys refused"] += 1
        else:
            raise Violation("records are encrypted, and a start does without their keys")
        finally:
            world.keys.is_lost = False
        if _tree(world) != before:
            raise Violation("a start without the keys changed files")
        world.crash(power=False)
    world.start()


def _is_sealed(world: World, path: Path) -> bool:
    is_segment = path.suffix == ".log" and not path.parent.suffix  # not of a log that is dropped
    return is_segment and sealed_with(world.disk.read_file(path) or b"") is not None


def _tree(world: World) -> dict[Path, bytes | None]:
    return {path: world.disk.read_file(path) for path in world.disk.files(ROOT)}


def _stop(world: World) -> None:
    """End the process in one of the three ways."""
    end = world.rng.choice(("closed", "killed", "power"))
    if end == "closed":
        world.settle()
        world.close()
    else:
        world.crash(power=end == "power")


def _segments(world: World, ledger: LogLedger) -> list[Path]:
    folder = folder_of(ledger.log_id)
    return sorted(folder / name for name in world.disk.listdir(folder) if name.endswith(".log"))


def _records(world: World, path: Path) -> list[Damage]:
    """Return a place to damage in each valid record of a segment, as far as the headers lead."""
    data = memoryview(world.disk.read_file(path) or b"")
    codec = Codec(world.keys.ring)
    places: list[Damage] = []
    keys: set[str | None] = set()
    start, due = 0, int(path.stem)
    while start < len(data):
        try:
            header = read_header(data, start)
        except BadBatch:
            break
        record = data[start : start + header.size]
        if header.base_offset >= due and _is_valid(codec, record):
            due = header.base_offset + header.count
            offsets = range(header.base_offset, due)
            places.append(Damage(path, start + _place(world, record), start, header.size, offsets, b""))
            keys.add(sealed_with(record))
        start += header.size
    if len(keys) > 1:
        raise Violation(f"{path} has records of more than one key: {keys}")
    return places


def _place(world: World, record: memoryview) -> int:
    """Return a byte of a record that means something: of a sealed header the end does not, it is not looked at."""
    position = world.rng.randrange(len(record))
    is_unused = sealed_with(record) is not None and SEAL_END <= position < HEADER_SIZE
    return position % SEAL_END if is_unused else position


def _is_valid(codec: Codec, record: memoryview) -> bool:
    try:
        codec.decode(record)
    except BadBatch:
        return False
    return True


def _image(world: World, damage: Damage) -> bytes:
    data = world.disk.read_file(damage.path) or b""
    return data[damage.start : damage.start + damage.size]


DAMAGE_ACTIONS: dict[str, tuple[int, Callable[[World], None]]] = {
    "damage a record": (2, damage_record),
    "repair a record": (2, repair_record),
    "damage an index": (1, damage_index),
    "damage a checkpoint": (1, damage_checkpoint),
    "damage a journal": (1, damage_journal),
    "lose the keys": (1, lose_keys),
}
