"""What a run was done on, and with."""

import platform
import subprocess
from pathlib import Path

import psutil

from ... import __version__
from .report import Machine, Versions

_ROOT = Path(__file__).parents[2]
_GIT_TIMEOUT_S = 5


def machine() -> Machine:
    return Machine(_processor(), psutil.cpu_count() or 0, psutil.virtual_memory().total, platform.platform())


def versions(server: str) -> Versions:
    return Versions(__version__, platform.python_version(), server, _commit())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _commit() -> str:
    """Return the commit that the sources are of, "" where they are no checkout."""
    if not (_ROOT / ".git").exists():
        return ""
    head = _git("rev-parse", "--short=12", "HEAD")
    return f"{head}+" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
