"""Which messages a topic has already: a window of message ids for each topic that asks for it.

An id is in the window from before its append on, so of two sends at once one stores it. Who meets an id whose append
is under way waits for the end of that (`Run.wait`) and looks again: what failed has left the window. An id counts
only as long as the topic has the log that holds it, so what was purged or deleted is forgotten, and no topic sees
the window of an earlier one with its ids.

Crash invariant: a window is read from the logs' own records, and where sends wait for a sync, after one. So nobody
is told that a message is stored which the next crash may take.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

import msgspec

from ..protocol.batch import NO_ID, BadBatch, Batch, message_ids, read_header
from ..storage.engine import Log, ReadLimit
from ..storage.errors import Corrupt, OffsetGone, Poisoned
from .catalog import Topic
from .config.schema import Deduplication
from .logs import Logs

_logger = logging.getLogger(__name__)

# Loading leaves the loop to others after this much: a few hundred microseconds.
LOAD_LIMIT = ReadLimit(messages=1000, bytes=256 * 1024)
RUNS_AT_ONCE = 1000
# Each send adds one run, so two are enough to catch up, and no send pays for all that expired in an idle hour.
EXPIRED_RUNS_AT_ONCE = 2

TopicKey = tuple[int, int]  # stream id, topic id


class Run(msgspec.Struct, eq=False, gc=False):
    """Messages that are stored together, in their order.

    log_id, base_offset: where; the offset is None until the append is over. time_us: when.
    forgotten: how many of the first ids have left the window.
    """

    ids: tuple[bytes, ...]  # 40 bytes smaller than a list of one
    log_id: int
    time_us: int
    base_offset: int | None = None
    forgotten: int = 0
    over: asyncio.Event | None = None

    async def wait(self) -> None:
        """Return when the append is over, whatever came of it."""
        if self.over is None:
            self.over = asyncio.Event()
        await self.over.wait()

    def offset_of(self, ident: bytes) -> int:
        """Return the offset of the first message with this id. The append is over."""
        assert self.base_offset is not None
        return self.base_offset + self.ids.index(ident)

    def end(self) -> None:
        if self.over is not None:
            self.over.set()


class Window:
    """The ids of one topic's newest messages: those of the last `expiry_us`, at most `ids_max`."""

    def __init__(self, ids_max: int, expiry_us: int) -> None:
        self.is_loaded = False
        self._ids_max = ids_max
        self._expiry_us = expiry_us
        self._held: dict[bytes, Run] = {}
        self._runs: deque[Run] = deque()  # oldest first; an id is held for the last run that has it
        self._loading = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def is_over(self, now_us: int) -> bool:
        """Say whether everything in it has expired."""
        return self.is_loaded and (not self._runs or self._is_expired(self._runs[-1], now_us))

    def repeats(self, ids: Sequence[bytes], topic: Topic, now_us: int) -> dict[int, Run | None]:
        """Return the indexes of `ids` that are repeats, each with the run that has the first; None for `ids` itself."""
        held = self._held
        if held.keys().isdisjoint(ids) and len(set(ids)) == len(ids):
            return {}
        log_ids = {partition.log_id for partition in topic.partitions}
        found: dict[int, Run | None] = {}
        new = {NO_ID}
        for index, ident in enumerate(ids):
            run = held.get(ident)
            if run is not None and run.log_id in log_ids and not self._is_expired(run, now_us):
                found[index] = run
            elif ident not in new:
                new.add(ident)
            elif ident != NO_ID:
                found[index] = None
        return found

    async def store(self, log_id: int, log: Log, batch: Batch, ids: Sequence[bytes], now_us: int) -> int:
        """Append a batch whose messages have `ids`, none of them a repeat; return its base offset. Raises as the log.

        Up to the log's own, there is no wait.
        """
        newest_us = self._runs[-1].time_us if self._runs else 0
        run = Run(tuple(ids), log_id, max(now_us, newest_us))
        self._add(run)
        try:
            run.base_offset = await log.append(batch)
        except Exception:
            self._take_back(run)
            raise
        except BaseException:
            # Cancelled: it may be stored or not, so the next send reads the logs.
            self._held, self._runs, self.is_loaded = {}, deque(), False
            raise
        finally:
            run.end()
        self._trim(now_us)
        return run.base_offset

    async def load(self, topic: Topic, logs: Logs, now_us: int) -> None:
        """Fill the window from a topic's records, unless that was done while this waited for its turn."""
        async with self._loading:
            if self.is_loaded:
                return
            held_in = {partition.log_id: logs.of(partition) for partition in topic.partitions}
            persisted = topic.settings.persisted
            runs = await _newest_of(held_in, now_us - self._expiry_us, self._ids_max, persisted=persisted)
            held: dict[bytes, Run] = {}
            for number, run in enumerate(runs, 1):
                held.update(dict.fromkeys(run.ids, run))
                if number % RUNS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            held.pop(NO_ID, None)
            self._held, self._runs, self.is_loaded = held, deque(runs), True
            self._trim(now_us)

    def _is_expired(self, run: Run, now_us: int) -> bool:
        return run.time_us + self._expiry_us <= now_us

    def _add(self, run: Run) -> None:
        fresh = dict.fromkeys(run.ids, run)
        fresh.pop(NO_ID, None)
        if fresh:
            self._held.update(fresh)
            self._runs.append(run)

    def _take_back(self, run: Run) -> None:
        self._forget(run, run.ids)
        run.ids = ()
        if self._runs and self._runs[-1] is run:
            self._runs.pop()

    def _trim(self, now_us: int) -> None:
        """Forget the oldest: some of what has expired, and all that are too many."""
        runs = self._runs
        for _ in range(EXPIRED_RUNS_AT_ONCE):
            if runs and self._is_expired(runs[0], now_us):
                run = runs.popleft()
                self._forget(run, run.ids)
        while (surplus := len(self._held) - self._ids_max) > 0:
            run = runs[0]
            oldest = run.ids[run.forgotten : run.forgotten + surplus]
            self._forget(run, oldest)
            run.forgotten += len(oldest)
            if run.forgotten >= len(run.ids):
                runs.popleft()

    def _forget(self, run: Run, ids: Sequence[bytes]) -> None:
        held = self._held
        for ident in ids:
            if held.get(ident) is run:  # not one that expired and was stored again
                del held[ident]


