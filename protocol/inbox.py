"""Where a connection's bytes arrive: blocks that frames are received into and read from, without copies.

Small frames share a block. A frame too large for what is left of its block gets a block of its own as soon as
its size is known, so its body is received where it will be read; complete, it keeps that block until it is read,
and the next bytes go elsewhere. The views that `frames` returns stay valid until it is called again, or `reuse` is;
only then are their blocks reused. A connection that waits for a request holds no block.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from .errors import WireError

BLOCK_SIZE = 64 * 1024
POOLED_SIZE_MAX = 64 * 1024 * 1024
POOLED_COUNT_MAX = 256  # of blocks of BLOCK_SIZE, 16 MiB more

# Given a block, where in it the bytes that have arrived of a frame start and end, and how long a frame may be: return
# the frame's size, or 0 when that can't be told yet. Raises WireError for bytes that start no frame, or a longer one.
Measure = Callable[[memoryview, int, int, int], int]


class Pool:
    """Blocks that are free. small: those of BLOCK_SIZE, the others by size, powers of two, POOLED_SIZE_MAX at most."""

    def __init__(self) -> None:
        self.small: list[memoryview] = []
        self._free: dict[int, list[memoryview]] = {}
        self._size = 0

    def take(self, size: int = BLOCK_SIZE) -> memoryview:
        """Return all of a block of at least `size` bytes, its contents undefined."""
        if size <= BLOCK_SIZE:
            return self.small.pop() if self.small else memoryview(bytearray(BLOCK_SIZE))
        size = 1 << (size - 1).bit_length()
        if free := self._free.get(size):
            self._size -= size
            return free.pop()
        return memoryview(bytearray(size))

    def give(self, block: memoryview) -> None:
        """Take a block back. Nobody may look at it any more."""
        size = len(block)
        if size == BLOCK_SIZE:
            if len(self.small) < POOLED_COUNT_MAX:
                self.small.append(block)
        elif self._size + size <= POOLED_SIZE_MAX:
            self._size += size
            self._free.setdefault(size, []).append(block)


_NO_BLOCK = memoryview(b"")


def _nothing_known(_block: memoryview, _start: int, _end: int, _size_max: int) -> int:
    return 0


class Inbox:
    """The receiving half of one connection. `unread` counts what has arrived and was not taken as a frame yet.

    measure: tells frames apart. frame_size_max: what it allows, in bytes. Both are set by the wire that reads them.
    """

    __slots__ = (
        "_block", "_end", "_limit", "_need", "_pool", "_retired", "_start", "_typical", "_waiting",
        "frame_size_max", "measure",
    )  # fmt: skip

    def __init__(self, pool: Pool, measure: Measure = _nothing_known) -> None:
        self.measure = measure
        self.frame_size_max = POOLED_SIZE_MAX
        self._pool = pool
        self._block = _NO_BLOCK
        self._start = 0  # of the first unread byte
        self._end = 0  # of what has arrived
        self._limit = 0  # how far the next bytes may go
        self._need = 0  # size of the frame at `start`, 0 when not known
        self._typical = BLOCK_SIZE  # a producer's frames are of one size: the next block is made for the last frame
        self._retired: list[memoryview] = []
        self._waiting: deque[tuple[memoryview, memoryview]] = deque()  # complete frames that filled their block

    @property
    def unread(self) -> int:
        unread = self._end - self._start
        return unread + sum(len(frame) for _, frame in self._waiting) if self._waiting else unread

    @property
    def head(self) -> memoryview:
        """Return what has arrived of the frame at the front, as far as it is in one block."""
        return self._block[self._start : self._end]

    def space(self, _hint: int = 0) -> memoryview:
        """Return where the next bytes go; never empty."""
        if self._end == self._limit:
            if not self._limit and self._typical == BLOCK_SIZE:
                self._block = self._pool.take()
                self._limit = BLOCK_SIZE
                return self._block
            if self._block and self._holds_one_frame():
                self._set_aside()
            unread = self._end - self._start
            size = self._need or self._typical
            self._move(size if size > unread else 2 * unread)
        return self._block[self._end : self._limit]

    def filled(self, count: int) -> None:
        """Say that `count` bytes have arrived in the last `space`."""
        self._end += count

    def frames(self, count_max: int) -> Iterator[memoryview]:
        """Yield up to `count_max` complete frames, in order. Raises WireError when bytes start no frame.

        Bytes may arrive between one frame and the next; the iteration has to end before another begins.
        """
        if self._retired or self._start == self._end:
            self.reuse()
        for _ in range(count_max):
            if self._waiting:
                block, frame = self._waiting.popleft()
                self._retired.append(block)
                yield frame
                continue
            start, end = self._start, self._end
            if start == end:
                return
            block = self._block
            size = self._need or self.measure(block, start, end, self.frame_size_max)
            after = start + size
            if after > end or not size:
                if size:
                    self._expect(size)
                return
            self._start = after
            self._need = 0
            self._typical = size if size > BLOCK_SIZE else BLOCK_SIZE
            yield block[start:after]

    def reuse(self) -> int:
        """Take back the blocks of frames that are dealt with: their views must be dead. Return what is left unread."""
        if self._retired:
            for block in self._retired:
                self._pool.give(block)
            self._retired.clear()
        if self._start == self._end:
            if self._limit:
                self._pool.give(self._block)
                self._block = _NO_BLOCK
                self._start = self._end = self._limit = 0
            if not self._waiting:
                return 0
        return self.unread

    def close(self) -> None:
        """Give up the blocks. The views must be dead."""
        self._retired += (block for block, _ in self._waiting)
        self._waiting.clear()
        self._need = 0
        self._start = self._end
        self.reuse()

    def _expect(self, size: int) -> None:
        """Make room for the frame at `start`, whose size is now known, and receive no further than its end."""
        self._need = size
        if self._start + size > len(self._block):
            self._move(size)
        elif size > BLOCK_SIZE:
            self._limit = self._start + size

    def _holds_one_frame(self) -> bool:
        """Say whether what has arrived in the block, and was not read, is a frame and nothing else."""
        if not self._need:
            with suppress(WireError):  # `frames` will raise it.
                self._need = self.measure(self._block, self._start, self._end, self.frame_size_max)
        return 0 < self._need == self._end - self._start

    def _set_aside(self) -> None:
        """Keep the large frame at `start`, which ends where its block's bytes end, until it is asked for."""
        self._waiting.append((self._block, self._block[self._start : self._end]))
        self._typical = max(self._need, BLOCK_SIZE)
        self._block = _NO_BLOCK
        self._need = self._start = self._end = 0

    def _move(self, size: int) -> None:
        """Go on in a fresh block of at least `size` bytes, taking the unread bytes along."""
        block = self._pool.take(size)
        unread = self._block[self._start : self._end]
        if self._block:
            block[: len(unread)] = unread
            self._retired.append(self._block)
        self._block = block
        self._start, self._end = 0, len(unread)
        self._limit = size if size > BLOCK_SIZE else len(block)
