"""Loading a configuration: the layers, both generations of Iggy's file, and what is said about unknown names."""

import logging
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from pybroker.broker.config import Config, ConfigError, Loaded, from_settings, load
from pybroker.broker.config.names import IGNORED, MISSED_IF_TRUE
from pybroker.broker.config.schema import KEYS, with_values
from pybroker.broker.units import U64_MAX

GOLDEN = Path(__file__).parents[1] / "golden" / "config"
GENERATIONS = ["server-0.8.toml", "server-0.9.toml"]

NOT_IN_IGGYS_FILES = {
    "extra",
    # Of Iggy 0.4, which had an archiver.
    "data_maintenance.messages.archiver_enabled",
    "data_maintenance.archiver.s3.tmp_upload_dir",
}


def load_text(folder: Path, text: str = "", environ: Mapping[str, str] | None = None) -> Loaded:
    """Load `text` as the file server.toml in `folder`, which is the working folder too."""
    (folder / "server.toml").write_text(text)
    return load(Path("server.toml"), environ or {}, cwd=folder)


def warnings(loaded: Loaded) -> list[str]:
    return [message for level, message in loaded.notes if level >= logging.WARNING]


def leaves(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the keys of a TOML table by their dotted path, arrays of tables with `[]` after it."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            found |= leaves(cast(dict[str, Any], value), f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}[]" if "{" in str(value) else prefix + name] = value
    return found


def golden(name: str) -> dict[str, Any]:
    return leaves(tomllib.loads((GOLDEN / name).read_text()))


def test_secrets_are_not_in_what_a_traceback_shows(tmp_path: Path) -> None:
    key = "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMjIyMjI="
    loaded = load(None, {"IGGY_SYSTEM_ENCRYPTION_KEY": key}, cwd=tmp_path)
    assert len(loaded.config.system.encryption.key) == 32
    assert "hunter2" not in repr(loaded) and key not in repr(loaded)


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    loaded = load(None, {}, cwd=tmp_path)
    assert loaded.config == Config()
    assert loaded.path is None
    assert [level for level, _ in loaded.notes] == [logging.INFO]


def test_defaults_are_those_of_the_facts() -> None:
    config = Config()
    assert (config.tcp.address, config.tcp.wire, config.http.address) == ("127.0.0.1:8090", "auto", "127.0.0.1:3000")
    assert (config.quic.address, config.websocket.address) == ("127.0.0.1:8080", "127.0.0.1:8092")
    assert (config.system.path, config.system.logging.level) == (Path("local_data"), "info")
    assert (config.system.topic.max_size, config.system.topic.message_expiry_us) == (U64_MAX, U64_MAX)
    assert (config.system.segment.size, config.system.segment.preallocate) == (2**30, False)
    assert config.system.partition.enforce_fsync is False
    assert config.system.partition.messages_required_to_save == 1024
    assert config.system.partition.size_of_messages_required_to_save == 2**20
    assert (config.pybroker.sync_interval_us, config.pybroker.login_timeout_us) == (1_000_000, 30_000_000)
    assert (config.pybroker.write_timeout_us, config.pybroker.connections_max) == (30_000_000, 10_000)
    assert (config.pybroker.frame_size_max, config.pybroker.frame_size_max_before_login) == (2**26, 2**16)
    assert (config.pybroker.unread_size_max, config.pybroker.poll_size_max) == (2**20, 63 * 2**20)
    assert config.pybroker.requests_per_turn_max == 64
    assert (config.heartbeat.enabled, config.heartbeat.interval_us) == (True, 30_000_000)
    assert config.consumer_group.rebalancing_timeout_us == 30_000_000


@pytest.mark.parametrize("name", GENERATIONS)
def test_both_generations_of_iggys_file_load_without_a_warning(name: str, tmp_path: Path) -> None:
    loaded = load(GOLDEN / name, {}, cwd=tmp_path)
    assert warnings(loaded) == []
    # Where the generations differ, our default is that of 0.9.
    older = {
        "system.partition.validate_checksum": False,
        "data_maintenance.messages.cleaner_enabled": False,
        "heartbeat.enabled": False,
        "heartbeat.interval": 5_000_000,
        "quic.max_concurrent_bidi_streams": 10_000,
        "quic.keep_alive_interval": 5_000_000,
        "quic.max_idle_timeout": 10_000_000,
        "quic.certificate.cert_file": "core/certs/iggy_cert.pem",
        "quic.certificate.key_file": "core/certs/iggy_key.pem",
        "http.cors.exposed_headers": (),
    }
    assert loaded.config == with_values(Config(), older if name == "server-0.8.toml" else {})


