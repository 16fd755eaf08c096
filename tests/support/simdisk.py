"""A whole file system in memory that forgets what was not synced, and fails on demand, as its seed says.

A process death keeps what was written. A power failure keeps what was synced, and of the rest what the seed says.
"""

import errno
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pybroker.protocol.batch import Buffer
from pybroker.storage.local.disk import Disk

from .simfiles import Cut, File, Folder, NameChange, Write

# What a power failure keeps of the changes that nobody synced: one of these shares, chosen anew each time.
SHARES_KEPT = (0.0, 0.5, 0.9, 1.0)

WRITE, CREATE, MKDIR, RENAME, TRUNCATE = "write", "create", "mkdir", "rename", "truncate"
SYNC, SYNC_DIR = "sync", "sync of a directory"


# A process that was told of a failed sync lives long enough to note it.
NOTED_CALLS = 8


class Killed(BaseException):
    """The process died in this call. Not an Exception, so that nothing under test survives it."""


class Fault(NamedTuple):
    """The next call of this kind fails: with an error number, or (0) by writing less than it was given."""

    call: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.call}: {errno.errorcode[self.number]}" if self.number else f"short {self.call}"


FAULTS = [
    Fault(WRITE),
    *(Fault(call, errno.EIO) for call in (WRITE, CREATE, MKDIR, RENAME, TRUNCATE, SYNC, SYNC_DIR)),
    *(Fault(call, errno.ENOSPC) for call in (WRITE, CREATE, MKDIR, RENAME, TRUNCATE)),
]
NO_ROOM = "no room left"


class Strike(NamedTuple):
    """A fault that did strike. lost: whether bytes that were written may be gone, now or at a power failure."""

    what: str
    path: Path
    lost: bool = False


