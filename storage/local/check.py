"""Checks the files of a data directory byte by byte, and mends what can be mended without losing anything.

Here is what all checks share, and the root and the journals; check_log.py has the logs. The directory is held by
whoever calls this. Nothing is written unless `repair` is set; then a torn tail is cut and an index that is missing or
wrong is built anew, nothing else.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..errors import Full, Locked, UnknownKey
from ..seal import Keys
from .codec import Codec
from .disk import Disk
from .journal import Contents, read_journal
from .running import NAME as RUNNING

LOG_NAME = re.compile(r"\d{20}")
JOURNALS = ("catalog", "offsets")
_ROOT_NAMES = {"lock", RUNNING, "logs", "runtime", "backup.json"}
_LEFT_OVER = {
    ".lost": "changes that a power failure tore, cut from the journal; nothing reads it",
    ".fresh": "a crash kept it from being finished; nothing reads it",
    ".dropped": "a deleted partition; the next start removes it",
    ".index": "the index of a segment that is gone; nothing reads it",
}


class Finding(msgspec.Struct, kw_only=True):
    """What there is to say about a place in a file.

    lost: offsets of the log that are gone. harmless: worth a mention, nothing is wrong. mended: it was wrong, and is
    not any more.
    """

    path: Path
    what: str
    position: int = 0
    log_id: int | None = None
    lost: range = range(0)
    harmless: bool = False
    mended: bool = False


class Check(msgspec.Struct):
    """What a check goes by, and whom it tells: of findings, and of bytes that are done.

    power_failed: the machine has gone down under the broker that used the directory last.
    """

    disk: Disk
    codec: Codec
    report: Callable[[Finding], None]
    seen: Callable[[int], None]
    repair: bool = False
    power_failed: bool = False

    def mend(self, finding: Finding, action: Callable[[], None]) -> bool:
        """Do what mends a finding, if that is wanted, and report it; return whether it is mended."""
        if self.repair:
            try:
                action()
                finding.mended = True
            except (OSError, Full) as error:
                finding.what += f"; that failed: {error}"
        self.report(finding)
        return finding.mended

    def mention_others(self, folder: Path, known: set[str], log_id: int | None = None) -> None:
        """Mention the files in a folder that are not `known`: what a crash left, and what is not of pybroker."""
        for name in sorted(set(self.disk.listdir(folder)) - known):
            what = _LEFT_OVER.get(Path(name).suffix, "not one of pybroker's files")
            self.report(Finding(path=folder / name, what=what, log_id=log_id, harmless=True))


class HeaderCodec(Codec):
    """Proves what it has keys for; of other records it believes the header. unopened: how many, by the key's id."""

    def __init__(self, keys: Keys | None = None) -> None:
        super().__init__(keys)
        self.unopened: Counter[str] = Counter()

    def decode(self, record: memoryview) -> memoryview:
        try:
            return super().decode(record)
        except UnknownKey as error:
            self.unopened[error.key_id] += 1
            return record


def hold(disk: Disk, root: Path, *, alone: bool) -> int:
    """Hold a directory so that no broker starts on it; return the descriptor to close, -1 if there is no lock to hold.

    alone: against other checks too, and a lock is made where there is none. Raises Locked.
    """
    path = root / "lock"
    if alone:
        disk.close(disk.open(path, create=True))
    try:
        return disk.hold(path, alone=alone)
    except FileNotFoundError:
        return -1
    except BlockingIOError:
        holder = (disk.read_file(path) or b"").decode(errors="replace")
        raise Locked(root, f"process {holder}" if holder else "another process") from None


def log_folders(disk: Disk, root: Path) -> list[Path]:
    """Return the folders of the logs, ascending."""
    return [root / "logs" / name for name in sorted(disk.listdir(root / "logs")) if LOG_NAME.fullmatch(name)]


def size_to_check(disk: Disk, root: Path) -> int:
    """Return how many bytes of segments and journals there are."""
    paths = [root / name for name in disk.listdir(root) if name in {f"{each}.journal" for each in JOURNALS}]
    for folder in log_folders(disk, root):
        paths += [folder / name for name in disk.listdir(folder) if name.endswith(".log")]
    return sum(disk.size(path) for path in paths)


def check_root(check: Check, root: Path) -> None:
    """Mention what lies about in a data directory and in its `logs`."""
    known = _ROOT_NAMES | {f"{name}.{kind}" for name in JOURNALS for kind in ("journal", "snapshot")}
    check.mention_others(root, known)
    check.mention_others(root / "logs", {folder.name for folder in log_folders(check.disk, root)})


def check_journal(check: Check, path: Path) -> Contents:
    """Check a journal and its snapshot; return what they hold. Raises OSError where they can't be read."""
    contents = read_journal(check.disk, path)
    for fault in contents.faults:
        check.report(Finding(path=fault.path, position=fault.position, what=fault.what))
    if contents.size > contents.end and not contents.faults:
        journal = path.with_suffix(".journal")
        finding = Finding(path=journal, position=contents.end, what=torn(contents.size - contents.end))
        check.mend(finding, lambda: cut(check.disk, journal, contents.end))
    check.seen(contents.size)
    return contents


def torn(size: int) -> str:
    return f"torn tail, {size} bytes, --repair cuts it"


def cut(disk: Disk, path: Path, size: int) -> None:
    """Cut a file durably."""
    fd = disk.open(path)
    try:
        disk.truncate(fd, size)
        disk.fdatasync(fd)
    finally:
        disk.close(fd)
