"""The keys that messages are encrypted with on the disk, from where the operator keeps them."""

from pathlib import Path

from .config import ConfigError
from .config.kinds import KEY
from .config.schema import Encryption


def load_keys(settings: Encryption) -> list[bytes]:
    """Return the keys to encrypt and decrypt with, the writing one first; none if encryption is off.

    The key of the configuration comes before those of the file. Raises ConfigError, which never shows a key.
    """
    if not settings.enabled:
        return []
    keys = [settings.key] if settings.key else []
    if settings.key_file:
        keys += read_keys(Path(settings.key_file))
    if not keys:
        raise ConfigError("system.encryption.enabled", "given true, expected a key: set .key or .key_file beside it")
    return keys


def read_keys(path: Path) -> list[bytes]:
    """Return the keys in a file, one a line; empty lines and lines with # are passed over. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError("system.encryption.key_file", f"{path} can't be read: {what}") from None
    keys = [_key_in(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1)]
    if not any(keys):
        raise ConfigError("system.encryption.key_file", f"there is no key in {path}")
    return [key for key in keys if key]


def _key_in(line: str, where: str) -> bytes:
    try:
        return b"" if line.lstrip().startswith("#") else KEY.parse(line)
    except ValueError as error:
        raise ConfigError(where, str(error)) from None
