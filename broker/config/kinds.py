"""The kinds of value a configuration key can have: how each is read, checked and written.

A kind's `parse` raises ValueError that says what is expected and never repeats what was given: the caller knows where
the value came from and whether it may be shown.
"""

import base64
import binascii
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar, cast

import msgspec
from msgspec.structs import replace

from ..units import (
    U64_MAX,
    format_duration,
    format_expiry,
    format_size,
    format_topic_size,
    parse_duration_us,
    parse_expiry_us,
    parse_size,
    parse_topic_size,
)

T = TypeVar("T")

Raw = str | int | bool | list[str]
"""What TOML holds for one of our keys."""

KEY_SIZE: Final = 32
"""The size of an encryption key, AES-256."""

_DIGITS: Final = re.compile(r"-?[0-9]{1,20}")
_PORT_MAX: Final = 65_535
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_URL: Final = re.compile(r"https?://[^\s/?#@]+(?:/\S*)?")
_LEVELS: Final = ("off", "error", "warn", "info", "debug", "trace")
_LEVEL_DEFAULT: Final = "info"


class Kind(msgspec.Struct, Generic[T], frozen=True):
    """How one kind of value is read and written.

    parse: from what TOML holds; raises ValueError that says what is expected.
    write: to what TOML holds, so that `parse` reads back the same value.
    from_text: what TOML would hold, from the text of an environment variable.
    """

    parse: Callable[[object], T]
    write: Callable[[T], Raw]
    from_text: Callable[[str], object] = str


def between(kind: Kind[int], low: Raw, high: Raw, *, step: int = 1) -> Kind[int]:
    """Return `kind` with bounds: `low` and `high`, as the key's user would write them, are allowed themselves."""
    first, last = kind.parse(low), kind.parse(high)
    steps = f", a multiple of {step}" if step > 1 else ""

    def parse(raw: object) -> int:
        value = kind.parse(raw)
        if not first <= value <= last or value % step:
            raise ValueError(f"expected {low} to {high}{steps}")
        return value

    return replace(kind, parse=parse)


def choice(*words: str) -> Kind[str]:
    """Return the kind that is one of `words`."""
    expected = "expected " + " or ".join(f'"{word}"' for word in words)

    def parse(raw: object) -> str:
        if not isinstance(raw, str) or raw not in words:
            raise ValueError(expected)
        return raw

    return Kind(parse, str)


def _parse_flag(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueError("expected true or false")
    return raw


def _flag_from_text(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def _parse_count(raw: object) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValueError("expected a whole number")
    return raw


def _count_from_text(text: str) -> object:
    return int(text) if _DIGITS.fullmatch(text) else text


def _parse_address(raw: object) -> str:
    match = _ADDRESS.fullmatch(raw) if isinstance(raw, str) else None
    if match is None or int(match[1]) > _PORT_MAX:
        raise ValueError('expected host:port such as "127.0.0.1:8090" or "[::1]:8090", port 0 to 65535')
    return match[0]


def _parse_url(raw: object) -> str:
    """Return the URL in `raw`; nothing for none. One with a user in it is refused: URLs are shown."""
    text = raw.strip() if isinstance(raw, str) else None
    if text is None or (text and not _URL.fullmatch(text)):
        raise ValueError('expected a URL such as "http://localhost:4318/v1/logs"')
    return text


def _parse_folder(raw: object) -> Path:
    if not isinstance(raw, str) or not raw.strip() or "\0" in raw:
        raise ValueError("expected the path of a folder")
    return Path(raw)


def _parse_text(raw: object) -> str:
    if not isinstance(raw, str) or "\0" in raw:
        raise ValueError("expected text")
    return raw.strip()


def _parse_words(raw: object) -> tuple[str, ...]:
    """Return the words in `raw`, an array of text; empty ones count as none."""
    words = cast(list[object], raw) if isinstance(raw, list) else [None]
    if not all(isinstance(word, str) for word in words):
        raise ValueError('expected a list of text such as ["a", "b"]')
    return tuple(stripped for word in words if (stripped := str(word).strip()))


def _words_from_text(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _parse_key(raw: object) -> bytes:
    """Return the key in `raw`; nothing for no key."""
    try:
        key = base64.b64decode(raw.strip(), validate=True) if isinstance(raw, str) else b"?"
    except (binascii.Error, ValueError):
        key = b"?"
    if len(key) not in (0, KEY_SIZE):
        raise ValueError(f"expected {KEY_SIZE} bytes in base64, as `openssl rand -base64 {KEY_SIZE}` makes them")
    return key


def _write_key(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _parse_level(raw: object) -> str:
    """Return the level in `raw`, which may be in the syntax of RUST_LOG.

    Of "warn,iggy=debug" that is "warn": its targets are modules of Iggy, so they are passed over.
    """
    parts = [part.strip().lower() for part in str(raw).split(",")]
    bare = [part for part in parts if "=" not in part]
    if not isinstance(raw, str) or any(part not in _LEVELS for part in bare):
        raise ValueError(f"expected one of {', '.join(_LEVELS)}")
    return bare[-1] if bare else _LEVEL_DEFAULT


def _from_word(parse: Callable[[str | int], int], write: Callable[[int], str]) -> Kind[int]:
    # Whatever is neither text nor a whole number reads as no size and no duration once it is text: "True", "[1]".
    return Kind(lambda raw: parse(str(raw)), write)


FLAG: Final = Kind(_parse_flag, bool, _flag_from_text)
COUNT: Final = Kind(_parse_count, int, _count_from_text)
ADDRESS: Final = Kind(_parse_address, str)
URL: Final = Kind(_parse_url, str)
FOLDER: Final = Kind(_parse_folder, str)
TEXT: Final = Kind(_parse_text, str)
WORDS: Final = Kind(_parse_words, list[str], _words_from_text)
KEY: Final = Kind(_parse_key, _write_key)
LEVEL: Final = Kind(_parse_level, str)
SIZE: Final = _from_word(parse_size, format_size)
DURATION: Final = _from_word(parse_duration_us, format_duration)
# The default of a topic is the server's, so for the server's own setting "server_default" can only mean ours: no limit.
EXPIRY: Final = _from_word(lambda word: parse_expiry_us(word) or U64_MAX, format_expiry)
TOPIC_SIZE: Final = _from_word(lambda word: parse_topic_size(word) or U64_MAX, format_topic_size)