class Windows:
    """The windows of all topics that were sent to lately."""

    def __init__(self, config: Deduplication) -> None:
        self._config = config
        self._windows: OrderedDict[TopicKey, Window] = OrderedDict()  # the one sent to last comes last

    def __len__(self) -> int:
        return len(self._windows)

    def of(self, topic: TopicKey, now_us: int) -> Window:
        """Return the window of a topic, one that has to be loaded where there is none.

        Lets go of the window that was not used for the longest time, if all in it has expired.
        """
        windows = self._windows
        window = windows.get(topic)
        if window is None:
            window = windows[topic] = Window(self._config.max_entries, self._config.expiry_us)
        else:
            windows.move_to_end(topic)
        idle = next(iter(windows))
        if idle != topic and windows[idle].is_over(now_us):
            del windows[idle]
        return window

    def drop(self, topic: TopicKey) -> None:
        """Forget a topic's window: its messages are gone, or it does not keep one any more."""
        self._windows.pop(topic, None)


async def _newest_of(logs: Mapping[int, Log], since_us: int, ids_max: int, *, persisted: bool) -> list[Run]:
    """Return the runs of a topic's logs from `since_us` on, oldest first, at most as many as hold `ids_max` ids."""
    newest: list[Run] = []
    for log_id, log in logs.items():
        try:
            if persisted:
                await log.flush()
        except Poisoned as error:
            _logger.warning("messages sent again may be stored again, for these may not last: %s", error)
            continue
        recent = await _recent(log_id, log, since_us, ids_max)
        runs = sorted(newest + recent, key=_time_of)
        newest = _tail(runs, ids_max)
        if len(newest) < len(runs):  # then what is older than these is of no use
            since_us = newest[0].time_us
    return newest


def _tail(runs: list[Run], ids_max: int) -> list[Run]:
    """Return the fewest last of `runs` that hold `ids_max` ids; all if they hold fewer."""
    count = 0
    for number, run in enumerate(reversed(runs), 1):
        count += len(run.ids)
        if count >= ids_max:
            return runs[-number:]
    return runs


async def _recent(log_id: int, log: Log, since_us: int, ids_max: int) -> list[Run]:
    """Return the runs of one log from `since_us` on, of its last `ids_max` messages.

    What can't be read is skipped, further each time, with one warning: sends must go on.
    """
    runs: list[Run] = []
    end = log.bounds.next
    offset = await _start(log, since_us, ids_max)
    skip = 1
    while offset < end:
        try:
            chunks = await log.read(offset, LOAD_LIMIT)
        except OffsetGone:
            offset = max(offset + 1, log.bounds.first)
            continue
        except (Corrupt, OSError) as error:
            if skip == 1:
                _logger.warning("messages sent again may be stored again, for some can't be read: %s", error)
            offset, skip = offset + skip, skip * 2
            continue
        if not chunks:
            break
        for chunk in chunks:
            offset = _collect(log_id, chunk, runs)
        await asyncio.sleep(0)
    return runs


async def _start(log: Log, since_us: int, ids_max: int) -> int:
    try:
        return max(log.last(ids_max), await log.offset_at(since_us))
    except (Corrupt, OSError):
        return log.last(ids_max)


def _collect(log_id: int, chunk: memoryview, runs: list[Run]) -> int:
    """Add the runs of consecutive records to `runs`; return the offset after the last."""
    position = offset = 0
    while position < len(chunk):
        header = read_header(chunk, position)
        end = position + header.size
        offset = header.base_offset + header.count
        try:
            ids = tuple(message_ids(chunk[position:end], header.count))
        except BadBatch as error:
            _logger.warning("the ids of messages %d to %d can't be read: %s", header.base_offset, offset - 1, error)
        else:
            runs.append(Run(ids, log_id, header.base_timestamp_us, header.base_offset))
        position = end
    return offset


def _time_of(run: Run) -> int:
    return run.time_us
