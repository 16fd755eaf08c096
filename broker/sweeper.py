"""What waits too long: members of groups that fell silent, and partitions whose owner does not commit.

It is looked at once a second: a timer each would cost every request. Time counts in these looks, so that a stall of
the broker is not held against its clients.
"""

import asyncio
import logging

from .session import Session
from .state import State

log = logging.getLogger(__name__)

SWEEP_INTERVAL_US = 1_000_000
# How many intervals of heartbeats a member may let pass.
SILENT_INTERVALS_MAX = 1.2


class Sweeper:
    def __init__(self, state: State) -> None:
        self._state = state

    async def run(self) -> None:
        """Sweep until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SWEEP_INTERVAL_US / 1e6
            await asyncio.sleep(SWEEP_INTERVAL_US / 1e6)
            self._state.counters.loop_delays.note(max(loop.time() - due, 0.0))
            try:
                self.sweep(SWEEP_INTERVAL_US)
            except Exception:
                log.exception("looking for silent group members failed, it goes on; this is a bug in pybroker")

    def sweep(self, elapsed_us: int) -> None:
        """Let time pass: evict who has been silent for too long, hand over what has waited for too long."""
        config = self._state.config
        if config.heartbeat.enabled:
            silent_us_max = int(config.heartbeat.interval_us * SILENT_INTERVALS_MAX)
            for session in self._members():
                session.silent_us = 0 if session.is_heard else session.silent_us + elapsed_us
                session.is_heard = False
                if session.silent_us > silent_us_max:
                    self._evict(session)
        self._state.groups.wait(elapsed_us, config.consumer_group.rebalancing_timeout_us)

    def _members(self) -> list[Session]:
        """Return who is in a group. Anyone else may be silent."""
        found = map(self._state.clients.find, self._state.groups.everyone())
        return [session for session in found if session is not None]

    def _evict(self, session: Session) -> None:
        log.warning(
            "%s was silent for %g s: it is no member of its groups any more", session.address, session.silent_us / 1e6
        )
        self._state.groups.leave_all(session.client_id)
        session.is_stale = True
