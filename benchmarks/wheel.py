"""One wheel of Iggy's Python client under load. Run by `generations.py` with the Python of an environment that has it.

    python wheel.py ADDRESS TOPIC COUNT PAYLOAD_SIZE REQUESTS

Each line on standard input, "send" or "poll", is a load of so many requests in lock-step; the seconds that it took are
printed. A poll reads from the start what was sent. Imports nothing of ours: it runs where pybroker is not installed.
"""

import asyncio
import importlib
import os
import sys
import time
from typing import Any

iggy: Any = importlib.import_module("apache_iggy")  # untyped: the type hints are those of one generation
STREAM = "bench"


async def send(client: Any, topic: str, count: int, payload: bytes, requests: int) -> None:
    for _ in range(requests):
        await client.send_messages(STREAM, topic, 0, [iggy.SendMessage(payload) for _ in range(count)])


async def poll(client: Any, topic: str, count: int, requests: int) -> None:
    fixed = {"partition_id": 0, "count": count, "auto_commit": False}
    if hasattr(iggy, "Consumer"):  # the older are consumer 0 always
        fixed["consumer"] = iggy.Consumer.Single(0)
    for request in range(requests):
        strategy = iggy.PollingStrategy.Offset(value=request * count)
        messages = await client.poll_messages(STREAM, topic, polling_strategy=strategy, **fixed)
        if len(messages) != count:
            raise RuntimeError(f"asked for {count} messages, got {len(messages)}")


async def main() -> None:
    address, topic, *numbers = sys.argv[1:]
    count, size, requests = map(int, numbers)
    client = iggy.IggyClient.from_connection_string(f"iggy+tcp://iggy:iggy@{address}")
    await client.connect()
    payload = os.urandom(size)
    for line in sys.stdin:
        begun = time.perf_counter()
        if line.strip() == "send":
            await send(client, topic, count, payload, requests)
        else:
            await poll(client, topic, count, requests)
        print(time.perf_counter() - begun, flush=True)


asyncio.run(main())
os._exit(0)  # the client may crash in the interpreter's clean-up
