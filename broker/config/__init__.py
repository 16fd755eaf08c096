"""The configuration: Iggy's keys and our own, from defaults, a TOML file and the environment."""

from .errors import ConfigError
from .loader import Loaded, from_settings, load
from .schema import Config
from .sources import Note
from .writer import to_toml

__all__ = ["Config", "ConfigError", "Loaded", "Note", "from_settings", "load", "to_toml"]
