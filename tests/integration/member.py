"""A member of a consumer group in a process of its own, which dies without a word.

Arguments: address, stream, topic, group, how many messages to handle. Prints "partition offset text" for each
message that it handled, and ends in the middle of the next.
"""

import asyncio
import os
import sys
from datetime import timedelta

from apache_iggy import AutoCommit, AutoCommitAfter, AutoLogin, IggyClient, ReceiveMessage, TcpConfig

BATCH_LENGTH = 10


async def consume(address: str, stream: str, topic: str, group: str, count: int) -> None:
    login = AutoLogin.username_password("iggy", "iggy")
    client = IggyClient(TcpConfig(server_address=address, auto_login=login))
    await client.connect()
    consumer = await client.consumer_group(
        group,
        stream,
        topic,
        batch_length=BATCH_LENGTH,
        auto_commit=AutoCommit.After(AutoCommitAfter.ConsumingEachMessage()),
        poll_interval=timedelta(milliseconds=5),
    )
    print("joined", flush=True)  # noqa: T201
    handled = 0

    async def handle(message: ReceiveMessage) -> None:
        nonlocal handled
        if handled == count:
            os._exit(0)  # as a crash does: nothing is closed, nothing is said
        handled += 1
        print(message.partition_id(), message.offset(), message.payload().decode(), flush=True)  # noqa: T201

    await consumer.consume_messages(handle, asyncio.Event())


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
