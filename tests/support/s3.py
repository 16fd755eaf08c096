"""A real S3-speaking server process for a test: moto's, on 127.0.0.1, with one bucket."""

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from obstore.store import S3Store

from .server import environment, free_port

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 10.0
BUCKET = "archive"
KEY_ID, KEY_SECRET = "the-key-id", "hunter2hunter2"
_INTERVAL_S = 0.05


class S3Server:
    """`moto_server`. It may be started again on its port after it ended; what it held is gone then.

    allowed_max: how many calls it takes from anybody; then it knows nobody and refuses. None: no limit.
    """

    def __init__(self, output: Path, *, allowed_max: int | None = None) -> None:
        """output: where its log goes."""
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._output = output
        self._settings = {} if allowed_max is None else {"INITIAL_NO_AUTH_ACTION_COUNT": str(allowed_max)}
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, **others: str) -> dict[str, str]:
        """Return what tells a broker to archive here; see `s3_settings`."""
        return s3_settings(**{"endpoint": self.endpoint} | others)

    def start(self) -> "S3Server":
        """Start and wait until its bucket is there."""
        arguments = ["-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(self.port)]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=output,
                stderr=output,
                env=environment(self._settings),
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._create_bucket():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no start: {self._output.read_text()}")
            time.sleep(_INTERVAL_S)
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    def names(self) -> list[str]:
        """Return the names of what the bucket holds, up to 1000, ascending."""
        with urllib.request.urlopen(f"{self.endpoint}/{BUCKET}?list-type=2", timeout=CALL_TIMEOUT_S) as answer:
            return re.findall("<Key>([^<]*)</Key>", answer.read().decode())

    def read(self, name: str) -> bytes:
        """Return what the bucket holds under `name`."""
        store = S3Store(
            BUCKET,
            region="us-east-1",
            config={"endpoint": self.endpoint, "access_key_id": KEY_ID, "secret_access_key": KEY_SECRET},
            client_options={"allow_http": True},
        )
        return bytes(store.get(name).bytes())

    def __enter__(self) -> "S3Server":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _create_bucket(self) -> bool:
        request = urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_S) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            raise
        except OSError:
            return False


def s3_settings(**others: str) -> dict[str, str]:
    """Return what tells a broker to archive in a bucket, as environment variables; `others`: keys of the s3 table."""
    keys = {"bucket": BUCKET, "key_id": KEY_ID, "key_secret": KEY_SECRET} | others
    prefix = "IGGY_DATA_MAINTENANCE_ARCHIVER"
    return {f"{prefix}_ENABLED": "true", f"{prefix}_KIND": "s3"} | {
        f"{prefix}_S3_{key.upper()}": value for key, value in keys.items()
    }
