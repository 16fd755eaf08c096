"""The house rules that a program can hold: who imports whom, how long things get, what is listed where."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "storage", "broker", "client", "benchmarks", "testing")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
# The ratchet: the longest file and function there are. Lower them when you can; they never go up.
LONGEST_FILE = 430
LONGEST_FUNCTION = 43

# Within protocol, each layer imports only from layers before it (and from its own).
PROTOCOL_LAYERS = (
    {"_frames", "errors", "batch", "primitives", "reader", "needs", "inbox", "unpacked"},
    {"model"},
    {"commands", "payloads", "wire"},
    {"classic", "vsr"},
    {"detect"},
)
STORAGE_LAYERS = ({"errors", "engine", "seal"}, {"cipher"}, {"local", "memory"})
BROKER_LAYERS = (
    {"units", "loops", "busypoll"},
    {"config"},
    {
        "permissions",
        "arrivals",
        "groups",
        "events",
        "passwords",
        "throttle",
        "session",
        "offsets",
        "archive",
        "encryption",
        "logtail",
        "logfiles",
        "counters",
        "tls",
    },
    {"catalog", "topic_options"},
    {"logs", "datadir"},
    {"dedup"},
    {"state"},
    {"services", "gate", "retention", "sweeper"},
    {"dispatch", "metrics", "tracing", "telemetry"},
    {"connection"},
    {"listeners"},
    {"app"},
    {"cli"},
)
CLIENT_LAYERS = (
    {"errors"},
    {"retry", "messages", "caller"},
    {"url", "catalog", "messaging", "administration"},
    {"connection", "commands"},
    {"tcp", "room", "lanes", "cursors", "commits", "polls", "readers"},
    {"websocket", "quic", "producer", "consumer"},
    {"dial"},
    {"client"},
)
# protocol is pure: bytes in, values out.
IMPURE = {"asyncio", "socket", "os", "time", "random", "logging", "threading", "pathlib"}
PRINTERS = {"__main__.py", "broker/cli.py", "broker/datadir/cli.py"}
# What knows the local engine's files: it starts them, or checks and copies them.
ENGINE_USERS = ("broker/app.py", "broker/datadir/")


def python_files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(found)


def sources() -> list[Path]:
    return [*ROOT.glob("*.py"), *python_files(*PACKAGES)]


def everything() -> list[Path]:
    return [*sources(), *python_files("tests")]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield what a file imports, as parts of absolute names; our own begin with "pybroker"."""
    package = ("pybroker", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            for alias in node.names:
                yield (*module, alias.name)


def ours(path: Path) -> Iterator[tuple[str, ...]]:
    for parts in imports(path):
        if parts[0] == "pybroker" and len(parts) > 1:
            yield parts[1:]


def layer_of(layers: tuple[set[str], ...], name: str) -> int | None:
    return next((index for index, layer in enumerate(layers) if name in layer), None)


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("protocol", {"protocol"}),
        ("storage", {"storage", "protocol"}),
        ("broker", {"broker", "storage", "protocol", "__version__"}),
        ("client", {"client", "protocol", "__version__"}),
        ("testing", {"testing", "broker", "client", "storage"}),
    ],
)
def test_packages_import_only_what_lies_below_them(package: str, allowed: set[str]) -> None:
    wrong = [
        f"{name_of(path)}: {'.'.join(parts)}"
        for path in python_files(package)
        for parts in ours(path)
        if parts[0] not in allowed
    ]
    assert not wrong


def test_storage_knows_nothing_of_the_protocol_but_the_batch() -> None:
    wrong = [
        f"{name_of(path)}: {'.'.join(parts)}"
        for path in python_files("storage")
        for parts in ours(path)
        if parts[0] == "protocol" and parts[1] != "batch"
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("package", "layers"),
    [("protocol", PROTOCOL_LAYERS), ("storage", STORAGE_LAYERS), ("broker", BROKER_LAYERS), ("client", CLIENT_LAYERS)],
)
def test_layers_import_only_from_layers_before_them(package: str, layers: tuple[set[str], ...]) -> None:
    wrong: list[str] = []
    for path in python_files(package):
        own = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        here = layer_of(layers, own)
        assert here is not None, f"{name_of(path)} has no layer"
        for parts in ours(path):
            if parts[0] != package or len(parts) < 2 or parts[1] == own:
                continue
            there = layer_of(layers, parts[1])
            if there is None or there > here:
                wrong.append(f"{name_of(path)}: {'.'.join(parts)}")
    assert not wrong


def test_protocol_is_pure() -> None:
    wrong = [
        f"{name_of(path)}: {parts[0]}"
        for path in python_files("protocol")
        for parts in imports(path)
        if parts[0] in IMPURE
    ]
    assert not wrong


def test_only_the_app_knows_a_concrete_engine() -> None:
    wrong = [
        f"{name_of(path)}: {'.'.join(parts)}"
        for path in python_files("broker")
        for parts in ours(path)
        if parts[0] == "storage" and parts[1] not in ("engine", "errors") and not name_of(path).startswith(ENGINE_USERS)
    ]
    assert not wrong


def test_services_know_no_wire_and_no_listener() -> None:
    wrong = [
        f"{name_of(path)}: {'.'.join(parts)}"
        for path in python_files("broker/services")
        for parts in ours(path)
        if "listeners" in parts or "vsr" in parts or "wire" in parts
    ]
    assert not wrong


def test_only_the_disk_module_calls_the_file_system() -> None:
    wrong = [
        f"{name_of(path)}: {parts[0]}"
        for path in python_files("storage")
        for parts in imports(path)
        if parts[0] in ("os", "shutil", "mmap", "fcntl", "io") and path.name != "disk.py"
    ]
    assert not wrong


def test_files_and_functions_stay_short() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in everything()}
    functions = {
        f"{name_of(path)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in everything()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    limits = (min(LONGEST_FILE, FILE_LINES_MAX), min(LONGEST_FUNCTION, FUNCTION_LINES_MAX))
    assert {name: count for name, count in lines.items() if count > limits[0]} == {}
    assert {name: count for name, count in functions.items() if count > limits[1]} == {}


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources()
        if name_of(path) not in PRINTERS and not name_of(path).startswith("benchmarks/")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong


def test_every_module_says_what_it_is() -> None:
    silent = [name_of(path) for path in everything() if path.read_text().strip() and not ast.get_docstring(parse(path))]
    assert not silent


def test_every_folder_of_code_is_packaged() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT).parts for path in python_files(*PACKAGES)}
    assert sorted(listed) == sorted({".".join(("pybroker", *folder)) for folder in folders} | {"pybroker"})


def test_nothing_is_left_unfinished() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "raise NotImplemented" + "Error")
    wrong = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in everything()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if any(mark in line for mark in marks)
    ]
    assert not wrong
