"""The file `running`: whether the machine has gone down under a broker, and so may have lost what was written.

It holds the machine's boot id as long as a broker uses the directory. Who finds it was preceded by a crash: of the
process if the boot id is still the same, and then nothing that was written is lost; else of the machine. It holds
`lost` after a failed sync, for then the system may have dropped what it could not write.

Crash invariant: what a power failure has put in doubt stays so until every log has been recovered with that in mind.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import Full
from .disk import Disk

NAME = "running"
_LOST = b"lost"


def has_power_failed(disk: Disk, root: Path) -> bool:
    """Say whether the last stop counts as a power failure."""
    return _tells_of_failure(disk.read_file(root / NAME), disk.boot_id())


def _tells_of_failure(note: bytes | None, boot_id: bytes) -> bool:
    return note is not None and (note != boot_id or not note)


class Running:
    """power_failed: what was written last may be lost, in those parts that were not recovered yet.

    sync_failed: what can be read may be in the system's cache only, marked as written: it has to be written again.
    Where the system has no boot id, every crash counts as a power failure.
    """

    def __init__(self, disk: Disk, root: Path, parts: Iterable[str]) -> None:
        """parts: what will be recovered, by name: logs and journals."""
        self._disk = disk
        self._path = root / NAME
        self._boot_id = disk.boot_id()
        before = disk.read_file(self._path)
        self.power_failed = _tells_of_failure(before, self._boot_id)
        # The disk may have failed the note too: then it is empty, or something follows it.
        self.sync_failed = before is not None and (not before or before.startswith(_LOST))
        self._in_doubt = self.power_failed
        self._pending = set(parts) if self.power_failed else set[str]()
        if not self.power_failed:
            self._note()

    def is_in_doubt(self, part: str) -> bool:
        """Say whether the part may have lost something, and was not recovered yet."""
        return part in self._pending

    def recovered(self, part: str) -> None:
        """Take note that a part was recovered, or removed. After the last one this is a run like any other."""
        if part not in self._pending:
            return
        self._pending.discard(part)
        if not self._pending:
            self._in_doubt = False
            self._note()

    def doubt(self) -> None:
        """Remember over any crash and stop that what readers have seen may be lost."""
        self._in_doubt = True
        for note in (_LOST, b""):  # The disk may fail the note too. An empty one says the same.
            with suppress(OSError, Full):
                self._disk.write_file(self._path, note)
                return

    def end(self) -> None:
        """Note a clean stop: everything is durable."""
        if not self._in_doubt:
            self._disk.unlink(self._path)
            self._disk.fsync_dir(self._path.parent)

    def _note(self) -> None:
        self._disk.write_file(self._path, self._boot_id)
        self._disk.fsync_dir(self._path.parent)
