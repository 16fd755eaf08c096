"""The tail of the log that is kept in memory: newest lines, bounded, ours only."""

import logging

import pytest
from pybroker.broker.logtail import LINE_SIZE_MAX, LogTail


def record(text: str, *, name: str = "pybroker.broker.app") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, text, None, None)


def test_lines_are_kept_as_they_are_formatted() -> None:
    tail = LogTail()
    tail.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    tail.handle(record("one"))
    tail.handle(record("zwölf \ud800"))
    assert tail.read() == "INFO one\nINFO zwölf \\ud800\n".encode()


@pytest.mark.parametrize("size_max", [0, 1, 5, 6, 7, 100, 599, 600])
def test_oldest_lines_go_first_and_the_size_is_a_limit(size_max: int) -> None:
    tail = LogTail(size_max)
    lines = [b"%05d\n" % number for number in range(100)]
    for line in lines:
        tail.handle(record(line.decode().strip()))
    count = size_max // 6
    assert tail.read() == b"".join(lines[len(lines) - count :])


def test_long_line_is_cut() -> None:
    tail = LogTail()
    tail.handle(record("x" * 10 * LINE_SIZE_MAX))
    tail.handle(record("next"))
    assert tail.read() == b"x" * LINE_SIZE_MAX + b"\nnext\n"


def test_what_others_log_is_not_kept() -> None:
    tail = LogTail()
    for name in ("botocore.auth", "asyncio", "pybrokers", "root"):
        tail.handle(record("theirs", name=name))
    assert tail.read() == b""
    tail.handle(record("ours", name="pybroker"))
    assert tail.read() == b"ours\n"
