"""About the server: liveness, who is connected, what there is and what it costs."""

import functools
import os
import platform
import shutil
import socket

import psutil

from ... import __version__
from ...protocol.errors import Refused, Status
from ...protocol.model import system as model
from .. import topic_options
from ..session import Session
from ..state import State
from .views import bounds_of, client_details, client_view, node_view, segments_of

# What SDKs compare with: the release of Iggy whose clients this server was made for.
IGGY_SEMVER = 9000
SERVER_VERSION = f"0.9.0+pybroker.{__version__}"
_TOPIC_SCOPE = 1
_SCOPES = (1, 2, 3)
_PROCESS = psutil.Process()
# CPU figures are averages since they were last asked for, the first time since now. The first look at the memory takes
# 4 ms, later ones 0.03 ms.
_PROCESS.cpu_percent()
psutil.cpu_percent()
psutil.virtual_memory()


def ping(_state: State, _session: Session, _command: model.Ping) -> None:
    return None


async def me(state: State, session: Session, _command: model.GetMe) -> model.ClientDetails:
    return client_details(state, session)


async def client(state: State, _session: Session, command: model.GetClient) -> model.ClientDetails | None:
    if not command.client_id:
        raise Refused(Status.INVALID_CLIENT_ID, "ids of clients begin with 1")
    found = state.clients.find(command.client_id)
    return client_details(state, found) if found else None


async def clients(state: State, _session: Session, _command: model.GetClients) -> model.Clients:
    return model.Clients([client_view(state, session) for session in state.clients.all()])


async def cluster_metadata(
    state: State, _session: Session, _command: model.GetClusterMetadata
) -> model.ClusterMetadata:
    """Name exactly one node: with two, clients would go and look for the leader."""
    return model.ClusterMetadata("single-node", [node_view(state)])


async def describe_options(state: State, _session: Session, command: model.DescribeOptions) -> model.OptionSpecs:
    if command.scope not in _SCOPES:
        raise Refused(Status.INVALID_COMMAND, f"scope {command.scope}")
    if command.scope != _TOPIC_SCOPE:
        return model.OptionSpecs([])
    return model.OptionSpecs(topic_options.describe(topic_options.defaults(state.config)))


async def stats(state: State, _session: Session, _command: model.GetStats) -> model.Stats:
    topics = state.catalog.topics()
    held = [bounds for topic in topics for bounds in bounds_of(state, topic)]
    memory = psutil.virtual_memory()
    os_name, os_version = _os()
    disk = shutil.disk_usage(state.config.system.path) if state.config.system.path.exists() else None
    return model.Stats(
        process_id=os.getpid(),
        cpu_usage=_PROCESS.cpu_percent(),
        total_cpu_usage=psutil.cpu_percent(),
        memory_usage=_PROCESS.memory_info().rss,
        total_memory=memory.total,
        available_memory=memory.available,
        run_time_us=max(state.clock() - state.started_at_us, 0),
        started_at_us=state.started_at_us,
        read_bytes=state.counters.read_bytes,
        written_bytes=state.counters.written_bytes,
        messages_size=sum(bounds.size for bounds in held),
        streams_count=len(state.catalog.streams),
        topics_count=len(topics),
        partitions_count=len(held),
        segments_count=sum(map(segments_of, held)),
        messages_count=sum(bounds.messages for bounds in held),
        clients_count=len(state.clients),
        groups_count=sum(len(topic.groups) for topic in topics),
        hostname=socket.gethostname(),
        os_name=os_name,
        os_version=os_version,
        kernel_version=platform.release(),
        server_version=SERVER_VERSION,
        semver=IGGY_SEMVER,
        cache_metrics=[],
        threads_count=_PROCESS.num_threads(),
        free_disk=disk.free if disk else 0,
        total_disk=disk.total if disk else 0,
    )


@functools.cache
def _os() -> tuple[str, str]:
    """Return the system's name and version: of Linux the distribution's, where there is a file that tells them."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.system(), platform.version()
    return release["NAME"], release.get("VERSION", release["PRETTY_NAME"])
