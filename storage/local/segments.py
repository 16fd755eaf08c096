"""The segments of one log in order, and the offsets they hold."""

from bisect import bisect_right

from ..engine import Bounds
from ..errors import OffsetGone
from .bounds import Kept
from .segment import Segment


class Segments:
    """Oldest first; the last one is appended to.

    active: that one, None before the first append. next: the offset that the next append gets. visible: the offset
    where readers end; less while what was appended must not be seen before it is durable, or when the next append
    skips offsets. kept: what was skipped.
    """

    def __init__(self, segments: list[Segment], kept: Kept) -> None:
        self.all = segments
        self.active = segments[-1] if segments else None
        self.bases = [segment.base for segment in segments]
        self.kept = kept
        self._sealed_size = sum(segment.size for segment in segments[:-1])
        self.next = self.visible = segments[-1].end if segments else 0

    @property
    def bounds(self) -> Bounds:
        first = self.all[0].base if self.all else self.visible
        # The names of a log that skipped nothing say it all.
        held = self.visible - first if not self.kept.gaps else sum(map(self._held, self.all))
        return Bounds(first, self.visible, self.size, len(self.all), held)

    @property
    def size(self) -> int:
        """How many bytes they have."""
        return self._sealed_size + (self.active.size if self.active else 0)

    def add(self, segment: Segment) -> None:
        self._sealed_size = self.size
        self.all.append(segment)
        self.active = segment
        self.bases.append(segment.base)

    def forget(self, count: int) -> list[Segment]:
        """Take the oldest ones out and return them."""
        gone = self.all[:count]
        del self.all[:count]
        del self.bases[:count]
        self.active = self.all[-1] if self.all else None
        self._sealed_size = sum(segment.size for segment in self.all[:-1])
        return gone

    def of(self, offset: int) -> Segment:
        """Return the last segment that starts at or before `offset`. Raises OffsetGone if there is none."""
        number = bisect_right(self.bases, offset) - 1
        if number < 0:
            raise OffsetGone(f"offset {offset}, the first is {self.bounds.first}")
        return self.all[number]

    def last(self, count: int) -> int:
        """Return the offset of the message that `count` - 1 others follow; the first one if there are fewer."""
        if count == 0:
            return self.visible
        for segment in reversed(self.all):
            held = self._held(segment)
            if count <= held:
                return segment.base + held - count
            count -= held
        return self.bounds.first

    def _held(self, segment: Segment) -> int:
        return max(min(segment.end, self.visible) - segment.base, 0)
