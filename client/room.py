"""A bounded amount of something: whoever would take too much waits in line."""

import asyncio
from collections import deque


class Room:
    """Up to `size_max` are taken at once; what is larger than that goes alone. First come, first served."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._taken = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    async def take(self, size: int) -> None:
        """Take `size` once there is room for it. Raises what `shut` is told, to those who wait then."""
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
