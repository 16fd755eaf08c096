"""Scenarios: files that name runs, so that what we quote can be done again.

about = "what it is for"

[runs."a name"]                 one for each run, in order
kind = "pinned-producer"        and any option of `pybroker bench`, by its long name
producers = 4
tls = true
beside = "another name"         an earlier run, that this one's speed is divided by

[floor]                         the wire benchmark, if wanted: the broker beside the bare event loop
rounds = 9
seconds = 0.15
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .options import parse
from .params import Params


class BadScenario(Exception):
    """A file that can't be used, in words for who wrote it."""


class Floor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rounds: int = 9
    seconds: float = 0.15


class Run(msgspec.Struct, frozen=True):
    name: str
    command: list[str]
    params: Params
    beside: str | None


class Scenario(msgspec.Struct, frozen=True):
    name: str
    about: str
    runs: list[Run]
    rounds: int
    floor: Floor | None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    runs: dict[str, dict[str, Any]]
    about: str = ""
    rounds: Annotated[int, msgspec.Meta(ge=1)] = 1
    every: dict[str, Any] = {}
    floor: Floor | None = None


def read(path: Path) -> Scenario:
    """Read a scenario. Raises BadScenario; exits as the command line does for options that make no sense."""
    try:
        file = msgspec.convert(tomllib.loads(path.read_text()), _File)
    except (OSError, ValueError) as error:
        raise BadScenario(f"{path}: {error}") from None
    if not file.runs:
        raise BadScenario(f"{path}: there are no runs")
    runs: list[Run] = []
    for name, own in file.runs.items():
        options = file.every | own
        beside = options.pop("beside", None)
        if beside is not None and beside not in [run.name for run in runs]:
            raise BadScenario(f"{path}: run {name!r} is beside {beside!r}, which is no run before it")
        if "kind" not in options:
            raise BadScenario(f"{path}: run {name!r} has no kind")
        command = arguments_of(options)
        runs.append(Run(name, command, parse(command)[0], beside))
    return Scenario(path.stem, file.about, runs, file.rounds, file.floor)


def arguments_of(options: dict[str, Any]) -> list[str]:
    """Return options as on the command line. true gives the option alone, false leaves it out."""
    words = [str(options[key]) for key in ("kind", "transport") if key in options]
    for key, value in options.items():
        if key not in ("kind", "transport") and value is not False:
            words.append(f"--{key}" if value is True else f"--{key}={value}")
    return words
