"""The load on one peer, seen from the process that gives it jobs."""

import subprocess
import sys

import msgspec
import psutil

from ..servers import cpu_seconds
from .catalog import Peer
from .jobs import Done, Job
from .report import Sample
from .servers import Server

STOP_TIMEOUT_S = 10.0


class Generator:
    """Started with the peer's server running. versions: which server and client these are."""

    def __init__(self, name: str, peer: Peer, server: Server) -> None:
        self._name = name
        self._server = psutil.Process(server.process_id) if server.process_id is not None else None
        command = [
            sys.executable,
            "-m",
            f"{__package__}.load",
            *peer.driver.split("."),
            server.addresses[peer.protocol],
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._client = psutil.Process(self._process.pid)
        try:
            self.versions = self._answer("at the start").strip()
        except RuntimeError:
            self.close()
            raise

    def run(self, job: Job) -> Sample:
        """Do a job. Raises RuntimeError when the load has ended; it has said why."""
        assert self._process.stdin is not None
        server, client = self._server_seconds(), cpu_seconds(self._client)
        self._process.stdin.write(msgspec.json.encode(job).decode() + "\n")
        self._process.stdin.flush()
        done = msgspec.json.decode(self._answer(f"in {job.kind}"), type=Done)
        return Sample(job.messages, done.seconds, self._server_seconds() - server, cpu_seconds(self._client) - client)

    def close(self) -> None:
        """Let the client close its connections, and end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _server_seconds(self) -> float:
        """Return the processor time of the server and its children until now, 0 where it can't be known."""
        if self._server is None:
            return 0.0
        return sum(map(cpu_seconds, (self._server, *self._server.children(recursive=True))))

    def _answer(self, when: str) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(
                f"the load on {self._name} ended {when}, exit status {self._process.wait(STOP_TIMEOUT_S)}"
            )
        return answer
