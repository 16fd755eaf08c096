"""The programs that a page shows, run as they are printed, but for the port."""

import re
import subprocess
import sys
from pathlib import Path

from .server import Server

TIMEOUT_S = 60


def programs(page: Path, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def run(program: str, server: Server) -> str:
    """Run a program against the server; return what it printed."""
    assert "127.0.0.1:8090" in program
    done = subprocess.run(
        [sys.executable, "-c", program.replace("127.0.0.1:8090", server.address)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
