"""Every call to the operating system that storage makes. Nothing else in storage touches `os`.

This is the fault seam: a test hands down a subclass that loses, shortens or refuses what it likes. So a method
is one system call where that can be, and no method hides an error.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from ...protocol.batch import Buffer
from ..errors import Full

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FICLONE = 0x40049409  # linux/fs.h
# macOS has no fdatasync.
_fdatasync = cast(Callable[[int], None], getattr(os, "fdatasync", os.fsync))


class Disk:
    """The local file system. Raises OSError as the system does; sizes and positions are bytes."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open a file to read and write; return its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o640)

    def open_to_read(self, path: Path) -> int:
        """Open a file, or a directory, to read only; return its descriptor."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pwrite(self, fd: int, data: Buffer, position: int) -> int:
        return os.pwrite(fd, data, position)

    def pread(self, fd: int, size: int, position: int) -> bytes:
        return os.pread(fd, size, position)

    def fdatasync(self, fd: int) -> None:
        _fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file that is not mapped: touching a mapped page that is gone kills the process."""
        os.ftruncate(fd, size)

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def listdir(self, path: Path) -> list[str]:
        """Return the names in a directory, in no order; none if it does not exist."""
        try:
            return os.listdir(path)  # noqa: PTH208 - a third of what Path.iterdir takes, at every start for every log
        except FileNotFoundError:
            return []

    def mkdir(self, path: Path) -> None:
        """Make a directory and what is missing above it; one that exists is fine."""
        path.mkdir(mode=0o750, parents=True, exist_ok=True)

    def link(self, path: Path, target: Path) -> None:
        """Give a file a second name."""
        target.hardlink_to(path)

    def clone(self, source_fd: int, fd: int) -> None:
        """Let a file share all of another one's blocks until either is written. Few file systems can."""
        fcntl.ioctl(fd, _FICLONE, source_fd)

    def rename(self, path: Path, target: Path) -> None:
        path.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def fsync_dir(self, path: Path) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def mmap(self, path: Path) -> memoryview:
        """Map a whole file read-only. The map lives as long as a view of it does."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not os.fstat(fd).st_size:
                return memoryview(b"")
            return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
        finally:
            os.close(fd)

    def read_file(self, path: Path) -> bytes | None:
        """Return all of a file; None if it does not exist."""
        try:
            with path.open("rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write_file(self, path: Path, data: bytes) -> None:
        """Write all of a file in place and make its bytes, but not its name, durable."""
        fd = self.open(path, create=True)
        try:
            write_whole(self, fd, data, 0)
            self.truncate(fd, len(data))
            self.fdatasync(fd)
        finally:
            self.close(fd)

    def hold(self, path: Path, *, alone: bool) -> int:
        """Lock a file that exists as `lock` does, without writing into it; shared with others who don't want it alone.

        Raises BlockingIOError if it is taken, FileNotFoundError if it does not exist.
        """
        fd = self.open_to_read(path)
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def boot_id(self) -> bytes:
        """Return what changes whenever the machine starts; nothing where the system does not tell."""
        return self.read_file(_BOOT_ID) or b""

    def lock(self, path: Path) -> int:
        """Take a file for this process until the descriptor is closed; raise BlockingIOError if it is taken."""
        fd = self.open(path, create=True)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        self.truncate(fd, 0)
        self.pwrite(fd, str(os.getpid()).encode(), 0)
        return fd


def write_whole(disk: Disk, fd: int, data: Buffer, position: int) -> None:
    """Write `data` at the end of a file, `position`, in one call; all of it or nothing.

    Raises Full, the file as it was, when there is no room; any other OSError as it comes, the file in doubt.
    """
    try:
        written = disk.pwrite(fd, data, position)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        written = 0
    if written != len(data):
        disk.truncate(fd, position)
        raise Full(f"{written} of {len(data)} bytes could be written")
