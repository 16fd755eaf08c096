"""Put the layers together: defaults in the schema, then the file, then the environment."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .errors import ConfigError
from .names import CONFIG_PATH_VARIABLE, nearest
from .schema import KEYS, ORDERED, Config, Key, with_values
from .sources import Given, Layer, Note, environment_layers, read_environment, read_file

_SHOWN_MAX: Final = 80
SETTINGS: Final = "settings"  # where a value is that a program gives


@dataclass(frozen=True)
class Loaded:
    """A configuration and what there is to say about how it came to be.

    notes: to be logged once logging works.
    environ: the environment with that of the `.env` file below it, for what is no configuration (IGGY_ROOT_USERNAME).
    path: the configuration file, whether it exists or not; None when none was named.
    """

    config: Config
    notes: tuple[Note, ...]
    # It holds passwords, so it stays out of any message that shows the whole.
    environ: Mapping[str, str] = field(repr=False)
    path: Path | None


def load(path: Path | None, environ: Mapping[str, str], *, cwd: Path = Path()) -> Loaded:
    """Return the configuration in the file at `path`, or at IGGY_CONFIG_PATH, and in `environ`.

    environ: not kept. cwd: where `.env` and a relative path are looked for.
    Raises ConfigError on the first value that is wrong, and on a file that cannot be read.
    """
    environment = read_environment(environ, cwd)
    named = path or environment.values.get(CONFIG_PATH_VARIABLE)
    found = cwd / named if named else None
    # Ascending: each wins over those before it.
    layers = (read_file(found) if found else _without_file(), *environment_layers(environment))
    given = {path: value for layer in layers for path, value in layer.values.items()}
    notes = (*environment.notes, *(note for layer in layers for note in layer.notes), *_ignored(layers))
    return Loaded(_configure(given), notes, environment.values, found)


def from_settings(settings: Mapping[str, object]) -> Config:
    """Return the configuration with values by their key's path, "tcp.address", as a file or the environment has them.

    No file and no environment is read. Raises ConfigError on a wrong value, and on a key that has no meaning here.
    """
    for path in settings.keys() - KEYS.keys():
        near = nearest(path, KEYS)
        raise ConfigError(SETTINGS, f"unknown key {path!r}{f'; did you mean {near}?' if near else ''}")
    return _configure({path: Given(SETTINGS, _raw(KEYS[path], value)) for path, value in settings.items()})


def _configure(given: Mapping[str, Given]) -> Config:
    values = {path: _parse(path, KEYS[path], value) for path, value in given.items()}
    _check_order(values, given)
    return with_values(Config(), values)


def _raw(key: Key, value: object) -> object:
    return key.kind.from_text(str(value)) if isinstance(value, str | Path) else value


def _without_file() -> Layer:
    return Layer(notes=[Note(logging.INFO, "no configuration file, so defaults and environment it is")])


def _ignored(layers: tuple[Layer, ...]) -> tuple[Note, ...]:
    names = [name for layer in layers for name in layer.ignored]
    message = f"known to Iggy, without effect here: {', '.join(sorted(set(names)))}"
    return (Note(logging.DEBUG, message),) if names else ()


def _parse(path: str, key: Key, given: Given) -> object:
    try:
        return key.kind.parse(given.raw)
    except ValueError as error:
        raise ConfigError(given.where, f"{path}: given {_shown(key, given.raw)}, {error}") from None


def _shown(key: Key, raw: object) -> str:
    """Return `raw` on one line as TOML has it, unless it is a secret."""
    text = "a secret" if key.secret else json.dumps(raw, default=str)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def _check_order(values: Mapping[str, object], given: Mapping[str, Given]) -> None:
    """Raise ConfigError when a value that was given puts a pair of ORDERED out of order."""
    for pair in ORDERED:
        low, high = (values.get(path, KEYS[path].default) for path in pair)
        assert isinstance(low, int) and isinstance(high, int), "only sizes are ordered"
        if low > high:
            where = next(given[path].where for path in pair if path in given)
            low_text, high_text = (KEYS[path].kind.write(size) for path, size in zip(pair, (low, high), strict=True))
            raise ConfigError(where, f"{pair[0]} is {low_text}, expected at most {pair[1]}, which is {high_text}")
