"""What a simulated disk keeps: files and folders, each as the running system sees it and as the disk holds it.

In between lie the changes that nobody has synced. A power failure decides for each of them on its own whether the
disk got it, all of it, some of its sectors, or nothing.
"""

import random
from typing import NamedTuple

SECTOR_SIZE = 512
TORN_SHARE = 0.4  # of the writes that are not kept whole
EXTENDED_SHARE = 0.3  # of the lost writes: the file has their length, and zeros


class Write(NamedTuple):
    position: int
    data: bytes | bytearray


class Cut(NamedTuple):
    size: int


class File:
    """Bytes as readers see them, bytes as the disk holds them, and the changes that only the first have."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.pending: list[Write | Cut] = []

    def change(self, change: Write | Cut) -> None:
        _apply(self.data, change)
        self.pending.append(self._in_sectors(change) if isinstance(change, Write) else change)

    def _in_sectors(self, write: Write) -> Write:
        """Return what the disk is given of a write: whole sectors, with all that earlier writes put there."""
        start = write.position // SECTOR_SIZE * SECTOR_SIZE
        end = -(-(write.position + len(write.data)) // SECTOR_SIZE) * SECTOR_SIZE
        return Write(start, bytes(self.data[start:end]))

    def flip(self, position: int, bits: int) -> None:
        """Change a byte wherever it is kept."""
        images = [(self.data, 0), (self.durable, 0)]
        for index, write in enumerate(self.pending):
            if isinstance(write, Write):
                image = bytearray(write.data)
                images.append((image, write.position))
                self.pending[index] = Write(write.position, image)
        for image, start in images:
            if start <= position < start + len(image):
                image[position - start] ^= bits

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def settle(self, rng: random.Random, kept: float) -> bool:
        """Let the disk have what it got of the pending changes; return whether anything is missing."""
        before = bytearray(self.data)
        for change in self.pending:
            if rng.random() < kept:
                _apply(self.durable, change)
            elif isinstance(change, Write):
                _tear(self.durable, change, rng)
        self.pending.clear()
        return self.durable != before


class NameChange(NamedTuple):
    """A name goes, or comes, or both at once."""

    gone: str | None
    come: str | None
    node: "File | Folder"


class Folder:
    """Names as the system sees them, names as the disk holds them, and the changes in between."""

    def __init__(self) -> None:
        self.names: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}
        self.pending: list[NameChange] = []

    def change(self, change: NameChange) -> None:
        _rename(self.names, change)
        self.pending.append(change)

    def sync(self) -> None:
        for change in self.pending:
            _rename(self.durable, change)
        self.pending.clear()

    def settle(self, rng: random.Random, kept: float) -> None:
        """Let the disk have some of the changes. Those of one name stay in order: none without the one before it."""
        missed: set[str | None] = set()
        for change in self.pending:
            names = {change.gone, change.come} - {None}
            if rng.random() < kept and not names & missed:
                _rename(self.durable, change)
            else:
                missed |= names
        self.pending.clear()

    def lose_power(self, rng: random.Random, kept: float) -> None:
        self.settle(rng, kept)
        self.names = dict(self.durable)
        for node in self.names.values():
            if isinstance(node, Folder):
                node.lose_power(rng, kept)
            else:
                node.settle(rng, kept)
                node.data = bytearray(node.durable)


def _apply(image: bytearray, change: Write | Cut) -> None:
    if isinstance(change, Write):
        image.extend(bytes(max(change.position - len(image), 0)))
        image[change.position : change.position + len(change.data)] = change.data
    else:
        del image[change.size :]
        image.extend(bytes(change.size - len(image)))


def _tear(image: bytearray, write: Write, rng: random.Random) -> None:
    """Lose a write, or keep some of its sectors. What is not kept reads as it was, or as zeros behind the end."""
    end = write.position + len(write.data)
    fate = rng.random()
    if fate < TORN_SHARE:
        position = write.position
        while position < end:
            after = min((position // SECTOR_SIZE + 1) * SECTOR_SIZE, end)
            if rng.random() < 0.5:
                part = write.data[position - write.position : after - write.position]
                _apply(image, Write(position, part))
            position = after
    elif fate < TORN_SHARE + EXTENDED_SHARE:
        image.extend(bytes(max(end - len(image), 0)))


def _rename(names: dict[str, File | Folder], change: NameChange) -> None:
    if change.gone is not None:
        names.pop(change.gone, None)
    if change.come is not None:
        names[change.come] = change.node
