"""Reads a segment from one end to the other and proves every record, over damage too. Changes nothing.

In memory there is a chunk of the file, or one record where that is larger, and the new index.
"""

from collections.abc import Callable, Collection, Iterator

import msgspec

from ...protocol.batch import HEADER_SIZE, BadBatch, Header, read_header
from .codec import Codec
from .disk import Disk
from .index import INDEX_GAP_SIZE, Index
from .resync import next_record
from .segment import Segment, look

# What is read at a time: large enough that the reads cost little beside the checksums.
CHUNK_SIZE = 4 * 1024 * 1024
U64_MAX = 2**64 - 1


class Damage(msgspec.Struct):
    """A stretch of a segment, from byte `start` to `end`, that is not what should be there.

    lost: the offsets that are missing because of it, as far as what follows tells.
    """

    start: int
    end: int
    what: str
    lost: range


class Scan:
    """One reading of a segment. What the attributes say is true of all before `position`.

    records, messages: how many are valid. offset: of the next message. timestamp_us: of the last record.
    index: of the valid records. resumed: where valid records begin behind damage.
    places: base offset and timestamp of the records that begin at `watched` positions.
    """

    def __init__(
        self,
        disk: Disk,
        segment: Segment,
        codec: Codec,
        *,
        start: tuple[int, int] | None = None,
        end: int = U64_MAX,
        watched: Collection[int] = (),
        seen: Callable[[int], None] | None = None,
    ) -> None:
        """Read the segment's `size` bytes from its file, open as `fd`.

        start: position and offset of the first record to look at. end: the offset that the next segment starts
        with, less what was skipped. seen: is told how many bytes are done, again and again.
        """
        self.position, self.offset = start or (0, segment.base)
        self.records = 0
        self.messages = 0
        self.timestamp_us = 0
        self.index = Index()
        self.resumed: list[int] = []
        self.places: dict[int, tuple[int, int]] = {}
        self._disk = disk
        self._segment = segment
        self._codec = codec
        self._end = end
        self._watched = watched
        self._seen = seen
        self._index_due = 0

    def damages(self) -> Iterator[Damage]:
        """Read on to the end, and yield each stretch that is damaged. Raises OSError, Corrupt where that fails."""
        begin = self.position
        while self.position < self._segment.size:
            damage = self._prove_chunk()
            if self._seen is not None:
                self._seen(self.position - begin)
                begin = self.position
            if damage is not None:
                yield damage
        self._look_at_place(self.timestamp_us)

    def _prove_chunk(self) -> Damage | None:
        """Prove the records that lie in the next chunk whole; end with the first damage."""
        window = look(self._disk, self._segment, self._segment.fd, self.position, CHUNK_SIZE)
        while self.position < window.end:
            at = self.position - window.origin
            if at and window.end - self.position < HEADER_SIZE and window.end < window.size:
                return None
            try:
                header = read_header(window.data, at)
            except BadBatch as fault:
                return self._pass_over(_text(fault))
            if self.position + header.size > window.size:
                room = window.size - self.position
                return self._pass_over(f"a record of {header.size} bytes, the file ends after {room}")
            if at + header.size > len(window.data):
                if at:
                    return None  # It begins the next chunk.
                window = look(self._disk, self._segment, self._segment.fd, self.position, header.size)
            damage = self._prove(window.data[at : at + header.size], header)
            if damage is not None:
                return damage
        return None

    def _prove(self, record: memoryview, header: Header) -> Damage | None:
        """Prove one record and step behind it."""
        try:
            self._codec.decode(record)
        except BadBatch as fault:
            return self._pass_over(_text(fault))
        if not self.offset <= header.base_offset < self._end:
            # A record that is here twice hides none: the one that should be here may follow.
            what = f"base offset {header.base_offset}, should be {self.offset}"
            return self._pass_over(what, after=max(self.offset - 1, 0))
        damage = None
        if header.base_offset > self.offset:
            damage = self._jump(self.position, header.base_offset, "the log goes on with a later offset")
        elif header.base_timestamp_us < self.timestamp_us:
            damage = Damage(self.position, self.position, "the time goes back", range(0))
        self._look_at_place(header.base_timestamp_us)
        if self.position >= self._index_due:
            self._index_due = self.position + INDEX_GAP_SIZE
            self.index.add(header.base_offset, header.base_timestamp_us, self.position)
        self.records += 1
        self.messages += header.count
        self.position += header.size
        self.offset = header.base_offset + header.count
        self.timestamp_us = header.base_timestamp_us
        return damage

    def _pass_over(self, what: str, *, after: int | None = None) -> Damage:
        """Step over a damaged stretch, to the next valid record or the end of the file.

        after: the offset that the next record lies behind, unless it is the one that should be here.
        """
        after = self.offset if after is None else after
        found = next_record(
            self._disk, self._segment, self._segment.fd, self._codec, position=self.position, offset=after
        )
        if found is not None and self.offset <= found[1] < self._end:
            return self._jump(*found, what)
        lost = range(self.offset, self._end if self._end < U64_MAX else self.offset)
        damage = Damage(self.position, self._segment.size, what, lost)
        self.position = damage.end
        self.offset = max(self.offset, lost.stop)
        return damage

    def _jump(self, position: int, offset: int, what: str) -> Damage:
        damage = Damage(self.position, position, what, range(self.offset, offset))
        self.position, self.offset = position, offset
        self.resumed.append(position)
        self._index_due = position  # Who reads behind the damage starts here.
        return damage

    def _look_at_place(self, timestamp_us: int) -> None:
        if self.position in self._watched:
            self.places[self.position] = (self.offset, timestamp_us)


def _text(fault: BadBatch) -> str:
    return f"{fault.what} ({fault.position} bytes into the record)"
