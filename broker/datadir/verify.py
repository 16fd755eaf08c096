"""Verifies a data directory: what storage checks byte by byte, and what the bytes mean to the catalog.

The catalog is read first, so that whatever is wrong can be told by stream, topic and partition. What a crash may
leave, and the next start removes, is mentioned and is not wrong.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from ...protocol.primitives import ConsumerKind
from ...storage.cipher import Keyring
from ...storage.local.check import (
    Check,
    Finding,
    HeaderCodec,
    check_journal,
    check_root,
    hold,
    log_folders,
    size_to_check,
)
from ...storage.local.check_log import Held, LogCheck
from ...storage.local.disk import Disk
from ...storage.local.journal import Contents
from ...storage.local.running import has_power_failed
from ...storage.local.table import apply_changes
from ...storage.memory import MemoryJournal
from .. import events
from ..catalog import Catalog, Partition, Stream, Topic
from ..offsets import KEY as OFFSET_KEY
from .manifest import INCOMPLETE, MANIFEST, read_manifest

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class NotData(Exception):
    """The directory is not one of pybroker's; the message is one line for the operator."""


class Totals(msgspec.Struct):
    """What a verification has seen. problems: those that are left. unopened: encrypted records, by the key's id."""

    logs: int = 0
    segments: int = 0
    records: int = 0
    messages: int = 0
    size: int = 0
    problems: int = 0
    mended: int = 0
    unopened: dict[str, int] = {}

    def add(self, held: Held) -> None:
        self.logs += 1
        self.segments += held.segments
        self.records += held.records
        self.messages += held.messages
        self.size += held.size


class Place(NamedTuple):
    """Whose data a log is."""

    stream: Stream
    topic: Topic
    partition: Partition

    @property
    def name(self) -> str:
        return f"{self.stream.name}/{self.topic.name}/{self.partition.id}"


def verify(
    root: Path,
    *,
    report: Callable[[str], None],
    progress: Progress,
    keys: Keyring | None = None,
    repair: bool = False,
    disk: Disk | None = None,
) -> Totals:
    """Verify a data directory that no broker uses; repair: mend what can be mended without losing anything.

    report: is told each finding in a line. Raises NotData, Locked, OSError where the directory can't be read.
    """
    disk = disk or Disk()
    require_data(disk, root)
    lock_fd = hold(disk, root, alone=repair)
    try:
        return _Verification(disk, root, report, progress, HeaderCodec(keys), repair=repair).run()
    finally:
        if lock_fd >= 0:
            disk.close(lock_fd)


def require_data(disk: Disk, root: Path) -> None:
    """Raise NotData if a folder is none that pybroker has made."""
    if not root.is_dir():
        raise NotData(f"{root} is not a directory")
    if not {"logs", "catalog.journal", "catalog.snapshot"} & set(disk.listdir(root)):
        raise NotData(f"{root} is not a data directory: it has neither catalog.journal nor logs")


