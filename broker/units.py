"""Sizes and durations as people write them, to whole bytes and microseconds and back.

The words are Iggy's: sizes as its byte-unit crate reads them, durations as humantime does. Configuration, command line
and the topic options that clients send as text all come through here. Formatting loses nothing: what `format_*` writes,
`parse_*` reads back as the same number.
"""

import re
from fractions import Fraction
from typing import Final

U64_MAX: Final = 2**64 - 1

_SIZE: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?:([KMGTPEkmgtpe])([iI]?))?B?")
_SIZE_EXPECTED: Final = 'expected a size such as "64 MiB" or "2 MB", or a whole number of bytes'
_NO_SIZE: Final = frozenset({"0", "none", "unlimited"})
_PREFIXES: Final = "KMGTPE"

# Largest first. At equal value the binary unit comes first, as in Iggy's output.
_SIZE_UNITS: Final = tuple(
    (f"{prefix}{suffix}", base**power)
    for power, prefix in reversed(list(enumerate(_PREFIXES, start=1)))
    for suffix, base in (("iB", 1024), ("B", 1000))
)

_SECOND_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _SECOND_NS

# Months and years are humantime's: 30.44 and 365.25 days. Its capital M for a month cannot be told from a minute here,
# because Iggy lowers the text before it parses it.
_DURATION_WORDS: Final = {
    "ns nsec nanos": 1,
    "us µs usec micros": 1_000,
    "ms msec millis": 1_000_000,
    "s sec secs second seconds": _SECOND_NS,
    "m min mins minute minutes": 60 * _SECOND_NS,
    "h hr hrs hour hours": 3_600 * _SECOND_NS,
    "d day days": _DAY_NS,
    "w wk wks week weeks": 7 * _DAY_NS,
    "month months": 2_630_016 * _SECOND_NS,
    "y yr yrs year years": 31_557_600 * _SECOND_NS,
}
_DURATION_UNITS: Final = {word: size for words, size in _DURATION_WORDS.items() for word in words.split()}
_DURATION_PART: Final = re.compile(r"([0-9]{1,20})\s*([a-zµ]+)\s*")
_DURATION: Final = re.compile(f"(?:{_DURATION_PART.pattern})+")
_DURATION_EXPECTED: Final = 'expected a duration such as "5 s", "500 ms", "2 h 30 m" or "7 days"'
_NO_DURATION: Final = frozenset({"0", "none", "unlimited", "disabled"})
_FORMAT_UNITS_US: Final = (
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
)

_NEVER: Final = frozenset({"none", "unlimited", "never_expire", "never", "disabled"})
_UNLIMITED: Final = frozenset({"unlimited", "none"})
_SERVER_DEFAULT: Final = frozenset({"0", "server_default", "default"})


def parse_size(text: str | int) -> int:
    """Return the bytes that `text` names, 0 to U64_MAX; 0 for "none" and "unlimited".

    A lower-case `b` is refused: byte-unit takes it for bits, people mean bytes.
    Raises ValueError that says what is expected.
    """
    word = _plain(text)
    if word.lower() in _NO_SIZE:
        return 0
    match = _SIZE.fullmatch(word)
    if match is None:
        raise ValueError(_SIZE_EXPECTED)
    number, prefix, binary = match.groups()
    power = _PREFIXES.index(prefix.upper()) + 1 if prefix else 0
    # A fraction, so that "1.5 GiB" is exact and "1.0001 KB", which is no number of bytes, is noticed.
    size = Fraction(number) * (1024 if binary else 1000) ** power
    if size.denominator != 1 or size > U64_MAX:
        raise ValueError(_SIZE_EXPECTED)
    return int(size)


def format_size(size: int) -> str:
    """Return `size` bytes in the unit that writes it exactly with the smallest number."""
    exact = [(size // scale, unit) for unit, scale in _SIZE_UNITS if size and size % scale == 0]
    count, unit = min(exact, key=lambda pair: pair[0], default=(size, "B"))
    return f"{count} {unit}"


def show_size(size: int) -> str:
    """Return `size` bytes as Iggy's JSON shows it: the largest unit that takes at most three decimals, "1.5 KiB"."""
    exact = ((unit, scale) for unit, scale in _SIZE_UNITS if size >= scale and size * 1000 % scale == 0)
    unit, scale = next(exact, ("B", 1))
    whole, thousandths = divmod(size * 1000 // scale, 1000)
    return f"{whole}.{thousandths:03}".rstrip("0").rstrip(".") + f" {unit}"


def parse_duration_us(text: str | int) -> int:
    """Return the microseconds that `text` names; 0 for "0", "none", "unlimited" and "disabled".

    A number without a unit is refused, but 0. So is a part of a microsecond, which would silently become "disabled".
    Raises ValueError that says what is expected.
    """
    word = _plain(text).lower()
    if word in _NO_DURATION:
        return 0
    parts = _DURATION_PART.findall(word) if _DURATION.fullmatch(word) else []
    if not parts or any(unit not in _DURATION_UNITS for _, unit in parts):
        raise ValueError(_DURATION_EXPECTED)
    duration_us, rest_ns = divmod(sum(int(count) * _DURATION_UNITS[unit] for count, unit in parts), 1_000)
    if rest_ns or duration_us > U64_MAX:
        raise ValueError(_DURATION_EXPECTED)
    return duration_us


def format_duration(duration_us: int) -> str:
    """Return `duration_us` as humantime, "2 h 30 m"; "0" for none."""
    parts: list[str] = []
    for unit, scale_us in _FORMAT_UNITS_US:
        count, duration_us = divmod(duration_us, scale_us)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0"


def parse_expiry_us(text: str | int) -> int:
    """Return a message expiry in microseconds: U64_MAX is never, 0 is what the server has as its default.

    Raises ValueError that says what is expected.
    """
    word = _plain(text).lower()
    if word in _NEVER:
        return U64_MAX
    if word in _SERVER_DEFAULT:
        return 0
    try:
        return parse_duration_us(word)
    except ValueError:
        raise ValueError(f'{_DURATION_EXPECTED}, "none" or "server_default"') from None


def format_expiry(expiry_us: int) -> str:
    """Return what `parse_expiry_us` reads as `expiry_us`."""
    return {U64_MAX: "none", 0: "server_default"}.get(expiry_us) or format_duration(expiry_us)


def parse_topic_size(text: str | int) -> int:
    """Return the most bytes a topic may hold: U64_MAX is no limit, 0 is what the server has as its default.

    Raises ValueError that says what is expected.
    """
    word = _plain(text)
    if word.lower() in _UNLIMITED:
        return U64_MAX
    if word.lower() in _SERVER_DEFAULT:
        return 0
    try:
        return parse_size(word)
    except ValueError:
        raise ValueError(f'{_SIZE_EXPECTED}, "unlimited" or "server_default"') from None


def format_topic_size(size: int) -> str:
    """Return what `parse_topic_size` reads as `size`."""
    return {U64_MAX: "unlimited", 0: "server_default"}.get(size) or format_size(size)


def _plain(text: str | int) -> str:
    return str(text).strip()
