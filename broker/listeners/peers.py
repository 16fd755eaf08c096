"""Everyone who is connected, whichever listener took them: each one's wire, its task, and what it may hold."""

import asyncio
import logging
import os
from collections.abc import Callable

import msgspec

from ...protocol.classic.wire import ClassicWire
from ...protocol.detect import Detector, Generation
from ...protocol.inbox import Inbox, Pool
from ...protocol.primitives import Transport
from ...protocol.vsr.session import VsrSession
from ...protocol.vsr.wire import VsrWire
from ...protocol.wire import Wire
from ..busypoll import BusyPoll
from ..connection import Channel, Connection, Frame, Limits
from ..dispatch import Dispatch
from ..session import Clients

log = logging.getLogger(__name__)

AUTO = "auto"
CHECK_INTERVAL_S = 1.0


class Room(msgspec.Struct):
    """How many connections there may be, whoever serves them, and how many there are."""

    connections_max: int
    taken: int = 0

    def enter(self, address: str) -> bool:
        """Count a connection; say, also in the log, whether it is one too many. It leaves in either case."""
        self.taken += 1
        if self.taken > self.connections_max:
            log.warning("closed %s: %d connections are open already", address, self.connections_max)
        return self.taken <= self.connections_max

    def leave(self) -> None:
        self.taken -= 1


class Peers:
    """The connections of all listeners but HTTP's. room: what they share with those."""

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        clients: Clients,
        pool: Pool,
        limits: Limits,
        connections_max: int,
        busy_poll_s: float = 0.0,
    ) -> None:
        """busy_poll_s: how long to look for the next request before the loop goes to sleep."""
        self.limits = limits
        self._busy_poll = BusyPoll(busy_poll_s) if busy_poll_s else None
        self._dispatch = dispatch
        self._clients = clients
        self._pool = pool
        self.room = Room(connections_max)
        self._wires: dict[Generation, Callable[[Inbox], Wire]] = {
            Generation.CLASSIC: self._classic,
            Generation.VSR: self._vsr,
        }
        self._tasks: dict[asyncio.Task[None], Connection] = {}
        self._checker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def connect(
        self, channel: Channel, transport: Transport, address: str, wire: str = AUTO, *, frame: Frame | None = None
    ) -> Connection:
        """Begin to serve a peer.

        wire: the name of the generation to take, or AUTO for whichever it speaks.
        frame: what puts an answer into a message of the transport, if it has such.
        """
        loop = asyncio.get_running_loop()
        if self._checker is None:
            self._checker = loop.create_task(self._check(), name="peers")
        session = self._clients.connect(transport, address)
        wires = self._wires if wire == AUTO else {Generation(wire): self._wires[Generation(wire)]}

        def choose(chosen: Wire) -> None:
            connection.wire = chosen

        size_max = self.limits.frame_size_max_before_login
        detector = Detector(Inbox(self._pool), wires, choose, frame_size_max=size_max)
        connection = Connection(
            wire=detector,
            session=session,
            channel=channel,
            dispatch=self._dispatch,
            limits=self.limits,
            frame=frame,
            busy_poll=self._busy_poll,
        )
        task = loop.create_task(connection.run())
        self._tasks[task] = connection
        task.add_done_callback(self._left)
        if not self.room.enter(address):
            channel.abort()
        return connection

    async def close(self, timeout_s: float) -> None:
        """Answer what has arrived, and abort what is not done in time. The listeners take nobody any more."""
        if self._checker is not None:
            self._checker.cancel()
            await asyncio.wait([self._checker])
        for connection in self._tasks.values():
            connection.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _left(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self.room.leave()

    def _classic(self, inbox: Inbox) -> Wire:
        size_max = self.limits.frame_size_max_before_login
        return ClassicWire(inbox, frame_size_max=size_max, random_bytes=os.urandom)

    def _vsr(self, inbox: Inbox) -> Wire:
        return VsrWire(VsrSession(), inbox, frame_size_max=self.limits.frame_size_max_before_login)

    async def _check(self) -> None:
        """Look for stalled peers, all at once: a timer each would cost every request."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            for connection in list(self._tasks.values()):
                connection.check(CHECK_INTERVAL_S)
