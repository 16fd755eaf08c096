"""The two files we write: the shipped configs/server.toml, and the effective configuration."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.broker.config import Config, load, to_toml
from pybroker.broker.config.kinds import COUNT
from pybroker.broker.config.schema import KEYS, SECRET, Table, with_values
from pybroker.broker.config.writer import as_table

SHIPPED = Path(__file__).parents[2] / "configs" / "server.toml"
GOLDEN = Path(__file__).parents[1] / "golden" / "config"

VALUES: Mapping[str, object] = {
    "tcp.enabled": False,
    "tcp.address": "[::]:0",
    "tcp.wire": "vsr",
    "http.cors.allowed_origins": ("http://a", "http://b"),
    "http.cors.exposed_headers": (),
    "system.path": Path("/var/lib/a \"b\" c"),
    "system.logging.level": "off",
    "system.topic.max_size": 3 * 10**9,
    "system.topic.message_expiry": 3_600_000_001,
    "system.segment.size": 2**20 + 512,
    "pybroker.sync_interval": 1_500_000,
}  # fmt: skip


def reload(folder: Path, text: str) -> Config:
    (folder / "written.toml").write_text(text)
    return load(Path("written.toml"), {}, cwd=folder).config


def test_shipped_file_has_the_keys_and_defaults_of_the_schema(tmp_path: Path) -> None:
    text = SHIPPED.read_text()
    shipped = tomllib.loads(text)
    # A secret is never written, so the shipped ones are looked at one by one: none.
    assert shipped["system"]["encryption"].pop("key") == ""
    assert shipped["data_maintenance"]["archiver"]["s3"].pop("key_secret") == ""
    jwt = shipped["http"]["jwt"]
    assert jwt.pop("encoding_secret") == jwt.pop("decoding_secret") == ""
    assert shipped == as_table(Config())
    loaded = load(SHIPPED, {}, cwd=tmp_path)
    assert (loaded.config, loaded.notes) == (Config(), ())


def test_every_key_of_the_shipped_file_has_a_comment() -> None:
    lines = SHIPPED.read_text().splitlines()
    keys = [index for index, line in enumerate(lines) if re.match(r"\w+ =", line)]
    assert len(keys) == len(KEYS)
    assert [lines[index] for index in keys if not lines[index - 1].startswith("# ")] == []
    assert max(map(len, lines)) <= 120


def test_effective_configuration_loads_back_the_same(tmp_path: Path) -> None:
    config = with_values(Config(), VALUES)
    assert config != Config()
    assert reload(tmp_path, to_toml(config)) == config
    assert reload(tmp_path, to_toml(Config())) == Config()


@pytest.mark.parametrize("name", ["server-0.8.toml", "server-0.9.toml"])
def test_effective_configuration_of_iggys_files_loads_back_the_same(tmp_path: Path, name: str) -> None:
    config = load(GOLDEN / name, {}, cwd=tmp_path).config
    assert reload(tmp_path, to_toml(config)) == config


@given(duration_us=st.integers(10_000, 3_600_000_000), size=st.integers(2**16, 63 * 2**20))
def test_every_duration_and_size_loads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, duration_us: int, size: int
) -> None:
    config = with_values(Config(), {"pybroker.sync_interval": duration_us, "pybroker.poll_size_max": size})
    assert reload(tmp_path_factory.getbasetemp(), to_toml(config)) == config


def test_bound_addresses_are_put_in() -> None:
    written = tomllib.loads(to_toml(Config(), addresses={"tcp": "127.0.0.1:41237", "http": "[::1]:5"}))
    assert written["tcp"]["address"] == "127.0.0.1:41237"
    assert written["http"]["address"] == "[::1]:5"
    assert written["quic"]["address"] == "127.0.0.1:8080"


def test_secrets_are_left_out() -> None:
    class Inner(Table, frozen=True):
        open_value: Annotated[int, COUNT] = 1
        hidden: Annotated[int, COUNT, SECRET] = 2

    class Outer(Table, frozen=True):
        inner: Inner = Inner()

    assert as_table(Outer()) == {"inner": {"open_value": 1}}
    assert repr(Outer()).endswith("Outer(inner=Inner(open_value=1))")
