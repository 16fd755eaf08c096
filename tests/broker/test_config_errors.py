"""Wrong values: each is refused in one line that says where it is, what was given and what is expected."""

from pathlib import Path

import pytest
from pybroker.broker.config import ConfigError, load
from pybroker.broker.config.kinds import SIZE
from pybroker.broker.config.loader import _parse
from pybroker.broker.config.schema import KEYS, Key
from pybroker.broker.config.sources import Given

URL = 'expected a URL such as "http://localhost:4318/v1/logs"'
HOST_PORT = 'expected host:port such as "127.0.0.1:8090" or "[::1]:8090", port 0 to 65535'

# key, the value as TOML has it, what the message says of it
WRONG = [
    ("tcp.enabled", '"yes"', 'given "yes", expected true or false'),
    ("tcp.enabled", "1", "given 1, expected true or false"),
    ("tcp.address", "8090", f"given 8090, {HOST_PORT}"),
    ("tcp.address", '"localhost"', f'given "localhost", {HOST_PORT}'),
    ("tcp.address", '"::1:8090"', f'given "::1:8090", {HOST_PORT}'),
    ("tcp.address", '"h:65536"', f'given "h:65536", {HOST_PORT}'),
    ("tcp.address", '"h:-1"', f'given "h:-1", {HOST_PORT}'),
    ("tcp.address", "{ host = 'h' }", f'given {{"host": "h"}}, {HOST_PORT}'),
    ("tcp.wire", '"vsR"', 'given "vsR", expected "auto" or "classic" or "vsr"'),
    ("tcp.wire", "true", 'given true, expected "auto" or "classic" or "vsr"'),
    ("system.path", '""', 'given "", expected the path of a folder'),
    ("system.path", "1", "given 1, expected the path of a folder"),
    ("path", '" "', 'given " ", expected the path of a folder'),
    ("telemetry.logs.endpoint", '"localhost:4318"', f'given "localhost:4318", {URL}'),
    ("telemetry.traces.endpoint", '"ftp://localhost/"', f'given "ftp://localhost/", {URL}'),
    ("telemetry.traces.endpoint", '"http://user@localhost"', f'given "http://user@localhost", {URL}'),
    ("telemetry.traces.transport", '"udp"', 'given "udp", expected "grpc" or "http"'),
    ("system.logging.level", '"loud"', 'given "loud", expected one of off, error, warn, info, debug, trace'),
    ("system.logging.level", "3", "given 3, expected one of off, error, warn, info, debug, trace"),
    ("system.topic.max_size", '"big"', 'given "big", expected a size such as'),
    ("system.topic.max_size", "true", "given true, expected a size such as"),
    ("system.topic.message_expiry", "60", "given 60, expected a duration such as"),
    ("system.partition.messages_required_to_save", "0", "given 0, expected 1 to 16777216"),
    ("system.partition.messages_required_to_save", "16777217", "given 16777217, expected 1 to 16777216"),
    ("system.partition.messages_required_to_save", '"many"', 'given "many", expected a whole number'),
    ("system.partition.messages_required_to_save", "1.5", "given 1.5, expected a whole number"),
    ("system.partition.messages_required_to_save", "true", "given true, expected a whole number"),
    ("system.partition.size_of_messages_required_to_save", '"2 GiB"', 'given "2 GiB", expected 0 to 1 GiB'),
    ("system.segment.size", '"1 MB"', 'given "1 MB", expected 1 MiB to 1 GiB, a multiple of 512'),
    ("system.segment.size", "1048577", "given 1048577, expected 1 MiB to 1 GiB, a multiple of 512"),
    ("system.segment.size", '"2 GiB"', 'given "2 GiB", expected 1 MiB to 1 GiB, a multiple of 512'),
    ("system.segment.size", "[1]", "given [1], expected a size such as"),
    ("system.segment.size", "2020-01-01", 'given "2020-01-01", expected a size such as'),
    ("pybroker.sync_interval", '"5"', 'given "5", expected a duration such as'),
    ("pybroker.sync_interval", '"0"', 'given "0", expected 10 ms to 1 h'),
    ("pybroker.sync_interval", '"2 h"', 'given "2 h", expected 10 ms to 1 h'),
    ("pybroker.connections_max", "0", "given 0, expected 1 to 1000000"),
    ("pybroker.poll_size_max", '"64 MiB"', 'given "64 MiB", expected 64 KiB to 63 MiB'),
]


