"""Sizes and durations: what Iggy's words mean, and that formatting loses nothing."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.broker.units import (
    U64_MAX,
    format_duration,
    format_expiry,
    format_size,
    format_topic_size,
    parse_duration_us,
    parse_expiry_us,
    parse_size,
    parse_topic_size,
    show_size,
)

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

SIZES: list[tuple[str | int, int]] = [
    (0, 0),
    (4096, 4096),
    (U64_MAX, U64_MAX),
    ("0", 0),
    ("none", 0),
    ("Unlimited", 0),
    ("1234", 1234),
    ("100 B", 100),
    ("1200B", 1200),
    ("2 MB", 2_000_000),
    ("100 KB", 100_000),
    ("64kB", 64_000),
    ("1 M", 1_000_000),
    ("1 GiB", 2**30),
    (" 64 MiB ", 64 * 2**20),
    ("2Ki", 2048),
    ("1.5 KiB", 1536),
    ("0.5 kB", 500),
    ("15 EiB", 15 * 2**60),
]
NO_SIZES: list[str | int] = [
    *("", " ", "x", "-1", -1, "1.0001 KB", "1 XB", "1 mb", "1 iB", "16 EiB", "1 2 MB", "1e3", "1,5 MB", U64_MAX + 1),
]

DURATIONS: list[tuple[str | int, int]] = [
    (0, 0),
    ("0", 0),
    ("0 s", 0),
    ("none", 0),
    ("Unlimited", 0),
    ("disabled", 0),
    ("5 s", 5 * SECOND),
    ("5s", 5 * SECOND),
    ("1 m", MINUTE),
    ("1 M", MINUTE),
    ("7 days", 7 * DAY),
    ("2 h 30 m", 2 * HOUR + 30 * MINUTE),
    ("2h30m", 2 * HOUR + 30 * MINUTE),
    ("500ms", 500_000),
    ("50 us", 50),
    ("50µs", 50),
    ("3000 ns", 3),
    ("1 week 1 day", 8 * DAY),
    ("1 month", 2_630_016 * SECOND),
    ("1 year", 31_557_600 * SECOND),
    (" 1 hour ", HOUR),
]
NO_DURATIONS: list[str | int] = [
    *("", "5", 5, "s", "5 x", "-5 s", "1.5 s", "1 ns", "5 s 3", "1_0 s", "never", "\u0665 s", "999999999 years"),
]

EXPIRIES: list[tuple[str | int, int]] = [
    *((word, U64_MAX) for word in ("none", "unlimited", "never_expire", "never", "None", "disabled")),
    *((word, 0) for word in ("default", "server_default", "0", 0)),
    ("7 days", 7 * DAY),
]
TOPIC_SIZES: list[tuple[str | int, int]] = [
    *((word, U64_MAX) for word in ("unlimited", "Unlimited", "none", U64_MAX)),
    *((word, 0) for word in ("0", 0, "server_default", "default", "0 B")),
    ("10 GB", 10_000_000_000),
]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_size_is_read_as_bytes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "duration_us"), DURATIONS)
def test_duration_is_read_as_microseconds(text: str | int, duration_us: int) -> None:
    assert parse_duration_us(text) == duration_us


@pytest.mark.parametrize(("text", "expiry_us"), EXPIRIES)
def test_expiry_knows_never_and_the_default(text: str | int, expiry_us: int) -> None:
    assert parse_expiry_us(text) == expiry_us


@pytest.mark.parametrize(("text", "size"), TOPIC_SIZES)
def test_topic_size_knows_unlimited_and_the_default(text: str | int, size: int) -> None:
    assert parse_topic_size(text) == size


@pytest.mark.parametrize("parse", [parse_size, parse_topic_size])
@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_refused(parse: Callable[[str | int], int], text: str | int) -> None:
    with pytest.raises(ValueError, match="expected a size such as"):
        parse(text)


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration_us(text)


def test_what_is_no_expiry_is_refused() -> None:
    with pytest.raises(ValueError, match=r'expected a duration such as .* "none" or "server_default"'):
        parse_expiry_us("3600")


@pytest.mark.parametrize("digits", [21, 5_000])
def test_very_long_numbers_are_refused(digits: int) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size("9" * digits)
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration_us("9" * digits + " s")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1, "1 B"), (1000, "1 KB"), (1001, "1001 B"), (1024, "1 KiB"), (63 * 2**20, "63 MiB")],
)
def test_size_is_written_in_the_unit_that_is_exact(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("duration_us", "text"),
    [(0, "0"), (1, "1 us"), (SECOND, "1 s"), (90 * SECOND, "1 m 30 s"), (9_000 * SECOND, "2 h 30 m"), (7 * DAY, "7 d")],
)
def test_duration_is_written_in_parts(duration_us: int, text: str) -> None:
    assert format_duration(duration_us) == text


def test_special_values_are_written_as_words() -> None:
    assert (format_expiry(U64_MAX), format_expiry(0), format_expiry(SECOND)) == ("none", "server_default", "1 s")
    assert (format_topic_size(U64_MAX), format_topic_size(0)) == ("unlimited", "server_default")
    assert format_topic_size(2**30) == "1 GiB"


@pytest.mark.parametrize(
    ("parse", "write"),
    [
        (parse_size, format_size),
        (parse_duration_us, format_duration),
        (parse_expiry_us, format_expiry),
        (parse_topic_size, format_topic_size),
    ],
)
@given(value=st.integers(0, U64_MAX) | st.sampled_from([0, 1, 2**30, 10**9, U64_MAX - 1, U64_MAX]))
def test_what_is_written_reads_back_the_same(
    parse: Callable[[str | int], int], write: Callable[[int], str], value: int
) -> None:
    assert parse(write(value)) == value


@given(st.text() | st.from_regex(r"[0-9]{1,4} ?[a-zA-Z]{1,3}"))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for parse in (parse_size, parse_duration_us, parse_expiry_us, parse_topic_size):
        try:
            assert 0 <= parse(text) <= U64_MAX
        except ValueError as error:
            assert str(error).startswith("expected a ")


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (305, "305 B"),
        (1000, "1 KB"),
        (1024, "1 KiB"),
        (1025, "1.025 KB"),
        (1536, "1.5 KiB"),
        (3_211_776, "3136.5 KiB"),
        (1_234_567, "1234.567 KB"),
        (2**30, "1 GiB"),
        (U64_MAX, "18446744073709551.615 KB"),
    ],
)
def test_a_size_is_shown_as_iggys_json_has_it(size: int, shown: str) -> None:
    assert show_size(size) == shown


@given(st.integers(0, U64_MAX))
def test_a_shown_size_is_exact(size: int) -> None:
    assert parse_size(show_size(size)) == size
