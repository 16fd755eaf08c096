"""Who the peers are: what each needs, how it is started, and when it answers a send."""

import importlib.util
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from msgspec import Struct

from . import servers
from .servers import Server

Serve = Callable[[Path], AbstractContextManager[Server]]

WRITTEN, PERSISTED = OWN = ("pybroker", "pybroker persisted")  # by our client, at both durabilities
WRITTEN_1_S = "written; fsync each second"
FSYNC = "fsync"


class Needs(Struct, frozen=True):
    """What has to be installed: Python modules, all in the extra `peers`, and a program that Debian has."""

    modules: tuple[str, ...] = ()
    program: str = ""

    def missing(self) -> str:
        """Say how to install what is missing; nothing if all is there."""
        commands: list[str] = []
        if self.program and shutil.which(self.program) is None:
            commands.append(f"apt-get install {Path(self.program).name}")
        if any(importlib.util.find_spec(module) is None for module in self.modules):
            commands.append("pip install 'pybroker[peers]'")
        return "; ".join(commands)


class Peer(Struct, frozen=True):
    """A server by one of its clients.

    serve: starts the server; peers with the same one share it. protocol: whose address, of the server's, the driver is
    given. driver: module and class. answered: what has happened to a message that is confirmed. base: the peer that it
    is compared with, which promises what it does.
    """

    serve: Serve
    protocol: str
    driver: str
    answered: str
    base: str
    needs: Needs = Needs()


_redis_everysec = partial(servers.redis, appendfsync="everysec")
_redis_always = partial(servers.redis, appendfsync="always")
_REDIS_DRIVER = "redis_streams.RedisStreams"
_STREAM_DRIVER = "rabbitmq_stream.RabbitmqStream"

_IGGY = Needs(("apache_iggy",))
_REDIS = Needs(("redis", "hiredis"), "redis-server")
_NATS = Needs(("nats",), "nats-server")
_RABBITMQ = Needs(("aio_pika",), str(servers.RABBITMQ))
_RABBITMQ_STREAM = Needs(("rstream",), str(servers.RABBITMQ))

PEERS: dict[str, Peer] = {
    WRITTEN: Peer(servers.pybroker, "iggy", "own.Own", WRITTEN_1_S, WRITTEN),
    "pybroker by apache-iggy": Peer(servers.pybroker, "iggy", "wheel.Wheel", WRITTEN_1_S, WRITTEN, _IGGY),
    "redis everysec": Peer(_redis_everysec, "redis", _REDIS_DRIVER, WRITTEN_1_S, WRITTEN, _REDIS),
    "nats jetstream": Peer(servers.nats, "nats", "jetstream.JetStream", "written; fsync every 2 min", WRITTEN, _NATS),
    "rabbitmq stream": Peer(servers.rabbitmq, "stream", _STREAM_DRIVER, "written; no fsync", WRITTEN, _RABBITMQ_STREAM),
    PERSISTED: Peer(servers.pybroker, "iggy", "own.OwnPersisted", FSYNC, PERSISTED),
    "redis always": Peer(_redis_always, "redis", _REDIS_DRIVER, FSYNC, PERSISTED, _REDIS),
    "rabbitmq quorum": Peer(servers.rabbitmq, "amqp", "quorum_queue.QuorumQueue", FSYNC, PERSISTED, _RABBITMQ),
}


def iggy_at(address: str) -> Peer:
    """Return Apache Iggy where somebody runs it, at iggy://USER:PASSWORD@HOST:PORT."""
    return _at("iggy", address, "wheel.Wheel", _IGGY)


def kafka_at(address: str) -> Peer:
    """Return Apache Kafka where somebody runs it, at HOST:PORT."""
    return _at("kafka", address, "kafka.Kafka", Needs(("aiokafka",)))


def _at(protocol: str, address: str, driver: str, needs: Needs) -> Peer:
    def serve(_folder: Path) -> AbstractContextManager[Server]:
        return nullcontext(Server({protocol: address}))

    return Peer(serve, protocol, driver, "as it is configured", WRITTEN, needs)
