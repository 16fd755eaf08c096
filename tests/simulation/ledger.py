"""What one log has promised, and whether it keeps it."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
from pybroker.storage.engine import ReadLimit
from pybroker.storage.errors import Corrupt

from .messages import Record, Violation


class Damage(msgspec.Struct):
    """A byte that was flipped at rest, and the record it is in."""

    path: Path
    position: int
    start: int
    size: int
    offsets: range
    image: bytes  # of the record, with the flipped byte

    def __repr__(self) -> str:
        return f"damage at byte {self.position} of {self.path}, in the record of {self.offsets} at {self.start}"

    def is_named_by(self, error: Corrupt) -> bool:
        """Say whether an error names the file, and a byte of the record."""
        return error.path == self.path and self.start <= error.position <= self.start + self.size


class LogLedger:
    """The promises of one log.

    given: the message of each offset that was acknowledged or seen; forever, whatever is lost.
    held: the offsets that have to be there. durable: those before it also after a power failure.
    first: what lies before it was trimmed. at_risk: a power failure came since the log was last read whole.
    in_doubt: a sync failed somewhere, so the next start takes the machine for one that lost power.
    has_promised: whether an append was acknowledged as durable.
    has_lost: whether a power failure ever took something of it.
    shaken: offsets whose bytes a failed sync may have lost. created_by: the catalog change that the log came with.
    """

    def __init__(self, log_id: int, created_by: int) -> None:
        self.log_id = log_id
        self.created_by = created_by
        self.given: dict[int, int] = {}
        self.held: set[int] = set()
        self.times: dict[int, int] = {}  # base timestamps of records by base offset
        self.durable = 0
        self.has_promised = False
        self.first = 0
        self.at_risk = False
        self.is_poisoned = False
        self.has_lost = False
        self.in_doubt = False
        self.shaken: list[range] = []  # skipped offsets make them long
        self.damages: list[Damage] = []
        self._sent: set[int] = set()
        self._refused: set[int] = set()
        self._places: dict[int, int] = {}  # offsets by number

    def send(self, numbers: Iterable[int]) -> None:
        self._sent.update(numbers)

    def refuse(self, numbers: Iterable[int]) -> None:
        self._refused.update(numbers)

    def check_taken(self, base: int) -> None:
        """Hold a log that has just taken an append against what it is."""
        if self.is_poisoned:
            self.fail(f"took an append at {base} after it was poisoned")

    def acknowledge(self, record: Record, *, durable: bool) -> None:
        """Note that a batch was acknowledged."""
        self.see(record)
        if durable:
            self.has_promised = True
            self.make_durable(record.end)

    def see(self, record: Record) -> None:
        """Note what is at a record's offsets: always the same."""
        for offset, number in enumerate(record.numbers, record.base):
            if number not in self._sent or number in self._refused:
                self.fail(f"message {number} at {offset} was {'refused' if number in self._sent else 'never sent'}")
            if self.given.setdefault(offset, number) != number:
                self.fail(f"offset {offset} was given to message {self.given[offset]}, then to {number}")
            if self._places.setdefault(number, offset) != offset:
                self.fail(f"message {number} is at {self._places[number]} and at {offset}")
            self.held.add(offset)
        self.times[record.base] = record.timestamp_us

    def make_durable(self, end: int) -> None:
        """Note that all before `end` survives a power failure."""
        self.durable = max(self.durable, end)

    def shake(self, end: int) -> None:
        """Note that a sync failed and lost bytes: what was not durable yet, up to `end`, is not promised any more."""
        self.shaken.append(range(self.durable, end))

    def trim(self, first: int) -> None:
        self.first = max(self.first, first)

    def can_start_at(self, offset: int) -> bool:
        """Say whether a log may tell that nothing before `offset` is there."""
        if not self.held and self.has_lost:
            return True  # with the names of its first segments, which nobody had seen anything of
        return offset <= max(self.first, min(self.held, default=self.first))

    def can_be_damaged(self, damage: Damage) -> bool:
        """Say whether a place is in a record that is there, whole and not trimmed."""
        offsets = set(damage.offsets)
        return damage.offsets.start >= self.first and offsets <= self.held and not self._damaged() & offsets

    def due(self, offset: int) -> list[int]:
        """Return the offsets from `offset` on that a reader must not be kept from."""
        start = max(offset, self.first)
        return sorted(held for held in self.held - self._damaged() if held >= start and not self._is_shaken(held))

    def check_read(self, offset: int, limit: ReadLimit, due: Sequence[int], records: list[Record]) -> None:
        """Hold a read against what was due when it was called. Trimmed meanwhile is trimmed."""
        start = records[0].base if records else None
        missed = [each for each in due if each >= self.first and (start is None or each < start)]
        if missed:
            self.fail(f"a read from {offset} passes over {missed[0]} and starts at {start}")
        for record in records:
            self.see(record)
        for before, after in pairwise(records):
            if after.base != before.end or after.timestamp_us < before.timestamp_us:
                self.fail(f"a read goes on from {before} to {after}")
        if records and records[0].end <= offset:
            self.fail(f"a read from {offset} starts with {records[0]}")
        if len(records) > 1 and sum(record.size for record in records) > limit.bytes:
            self.fail(f"a read from {offset} with {limit} gives {records}")
        if len(records) > 1 and records[-1].base >= max(offset, records[0].base) + limit.messages:
            self.fail(f"a read from {offset} with {limit} gives {records}")

    def check_refusal(self, offset: int, error: Corrupt) -> None:
        """Hold a refused read against what is known to be damaged."""
        # Where the offset was skipped, the next record there is is the one that is damaged.
        reached = min((held for held in self.held if held >= offset), default=offset)
        # The way to a damaged record may lead over another one.
        is_known = any(damage.is_named_by(error) for damage in self.damages)
        for damage in self.damages:
            if is_known and (offset in damage.offsets or reached in damage.offsets):
                return
            if self.has_lost and reached in damage.offsets and error.path == damage.path:
                return  # the way to it leads over what a power failure took
        if any(offset >= shaken.start for shaken in self.shaken):
            return
        self.fail(f"a read from {offset} is refused: {error}; known are {self.damages}")

    def check_time(self, timestamp_us: int, offset: int) -> None:
        """Hold an answer of `offset_at` against the records there are."""
        for base in self.held & self.times.keys():
            if base >= self.first and (self.times[base] >= timestamp_us) != (base >= offset):
                self.fail(f"{timestamp_us} is found at {offset}, but {base} has {self.times[base]}")

    def check_all(self, records: list[Record], refused: dict[int, Corrupt]) -> int:
        """Hold all that can be read against all that has to be there; return how many messages were lost."""
        for record in records:
            self.see(record)
        there = {offset for record in records for offset in range(record.base, record.end)}
        for offset, error in refused.items():
            self.check_refusal(offset, error)
        missing = [offset for offset in self.due(0) if offset not in there]
        if missing and not self.at_risk:
            self.fail(
                f"{len(missing)} acknowledged messages are gone without a power failure, the first at {missing[0]}"
            )
        if missing and missing[0] < self.durable:
            self.fail(f"durable messages are gone, the first at {missing[0]}, durable to {self.durable}")
        self.damages = [damage for damage in self.damages if not self._is_cut(damage, there, refused)]
        self.held = there | (self.held & self._damaged())
        self.times = {record.base: record.timestamp_us for record in records}
        self.shaken.clear()
        self.has_lost = self.has_lost or self.at_risk
        self.at_risk = self.in_doubt = False
        return len(missing)

    def fail(self, what: str) -> None:
        raise Violation(f"log {self.log_id}: {what}")

    def _is_shaken(self, offset: int) -> bool:
        return any(offset in shaken for shaken in self.shaken)

    def _damaged(self) -> set[int]:
        return {offset for damage in self.damages for offset in damage.offsets}

    def _is_cut(self, damage: Damage, there: set[int], refused: dict[int, Corrupt]) -> bool:
        """Say whether a damaged record was cut, or readers pass over it: then its offsets are nobody's any more."""
        if damage.offsets.start in refused or damage.offsets.stop <= self.first:
            return False
        if there & set(damage.offsets):
            self.fail(f"the damaged record at {damage.offsets.start} was served")
        if not self.at_risk and not self.in_doubt and max(there, default=0) >= damage.offsets.stop:
            self.fail(f"nobody is told of {damage}")
        for offset in damage.offsets:
            number = self.given.pop(offset, None)
            if number is not None:
                del self._places[number]
        return True
