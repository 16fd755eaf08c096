"""`pybroker serve` and `pybroker config` as an operator meets them."""

import json
import os
import re
import signal
import socket
import stat
import struct
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_iggy import IggyClient
from pybroker import __version__
from pybroker.protocol.errors import Status
from pybroker.protocol.model import messages, streams, system
from pybroker.protocol.primitives import Consumer, ConsumerKind, PollingKind, PollingStrategy
from support.raw import REPLY, RawClient, request_frame
from support.server import Server, free_port, run
from support.wheel import bounded, connect, make_topic, poll, refused, send

STOP_TIMEOUT_S = 5.0
PIPELINED = 200


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as running:
        yield running


def one_line(text: str) -> str:
    """Return the only line of what a person is told."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize("arguments", [("--version",), ("-V",), ("serve", "--version")])
def test_the_version_is_printed(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (0, f"pybroker {__version__}\n")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_arguments_the_commands_are_listed(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.returncode == 0
    assert "serve" in result.stdout
    assert "config" in result.stdout


def test_an_unknown_command_is_refused() -> None:
    result = run("serv")
    assert result.returncode == 2
    assert "no command 'serv'" in result.stderr


def test_config_show_prints_what_is_in_force(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[tcp]\naddress = "127.0.0.1:1234"\n[system.segment]\nsize = "2 MiB"\n')
    result = run("config", "show", "--config", str(path), settings={"IGGY_SYSTEM_SEGMENT_SIZE": "3 MiB"})
    shown = tomllib.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert shown["tcp"]["address"] == "127.0.0.1:1234"
    assert shown["system"]["segment"]["size"] in ("3 MiB", 3 << 20)


def test_config_check_says_that_a_file_is_valid() -> None:
    path = Path(__file__).parents[2] / "configs" / "server.toml"
    result = run("config", "check", "--config", str(path))
    assert (result.returncode, one_line(result.stdout)) == (0, f"{path}: valid")


WRONG: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "value in the file": ('[system.segment]\nsize = "huge"\n', {}, ["server.toml", "system.segment.size", "huge"]),
    "value of a variable": ("", {"IGGY_TCP_ADDRESS": "here"}, ["IGGY_TCP_ADDRESS", "here"]),
    "value out of bounds": ("[pybroker]\nconnections_max = 0\n", {}, ["server.toml", "connections_max", "0"]),
    "no TOML": ("[tcp\n", {}, ["server.toml"]),
}


@pytest.mark.parametrize("command", [("serve",), ("config", "check"), ("config", "show")])
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_ends_the_start_with_one_line(tmp_path: Path, command: tuple[str, ...], case: str) -> None:
    content, settings, told = WRONG[case]
    path = tmp_path / "server.toml"
    path.write_text(content)
    result = run(*command, "--config", str(path), settings=settings, cwd=tmp_path)
    assert result.returncode == 1
    line = one_line(result.stderr)
    assert all(part in line for part in told), line


def test_a_missing_configuration_gets_a_warning(tmp_path: Path) -> None:
    with Server(tmp_path / "data", arguments=("--config", "none.toml")) as server:
        (warning,) = [line for line in server.log().splitlines() if "WARNING" in line]
        assert "none.toml" in warning


def test_an_unknown_key_gets_a_warning_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[system.segment]\nsise = "2 MiB"\n')
    result = run("config", "check", "--config", str(path))
    assert result.returncode == 0
    assert "system.segment.sise" in result.stdout
    assert "system.segment.size" in result.stdout
    with Server(tmp_path / "data", arguments=("--config", str(path))) as server:
        (warning,) = [line for line in server.log().splitlines() if "WARNING" in line]
        assert "system.segment.sise" in warning


def refusal(server: Server) -> str:
    """Expect that a server does not start; return the line that says why."""
    process = server.spawn()
    assert process.wait(20) == 1
    (line,) = [line for line in server.log().splitlines() if line.startswith("pybroker: ")]
    assert "Traceback" not in server.log()
    return line


def test_a_port_in_use_is_told(server: Server, tmp_path: Path) -> None:
    line = refusal(Server(tmp_path / "other", port=server.port))
    assert f"tcp.address {server.address}" in line
    assert "in use" in line


def test_a_data_directory_that_another_process_holds_is_told(server: Server) -> None:
    second = Server(server.path)
    second.output = server.path.parent / "second.log"
    line = refusal(second)
    assert str(server.path) in line
    with RawClient(server.port) as client:
        assert client.login().kind == REPLY


def test_a_data_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a directory")
    assert str(tmp_path / "data") in refusal(Server(tmp_path / "data"))


def test_a_data_directory_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    server = Server(tmp_path / "data", settings={"IGGY_SYSTEM_PATH": str(tmp_path / "file" / "data")})
    assert str(tmp_path / "file") in refusal(server)


@pytest.mark.parametrize("name", ["logs", "runtime", "catalog.journal"])
def test_a_data_directory_with_something_else_in_it_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data"
    path.mkdir()
    if name.endswith("journal"):
        (path / name).mkdir()
    else:
        (path / name).write_text("not a directory")
    assert str(path / name) in refusal(Server(path))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_data_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert str(path) in refusal(Server(path))


async def test_fresh_begins_with_nothing(server: Server, tmp_path: Path) -> None:
    client = await connect(server.address, redial=False)
    await make_topic(client, "old")
    await send(client, "old", "topic", ["old"])
    assert server.stop() == 0
    kept = server.path / "not the broker's"
    kept.write_text("kept")
    with Server(server.path, arguments=("--fresh",)) as fresh:
        client = await connect(fresh.address)
        assert await bounded(client.get_streams()) == []
        await make_topic(client, "new")
        assert await poll(client, "new", "topic") == []
    assert kept.read_text() == "kept"


async def test_what_the_test_harnesses_of_others_pass_is_accepted(tmp_path: Path) -> None:
    with Server(tmp_path / "data", arguments=("--replica-id", "0", "--follower")) as server:
        await bounded((await connect(server.address)).ping())


async def login(server: Server, username: str, password: str) -> IggyClient:
    return await connect(server.address, username=username, password=password, redial=False)


async def test_a_random_root_password_is_printed_once_and_works(tmp_path: Path) -> None:
    with Server(tmp_path / "data", default_root=False) as server:
        server.wait_log(lambda lines: any("is ready" in line for line in lines))
        ((username, password),) = re.findall(r"root user: (\S+) +password: (\S+)", server.log())
        assert len(password) >= 16
        await bounded((await login(server, username, password)).get_stats())
        await refused(login(server, "iggy", "iggy"), Status.INVALID_CREDENTIALS)
        assert server.stop() == 0
        server.start()
        await bounded((await login(server, username, password)).get_stats())
        assert server.log().count(password) == 1
        assert not any(password.encode() in path.read_bytes() for path in server.path.rglob("*") if path.is_file())


def test_a_random_root_password_is_printed_even_if_the_start_fails_later(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("serve", settings={"IGGY_SYSTEM_PATH": str(tmp_path / "data"), "IGGY_TCP_ADDRESS": address})
    assert ended.returncode == 1
    assert "can't listen on tcp.address" in ended.stderr
    assert re.search(r"root user: iggy +password: \S{16}", ended.stdout)


def test_a_backup_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "backup.json").write_text("{}")
    ended = run("serve", settings={"IGGY_SYSTEM_PATH": str(tmp_path)})
    assert ended.returncode == 1
    assert "is a backup: make a data directory of it with `pybroker restore`" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["backup.json"]


async def test_the_root_user_is_the_one_of_the_first_start(tmp_path: Path) -> None:
    settings = {"IGGY_ROOT_USERNAME": "admin", "IGGY_ROOT_PASSWORD": "first secret"}
    with Server(tmp_path / "data", settings=settings, default_root=False) as server:
        await bounded((await login(server, "admin", "first secret")).get_stats())
        assert "secret" not in server.log()
        assert server.stop() == 0
    later = {"IGGY_ROOT_USERNAME": "other", "IGGY_ROOT_PASSWORD": "later secret"}
    with Server(tmp_path / "data", settings=later) as server:
        await bounded((await login(server, "admin", "first secret")).get_stats())
        for username, password in (("other", "later secret"), ("admin", "later secret"), ("iggy", "iggy")):
            await refused(login(server, username, password), Status.INVALID_CREDENTIALS)


@pytest.mark.parametrize(
    "settings",
    [
        {"IGGY_ROOT_USERNAME": "admin"},
        {"IGGY_ROOT_PASSWORD": "secret"},
        {"IGGY_ROOT_USERNAME": "me", "IGGY_ROOT_PASSWORD": "secret"},
        {"IGGY_ROOT_USERNAME": "admin", "IGGY_ROOT_PASSWORD": "x" * 101},
    ],
    ids=["no password", "no name", "short name", "long password"],
)
def test_half_a_root_user_is_refused(tmp_path: Path, settings: dict[str, str]) -> None:
    line = refusal(Server(tmp_path / "data", settings=settings))
    assert "IGGY_ROOT_" in line
    assert "secret" not in line


def test_the_current_configuration_has_the_real_port_and_no_secrets(tmp_path: Path) -> None:
    settings = {"IGGY_ROOT_USERNAME": "admin", "IGGY_ROOT_PASSWORD": "top secret"}
    with Server(tmp_path / "data", settings=settings) as server:
        text = (server.path / "runtime" / "current_config.toml").read_text()
        current = tomllib.loads(text)
        assert current["tcp"]["enabled"] is True
        host, _, port = current["tcp"]["address"].rpartition(":")
        assert (host, int(port) > 0) == ("127.0.0.1", True)
        others = [current[name] for name in ("http", "quic", "websocket")]
        assert all(int(other["address"].rpartition(":")[2]) for other in others if other["enabled"])
        assert "top secret" not in text
        with RawClient(int(port)) as client:
            assert client.login("admin", "top secret").kind == REPLY
        assert f"listening for tcp on {server.address}" in server.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_with_status_0(server: Server, number: signal.Signals) -> None:
    clients = [await connect(server.address, redial=False) for _ in range(3)]
    await make_topic(clients[0], "stream")
    with RawClient(server.port) as stalled, RawClient(server.port), RawClient(server.port) as busy:
        stalled.login()
        stalled.socket.sendall(request_frame(bytes(1000))[:300])
        busy.login()
        server.signal(number)
        assert server.wait(STOP_TIMEOUT_S) == 0
    assert "Traceback" not in server.log()
    with pytest.raises(ConnectionError):
        RawClient(server.port)
    server.start()
    assert await poll(await connect(server.address), "stream", "topic") == []


def test_what_is_in_flight_is_answered_before_the_end(server: Server) -> None:
    with RawClient(server.port) as client:
        client.login()
        names = [f"stream {number}" for number in range(PIPELINED)]
        client.socket.sendall(b"".join(client.frame_of(streams.CreateStream(name)) for name in names))
        answers = [client.receive()]  # now the rest is in the server's hands
        server.signal(signal.SIGTERM)
        answers += [client.receive() for _ in names[1:]]
        assert not any(answer.status for answer in answers)
        with pytest.raises(ConnectionError):
            client.receive()
    assert server.wait(STOP_TIMEOUT_S) == 0
    server.start()
    with RawClient(server.port) as client:
        client.login()
        assert [stream.name for stream in client.ask(streams.GetStreams()).streams] == names


async def test_a_second_signal_ends_the_server_at_once(server: Server) -> None:
    """A client that reads nothing keeps the server from its end, for a while."""
    client = await connect(server.address, redial=False)
    await make_topic(client, "stream")
    await send(client, "stream", "topic", [b"x" * 4_000_000])
    everything = messages.PollMessages(
        Consumer(ConsumerKind.SINGLE, 0), "stream", "topic", 0, PollingStrategy(PollingKind.FIRST), 1, False
    )
    with RawClient(server.port) as glutton:
        glutton.login()
        glutton.socket.sendall(glutton.frame_of(everything) * 20)
        assert glutton.receive().kind == REPLY
        server.signal(signal.SIGTERM)
        server.wait_log(lambda lines: any("stopping" in line for line in lines))
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
    server.start()
    assert len(await poll(await connect(server.address), "stream", "topic")) == 1


def test_it_listens_soon_after_the_start(tmp_path: Path) -> None:
    started = time.monotonic()
    with Server(tmp_path / "data") as server, RawClient(server.port) as client:
        assert client.ask(system.Ping()) is None
        assert time.monotonic() - started < 10


def test_it_listens_on_ipv6_where_it_is_told_to(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    port = free_port()
    with Server(tmp_path / "data", settings={"IGGY_TCP_ADDRESS": f"[::1]:{port}"}) as server:
        assert server.address == f"[::1]:{port}"
        with socket.create_connection(("::1", port), 10) as peer:
            peer.sendall(request_frame(code=1))
            header = peer.recv(256)
            assert (header[60], struct.unpack_from("<I", header, 216)[0]) == (REPLY, 0)


def test_the_log_is_also_in_a_file(tmp_path: Path) -> None:
    with Server(tmp_path / "data", settings={"IGGY_SYSTEM_LOGGING_FORMAT": "json"}) as server:
        lines = (server.path / "runtime" / "logs" / "pybroker.log").read_text().splitlines()
    assert any(json.loads(line)["message"].startswith("listening for tcp on 127.0.0.1:") for line in lines)


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = {"IGGY_SYSTEM_LOGGING_PATH": str(tmp_path / "file"), "IGGY_SYSTEM_PATH": str(tmp_path / "data")}
    result = run("serve", settings=settings)
    assert (result.returncode, result.stderr.count("system.logging.path")) == (1, 1)