def failure(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> str:
    """Return the message that loading `text` as server.toml in `folder` fails with."""
    path = folder / "server.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, cwd=folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("key", "value", "problem"), WRONG)
def test_wrong_value_in_the_file_is_refused(tmp_path: Path, key: str, value: str, problem: str) -> None:
    path = "system.path" if key == "path" else key
    assert failure(tmp_path, f"{key} = {value}").startswith(f"{tmp_path / 'server.toml'}: {path}: {problem}")


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("IGGY_TCP_ENABLED", "yes", 'tcp.enabled: given "yes", expected true or false'),
        ("IGGY_TCP_ADDRESS", "x\ny", 'tcp.address: given "x\\ny", expected host:port'),
        ("IGGY_PYBROKER_CONNECTIONS_MAX", "-1", "pybroker.connections_max: given -1, expected 1 to 1000000"),
        ("IGGY_PYBROKER_CONNECTIONS_MAX", "1k", 'pybroker.connections_max: given "1k", expected a whole number'),
        ("IGGY_SYSTEM_SEGMENT_SIZE", "512", 'system.segment.size: given "512", expected 1 MiB to 1 GiB'),
        ("RUST_LOG", "loud", 'system.logging.level: given "loud", expected one of'),
    ],
)
def test_wrong_value_in_the_environment_is_refused(tmp_path: Path, variable: str, text: str, problem: str) -> None:
    message = failure(tmp_path, "", {variable: text})
    assert message.startswith(f"environment variable {variable}: {problem}")


def test_wrong_value_in_the_env_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("IGGY_TCP_ENABLED=maybe")
    assert failure(tmp_path, "").startswith(f"IGGY_TCP_ENABLED in {tmp_path / '.env'}: tcp.enabled: given")


def test_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    message = failure(tmp_path, f"tcp.address = '{'x' * 10_000}'")
    assert len(message) < 400
    assert "xxx..., expected host:port" in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[tcp]\nenabled = \n", "line 2: Invalid value, expected TOML"),
        ("a = 1\nb = 2\na = 3\n", "line 3: Cannot overwrite a value, expected TOML"),
        ('[tcp]\n\naddress = "x', "line 3: "),
        ("a = 1" + "0" * 5_000, "line 1: not TOML, expected TOML"),
        (b"[tcp]\naddress = '\xff'", "line 2: expected text in UTF-8"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(tmp_path: Path, text: str | bytes, problem: str) -> None:
    assert failure(tmp_path, text).startswith(f"{tmp_path / 'server.toml'}: {problem}")


@pytest.mark.parametrize("table", ["tcp", "system.segment", "telemetry.logs"])
def test_value_in_the_place_of_a_table_is_refused(tmp_path: Path, table: str) -> None:
    assert failure(tmp_path, f"{table} = 'x'").endswith(f"{table}: given one value, expected a table [{table}]")


def test_two_spellings_that_disagree_are_refused(tmp_path: Path) -> None:
    assert "system.path is given twice" in failure(tmp_path, 'path = "a"\nsystem.path = "b"')
    assert "system.path is given twice" in failure(tmp_path, "", {"IGGY_PATH": "a", "IGGY_SYSTEM_PATH": "b"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "system.topic.max_size = '500 MB'",
            "system.segment.size is 1 GiB, expected at most system.topic.max_size, which is 500 MB",
        ),
        (
            "pybroker.frame_size_max_before_login = '128 MiB'",
            "pybroker.frame_size_max_before_login is 128 MiB, "
            "expected at most pybroker.frame_size_max, which is 64 MiB",
        ),
    ],
)
def test_sizes_out_of_order_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    assert failure(tmp_path, text) == f"{tmp_path / 'server.toml'}: {problem}"


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {}, cwd=tmp_path)


def test_env_file_that_is_named_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"environment variable IGGY_ENV_PATH: there is no file .*nowhere"):
        load(None, {"IGGY_ENV_PATH": "nowhere"}, cwd=tmp_path)


def test_secret_is_not_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given a secret, expected 32 bytes in base64") as caught:
        load(None, {"IGGY_SYSTEM_ENCRYPTION_KEY": "hunter2"}, cwd=tmp_path)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"system\.encryption\.key: given a secret, expected a size") as caught:
        _parse("system.encryption.key", Key(SIZE, 0, secret=True), Given("server.toml", "hunter2"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["http.jwt.encoding_secret", "http.jwt.decoding_secret", "cluster.auth.shared_secret"])
def test_secrets_of_iggy_are_in_no_note(tmp_path: Path, key: str) -> None:
    (tmp_path / "server.toml").write_text(f"{key} = 'hunter2'\n{key}x = 'hunter2'")
    variable = f"IGGY_{key.upper().replace('.', '_')}"
    loaded = load(Path("server.toml"), {variable: "hunter2", f"{variable}X": "hunter2"}, cwd=tmp_path)
    assert len(loaded.notes) == (2 if key in KEYS else 3)
    assert "hunter2" not in repr(loaded.notes)
