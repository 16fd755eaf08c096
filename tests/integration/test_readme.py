"""The README's own programs run as printed, but for the port."""

import re
import subprocess
import sys
from pathlib import Path

from support.server import Server

README = Path(__file__).parents[2] / "README.md"
TIMEOUT_S = 60


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


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


def test_first_producer_and_consumer_run_as_printed(tmp_path: Path) -> None:
    producer, consumer = programs()
    with Server(tmp_path / "data") as server:
        assert run(producer, server) == "sent 10 tasks\n"
        lines = run(consumer, server).splitlines()
    assert sorted(line.rpartition(": ")[2] for line in lines) == [f"task {number}" for number in range(10)]
    assert {line.split()[1] for line in lines} == {"0", "1"}