@pytest.mark.parametrize("name", GENERATIONS)
def test_keys_without_effect_are_named_once_at_debug(name: str, tmp_path: Path) -> None:
    loaded = load(GOLDEN / name, {}, cwd=tmp_path)
    [message] = [message for level, message in loaded.notes if level == logging.DEBUG]
    named = message.partition(": ")[2].split(", ")
    assert sorted(named) == sorted(path.removesuffix("[]") for path in golden(name) if path in IGNORED)


def test_every_key_is_known_from_one_of_iggys_files_or_ours() -> None:
    iggys = golden("server-0.8.toml").keys() | golden("server-0.9.toml").keys()
    assert iggys <= KEYS.keys() | IGNORED
    assert iggys | NOT_IN_IGGYS_FILES >= IGNORED
    ours = {path for path in KEYS.keys() - iggys if not path.startswith("pybroker.")}
    archiver = {path for path in ours if path.startswith("data_maintenance.archiver.")}
    assert ours - archiver == {
        "tcp.wire",
        "http.tls.self_signed",
        "websocket.wire",
        "system.logging.format",
        "system.segment.preallocate",
        "system.encryption.key_file",
    }


def test_no_key_is_both_read_and_ignored() -> None:
    assert not IGNORED & KEYS.keys()
    assert MISSED_IF_TRUE <= IGNORED


def test_every_key_of_iggys_files_is_known_in_the_environment(tmp_path: Path) -> None:
    for name in GENERATIONS:
        plain = {path: value for path, value in golden(name).items() if isinstance(value, str | int)}
        environ = {f"IGGY_{path.upper().replace('.', '_')}": str(value) for path, value in plain.items()}
        assert warnings(load(None, environ | {"IGGY_CONFIG_PATH": ""}, cwd=tmp_path)) == []


def test_file_wins_over_defaults_and_environment_over_file(tmp_path: Path) -> None:
    text = """
    [tcp]
    address = "0.0.0.0:1"
    enabled = false
    [pybroker]
    connections_max = 5
    """
    environ = {"IGGY_TCP_ADDRESS": "[::1]:2", "IGGY_PYBROKER_SYNC_INTERVAL": "20 ms", "PATH": "/bin"}
    config = load_text(tmp_path, text, environ).config
    assert (config.tcp.address, config.tcp.enabled, config.tcp.wire) == ("[::1]:2", False, "auto")
    assert (config.pybroker.connections_max, config.pybroker.sync_interval_us) == (5, 20_000)


@pytest.mark.parametrize(
    ("variable", "text", "values"),
    [
        ("IGGY_TCP_ENABLED", "false", {"tcp.enabled": False}),
        ("IGGY_TCP_ENABLED", "False", {"tcp.enabled": False}),
        ("IGGY_PYBROKER_CONNECTIONS_MAX", " 7 ", {"pybroker.connections_max": 7}),
        ("IGGY_SYSTEM_SEGMENT_SIZE", "1048576", {"system.segment.size": 2**20}),
        ("IGGY_SYSTEM_PATH", "123", {"system.path": Path("123")}),
        ("IGGY_PATH", "data", {"system.path": Path("data")}),
        ("IGGY_SYSTEM_TOPIC_MAX_SIZE", "2 GB", {"system.topic.max_size": 2 * 10**9}),
        ("IGGY_TCP_ADDRESS", "", {}),
        ("IGGY_TCP_ADDRESS", "  ", {}),
    ],
)
def test_environment_is_read_as_the_kind_of_its_key(
    tmp_path: Path, variable: str, text: str, values: dict[str, object]
) -> None:
    loaded = load_text(tmp_path, environ={variable: text})
    assert loaded.config == with_values(Config(), values)
    assert warnings(loaded) == []


def test_nine_keys_that_iggy_0_9_refuses_become_defaults_of_topics(tmp_path: Path) -> None:
    text = """
    extra = { anything = 1 }
    [system.topic]
    max_size = "10 GB"
    message_expiry = "7 days"
    [system.partition]
    enforce_fsync = true
    messages_required_to_save = 1
    size_of_messages_required_to_save = 512
    [system.segment]
    size = "64 MiB"
    preallocate = true
    [system.message_deduplication]
    enabled = false
    """
    loaded = load_text(tmp_path, text)
    system = loaded.config.system
    assert warnings(loaded) == []
    assert (system.topic.max_size, system.topic.message_expiry_us) == (10**10, 7 * 86_400_000_000)
    assert (system.partition.enforce_fsync, system.partition.messages_required_to_save) == (True, 1)
    assert (system.partition.size_of_messages_required_to_save, system.segment.size) == (512, 2**26)
    assert system.segment.preallocate is True


