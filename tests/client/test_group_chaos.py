"""Members that join, leave, die and lose their connections at random: no message is left out."""

import asyncio
from random import Random

import pytest
from pybroker.client.commits import Commit
from support.broker import Broker
from support.crew import PARTITIONS_COUNT, SAFE, Crew
from support.relay import STORE_OFFSET, Relay, relay_to

STEPS = 30
MEMBERS_MAX = 4
PAUSES_S = (0, 0.001, 0.005, 0.02)


class Chaos:
    """What may happen in a step; commit: of all members."""

    def __init__(self, random: Random, broker: Broker, crew: Crew, relay: Relay) -> None:
        self._random = random
        self._broker = broker
        self._crew = crew
        self._relay = relay
        self._commit: Commit = random.choice(SAFE)

    async def step(self) -> None:
        await self._crew.send(5)
        acts = (self.hire, self.hire, self.stop, self.die, self.cut, self.cut, self.lose_answer, self.hand_over)
        await self._random.choice(acts)()
        await asyncio.sleep(self._random.choice(PAUSES_S))

    async def hire(self) -> None:
        if len(self._crew.at_work) < MEMBERS_MAX:
            await self._crew.hire(self._commit, address=self._random.choice(("", self._relay.address)))

    async def stop(self) -> None:
        if members := self._crew.at_work:
            await self._random.choice(members).stop()

    async def die(self) -> None:
        if members := self._crew.at_work:
            await self._random.choice(members).die()

    async def cut(self) -> None:
        self._relay.cut()

    async def lose_answer(self) -> None:
        self._relay.lose_answers(STORE_OFFSET, self._random.choice((1, 2)))

    async def hand_over(self) -> None:
        """As if members had been waited for too long."""
        self._broker.state.groups.wait(1, 0)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_to_members_every_message_is_handled(broker: Broker, address: str, seed: int) -> None:
    await broker.create_topic(PARTITIONS_COUNT)
    crew = Crew(broker, address)
    async with relay_to(address) as relay:
        chaos = Chaos(Random(seed), broker, crew, relay)
        for _ in range(STEPS):
            await chaos.step()
        await crew.hire()
        await crew.finish()
        for worker in crew.at_work:
            await worker.stop()
