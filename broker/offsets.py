"""Where consumers stand: the last offset each has processed in a partition, kept in the engine's table.

Key, 13 bytes, big-endian: log id u64 | consumer kind u8 | consumer id u32. A single consumer's id is its number, or
XXH32 of its name; a group's is the group's.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from struct import Struct

from xxhash import xxh32_intdigest

from ..protocol.primitives import ConsumerKind, Identifier
from ..storage.engine import Table

KEY = Struct(">QBI")


def consumer_id(identifier: Identifier) -> int:
    """Return the number that a single consumer's offsets are kept under."""
    return xxh32_intdigest(identifier.encode()) if isinstance(identifier, str) else identifier


class Offsets:
    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, log_id: int, kind: ConsumerKind, consumer: int) -> int | None:
        return self._table.get(KEY.pack(log_id, kind, consumer))

    def store(self, log_id: int, kind: ConsumerKind, consumer: int, offset: int) -> None:
        """Store an offset, back and forth as asked. It is durable after `sync`."""
        self._table.put(KEY.pack(log_id, kind, consumer), offset)

    def delete(self, log_id: int, kind: ConsumerKind, consumer: int) -> bool:
        """Forget an offset, durably after `sync`; return whether there was one."""
        key = KEY.pack(log_id, kind, consumer)
        if self._table.get(key) is None:
            return False
        self._table.delete([key])
        return True

    async def sync(self) -> None:
        await self._table.sync()

    def all(self) -> Iterator[tuple[int, ConsumerKind, int, int]]:
        """Yield log id, kind and id of the consumer, and offset of each that is stored."""
        for key in self._table.keys():  # noqa: SIM118
            log_id, kind, consumer = KEY.unpack(key)
            if (offset := self._table.get(key)) is not None:
                yield log_id, ConsumerKind(kind), consumer, offset

    def slowest(self, log_id: int) -> int | None:
        """Return the smallest offset that any consumer has stored in a log."""
        stored = [self._table.get(key) for key in self._table.keys() if KEY.unpack(key)[0] == log_id]  # noqa: SIM118
        return min((offset for offset in stored if offset is not None), default=None)

    def drop_logs(self, log_ids: Iterable[int]) -> None:
        """Forget every consumer's offsets in these logs."""
        gone = set(log_ids)
        self._drop(lambda log_id, _kind, _consumer: log_id in gone)

    def drop_group(self, log_ids: Iterable[int], group_id: int) -> None:
        """Forget a group's offsets in these logs."""
        gone = {(log_id, ConsumerKind.GROUP, group_id) for log_id in log_ids}
        self._drop(lambda log_id, kind, consumer: (log_id, kind, consumer) in gone)

    def keep_only(self, groups_by_log: Mapping[int, Container[int]]) -> None:
        """Forget what a crash left: offsets in logs, or of groups, that are not in `groups_by_log`."""

        def orphaned(log_id: int, kind: int, consumer: int) -> bool:
            groups = groups_by_log.get(log_id)
            return groups is None or (kind == ConsumerKind.GROUP and consumer not in groups)

        self._drop(orphaned)

    def _drop(self, chosen: Callable[[int, int, int], bool]) -> None:
        if keys := [key for key in self._table.keys() if chosen(*KEY.unpack(key))]:  # noqa: SIM118
            self._table.delete(keys)
