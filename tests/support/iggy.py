"""Apache Iggy's own server for tests, where the environment variable PYBROKER_IGGY_SERVER names its program.

It is built of github.com/apache/iggy: `cargo build --release -p server --bin iggy-server`.
"""

import os
from pathlib import Path

import pytest
from pybroker.client import Client

from .server import Server

PROGRAM = "PYBROKER_IGGY_SERVER"
PYBROKER, IGGY = "pybroker", "iggy"
PARTITIONS_COUNT = 3  # of the topics of these tests
# One shard, on whichever core is free; its HTTP port can't be looked up, and nobody asks there.
SETTINGS = {
    "IGGY_HTTP_ENABLED": "false",
    "IGGY_SYSTEM_SHARDING_CPU_ALLOCATION": "1",
    "IGGY_SYSTEM_SHARDING_PIN_CORES": "false",
    "IGGY_SYSTEM_MEMORY_POOL_SIZE": "512 MiB",
    "IGGY_SYSTEM_LOGGING_FILE_ENABLED": "false",
}


class IggyServer(Server):
    """Apache Iggy's server, told what pybroker is told."""

    def __init__(self, path: Path, *, port: int) -> None:
        super().__init__(path, settings=SETTINGS, port=port)

    def command(self) -> list[str]:
        return [os.environ[PROGRAM], *self._arguments]


def server_of(kind: str, path: Path, *, port: int = 0) -> Server:
    """Return a server that is not started. Skips the test where there is no such program."""
    if kind == PYBROKER:
        return Server(path, port=port)
    if PROGRAM not in os.environ:
        pytest.skip(f"no Iggy server: name its program in {PROGRAM}")
    return IggyServer(path, port=port)


async def persisted(client: Client) -> dict[str, str | int]:
    """Return the options that have a topic's sends answered when they are on disk."""
    known = {option.key for option in await client.describe_options()}
    if "durability" in known:
        return {"durability": "persisted"}
    return {"enforce_fsync": True, "messages_required_to_save": 1}  # Iggy's builds before 0.9.0
