"""Data directories for tests of what works on files: made, harmed, compared, checked."""

import hashlib
from pathlib import Path

from pybroker.storage.cipher import Keyring
from pybroker.storage.engine import LogPolicy, ReadLimit
from pybroker.storage.errors import Corrupt
from pybroker.storage.local.check import Check, Finding, HeaderCodec
from pybroker.storage.local.check_log import Held, LogCheck
from pybroker.storage.local.disk import Disk
from pybroker.storage.local.engine import LocalEngine
from support.batches import make_batch, make_sized_batch, payloads_of
from support.engines import FakeClock

ONE_SEGMENT = LogPolicy(segment_size=1 << 30)
SMALL_SEGMENTS = LogPolicy(segment_size=1000)  # three records
RECORD_SIZE = 400
CLOCK = FakeClock()


def folder(root: Path, log_id: int = 1) -> Path:
    return root / "logs" / f"{log_id:020}"


def segment(root: Path, base: int = 0) -> Path:
    return folder(root) / f"{base:020}.log"


def index(root: Path, base: int = 0) -> Path:
    return segment(root, base).with_suffix(".index")


async def write_log(
    root: Path, count: int, policy: LogPolicy = ONE_SEGMENT, *, keys: Keyring | None = None, killed: bool = False
) -> None:
    """Leave a log of `count` batches; killed: without what a clean stop writes beside them."""
    engine = LocalEngine.open(root, CLOCK, sync_interval_s=3600, keys=keys)
    log = engine.open_log(1, policy)
    for _ in range(count):
        await log.append(make_sized_batch(RECORD_SIZE))
    await engine.close()
    if killed:
        (folder(root) / "checkpoint").unlink()
        for path in folder(root).glob("*.index"):
            path.unlink()


async def offsets_read(root: Path, *, count: int) -> list[int]:
    """Open the directory as a broker does; return which of the offsets below `count` can be read."""
    engine = LocalEngine.open(root, CLOCK, sync_interval_s=3600)
    log = engine.open_log(1, SMALL_SEGMENTS)
    found: list[int] = []
    for offset in range(count):
        try:
            if payloads_of(await log.read(offset, ReadLimit(1, 1))):
                found.append(offset)
        except Corrupt:
            continue
    await log.append(make_batch())
    await engine.close()
    return found


def run(
    root: Path,
    *,
    repair: bool = False,
    power_failed: bool = False,
    disk: Disk | None = None,
    keys: Keyring | None = None,
) -> tuple[list[Finding], Held]:
    """Check the log, and return what was found and held."""
    found: list[Finding] = []
    check = Check(disk or Disk(), HeaderCodec(keys), found.append, lambda _: None, repair, power_failed)
    return found, LogCheck(check, folder(root)).run()


def wrong(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if not finding.harmless and not finding.mended]


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    return finding


def tree(root: Path) -> dict[str, str]:
    """Return a hash of every file by its name."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)
