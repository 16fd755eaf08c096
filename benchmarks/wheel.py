"""One wheel of Iggy's Python client under load. Run by `clients.py` with the Python of an environment that has it.

    python wheel.py URL TOPIC COUNT PAYLOAD_SIZE REQUESTS

URL says the transport: iggy+tcp://USER:PASSWORD@HOST:PORT, and so on; https://USER:PASSWORD@HOST:PORT too, which the
client itself has no connection string for. The topic is made first.

Each line on standard input, "send" or "poll", is a load of so many requests in lock-step; the seconds that each of them
took are printed as JSON. A poll reads from the start what was sent. Imports nothing of ours: it runs where pybroker is
not installed.
"""

import asyncio
import contextlib
import importlib
import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlsplit

iggy: Any = importlib.import_module("apache_iggy")  # untyped: the type hints are those of one generation
STREAM = "bench"


async def connected(url: str) -> Any:
    parts = urlsplit(url)
    if parts.scheme == "https":
        client = iggy.IggyClient(iggy.HttpConfig(api_url=f"https://{parts.netloc.rpartition('@')[2]}"))
    else:
        client = iggy.IggyClient.from_connection_string(url)
    await client.connect()
    if "http" in parts.scheme:  # it connects without signing in
        await client.login_user(parts.username, parts.password)
    return client


async def send(client: Any, topic: str, count: int, payload: bytes, requests: int) -> list[float]:
    seconds: list[float] = []
    for _ in range(requests):
        begun = time.perf_counter()
        await client.send_messages(STREAM, topic, 0, [iggy.SendMessage(payload) for _ in range(count)])
        seconds.append(time.perf_counter() - begun)
    return seconds


async def poll(client: Any, topic: str, count: int, requests: int) -> list[float]:
    fixed = {"partition_id": 0, "count": count, "auto_commit": False}
    if hasattr(iggy, "Consumer"):  # the older are consumer 0 always
        fixed["consumer"] = iggy.Consumer.Single(0)
    seconds: list[float] = []
    for request in range(requests):
        strategy = iggy.PollingStrategy.Offset(value=request * count)
        begun = time.perf_counter()
        messages = await client.poll_messages(STREAM, topic, polling_strategy=strategy, **fixed)
        seconds.append(time.perf_counter() - begun)
        if len(messages) != count:
            raise RuntimeError(f"asked for {count} messages, got {len(messages)}")
    return seconds


async def main() -> None:
    url, topic, *numbers = sys.argv[1:]
    count, size, requests = map(int, numbers)
    client = await connected(url)
    with contextlib.suppress(RuntimeError):  # another client has made it
        await client.create_stream(STREAM)
    await client.create_topic(STREAM, topic, 1)
    payload = os.urandom(size)
    for line in sys.stdin:
        if line.strip() == "send":
            seconds = await send(client, topic, count, payload, requests)
        else:
            seconds = await poll(client, topic, count, requests)
        print(json.dumps(seconds), flush=True)


asyncio.run(main())
os._exit(0)  # the client may crash in the interpreter's clean-up