@pytest.mark.parametrize("word", ['"server_default"', "0"])
def test_servers_own_default_for_topics_is_no_limit(tmp_path: Path, word: str) -> None:
    topic = load_text(tmp_path, f"[system.topic]\nmax_size = {word}\nmessage_expiry = {word}\n").config.system.topic
    assert (topic.max_size, topic.message_expiry_us) == (U64_MAX, U64_MAX)


@pytest.mark.parametrize("text", ['path = "data"', 'system.path = "data"', 'path = "data"\nsystem.path = "data"'])
def test_path_at_the_top_is_system_path(tmp_path: Path, text: str) -> None:
    loaded = load_text(tmp_path, text)
    assert loaded.config.system.path == Path("data")
    assert warnings(loaded) == []


@pytest.mark.parametrize(
    ("text", "level"),
    [("WARN", "warn"), ("warn,iggy=debug", "warn"), ("iggy=debug", "info"), ("iggy=trace, error", "error")],
)
def test_log_level_may_be_written_as_rust_log(tmp_path: Path, text: str, level: str) -> None:
    assert load_text(tmp_path, f'[system.logging]\nlevel = "{text}"').config.system.logging.level == level


def test_rust_log_wins_over_the_log_level(tmp_path: Path) -> None:
    environ = {"RUST_LOG": "debug", "IGGY_SYSTEM_LOGGING_LEVEL": "error"}
    assert load_text(tmp_path, '[system.logging]\nlevel = "warn"', environ).config.system.logging.level == "debug"


@pytest.mark.parametrize(
    ("text", "name", "near"),
    [
        ("[tcp]\nadress = 1", "tcp.adress", "tcp.address"),
        ("[tpc]\naddress = 1", "tpc.address", "tcp.address"),
        ("[pybroker]\nsync_intervall = 1", "pybroker.sync_intervall", "pybroker.sync_interval"),
        ("[http.jwt]\nencoding_secrt = 'hunter2'", "http.jwt.encoding_secrt", "http.jwt.encoding_secret"),
    ],
)
def test_unknown_key_gets_a_warning_with_the_nearest_known(tmp_path: Path, text: str, name: str, near: str) -> None:
    [message] = warnings(load_text(tmp_path, text))
    assert message == f"{tmp_path / 'server.toml'}: unknown key {name!r}, ignored; did you mean {near}?"


def test_unknown_key_unlike_any_other_gets_no_suggestion(tmp_path: Path) -> None:
    [message] = warnings(load_text(tmp_path, "zzzzzzzz = 1"))
    assert message.endswith("unknown key 'zzzzzzzz', ignored")


def test_unknown_variable_gets_a_warning_with_the_nearest_known(tmp_path: Path) -> None:
    [message] = warnings(load_text(tmp_path, environ={"IGGY_TCP_ADRESS": "x"}))
    assert message.startswith("environment variable IGGY_TCP_ADRESS: unknown key")
    assert message.endswith("did you mean IGGY_TCP_ADDRESS?")


@pytest.mark.parametrize(
    "variable",
    [
        "IGGY_ROOT_USERNAME", "IGGY_ROOT_PASSWORD", "IGGY_SHARD_RUNTIME_CAPACITY", "IGGY_CI_BUILD", "IGGY_TEST_VERBOSE",
        "IGGY_MCP_TRANSPORT", "IGGY_CONNECTORS_PATH", "IGGY_DISPLAY_CONFIG", "IGGY_CLUSTER_NODES_0_NAME",
        "IGGY_CLUSTER_NODES_0_PORTS_TCP", "IGGY_CLUSTER_NODE_OTHERS_1_IP", "IGGY_HTTP_JWT_TRUSTED_ISSUERS_0_ISSUER",
        "NOT_IGGY_AT_ALL",
    ],
)  # fmt: skip
def test_variables_that_mean_no_key_of_ours_get_no_warning(tmp_path: Path, variable: str) -> None:
    loaded = load_text(tmp_path, environ={variable: "x"})
    assert (loaded.config, warnings(loaded)) == (Config(), [])


def test_a_list_in_a_variable_is_written_as_an_array(tmp_path: Path) -> None:
    given = load_text(tmp_path, environ={"IGGY_HTTP_CORS_ALLOWED_ORIGINS": '["http://a", " http://b ", ""]'})
    assert given.config.http.cors.allowed_origins == ("http://a", "http://b")


@pytest.mark.parametrize("path", sorted(MISSED_IF_TRUE))
def test_protection_that_is_not_there_gets_a_warning(tmp_path: Path, path: str) -> None:
    variable = f"IGGY_{path.upper().replace('.', '_')}"
    for loaded in (load_text(tmp_path, f"{path} = true"), load_text(tmp_path, environ={variable: "true"})):
        [message] = warnings(loaded)
        assert "not supported" in message
    assert warnings(load_text(tmp_path, f"{path} = false")) == []


