"""Where values come from: a TOML file, the environment, and a `.env` file below the environment.

A source is read into a `Layer`: what it gives for keys of the schema, not parsed yet, and what there is to say about
the rest. No value of a key outside the schema gets into a message, for it may be a secret.
"""

import logging
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, cast

from msgspec import Struct, field

from .errors import ConfigError
from .names import (
    ENV_PATH_VARIABLE,
    ENVIRONMENT_NAMES,
    FILE_NAMES,
    LOG_NAMES,
    MISSED_IF_TRUE,
    TABLES,
    is_configuration,
    nearest,
)
from .schema import KEYS

_SYNTAX_ERROR: Final = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)")
_ARRAY_ELEMENT: Final = re.compile(r"_[0-9]+(?:_.*)?")

_ENV_LINE: Final = re.compile(
    r"""(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*
        (?: '(?P<literal>[^']*)'
          | "(?P<escaped>(?:[^"\\]|\\.)*)"
          | (?P<bare>(?:[^\s'"#]\S*(?:\s+[^\s#]\S*)*)?) )
        \s*(?:\#.*)?""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(.)")


class Note(NamedTuple):
    """Something to log once logging works. level: as in `logging`."""

    level: int
    message: str


class Given(NamedTuple):
    """A value as a source has it, and where that is, for a message."""

    where: str
    raw: object


class Entry(NamedTuple):
    """A name as a source spells it, and what it gives for it."""

    name: str
    given: Given


class Layer(Struct, frozen=True):
    """What one source gives. values: by path in the schema. ignored: the names known to mean nothing here."""

    values: dict[str, Given] = field(default_factory=dict[str, Given])
    ignored: list[str] = field(default_factory=list[str])
    notes: list[Note] = field(default_factory=list[Note])


class Environment(Struct, frozen=True):
    """The environment, with that of a `.env` file below it and nothing that is empty.

    from_file: the names that only the file `path` has.
    """

    values: Mapping[str, str]
    path: Path
    from_file: frozenset[str] = frozenset()
    notes: tuple[Note, ...] = ()

    def where(self, name: str) -> str:
        """Return where the variable `name` is set, for a message."""
        return f"{name} in {self.path}" if name in self.from_file else f"environment variable {name}"


def read_file(path: Path) -> Layer:
    """Return what the TOML file at `path` gives; nothing and a warning when there is none.

    Raises ConfigError when it cannot be read, is not TOML, or has a value where a table belongs.
    """
    text = _read_text(path)
    if text is None:
        return Layer(notes=[Note(logging.WARNING, f"{path}: no such file, so defaults and environment it is")])
    return _sort(_file_entries(_parse_toml(text, path), str(path)), FILE_NAMES)


def read_environment(environ: Mapping[str, str], cwd: Path) -> Environment:
    """Return `environ` on top of the `.env` file in `cwd` or at IGGY_ENV_PATH.

    Raises ConfigError when the file cannot be read, or is missing though IGGY_ENV_PATH names it.
    """
    named = environ.get(ENV_PATH_VARIABLE)
    path = cwd / (named or ".env")
    text = _read_text(path)
    if text is None and named:
        raise ConfigError(f"environment variable {ENV_PATH_VARIABLE}", f"there is no file {path}")
    below, notes = _parse_env(text or "", path)
    above = {name: value for name, value in environ.items() if value.strip()}
    return Environment(below | above, path, frozenset(below.keys() - above.keys()), tuple(notes))


def environment_layers(environment: Environment) -> tuple[Layer, Layer]:
    """Return what the IGGY_ variables give, and what wins over them: the log level in RUST_LOG."""
    names = [name for name in environment.values if is_configuration(name)]
    logs = [name for name in LOG_NAMES if name in environment.values]
    return (
        _sort(_environment_entries(environment, names, ENVIRONMENT_NAMES), ENVIRONMENT_NAMES),
        _sort(_environment_entries(environment, logs, LOG_NAMES), LOG_NAMES),
    )


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), f"line {line}: expected text in UTF-8") from None


def _parse_toml(text: str, path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        match = _SYNTAX_ERROR.fullmatch(str(error))
        line = (match and match["line"]) or len(text.splitlines())
        what = match["what"] if match else "not TOML"
        raise ConfigError(str(path), f"line {line}: {what}, expected TOML") from None


def _file_entries(table: Mapping[str, object], where: str, prefix: str = "") -> Iterator[Entry]:
    """Yield each key of `table` by its dotted path; what is inside of a known key is its value, table or not."""
    for name, value in table.items():
        path = prefix + name
        if path not in FILE_NAMES and isinstance(value, dict):
            yield from _file_entries(cast(dict[str, object], value), where, f"{path}.")
        elif path in TABLES:
            raise ConfigError(where, f"{path}: given one value, expected a table [{path}]")
        else:
            yield Entry(path, Given(where, value))


def _environment_entries(environment: Environment, names: Iterable[str], known: Mapping[str, str]) -> Iterator[Entry]:
    for name in names:
        array = _ARRAY_ELEMENT.sub("[]", name, count=1)
        spelling = array if array in known else name
        key = KEYS.get(known.get(spelling, ""))
        text = environment.values[name].strip()
        yield Entry(spelling, Given(environment.where(name), key.kind.from_text(text) if key else text))


def _sort(entries: Iterable[Entry], known: Mapping[str, str]) -> Layer:
    """Return `entries` as a layer. known: each spelling to its path in the schema or in IGNORED.

    Raises ConfigError when two spellings of one key disagree.
    """
    layer = Layer()
    for name, given in entries:
        path = known.get(name)
        if path is None:
            layer.notes.append(_unknown(name, given.where, known))
        elif path not in KEYS:
            layer.ignored.append(name)
            if path in MISSED_IF_TRUE and given.raw in (True, "true"):
                layer.notes.append(Note(logging.WARNING, f"{given.where}: {name}: not supported, nothing is done"))
        elif layer.values.setdefault(path, given).raw != given.raw:
            raise ConfigError(
                given.where, f"{name}: {path} is given twice, expected the same value or only one of them"
            )
    return layer


def _unknown(name: str, where: str, known: Mapping[str, str]) -> Note:
    near = nearest(name, known)
    hint = f"; did you mean {near}?" if near else ""
    return Note(logging.WARNING, f"{where}: unknown key {name!r}, ignored{hint}")


def _parse_env(text: str, path: Path) -> tuple[dict[str, str], list[Note]]:
    """Return the variables in `text` that are not empty, and a warning for each line that is none.

    A `.env` file is often shared with other programs, so what only they understand does not stop the broker. The line
    is not shown: it may hold a password.
    """
    values: dict[str, str] = {}
    notes: list[Note] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(stripped)
        if match is None:
            notes.append(Note(logging.WARNING, f"{path}: line {number}: expected NAME=value, ignored"))
        elif (value := _env_value(match)).strip():
            values[match["name"]] = value
    return values, notes


def _env_value(match: re.Match[str]) -> str:
    if match["escaped"] is not None:
        return _ESCAPE.sub(lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), match["escaped"])
    return match["literal"] or match["bare"] or ""
