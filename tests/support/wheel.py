"""What tests do with the real client, apache-iggy 0.9: connect, send, poll. Every call is bounded in time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import pytest
from apache_iggy import (
    AutoLogin,
    Consumer,
    IggyClient,
    Partitioning,
    PollingStrategy,
    ReceiveMessage,
    SendMessage,
    StreamDetails,
    TcpConfig,
    TcpReconnectionConfig,
    TopicDetails,
)
from pybroker.protocol.errors import Status

T = TypeVar("T")

CALL_TIMEOUT_S = 20.0
WAIT_INTERVAL_S = 0.01
POLL_COUNT = 1000
# Whoever is connected while a server starts again dials it this often, for up to 20 s.
REDIAL_INTERVAL = timedelta(milliseconds=100)
REDIALS_MAX = 200
# The client's default. A group's member learns by it of partitions that it was given, so some tests shorten it.
HEARTBEAT_INTERVAL = timedelta(seconds=5)

# How the wheel words a status. It leaves out, or makes up, the ids and names in them.
ERROR_TEXTS = {
    Status.INVALID_COMMAND: "Invalid command",
    Status.INVALID_FORMAT: "Invalid format",
    Status.UNAUTHORIZED: "Unauthorized",
    Status.INVALID_CREDENTIALS: "Invalid credentials",
    Status.INVALID_USER_STATUS: "Invalid user status",
    Status.USER_ALREADY_EXISTS: "User already exists",
    Status.CANNOT_DELETE_USER: "Cannot delete user with ID: .*",
    Status.CANNOT_CHANGE_PERMISSIONS: "Cannot change permissions for user with ID: .*",
    Status.INVALID_PERSONAL_ACCESS_TOKEN: "Invalid personal access token",
    Status.RESOURCE_NOT_FOUND: "Resource with key: .* was not found",
    Status.STREAM_ID_NOT_FOUND: r"Stream with ID: \w* was not found",
    Status.STREAM_NAME_ALREADY_EXISTS: "Stream with name: .* already exists",
    Status.INVALID_TOPIC_SIZE: "Max topic size cannot be lower than segment size",
    Status.TOPIC_ID_NOT_FOUND: r"Topic with ID: \w* for stream with ID: \w* was not found",
    Status.TOPIC_NAME_ALREADY_EXISTS: "Topic with name: .* already exists",
    Status.TOO_MANY_PARTITIONS: "Too many partitions",
    Status.INVALID_PARTITIONS_COUNT: "Invalid partitions count",
    Status.PARTITION_NOT_FOUND: "Partition with ID: .* was not found",
    Status.CONSUMER_OFFSET_NOT_FOUND: "Consumer offset .* was not found",
    Status.UNSUPPORTED_OPTION_KEY: "Unsupported option key",
    Status.INVALID_OPTION_VALUE: "Invalid option value",
    Status.INVALID_OFFSET: "Invalid offset",
    Status.CANNOT_READ_MESSAGE: "Cannot read message",
    Status.INVALID_MESSAGES_COUNT: "Invalid messages count",
    Status.CONSUMER_GROUP_ID_NOT_FOUND: "Consumer group with ID: .* was not found",
    Status.CONSUMER_GROUP_NAME_ALREADY_EXISTS: "Consumer group with name: .* already exists",
    Status.CONSUMER_GROUP_MEMBER_NOT_FOUND: "Consumer group member .* was not found",
}


async def bounded(call: Awaitable[T], timeout_s: float = CALL_TIMEOUT_S) -> T:
    """Await a call of the wheel. Raises TimeoutError when it hangs."""
    async with asyncio.timeout(timeout_s):  # wait_for of CPython 3.11 may swallow a cancellation
        return await call


async def refused(call: Awaitable[object], status: Status) -> None:
    """Expect a call to fail with `status`."""
    with pytest.raises(RuntimeError, match=ERROR_TEXTS[status]):
        await bounded(call)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = CALL_TIMEOUT_S) -> None:
    """Wait for what the client, or the server, does in the background."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"did not happen in {timeout_s:g} s"
        await asyncio.sleep(WAIT_INTERVAL_S)


def new_client(
    address: str,
    *,
    username: str = "iggy",
    password: str = "iggy",
    redial: bool = True,
    heartbeat_interval: timedelta = HEARTBEAT_INTERVAL,
) -> IggyClient:
    """Return a client that is not connected; redial: it waits for a server that is away."""
    reconnection = TcpReconnectionConfig(
        enabled=redial, max_retries=REDIALS_MAX, interval=REDIAL_INTERVAL, reestablish_after=REDIAL_INTERVAL
    )
    login = AutoLogin.username_password(username, password)
    return IggyClient(
        TcpConfig(
            server_address=address,
            auto_login=login,
            reconnection=reconnection,
            heartbeat_interval=heartbeat_interval,
        )
    )


async def connect(
    address: str,
    *,
    username: str = "iggy",
    password: str = "iggy",
    redial: bool = True,
    heartbeat_interval: timedelta = HEARTBEAT_INTERVAL,
) -> IggyClient:
    """Return a client that is connected and signed in."""
    client = new_client(
        address, username=username, password=password, redial=redial, heartbeat_interval=heartbeat_interval
    )
    await bounded(client.connect())
    return client


async def make_topic(client: IggyClient, stream: str, topic: str = "topic", partitions_count: int = 1) -> None:
    """Create a stream with a topic."""
    await bounded(client.create_stream(stream))
    await bounded(client.create_topic(stream, topic, partitions_count))


async def send(
    client: IggyClient,
    stream: str,
    topic: str,
    messages: Iterable[SendMessage | str | bytes],
    partitioning: Partitioning | int = 0,
) -> int:
    """Send messages in one request; return the offset of the first."""
    batch = [message if isinstance(message, SendMessage) else SendMessage(message) for message in messages]
    response = await bounded(client.send_messages(stream, topic, partitioning, batch))
    (confirmation,) = response.confirmations
    return confirmation.base_offset


async def poll(
    client: IggyClient,
    stream: str,
    topic: str,
    strategy: PollingStrategy | None = None,
    *,
    count: int = POLL_COUNT,
    partition_id: int | None = 0,
    consumer: Consumer | None = None,
    auto_commit: bool = False,
) -> list[ReceiveMessage]:
    """Poll once: from the first message, as the single consumer 0, unless told otherwise."""
    return await bounded(
        client.poll_messages(
            stream,
            topic,
            consumer=consumer or Consumer.Single(0),
            polling_strategy=strategy or PollingStrategy.First(),
            count=count,
            auto_commit=auto_commit,
            partition_id=partition_id,
        )
    )


async def read_all(client: IggyClient, stream: str, topic: str, partition_id: int = 0) -> list[ReceiveMessage]:
    """Poll a partition from its first message to its end."""
    messages = await poll(client, stream, topic, partition_id=partition_id)
    while messages:
        after = PollingStrategy.Offset(messages[-1].offset() + 1)
        more = await poll(client, stream, topic, after, partition_id=partition_id)
        if not more:
            break
        messages += more
    return messages


async def topic_of(client: IggyClient, stream: str, topic: str | int = "topic") -> TopicDetails:
    details = await bounded(client.get_topic(stream, topic))
    assert details is not None
    return details


async def stream_of(client: IggyClient, stream: str | int) -> StreamDetails:
    details = await bounded(client.get_stream(stream))
    assert details is not None
    return details


def offsets_of(messages: Sequence[ReceiveMessage]) -> list[int]:
    return [message.offset() for message in messages]


def texts_of(messages: Sequence[ReceiveMessage]) -> list[str]:
    return [message.payload().decode() for message in messages]
