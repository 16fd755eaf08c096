"""Backs up a data directory, also under a running broker, and restores one.

Crash invariant: a folder with `backup.json` is a whole backup, durable; one without is none.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ... import __version__
from ...storage.cipher import Keyring
from ...storage.local.backup import Backup, Copied
from ...storage.local.backup import restore as restore_files
from ...storage.local.check import size_to_check
from ...storage.local.disk import Disk
from .manifest import INCOMPLETE, MANIFEST, Manifest, read_manifest, write_manifest
from .verify import Progress, Totals, require_data, verify

Clock = Callable[[], datetime]
# What an empty file system holds.
_IGNORED = {"lost+found"}


class Unusable(Exception):
    """A folder can't be used for what was asked; the message is one line for the operator."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def back_up(
    source: Path, target: Path, *, share: bool, progress: Progress, disk: Disk | None = None, clock: Clock = utc_now
) -> Manifest:
    """Back up a data directory to a folder that is empty or missing; return what it came to.

    share: let sealed segments be the same files as the original ones, or share their blocks, where that can be.
    Raises NotData, Unusable, Restless, Corrupt, OSError, Full; what was copied by then stays, without a manifest.
    """
    disk = disk or Disk()
    require_data(disk, source)
    if target.resolve().is_relative_to(source.resolve()):
        raise Unusable(f"{target} is inside of {source}: choose a folder outside of it")
    _require_empty(disk, target)
    started_at = clock()
    disk.mkdir(target)
    disk.write_file(target / INCOMPLETE, f"begun {started_at.isoformat()}\n".encode())
    disk.write_file(target / "lock", b"")  # so that who verifies the backup need not write into it
    copied = Backup(disk, source, target, share=share, seen=_counting(progress, size_to_check(disk, source))).run()
    disk.fsync_dir(target.parent)
    manifest = _manifest_of(copied, source, started_at, clock())
    write_manifest(disk, target, manifest)
    return manifest


def restore(
    backup: Path,
    target: Path,
    *,
    check: bool,
    report: Callable[[str], None],
    progress: Progress,
    keys: Keyring | None = None,
    disk: Disk | None = None,
) -> Copied:
    """Make a data directory of a backup, in a folder that is empty or missing. The backup stays as it is.

    check: verify the backup first. report: is told what is wrong with it.
    Raises Unusable, NotData, Locked, OSError, Full; what was copied by then stays.
    """
    disk = disk or Disk()
    manifest = _require_whole(backup)
    _require_empty(disk, target)
    if check:
        totals = verify(backup, report=report, progress=progress, keys=keys, disk=disk)
        _require_sound(backup, totals)
    disk.mkdir(target)
    # Held, so that no broker starts on a part of it.
    lock_fd = disk.lock(target / "lock")
    try:
        return restore_files(disk, backup, target, seen=_counting(progress, manifest.bytes))
    finally:
        disk.close(lock_fd)


def _require_empty(disk: Disk, target: Path) -> None:
    names = set(disk.listdir(target)) - _IGNORED
    if INCOMPLETE in names:
        raise Unusable(f"{target} holds a backup that was not finished: remove it, or choose another folder")
    if MANIFEST in names:
        raise Unusable(f"{target} holds a backup: choose another folder, each backup has its own")
    if names:
        raise Unusable(f"{target} is not empty: choose a folder that is, or that does not exist")


def _require_whole(backup: Path) -> Manifest:
    manifest = read_manifest(backup / MANIFEST)
    if isinstance(manifest, str):
        raise Unusable(f"{backup / MANIFEST} {manifest}")
    if manifest is None:
        what = "was not finished" if (backup / INCOMPLETE).exists() else f"is none: it has no {MANIFEST}"
        raise Unusable(f"the backup {backup} {what}")
    return manifest


def _require_sound(backup: Path, totals: Totals) -> None:
    if totals.problems:
        raise Unusable(f"{backup} has {totals.problems} problems: restore another one, or this with --no-verify")


def _manifest_of(copied: Copied, source: Path, started_at: datetime, finished_at: datetime) -> Manifest:
    return Manifest(
        pybroker=__version__,
        source=str(source.resolve()),
        started_at=started_at.isoformat(),
        finished_at=finished_at.isoformat(),
        logs=copied.logs,
        segments=copied.segments,
        bytes=copied.bytes,
        linked=copied.linked,
        reflinked=copied.reflinked,
        copied=copied.copied,
    )


def _counting(progress: Progress, total: int) -> Callable[[int], None]:
    """Return what adds up the bytes that are done, and tells of them."""
    done = 0

    def seen(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return seen
