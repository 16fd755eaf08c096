"""The log in files: rotation, age, the look of its lines, and what does not go there."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pybroker.broker.logfiles import JSON, NAME, TEXT, LogFile, formatter_of

OURS = "pybroker.test_logfiles"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger(OURS)
    logger.setLevel(logging.INFO)
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def open_log(
    logger: logging.Logger, folder: Path, *, size_max: int = 1000, total_max: int = 0, kind: str = TEXT
) -> None:
    handler = LogFile(folder, size_max=size_max, total_max=total_max, age_max_s=3600)
    handler.setFormatter(formatter_of(kind))
    logger.addHandler(handler)


def test_full_file_gets_a_number_and_all_stay_within_their_size(tmp_path: Path, logger: logging.Logger) -> None:
    open_log(logger, tmp_path / "logs", size_max=1000, total_max=3000)
    for number in range(200):
        logger.info("line %03d", number)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "logs").iterdir()}
    assert sizes.keys() == {NAME, f"{NAME}.1", f"{NAME}.2"}
    assert max(sizes.values()) <= 1000
    assert (tmp_path / "logs" / NAME).read_text().endswith("line 199\n")


def test_lines_go_on_in_the_file_of_the_last_run(tmp_path: Path, logger: logging.Logger) -> None:
    (tmp_path / NAME).write_text("before\n")
    open_log(logger, tmp_path)
    logger.info("after")
    first, second = (tmp_path / NAME).read_text().splitlines()
    assert (first, second.endswith(" INFO    after")) == ("before", True)


def test_old_files_go_at_the_next_start(tmp_path: Path, logger: logging.Logger) -> None:
    for name, age_s in ((f"{NAME}.1", 60), (f"{NAME}.2", 7200), ("other.log", 7200)):
        (tmp_path / name).write_text("old\n")
        changed = (tmp_path / name).stat().st_mtime - age_s
        os.utime(tmp_path / name, (changed, changed))
    open_log(logger, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {NAME, f"{NAME}.1", "other.log"}


def test_json_lines_are_objects(tmp_path: Path, logger: logging.Logger) -> None:
    open_log(logger, tmp_path, kind=JSON, size_max=10_000)
    logger.warning("a %s line", "first\nsecond")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("it failed")
    warning, failure = map(json.loads, (tmp_path / NAME).read_text().splitlines())
    assert warning.keys() == {"time", "level", "logger", "message"}
    assert (warning["level"], warning["logger"], warning["message"]) == ("warning", OURS, "a first\nsecond line")
    assert warning["time"].endswith("Z")
    assert "ValueError: boom" in failure["exception"]


def test_file_is_not_for_everybody_and_not_for_libraries(tmp_path: Path, logger: logging.Logger) -> None:
    open_log(logger, tmp_path)
    logger.handlers[0].handle(logging.LogRecord("botocore", logging.INFO, "", 0, "a credential", None, None))
    assert (tmp_path / NAME).read_text() == ""
    assert (tmp_path / NAME).stat().st_mode & 0o007 == 0


def test_line_that_can_not_be_written_stops_nobody(tmp_path: Path, logger: logging.Logger) -> None:
    open_log(logger, tmp_path)
    (handler,) = logger.handlers
    assert isinstance(handler, LogFile)
    handler.close()
    handler.stream = open("/dev/full", "a")  # noqa: SIM115
    logger.info("lost")
    handler.close()
