"""A bounded amount of something: whoever would take too much waits in line."""

import asyncio
from collections import deque

# After how many bytes that were taken without waiting everybody else has a turn.
IN_A_ROW_SIZE = 128 * 1024


class Room:
    """Up to `size_max` are taken at once; what is larger than that goes alone. First come, first served."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._taken = 0
        self._in_a_row = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    def try_take(self, size: int) -> bool:
        """Take `size` if there is room for it, nobody is in line, and others had a turn lately."""
        if self._line or self._in_a_row > IN_A_ROW_SIZE or not self._fits(size):
            return False
        self._taken += size
        self._in_a_row += size
        return True

    async def take(self, size: int) -> None:
        """Take `size` once there is room for it. Raises what `shut` is told, to those who wait then."""
        if self._in_a_row > IN_A_ROW_SIZE:
            self._in_a_row = 0
            await asyncio.sleep(0)
        if not self._line and self._fits(size):
            self._taken += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                self._taken -= size  # it was our turn, at the very moment we gave up
            self._admit()
            raise

    def give_back(self, size: int) -> None:
        self._taken -= size
        self._admit()

    def shut(self, error: Exception) -> None:
        """Fail everybody in line."""
        for _, turn in self._line:
            if not turn.done():
                turn.set_exception(error)
        self._line.clear()

    def _admit(self) -> None:
        while self._line:
            size, turn = self._line[0]
            if not turn.done():
                if not self._fits(size):
                    return
                self._taken += size
                turn.set_result(None)
            self._line.popleft()

    def _fits(self, size: int) -> bool:
        return not self._taken or self._taken + size <= self._size_max
