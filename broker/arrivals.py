"""Who waits for what comes into a topic: readers that are told at once, and do not ask again and again.

A send tells them; it costs a look into a dict where nobody waits. What a reader is told is kept until it looks, so
nothing that comes while it is at work goes past it.
"""

import asyncio

TopicKey = tuple[int, int]  # stream id, topic id


class Waiter:
    """What one reader of a topic has been told since it last looked.

    is_changed: the topic, or what the reader has of it, may not be what it was.
    """

    def __init__(self, topic: TopicKey) -> None:
        self.topic = topic
        self.is_changed = False
        self._partitions: dict[int, None] = {}
        self._told = asyncio.Event()

    def note(self, partition_id: int) -> None:
        """Tell it of messages in a partition."""
        self._partitions[partition_id] = None
        self._told.set()

    def wake(self) -> None:
        """Tell it to look at everything anew."""
        self.is_changed = True
        self._told.set()

    def take(self) -> int | None:
        """Return the partition that it was told of first and has not looked at, None when there is none."""
        for partition_id in self._partitions:
            del self._partitions[partition_id]
            return partition_id
        return None

    async def wait(self, timeout_s: float) -> bool:
        """Return once there is something to look at, or after `timeout_s` with False."""
        if not self._partitions and not self.is_changed:
            self._told.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._told.wait()
            except TimeoutError:
                return False
        return True


class Arrivals:
    """The readers that wait, by topic."""

    def __init__(self) -> None:
        self._waiters: dict[TopicKey, list[Waiter]] = {}

    def join(self, topic: TopicKey) -> Waiter:
        """Tell a reader of a topic's messages from now on, until it leaves."""
        waiter = Waiter(topic)
        self._waiters.setdefault(topic, []).append(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        others = self._waiters[waiter.topic]
        others.remove(waiter)
        if not others:
            del self._waiters[waiter.topic]

    def note(self, topic: TopicKey, partition_id: int) -> None:
        """Tell of messages that can be read now."""
        if topic in self._waiters:
            for waiter in self._waiters[topic]:
                waiter.note(partition_id)

    def wake(self, topic: TopicKey) -> None:
        """Tell that partitions or groups of a topic are gone, or all of it."""
        for waiter in self._waiters.get(topic, ()):
            waiter.wake()
