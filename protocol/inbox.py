"""Where a connection's bytes arrive: blocks that frames are received into and read from, without copies.

Small frames share a block. A frame too large for what is left of its block gets a block of its own as soon as
its size is known, so its body is received where it will be read; complete, it keeps that block until it is read,
and the next bytes go elsewhere. The views that `frames` returns stay valid until it is called again; only then are
their blocks reused. An idle connection holds no block.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from .errors import WireError

BLOCK_SIZE = 64 * 1024
POOLED_SIZE_MAX = 64 * 1024 * 1024

# Given the bytes that have arrived of a frame, return its size, or 0 when that can't be told yet.
# Raises WireError for bytes that start no frame.
Measure = Callable[[memoryview], int]


class Pool:
    """Blocks that are free, by size: powers of two. At most POOLED_SIZE_MAX bytes are kept."""

    def __init__(self) -> None:
        self._free: dict[int, list[bytearray]] = {}
        self._size = 0

    def take(self, size: int) -> bytearray:
        """Return a block of at least `size` bytes, its contents undefined."""
        size = max(BLOCK_SIZE, 1 << (size - 1).bit_length())
        if free := self._free.get(size):
            self._size -= size
            return free.pop()
        return bytearray(size)

    def give(self, block: bytearray) -> None:
        """Take a block back. Nobody may look at it any more."""
        if self._size + len(block) <= POOLED_SIZE_MAX:
            self._size += len(block)
            self._free.setdefault(len(block), []).append(block)


def _nothing_known(_data: memoryview) -> int:
    return 0


class Inbox:
    """The receiving half of one connection. `unread` counts what has arrived and was not taken as a frame yet.

    measure: tells frames apart; set by the wire that reads them.
    """

    __slots__ = (
        "_block", "_end", "_limit", "_need", "_pool", "_retired", "_start", "_typical", "_view", "_waiting", "measure",
    )  # fmt: skip

    def __init__(self, pool: Pool, measure: Measure = _nothing_known) -> None:
        self.measure = measure
        self._pool = pool
        self._block: bytearray | None = None
        self._view = memoryview(b"")
        self._start = 0  # of the first unread byte
        self._end = 0  # of what has arrived
        self._limit = 0  # how far the next bytes may go
        self._need = 0  # size of the frame at `start`, 0 when not known
        self._typical = BLOCK_SIZE  # a producer's frames are of one size: the next block is made for the last frame
        self._retired: list[bytearray] = []
        self._waiting: deque[tuple[bytearray, memoryview]] = deque()  # complete frames that filled their block

    @property
    def unread(self) -> int:
        return self._end - self._start + sum(len(frame) for _, frame in self._waiting)

    @property
    def head(self) -> memoryview:
        """Return what has arrived of the frame at the front, as far as it is in one block."""
        return self._view[self._start : self._end]

    def space(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        if self._end == self._limit:
            if self._block is not None and self._holds_one_frame():
                self._set_aside(self._block)
            unread = self._end - self._start
            size = self._need or self._typical
            self._move(size if size > unread else 2 * unread)
        return self._view[self._end : self._limit]

    def filled(self, count: int) -> None:
        """Say that `count` bytes have arrived in the last `space`."""
        self._end += count

    def frames(self, count_max: int) -> Iterator[memoryview]:
        """Yield up to `count_max` complete frames, in order. Raises WireError when bytes start no frame.

        Bytes may arrive between one frame and the next; the iteration has to end before another begins.
        """
        self._reuse()
        for _ in range(count_max):
            if self._waiting:
                block, frame = self._waiting.popleft()
                self._retired.append(block)
                yield frame
                continue
            if self._start == self._end:
                return
            size = self._need or self.measure(self._view[self._start : self._end])
            if size == 0:
                return
            if size > self._end - self._start:
                self._expect(size)
                return
            start = self._start
            self._start += size
            self._need = 0
            self._typical = max(size, BLOCK_SIZE)
            yield self._view[start : start + size]

    def close(self) -> None:
        """Give up the blocks. The views must be dead."""
        self._retired += (block for block, _ in self._waiting)
        self._waiting.clear()
        self._need = 0
        self._start = self._end
        self._reuse()

    def _expect(self, size: int) -> None:
        """Make room for the frame at `start`, whose size is now known, and receive no further than its end."""
        self._need = size
        if self._block is None or self._start + size > len(self._block):
            self._move(size)
        elif size > BLOCK_SIZE:
            self._limit = self._start + size

    def _holds_one_frame(self) -> bool:
        """Say whether what has arrived in the block, and was not read, is a frame and nothing else."""
        if not self._need:
            with suppress(WireError):  # `frames` will raise it.
                self._need = self.measure(self._view[self._start : self._end])
        return 0 < self._need == self._end - self._start

    def _set_aside(self, block: bytearray) -> None:
        """Keep the large frame at `start`, which ends where its block's bytes end, until it is asked for."""
        self._waiting.append((block, self._view[self._start : self._end]))
        self._typical = max(self._need, BLOCK_SIZE)
        self._block = None
        self._need = self._start = self._end = 0

    def _move(self, size: int) -> None:
        """Go on in a fresh block of at least `size` bytes, taking the unread bytes along."""
        block = self._pool.take(size)
        unread = self._view[self._start : self._end]
        view = memoryview(block)
        view[: len(unread)] = unread
        if self._block is not None:
            self._retired.append(self._block)
        self._block, self._view = block, view
        self._start, self._end = 0, len(unread)
        self._limit = size if size > BLOCK_SIZE else len(block)

    def _reuse(self) -> None:
        """Take back the blocks of frames that are dealt with."""
        for block in self._retired:
            self._pool.give(block)
        self._retired.clear()
        if self._block is not None and self._start == self._end:
            self._pool.give(self._block)
            self._block = None
            self._view = memoryview(b"")
            self._start = self._end = self._limit = 0
