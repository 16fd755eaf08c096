"""The file `backup.json`, which says of a folder that it is a whole backup, and of what."""

from pathlib import Path

import msgspec

from ...storage.local.disk import Disk

MANIFEST = "backup.json"
# What the manifest is called until everything else is there.
INCOMPLETE = "backup.incomplete"


class Manifest(msgspec.Struct):
    """What a backup holds. Times are ISO 8601 in UTC; bytes are those of the segments.

    linked, reflinked, copied: how many segments, by how they were copied. Linked ones are the same files as the
    original ones, reflinked ones share their blocks.
    """

    pybroker: str
    source: str
    started_at: str
    finished_at: str
    logs: int
    segments: int
    bytes: int
    linked: int
    reflinked: int
    copied: int


def read_manifest(path: Path) -> Manifest | str | None:
    """Return a manifest, None if there is none, or what is wrong with it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return f"can't be decoded: {error}"


def write_manifest(disk: Disk, folder: Path, manifest: Manifest) -> None:
    """Say that a backup is whole, in one step and durably. Raises OSError, Full."""
    disk.write_file(folder / INCOMPLETE, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    disk.rename(folder / INCOMPLETE, folder / MANIFEST)
    disk.fsync_dir(folder)


def is_backup(folder: Path) -> bool:
    """Say whether a folder is a backup, whole or not. Its segments may be hard links, so nobody may write there."""
    return (folder / MANIFEST).exists() or (folder / INCOMPLETE).exists()
