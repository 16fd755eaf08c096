"""The logs of the catalog's partitions: opened at start, begun when partitions come, dropped when they go."""

from collections.abc import Iterable

from ..storage.engine import Engine, Log, LogPolicy
from .catalog import Catalog, Partition, Topic
from .offsets import Offsets


class Logs:
    def __init__(self, engine: Engine, offsets: Offsets) -> None:
        self._engine = engine
        self._offsets = offsets
        self._open: dict[int, Log] = {}

    async def reconcile(self, catalog: Catalog) -> None:
        """Open the catalog's logs, and remove what a crash left of deleted ones."""
        for topic in catalog.topics():
            self.open(topic)
        for log_id in set(self._engine.log_ids()) - self._open.keys():
            await self._engine.drop_log(log_id)
        self._offsets.keep_only(
            {partition.log_id: topic.groups.items for topic in catalog.topics() for partition in topic.partitions}
        )

    @property
    def is_poisoned(self) -> bool:
        """Whether the engine can't take all that it is given: a disk failed."""
        return self._engine.is_poisoned

    def open(self, topic: Topic) -> None:
        """Open the logs of a topic's partitions that are not open yet."""
        policy = LogPolicy(topic.settings.segment_size, topic.settings.persisted)
        for partition in topic.partitions:
            if partition.log_id not in self._open:
                self._open[partition.log_id] = self._engine.open_log(partition.log_id, policy)

    def of(self, partition: Partition) -> Log:
        return self._open[partition.log_id]

    def holds(self, partition: Partition, log: Log) -> bool:
        """Say whether a log is still that of a partition, which may have been emptied or deleted."""
        return self._open.get(partition.log_id) is log

    async def drop(self, log_ids: Iterable[int]) -> None:
        """Drop logs that no partition has any more, with their consumers' offsets."""
        gone = list(log_ids)
        self._offsets.drop_logs(gone)
        for log_id in gone:
            self._open.pop(log_id, None)
            await self._engine.drop_log(log_id)


def log_ids(topics: Iterable[Topic]) -> list[int]:
    return [partition.log_id for topic in topics for partition in topic.partitions]
