"""The files of a snapshot, and the zip of them. Only who asks for one imports this.

Left out: what the configuration marks as secret, environments, command lines, logs of libraries.
"""

import logging
import os
import resource
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import psutil
from msgspec import Struct

from ...protocol.primitives import SnapshotCompression, SnapshotKind
from ..config import to_toml
from ..logtail import TAIL
from ..state import State

log = logging.getLogger(__name__)

# What a part looks at, and shows, at most.
FILES_MAX = 100_000
FOLDERS_MAX = 2000
PROCESSES_MAX = 1000
THREADS_MAX = 200
# Of a process's name the system keeps so much; psutil adds from the command line, which may be a title with anything.
_NAME_SIZE = 15

# A zip says itself how its files are packed, so what Python can't write becomes what is nearest: all tools can open it.
_METHODS = {
    SnapshotCompression.STORED: zipfile.ZIP_STORED,
    SnapshotCompression.DEFLATED: zipfile.ZIP_DEFLATED,
    SnapshotCompression.BZIP2: zipfile.ZIP_BZIP2,
    SnapshotCompression.ZSTD: zipfile.ZIP_DEFLATED,
    SnapshotCompression.LZMA: zipfile.ZIP_LZMA,
    SnapshotCompression.XZ: zipfile.ZIP_LZMA,
}


class _Part(Struct, frozen=True):
    """A file of the zip. write: returns its text, UTF-8; called in a thread."""

    name: str
    write: Callable[[State], bytes]


def pack(state: State, kinds: list[SnapshotKind], compression: SnapshotCompression) -> bytes:
    """Return the zip of a text for each kind; one that fails is left out, and the log says why. Called in a thread."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", _METHODS[compression]) as archive:
        for part in map(_PARTS.__getitem__, kinds):
            try:
                text = part.write(state)
            except (OSError, psutil.Error) as error:
                log.warning("a snapshot lacks %s: %s", part.name, error)
            else:
                archive.writestr(part.name, text)
    return packed.getvalue()


def _filesystem(state: State) -> bytes:
    """List the folders of the data directory, with how many files and bytes are in each."""
    root = state.config.system.path
    disk = psutil.disk_usage(str(root))
    return _text(
        f"data directory {root.absolute()}",
        f"disk {disk.total} bytes, used {disk.used}, free {disk.free}",
        f"at most {FOLDERS_MAX} folders and {FILES_MAX} files are looked at",
        "",
        f"{'files':>9} {'bytes':>18} folder",
        *islice(_folders(root), FOLDERS_MAX),
    )


def _folders(root: Path) -> Iterator[str]:
    left = FILES_MAX
    for folder, names, files in os.walk(root):
        names.sort()
        sizes = [_size_of(Path(folder, name)) for name in files[:left]]
        left -= len(sizes)
        yield f"{len(sizes):9} {sum(sizes):18} {os.path.relpath(folder, root)}"


def _size_of(path: Path) -> int:
    """Return a file's size, 0 if it went meanwhile."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _processes(_state: State) -> bytes:
    """List the largest processes of the machine, without what they were started with."""
    found = [process.info for process in psutil.process_iter(["pid", "name", "memory_info"])]
    rows = [(info["memory_info"].rss, info["pid"], info["name"] or "") for info in found if info["memory_info"]]
    return _text(
        f"{len(rows)} processes, at most {PROCESSES_MAX} are shown, the largest first",
        "",
        f"{'pid':>9} {'bytes':>16} name",
        *(f"{pid:9} {size:16} {name[:_NAME_SIZE]}" for size, pid, name in sorted(rows, reverse=True)[:PROCESSES_MAX]),
    )


def _resources(state: State) -> bytes:
    """Show what the machine has and what this process takes of it, then its threads."""
    process, memory, swap = psutil.Process(), psutil.virtual_memory(), psutil.swap_memory()
    cpu, own = process.cpu_times(), process.memory_info()
    threads = process.threads()
    return _text(
        f"machine: {psutil.cpu_count()} processors, load {psutil.getloadavg()}",
        f"memory: {memory.total} bytes, available {memory.available}; swap: {swap.total} bytes, used {swap.used}",
        f"process {process.pid}: {(state.clock() - state.started_at_us) // 1_000_000} s since the start",
        f"process memory: {own.rss} bytes resident, {own.vms} virtual",
        f"process cpu: {cpu.user} s user, {cpu.system} s system",
        f"process switches: {process.num_ctx_switches()}",
        f"open files: {process.num_fds()}, limit {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}",
        f"connections: {len(state.clients)}; answers not yet taken: {state.counters.unsent_bytes} bytes",
        "",
        f"{len(threads)} threads, at most {THREADS_MAX} are shown",
        f"{'id':>9} {'user s':>10} {'system s':>10}",
        *(f"{thread.id:9} {thread.user_time:10} {thread.system_time:10}" for thread in threads[:THREADS_MAX]),
    )


def _config(state: State) -> bytes:
    """Return the configuration in force, as TOML, with the real ports."""
    addresses = {name: f"{_host_of(state, name)}:{port}" for name, port in state.ports.items()}
    return _text(to_toml(state.config, addresses=addresses))


def _host_of(state: State, listener: str) -> str:
    address: str = getattr(state.config, listener).address
    return address.rpartition(":")[0]


def _text(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")  # names need not be UTF-8


_PARTS = {
    SnapshotKind.FILESYSTEM: _Part("filesystem_overview.txt", _filesystem),
    SnapshotKind.PROCESSES: _Part("process_list.txt", _processes),
    SnapshotKind.RESOURCES: _Part("resource_usage.txt", _resources),
    SnapshotKind.TEST: _Part("test.txt", lambda _state: _text("test")),
    SnapshotKind.LOGS: _Part("server_logs.txt", lambda _state: TAIL.read()),
    SnapshotKind.CONFIG: _Part("server_config.txt", _config),
}