class SimDisk(Disk):
    """The file system. See storage.local.disk.Disk, whose errors it raises too.

    room: how many bytes files may still grow by; None for no limit. Removed and cut files give room back.
    strikes: the faults that did strike, in order. counts: how often each did.
    is_dead: whether the process died in a call; every further one raises Killed until `crash`.
    """

    def __init__(self, rng: random.Random) -> None:
        self.room: int | None = None
        self.strikes: list[Strike] = []
        self.counts: Counter[str] = Counter()
        self.is_dead = False
        self._rng = rng
        self._root = Folder()
        self._files: dict[int, tuple[Path, File]] = {}
        self._locks: dict[int, tuple[File, bool]] = {}  # by descriptor: what, and whether nobody else may
        self._armed: list[Fault] = []
        self._calls_left: int | None = None
        self._last_fd = 100
        self._boots = 1

    # What a test does to it.

    def arm(self, fault: Fault) -> None:
        """Let the next call of the fault's kind fail."""
        self._armed.append(fault)

    def disarm(self) -> None:
        self._armed.clear()
        self._calls_left = None

    def die_in(self, calls: int) -> None:
        """Let the process die in the call that comes after so many calls which change something."""
        self._calls_left = calls

    def die(self) -> None:
        self.is_dead = True

    def crash(self, *, power: bool) -> None:
        """End the process: its files are closed and its lock is free. With `power`, the machine goes down too."""
        self.is_dead = False
        self.disarm()
        self._files.clear()
        self._locks.clear()
        if power:
            self._boots += 1
            self._root.lose_power(self._rng, self._rng.choice(SHARES_KEPT))

    def flip(self, path: Path, position: int, bits: int = 0x10) -> None:
        """Change a byte of a file at rest; the same again puts it back."""
        self._file(path).flip(position, bits)

    def files(self, folder: Path) -> Iterator[Path]:
        """Yield every file below a folder."""
        found = self._find(folder)
        for name, node in found.names.items() if isinstance(found, Folder) else ():
            if isinstance(node, Folder):
                yield from self.files(folder / name)
            else:
                yield folder / name

    # What storage does with it.

    def open(self, path: Path, *, create: bool = False) -> int:
        self._check_alive()
        node = self._find(path)
        if isinstance(node, Folder):
            raise _error(errno.EISDIR, path)
        if node is None:
            if not create:
                raise _error(errno.ENOENT, path)
            node = self._create(path)
        return self._new_fd(path, node)

    def open_to_read(self, path: Path) -> int:
        """Only of a file: what a program does with the descriptor of a directory is `fsync_dir`."""
        return self._new_fd(path, self._file(path))

    def close(self, fd: int) -> None:
        if self.is_dead:
            return
        self._opened(fd)
        del self._files[fd]
        self._locks.pop(fd, None)

    def pwrite(self, fd: int, data: Buffer, position: int) -> int:
        path, file = self._opened(fd)
        size = len(data)
        dies = self._dies_now()
        if dies or self._take(WRITE, path) is not None:
            size = self._rng.randrange(size) if size else 0
        size = self._fitting(path, file, position, size)
        if size:
            file.change(Write(position, bytes(data[:size])))
        if dies:
            self._die_here()
        return size

    def pread(self, fd: int, size: int, position: int) -> bytes:
        _, file = self._opened(fd)
        return bytes(file.data[position : position + size])

    def fdatasync(self, fd: int) -> None:
        path, file = self._opened(fd)
        self._step()
        fault = self._pop_armed(SYNC)
        if fault is None:
            file.sync()
            return
        size = len(file.data)
        lost = file.settle(self._rng, self._rng.choice(SHARES_KEPT))
        if self._rng.random() < 0.5:  # The pages are dropped; else they stay, and pass for clean ones.
            file.data = file.durable[:size].ljust(size, b"\0")
        if self._calls_left is not None:
            self._calls_left += NOTED_CALLS  # or nobody could ever know of it
        self._strike(fault, path, lost=lost)

    def truncate(self, fd: int, size: int) -> None:
        path, file = self._opened(fd)
        self._step()
        self._take(TRUNCATE, path)
        self._give_room(len(file.data) - size)
        file.change(Cut(size))

    def size(self, path: Path) -> int:
        self._check_alive()
        node = self._node(path)
        return len(node.data) if isinstance(node, File) else 0

    def listdir(self, path: Path) -> list[str]:
        self._check_alive()
        node = self._find(path)
        if isinstance(node, File):
            raise _error(errno.ENOTDIR, path)
        names = sorted(node.names) if node else []
        self._rng.shuffle(names)
        return names

    def mkdir(self, path: Path) -> None:
        self._check_alive()
        node = self._find(path)
        if isinstance(node, File):
            raise _error(errno.EEXIST, path)
        if node is None:
            if path.parent != path:
                self.mkdir(path.parent)
            self._step()
            self._take(MKDIR, path)
            self._check_room(path)
            self._folder(path.parent).change(NameChange(None, path.name, Folder()))

    def link(self, path: Path, target: Path) -> None:
        self._step()
        node = self._node(path)
        folder = self._folder(target.parent)
        if target.name in folder.names:
            raise _error(errno.EEXIST, path)
        if isinstance(node, Folder):
            raise _error(errno.EPERM, path)
        folder.change(NameChange(None, target.name, node))

    def clone(self, source_fd: int, fd: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def rename(self, path: Path, target: Path) -> None:
        """Only within one folder: nothing else is atomic everywhere."""
        self._step()
        node = self._node(path)
        if path.parent != target.parent:
            raise _error(errno.EXDEV, path)
        other = self._find(target)
        if other is not None and other is not node:
            _check_replaceable(node, other, path)
        self._take(RENAME, path)
        if other is node:
            return
        if isinstance(other, File):
            self._give_room(len(other.data))
        self._folder(path.parent).change(NameChange(path.name, target.name, node))

    def unlink(self, path: Path) -> None:
        self._step()
        file = self._file(path)
        self._give_room(len(file.data))
        self._folder(path.parent).change(NameChange(path.name, None, file))

    def rmdir(self, path: Path) -> None:
        self._step()
        folder = self._folder(path)
        if folder.names:
            raise _error(errno.ENOTEMPTY, path)
        self._folder(path.parent).change(NameChange(path.name, None, folder))

    def fsync_dir(self, path: Path) -> None:
        folder = self._folder(path)
        self._step()
        fault = self._pop_armed(SYNC_DIR)
        if fault is None:
            folder.sync()
            return
        self._strike(fault, path)  # The names stay to be synced: a file system that loses those stops altogether.

    def mmap(self, path: Path) -> memoryview:
        self._check_alive()
        return memoryview(bytes(self._file(path).data))

    def read_file(self, path: Path) -> bytes | None:
        self._check_alive()
        return None if self._find(path) is None else bytes(self._file(path).data)

    def boot_id(self) -> bytes:
        self._check_alive()
        return b"boot %d" % self._boots

    def hold(self, path: Path, *, alone: bool) -> int:
        return self._lock(self.open_to_read(path), alone=alone)

    def lock(self, path: Path) -> int:
        fd = self._lock(self.open(path, create=True), alone=True)
        self.truncate(fd, 0)
        self.pwrite(fd, b"1", 0)
        return fd

    # Below: names, descriptors, faults.

    def _find(self, path: Path) -> File | Folder | None:
        node: File | Folder | None = self._root
        for name in path.parts[1:]:
            if isinstance(node, File):
                raise _error(errno.ENOTDIR, path)
            node = node.names.get(name)
            if node is None:
                return None
        return node

    def _node(self, path: Path) -> File | Folder:
        self._check_alive()
        node = self._find(path)
        if node is None:
            raise _error(errno.ENOENT, path)
        return node

    def _file(self, path: Path) -> File:
        node = self._node(path)
        if isinstance(node, Folder):
            raise _error(errno.EISDIR, path)
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._node(path)
        if isinstance(node, File):
            raise _error(errno.ENOTDIR, path)
        return node

    def _create(self, path: Path) -> File:
        folder = self._folder(path.parent)
        self._step()
        self._take(CREATE, path)
        self._check_room(path)
        file = File()
        folder.change(NameChange(None, path.name, file))
        return file

    def _new_fd(self, path: Path, file: File) -> int:
        self._last_fd += 1
        self._files[self._last_fd] = (path, file)
        return self._last_fd

    def _lock(self, fd: int, *, alone: bool) -> int:
        file = self._files[fd][1]
        if any(held is file and (alone or is_alone) for held, is_alone in self._locks.values()):
            self.close(fd)
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        self._locks[fd] = (file, alone)
        return fd

    def _opened(self, fd: int) -> tuple[Path, File]:
        self._check_alive()
        try:
            return self._files[fd]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def _check_alive(self) -> None:
        if self.is_dead:
            raise Killed

    def _step(self) -> None:
        """Note a call that changes something; the process may die in it, before it does anything."""
        self._check_alive()
        if self._dies_now():
            self._die_here()

    def _dies_now(self) -> bool:
        if self._calls_left is None:
            return False
        self._calls_left -= 1
        return self._calls_left < 0

    def _die_here(self) -> None:
        self.is_dead = True
        raise Killed

    def _pop_armed(self, call: str) -> Fault | None:
        fault = next((fault for fault in self._armed if fault.call == call), None)
        if fault is not None:
            self._armed.remove(fault)
        return fault

    def _take(self, call: str, path: Path) -> Fault | None:
        """Raise the error that is due for a call, if any; return a fault that is no error."""
        fault = self._pop_armed(call)
        if fault is not None:
            self._strike(fault, path)
        return fault

    def _strike(self, fault: Fault, path: Path, *, lost: bool = False) -> None:
        self._note(Strike(str(fault), path, lost))
        if fault.number:
            raise _error(fault.number, path)

    def _note(self, strike: Strike) -> None:
        self.strikes.append(strike)
        self.counts[strike.what] += 1

    def _fitting(self, path: Path, file: File, position: int, size: int) -> int:
        """Return how many bytes of a write there is room for, and take the room."""
        if self.room is None:
            return size
        growth = max(position + size - len(file.data), 0)
        lacking = max(growth - self.room, 0)
        self.room -= growth - lacking
        if lacking:
            self._note(Strike(NO_ROOM, path))
            if lacking >= size:
                raise _error(errno.ENOSPC, path)
        return size - lacking

    def _check_room(self, path: Path) -> None:
        if self.room == 0:
            self._note(Strike(NO_ROOM, path))
            raise _error(errno.ENOSPC, path)

    def _give_room(self, size: int) -> None:
        if self.room is not None:
            self.room = max(self.room + size, 0)


def _check_replaceable(node: File | Folder, other: File | Folder, path: Path) -> None:
    """Raise what the system does where one thing can't take the other's name."""
    if isinstance(other, Folder):
        if isinstance(node, File):
            raise _error(errno.EISDIR, path)
        if other.names:
            raise _error(errno.ENOTEMPTY, path)
    elif isinstance(node, Folder):
        raise _error(errno.ENOTDIR, path)


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
