"""Encryption at rest with a real server and client: nothing plain on the disk, keys that rotate, wrong ones refused."""

import base64
import os
from pathlib import Path

import pytest
from apache_iggy import SendMessage
from support.server import Server, run
from support.wheel import connect, make_topic, read_all, send, texts_of

TEXT = "meet me at the usual place"
HEADER, VALUE = "trace-of-the-secret", "who-sent-it"


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def settings(*keys: str, folder: Path) -> dict[str, str]:
    """Return the configuration of a server with these keys, given in a file."""
    path = folder / "keys"
    path.write_text("# newest first\n" + "\n".join(keys) + "\n")
    return {"IGGY_SYSTEM_ENCRYPTION_ENABLED": "true", "IGGY_SYSTEM_ENCRYPTION_KEY_FILE": str(path)}


def tree(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def write(server: Server, text: str, *, first: bool = False) -> None:
    client = await connect(server.address)
    if first:
        await make_topic(client, "s")
    message = SendMessage(text, user_headers={HEADER: VALUE})
    await send(client, "s", "topic", [message])


async def test_nothing_of_a_payload_or_a_header_is_in_the_directory(tmp_path: Path):
    key = new_key()
    root = tmp_path / "data"
    with Server(root, settings={"IGGY_SYSTEM_ENCRYPTION_ENABLED": "true", "IGGY_SYSTEM_ENCRYPTION_KEY": key}) as server:
        await write(server, TEXT, first=True)
        (message,) = await read_all(await connect(server.address), "s", "topic")
        assert message.payload().decode() == TEXT
        headers = message.user_headers()
        assert headers is not None and headers.to_scalar_dict() == {HEADER: VALUE}
        assert server.stop() == 0
    files = tree(root)
    assert any(path.suffix == ".log" and data for path, data in files.items())
    plain = [TEXT.encode(), HEADER.encode(), VALUE.encode(), key.encode(), base64.b64decode(key)]
    assert [path for path, data in files.items() if any(secret in data for secret in plain)] == []
    assert key not in server.log()


async def test_keys_rotate_over_restarts(tmp_path: Path):
    old, new = new_key(), new_key()
    root = tmp_path / "data"
    with Server(root) as server:
        await write(server, "plain", first=True)
        server.stop()
    with Server(root, settings=settings(old, folder=tmp_path)) as server:
        await write(server, "old")
        server.kill()
    with Server(root, settings=settings(new, old, folder=tmp_path)) as server:
        await write(server, "new")
        assert texts_of(await read_all(await connect(server.address), "s", "topic")) == ["plain", "old", "new"]


@pytest.mark.parametrize("case", ["wrong key", "no key"])
async def test_start_without_the_key_names_the_partition_and_touches_nothing(tmp_path: Path, case: str):
    root = tmp_path / "data"
    with Server(root, settings=settings(new_key(), folder=tmp_path)) as server:
        await write(server, TEXT, first=True)
        server.stop()
    before = tree(root)
    given = settings(new_key(), folder=tmp_path) if case == "wrong key" else {}
    ended = run("serve", settings={"IGGY_SYSTEM_PATH": str(root), "IGGY_TCP_ADDRESS": "127.0.0.1:0"} | given)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("pybroker: ")]
    assert "partition 0 of topic topic of stream s" in line and "is encrypted with key" in line
    assert tree(root) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "system.encryption.enabled: given true, expected a key"),
        (
            {"IGGY_SYSTEM_ENCRYPTION_KEY": "c2hvcnQ="},
            "IGGY_SYSTEM_ENCRYPTION_KEY: system.encryption.key: given a secret",
        ),
        ({"IGGY_SYSTEM_ENCRYPTION_KEY_FILE": "/nowhere/keys"}, "/nowhere/keys can't be read: No such file"),
    ],
)
def test_unusable_key_stops_the_start(tmp_path: Path, given: dict[str, str], said: str):
    ended = run(
        "serve", settings={"IGGY_SYSTEM_PATH": str(tmp_path / "data"), "IGGY_SYSTEM_ENCRYPTION_ENABLED": "true"} | given
    )
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "c2hvcnQ=" not in ended.stderr


def test_line_of_the_key_file_that_is_no_key_is_named(tmp_path: Path):
    given = settings(new_key(), "hunter2", folder=tmp_path) | {"IGGY_SYSTEM_PATH": str(tmp_path / "data")}
    ended = run("serve", settings=given)
    assert ended.returncode == 1
    assert f"{tmp_path / 'keys'}: line 3: expected 32 bytes in base64" in ended.stderr
    assert "hunter2" not in ended.stderr
