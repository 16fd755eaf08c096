"""Deletes what topics need not keep: messages past their expiry, and the oldest of a topic that grew too large.

Rules: whole sealed segments go, oldest first, never the one that is appended to. A message's age counts from its
record's base timestamp. No consumer holds anything up: one whose offset is gone goes on at the first there is.
With an archive, nothing goes that it has not taken.

A pass waits often, and partitions come and go meanwhile. It holds on to their logs and looks at each anew after a
wait: a log that was purged or deleted has no segments any more, so nothing is left to do in it.
"""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Awaitable, Iterable
from typing import Protocol
from urllib.parse import quote

import msgspec

from ..storage.engine import Log
from ..storage.errors import Corrupt, Full, Poisoned
from .catalog import Stream, Topic
from .state import State

log = logging.getLogger(__name__)

COMPONENT_SIZE_MAX = 255  # what file systems allow


class Archive(Protocol):
    """Takes segments before they are deleted."""

    async def keep(self, name: str, data: memoryview) -> None:
        """Return when `data` is safe under `name`, a path of components; a name that comes again has the same bytes.

        Raises OSError that says what could not be written where.
        """
        ...


class _Part(msgspec.Struct):
    """A partition in one pass.

    name: what it is called in the log and, with its log id, in the archive.
    started_at_us: when its first message came; None until it is looked up.
    segments, size: how much was deleted.
    """

    name: str
    log_id: int
    log: Log
    started_at_us: int | None = None
    segments: int = 0
    size: int = 0

    @property
    def has_sealed(self) -> bool:
        return self.log.bounds.segments > 1

    async def trim(self, before: int) -> None:
        cuts, size = self.log.cuts(), self.log.bounds.size
        await self.log.trim(before)
        self.segments += bisect_left(cuts, self.log.bounds.first)
        self.size += max(size - self.log.bounds.size, 0)  # less what was appended meanwhile

    async def look_up_start(self) -> None:
        await asyncio.sleep(0)  # the first look at a segment reads the disk: let others come in between
        self.started_at_us = await self.log.started_at() if self.has_sealed else None


class Retention:
    """The cleaner of a broker's topics. archive: what takes the segments that go."""

    def __init__(self, state: State, archive: Archive | None = None) -> None:
        self._state = state
        self._archive = archive

    async def run(self) -> None:
        """Clean at every interval, until cancelled."""
        interval_s = self._state.config.data_maintenance.messages.interval_us / 1e6
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.clean()
            except Exception:
                log.exception("retention failed, it goes on in %g s; this is a bug in pybroker", interval_s)

    async def clean(self) -> None:
        """Make one pass over all topics. What can't be deleted is logged and left to a later pass."""
        for stream in self._state.catalog.streams:
            for topic in stream.topics:
                await asyncio.sleep(0)  # a pass over all topics would be a long turn of the loop
                # Others were waited for: this one may be gone.
                if self._state.catalog.streams.find(stream.id) is stream and stream.topics.find(topic.id) is topic:
                    await self._clean_topic(stream, topic)

    async def _clean_topic(self, stream: Stream, topic: Topic) -> None:
        name = f"{component(stream.name)}/{component(topic.name)}"
        parts = [_Part(f"{name}/{each.id}", each.log_id, self._state.logs.of(each)) for each in topic.partitions]
        horizon_us = self._state.clock() - topic.settings.message_expiry_us
        size_max = topic.settings.max_topic_size
        if horizon_us > 0:
            for part in parts:
                if part.has_sealed:
                    await self._tried(part, self._expire(part, horizon_us))
        if _size_of(parts) > size_max:
            await self._shrink(parts, size_max)
        if segments := sum(part.segments for part in parts):
            size = sum(part.size for part in parts)
            log.info("retention deleted %d segments, %d bytes, of topic %s", segments, size, name)

    async def _expire(self, part: _Part, horizon_us: int) -> None:
        """Delete the segments whose messages all came before `horizon_us`."""
        await asyncio.sleep(0)
        await self._remove(part, await part.log.offset_at(horizon_us))

    async def _shrink(self, parts: list[_Part], size_max: int) -> None:
        """Delete the oldest segment of all, one after the other, until the rest has at most `size_max` bytes.

        A partition that fails steps out with its size: the others don't pay for what can't be deleted.
        """
        parts = [part for part in parts if await self._tried(part, part.look_up_start())]
        for _ in range(sum(part.log.bounds.segments for part in parts)):
            sealed = [part for part in parts if part.started_at_us is not None and part.has_sealed]
            if not sealed or _size_of(parts) <= size_max:
                return
            oldest = min(sealed, key=lambda part: part.started_at_us or 0)
            if not await self._tried(oldest, self._remove_first(oldest)):
                parts.remove(oldest)

    async def _remove_first(self, part: _Part) -> None:
        await self._remove(part, part.log.cuts()[1])
        await part.look_up_start()

    async def _remove(self, part: _Part, before: int) -> None:
        """Delete the sealed segments that hold only offsets < `before`, the archive first."""
        if self._archive is None:
            await part.trim(before)
            return
        while len(cuts := part.log.cuts()) > 1 and cuts[1] <= before:
            base, end = cuts[:2]
            name = f"{part.name}/{part.log_id:020}/{base:020}.log"
            await self._archive.keep(name, part.log.stored(base))
            await part.trim(end)

    async def _tried(self, part: _Part, work: Awaitable[None]) -> bool:
        """Do some work on a partition; return whether it could be done."""
        try:
            await work
        except Exception as error:
            if part.log.bounds.segments:  # else it was deleted meanwhile, and its files with it
                _report(part.name, error)
            return False
        return True


def _report(name: str, error: Exception) -> None:
    if isinstance(error, OSError | Corrupt | Full | Poisoned):
        log.warning("can't delete old segments of partition %s, a later pass tries again: %s", name, error)
    else:
        log.error("retention of partition %s failed; this is a bug in pybroker", name, exc_info=error)


def component(name: str) -> str:
    """Return `name` as one component of a path: percent-encoded, and cut where no file name could be so long."""
    encoded = name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")
    return encoded[:COMPONENT_SIZE_MAX]


def _size_of(parts: Iterable[_Part]) -> int:
    return sum(part.log.bounds.size for part in parts)
