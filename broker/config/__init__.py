"""The configuration: Iggy's keys and our own, from defaults, a TOML file and the environment."""

from .errors import ConfigError
from .loader import Loaded, load
from .schema import Config
from .sources import Note
from .writer import to_toml

__all__ = ["Config", "ConfigError", "Loaded", "Note", "load", "to_toml"]
