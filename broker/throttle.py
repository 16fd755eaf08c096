"""Slows guessing down: after some failed logins from one address, its next ones wait, each time longer.

Other addresses notice nothing: an address tries only so many passwords at once, however many connections it has, so
it can't queue up the hashing that everybody needs. A login that succeeds, or a while without failures, and all is
forgotten. What is remembered is bounded; who failed last is remembered longest.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_network

from ..protocol.errors import Refused
from ..storage.engine import Clock

FREE_FAILURES = 5
DELAYS_S = (0.5, 1.0, 2.0, 4.0)  # before each further try; the last one stays. Clients give up after 30 s.
FORGET_AFTER_US = 60_000_000
TRIES_AT_ONCE = 5
ADDRESSES_MAX = 10_000
_IPV6_NETWORK_BITS = 64  # what one host commonly has to choose its addresses from

Sleep = Callable[[float], Awaitable[None]]


class _Tries:
    """What is known of one address. users: tries that go on or wait."""

    def __init__(self) -> None:
        self.failures = 0
        self.failed_at_us = 0
        self.users = 0
        self.turns = asyncio.Semaphore(TRIES_AT_ONCE)

    def delay_s(self, now_us: int) -> float:
        if now_us - self.failed_at_us > FORGET_AFTER_US:
            self.failures = 0
        waits = self.failures - FREE_FAILURES
        return DELAYS_S[min(waits, len(DELAYS_S) - 1)] if waits >= 0 else 0.0


class Throttle:
    """The addresses that are trying, or failed lately."""

    def __init__(self, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._tries: dict[str, _Tries] = {}

    def __len__(self) -> int:
        return len(self._tries)

    @asynccontextmanager
    async def turn(self, peer: str) -> AsyncGenerator[None]:
        """Wait until a peer may try; Refused, raised inside, is a failure. peer: "ip:port"."""
        address = address_of(peer)
        tries = self._tries.setdefault(address, _Tries())
        tries.users += 1
        try:
            async with tries.turns:
                if delay_s := tries.delay_s(self._clock()):
                    await self._sleep(delay_s)
                try:
                    yield
                except Refused:
                    self._failed(address, tries)
                    raise
                tries.failures = 0
        finally:
            tries.users -= 1
            if not (tries.users or tries.failures) and self._tries.get(address) is tries:
                del self._tries[address]

    def _failed(self, address: str, tries: _Tries) -> None:
        tries.failures += 1
        tries.failed_at_us = self._clock()
        self._tries.pop(address, None)
        self._tries[address] = tries
        while len(self._tries) > ADDRESSES_MAX:
            del self._tries[next(iter(self._tries))]


def address_of(peer: str) -> str:
    """Return what a peer counts under: its IPv4 address, or its IPv6 network."""
    host = peer.rpartition(":")[0].strip("[]").partition("%")[0]
    if ":" not in host:
        return host
    mapped = IPv6Address(host).ipv4_mapped
    return str(mapped or ip_network((host, _IPV6_NETWORK_BITS), strict=False))
