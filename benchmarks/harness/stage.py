"""The server of a run, and what has to be there before it begins."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Collection, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
from msgspec import Struct
from msgspec.structs import replace

from ...broker.tls import self_signed
from ...client import Client
from .. import servers
from .crew import BenchError
from .params import APART, QUIC, Params
from .plan import TOPIC, Plan
from .watch import Metrics, Watch


class Server(Struct, frozen=True):
    """params: of the run, with what this server needs of its clients. http_address: None where it is not known."""

    address: str
    params: Params
    is_own: bool = False
    http_address: str | None = None

    @property
    def url(self) -> str:
        return self.params.url(self.address)


@contextmanager
def server(params: Params) -> Generator[Server]:
    """Yield the server that was named, or one of our own on a temporary directory."""
    if params.server_address is not None:
        yield Server(params.server_address, params)
        return
    with tempfile.TemporaryDirectory(prefix="pybroker-bench-") as name:
        folder, settings = Path(name, "data"), dict[str, str]()
        if params.tls:
            certificate = Path(name, "server.pem")
            certificate.write_bytes(self_signed("127.0.0.1"))
            settings = servers.tls_settings(certificate)
            params = replace(params, tls_ca_file=str(certificate), tls_domain="localhost")
        elif params.transport == QUIC:
            params = replace(params, tls_validate_certificate=False)
        with _started(folder, settings, params.cores) as process:
            addresses = servers.addresses_of(process, folder)
            yield Server(addresses[params.transport], params, True, None if params.tls else addresses["http"])


@contextmanager
def _started(folder: Path, settings: dict[str, str], cores: str) -> Generator[subprocess.Popen[bytes]]:
    """Run a broker: with cores apart on the first one, and this process and its children on the others."""
    usable = os.sched_getaffinity(0)
    if cores == APART:
        os.sched_setaffinity(0, {min(usable)})
    try:
        with servers.broker_process(folder, settings) as process:
            if cores == APART:
                os.sched_setaffinity(0, usable - {min(usable)})
            yield process
    finally:
        os.sched_setaffinity(0, usable)


async def prepare(client: Client, plan: Plan, params: Params) -> None:
    """Make the streams of a run anew, or see that they are there. Raises BenchError."""
    for stream in plan.streams:
        if params.reuse_streams:
            await _check(client, stream, params)
            continue
        if await client.get_stream(stream) is not None:
            await client.delete_stream(stream)
        await client.create_stream(stream)
        await _create_topic(client, stream, params)
    for group in plan.groups:
        if params.reuse_streams and await client.get_group(plan.streams[0], TOPIC, group) is not None:
            await client.delete_group(plan.streams[0], TOPIC, group)
        await client.create_group(plan.streams[0], TOPIC, group)


async def stored(client: Client, streams: Collection[str]) -> dict[str, list[int]]:
    """Return how many messages each partition of each stream's topic holds."""
    counts: dict[str, list[int]] = {}
    for stream in streams:
        details = await client.get_topic(stream, TOPIC)
        if details is None:
            raise BenchError(f"{stream} was deleted while it was in use")
        counts[stream] = [partition.messages_count for partition in details.partitions]
    return counts


async def watch(client: Client, server: Server) -> Watch:
    """Watch a server. Raises BenchError where it is not on this machine."""
    stats = await client.get_stats()
    is_here = stats.hostname == socket.gethostname() or server.address.startswith(("127.", "localhost", "[::1]"))
    if not is_here or not psutil.pid_exists(stats.process_id):
        raise BenchError(f"--server-stats: {server.address} is no server on this machine, leave the option out")
    who = server.params.username, server.params.password
    metrics = None if server.http_address is None else Metrics(server.http_address, *who)
    return Watch(psutil.Process(stats.process_id), metrics)


async def _check(client: Client, stream: str, params: Params) -> None:
    found = await client.get_stream(stream)
    details = await client.get_topic(stream, TOPIC) if found is not None else None
    if details is None or len(details.partitions) < (params.partitions or 1):
        raise BenchError(
            f"--reuse-streams: no {stream} with a {TOPIC} of {params.partitions} partitions; fill it first, "
            "with one of the producer kinds"
        )


async def _create_topic(client: Client, stream: str, params: Params) -> None:
    expiry_us = params.message_expiry_us
    await client.create_topic(
        stream,
        TOPIC,
        params.partitions or 1,
        expiry=None if expiry_us is None else timedelta(microseconds=expiry_us),
        size_max=params.max_topic_size,
        durability="persisted" if params.durability == "persisted" else None,
    )