class _Verification:
    def __init__(
        self,
        disk: Disk,
        root: Path,
        report: Callable[[str], None],
        progress: Progress,
        codec: HeaderCodec,
        *,
        repair: bool,
    ) -> None:
        self._disk = disk
        self._root = root
        self._print = report
        self._progress = progress
        self._codec = codec
        in_doubt = has_power_failed(disk, root)
        self._check = Check(disk, codec, self._report, self._seen, repair=repair, power_failed=in_doubt)
        self._size = size_to_check(disk, root)
        self._done = 0
        self._totals = Totals()
        self._places: dict[int, Place] = {}
        self._catalog_is_whole = False

    def run(self) -> Totals:
        check_root(self._check, self._root)
        self._read_catalog()
        held = {each.log_id: each for each in map(self._check_log, log_folders(self._disk, self._root))}
        self._check_offsets(held)
        self._check_manifest()
        self._totals.unopened = dict(self._codec.unopened)
        return self._totals

    def _report(self, finding: Finding) -> None:
        if finding.mended:
            self._totals.mended += 1
        elif not finding.harmless:
            self._totals.problems += 1
        self._print(self._line_of(finding))

    def _line_of(self, finding: Finding) -> str:
        """Say what was found: `path: byte N: what (offsets A..B of stream/topic/partition)`."""
        notes = [] if finding.log_id is None else [self._name_of(finding.log_id)]
        if finding.lost:
            notes = [f"offsets {finding.lost.start}..{finding.lost.stop - 1} of {notes[0]}"]
        line = f"{finding.path}: byte {finding.position}: {finding.what}"
        line += f" ({notes[0]})" if notes else ""
        return line + ("; done" if finding.mended else "")

    def _name_of(self, log_id: int) -> str:
        place = self._places.get(log_id)
        return f"log {log_id}" if place is None else place.name

    def _seen(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._size)

    def _find(self, path: Path, what: str, *, position: int = 0, harmless: bool = False) -> None:
        self._report(Finding(path=path, what=what, position=position, harmless=harmless))

    def _read_catalog(self) -> None:
        """Fold the catalog and learn whose the logs are."""
        path = self._root / "catalog.journal"
        contents = check_journal(self._check, path)
        catalog = self._fold(path, contents)
        if catalog is None:
            return
        self._catalog_is_whole = self._catalog_is_whole and not contents.faults
        if self._catalog_is_whole and not len(catalog.users) and log_folders(self._disk, self._root):
            self._find(path, "there are messages but no catalog of them: put catalog.journal and catalog.snapshot back")
            self._catalog_is_whole = False
        for place in _places_of(catalog):
            other = self._places.setdefault(place.partition.log_id, place)
            if other is not place:
                what = f"log {place.partition.log_id} belongs to {other.name} and to {place.name}"
                self._find(path, what)

    def _fold(self, path: Path, contents: Contents) -> Catalog | None:
        """Return what the events add up to, as far as they do."""
        journal = MemoryJournal()
        if contents.state is not None:
            journal.snapshot(contents.state)
        # Whatever a fold raises is what is to be reported.
        try:
            catalog = Catalog(journal)
        except Exception as error:
            self._find(path.with_suffix(".snapshot"), f"can't be decoded: {error}")
            return None
        for event in contents.later:
            try:
                catalog.apply(events.decode(event.payload))
            except Exception as error:
                what = f"event {event.sequence} does not fit what comes before it: {type(error).__name__}: {error}"
                self._find(path, what, position=event.position)
                return catalog
        self._catalog_is_whole = True
        return catalog

    def _check_log(self, folder: Path) -> Held:
        held = LogCheck(self._check, folder).run()
        self._totals.add(held)
        if self._catalog_is_whole and held.log_id not in self._places:
            self._find(folder, "no partition has this log; the next start removes it", harmless=True)
        return held

    def _check_offsets(self, held: dict[int, Held]) -> None:
        """Check that each consumer's offset is one of a message that its log holds or held."""
        path = self._root / "offsets.journal"
        contents = check_journal(self._check, path)
        for key, offset in sorted(self._read_offsets(path, contents).items()):
            if len(key) != OFFSET_KEY.size:
                self._find(path, f"key {key.hex()} is none of a consumer")
                continue
            log_id, kind, consumer = OFFSET_KEY.unpack(key)
            place = self._places.get(log_id)
            name = _consumer_name(kind, consumer, place)
            if place is None or name is None:
                if self._catalog_is_whole:
                    what = f"an offset in {self._name_of(log_id)}, whose consumer is gone; the next start removes it"
                    self._find(path, what, harmless=True)
                continue
            log = held.get(log_id) or Held(log_id)
            if offset >= log.next:
                what = f"{place.name}/{name} has processed offset {offset}, the log ends before offset {log.next}"
                self._find(path, what)

    def _read_offsets(self, path: Path, contents: Contents) -> dict[bytes, int]:
        values: dict[bytes, int] = {}
        runs = [(event.position, path, event.payload) for event in contents.later]
        for position, source, changes in [(0, path.with_suffix(".snapshot"), contents.state or b""), *runs]:
            try:
                apply_changes(values, changes)
            except struct.error:
                self._find(source, "is not a run of changes", position=position)
        return values

    def _check_manifest(self) -> None:
        """Hold a backup against what it says of itself."""
        if (self._root / INCOMPLETE).exists():
            self._find(self._root / INCOMPLETE, "this backup was not finished; make another one")
        manifest = read_manifest(self._root / MANIFEST)
        if isinstance(manifest, str):
            self._find(self._root / MANIFEST, manifest)
        elif manifest is not None:
            said = (manifest.logs, manifest.segments, manifest.bytes)
            found = (self._totals.logs, self._totals.segments, self._totals.size)
            if said != found:
                says = "the backup had {} logs, {} segments, {} bytes".format(*said)
                self._find(self._root / MANIFEST, says + ", here are {}, {}, {}".format(*found))


def _places_of(catalog: Catalog) -> Iterator[Place]:
    return (Place(*found) for found in catalog.partitions())


def _consumer_name(kind: int, consumer: int, place: Place | None) -> str | None:
    """Return what a consumer is called; None for a group that does not exist. A single one has only a number."""
    if kind != ConsumerKind.GROUP:
        return f"consumer {consumer}"
    group = None if place is None else place.topic.groups.items.get(consumer)
    return None if group is None else f"group {group.name}"