def test_missing_file_gets_a_warning_and_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path / "none.toml", {}, cwd=tmp_path)
    assert (loaded.config, loaded.path) == (Config(), tmp_path / "none.toml")
    assert "no such file" in warnings(loaded)[0]


def test_file_is_the_argument_or_else_iggy_config_path(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("pybroker.connections_max = 1")
    (tmp_path / "b.toml").write_text("pybroker.connections_max = 2")
    environ = {"IGGY_CONFIG_PATH": "b.toml"}
    assert load(Path("a.toml"), environ, cwd=tmp_path).config.pybroker.connections_max == 1
    assert load(None, environ, cwd=tmp_path).config.pybroker.connections_max == 2


def test_env_file_is_below_the_environment(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("pybroker.connections_max = 2\npybroker.requests_per_turn_max = 2")
    (tmp_path / ".env").write_text(
        "IGGY_CONFIG_PATH=b.toml\nIGGY_PYBROKER_CONNECTIONS_MAX=3\nIGGY_TCP_ADDRESS=h:3\nIGGY_HTTP_ADDRESS=h:4\n"
        "IGGY_ROOT_PASSWORD='a secret'\n"
    )
    loaded = load(None, {"IGGY_TCP_ADDRESS": "h:5", "IGGY_HTTP_ADDRESS": ""}, cwd=tmp_path)
    assert (loaded.config.pybroker.connections_max, loaded.config.pybroker.requests_per_turn_max) == (3, 2)
    assert (loaded.config.tcp.address, loaded.config.http.address) == ("h:5", "h:4")
    assert loaded.environ["IGGY_ROOT_PASSWORD"] == "a secret"
    assert "a secret" not in repr(loaded)


def test_env_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("IGGY_TCP_ADDRESS=h:1")
    (tmp_path / "other").write_text("IGGY_TCP_ADDRESS=h:2")
    assert load(None, {"IGGY_ENV_PATH": "other"}, cwd=tmp_path).config.tcp.address == "h:2"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("  A = b c  # comment", "b c"),
        ("A=b#c", "b#c"),
        ("A=#c", None),
        ("A=", None),
        ("# A=b", None),
        ("A='b # c' # d", "b # c"),
        ("A='b\\n'", "b\\n"),
        ('A="b \\"c\\" # d\\n"', 'b "c" # d\n'),
        ("A=''", None),
        ("A=b=c", "b=c"),
    ],
)
def test_env_file_knows_quotes_and_comments(tmp_path: Path, line: str, value: str | None) -> None:
    (tmp_path / ".env").write_text(f"\n{line}\n")
    loaded = load(None, {}, cwd=tmp_path)
    assert (loaded.environ.get("A"), warnings(loaded)) == (value, [])


@pytest.mark.parametrize("line", ["hunter2", "A='hunter2", 'A="hunter2" x', "1A=hunter2", "=hunter2"])
def test_env_line_that_is_none_gets_a_warning_without_its_text(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"B=1\n{line}\n")
    loaded = load(None, {}, cwd=tmp_path)
    assert loaded.environ == {"B": "1"}
    assert warnings(loaded) == [f"{tmp_path / '.env'}: line 2: expected NAME=value, ignored"]


def test_settings_of_a_program_are_written_as_in_a_file_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGGY_TCP_WIRE", "classic")
    settings: dict[str, object] = {
        "http.enabled": False,
        "quic.enabled": "false",
        "pybroker.connections_max": "7",
        "pybroker.sync_interval": "2 s",
        "http.cors.allowed_origins": ["a", "b"],
        "system.path": tmp_path,
    }
    config = from_settings(settings)
    assert (config.http.enabled, config.quic.enabled, config.tcp.wire) == (False, False, "auto")
    assert (config.pybroker.connections_max, config.pybroker.sync_interval_us) == (7, 2_000_000)
    assert (config.http.cors.allowed_origins, config.system.path) == (("a", "b"), tmp_path)
    assert from_settings({}) == Config()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tcp.adress": "x"}, "settings: unknown key 'tcp.adress'; did you mean tcp.address?"),
        ({"cluster.enabled": True}, "settings: unknown key 'cluster.enabled'"),
        ({"pybroker.frame_size_max_before_login": "1 GiB"}, "expected at most pybroker.frame_size_max"),
    ],
)
def test_settings_of_a_program_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_settings(settings)


def test_secrets_in_settings_of_a_program_are_not_shown() -> None:
    with pytest.raises(ConfigError, match="given a secret") as raised:
        from_settings({"system.encryption.key": "hunter2"})
    assert "hunter2" not in str(raised.value)
