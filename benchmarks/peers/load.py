"""The process that loads one peer through its client. Run by `generator`.

    python -m pybroker.benchmarks.peers.load MODULE CLASS ADDRESS

Each line on standard input is a job, in JSON; what it took is printed as JSON. The first line printed says which server
and client these are.
"""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence

import msgspec
import uvloop

from .driver import Driver
from .jobs import Done, Job

JOB_TIMEOUT_S = 300


async def create(drivers: Sequence[Driver], job: Job) -> None:
    await drivers[0].create(job.topic)


async def delete(drivers: Sequence[Driver], job: Job) -> None:
    await drivers[0].delete(job.topic)


async def send(drivers: Sequence[Driver], job: Job) -> None:
    """Send the messages through all connections at once, each with one batch on its way."""
    payloads = [os.urandom(job.size)] * job.batch
    batches = job.messages // job.batch // len(drivers)

    async def one(driver: Driver) -> None:
        for _ in range(batches):
            await driver.send(job.topic, payloads)

    async with asyncio.TaskGroup() as tasks:
        for driver in drivers:
            tasks.create_task(one(driver))


async def receive(drivers: Sequence[Driver], job: Job) -> None:
    """Read what was sent. Raises RuntimeError when that is less than what is asked for, or of another size."""
    driver, left = drivers[0], job.messages
    await driver.subscribe(job.topic, count=job.batch)
    while left:
        payloads = await driver.receive(min(job.batch, left))
        if not payloads or any(len(payload) != job.size for payload in payloads):
            raise RuntimeError(f"expected {left} more messages of {job.size} bytes, got {len(payloads)} others")
        left -= len(payloads)
    await driver.unsubscribe()


KINDS: dict[str, Callable[[Sequence[Driver], Job], Coroutine[None, None, None]]] = {
    "create": create,
    "send": send,
    "receive": receive,
    "delete": delete,
}


async def work(drivers: list[Driver], make: Callable[[], Driver], job: Job) -> Done:
    """Do a job; opening the connections it needs is not counted."""
    while len(drivers) < job.connections:
        drivers.append(make())
        await drivers[-1].open()
    begun = time.perf_counter()
    await KINDS[job.kind](drivers[: job.connections], job)
    return Done(time.perf_counter() - begun)


async def main() -> None:
    module, name, address = sys.argv[1:]
    driver_class: type[Driver] = getattr(importlib.import_module(f".{module}", __package__), name)
    drivers = [driver_class(address)]
    await drivers[0].open()
    print(await drivers[0].versions(), flush=True)
    # In a thread: between jobs the clients' heartbeats go on.
    while line := await asyncio.to_thread(sys.stdin.readline):
        async with asyncio.timeout(JOB_TIMEOUT_S):
            done = await work(drivers, lambda: driver_class(address), msgspec.json.decode(line, type=Job))
        print(msgspec.json.encode(done).decode(), flush=True)
    for driver in drivers:
        await driver.close()


if __name__ == "__main__":
    uvloop.run(main())
    os._exit(0)  # the Iggy client may crash in the interpreter's clean-up
