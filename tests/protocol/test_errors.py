"""The status table against Iggy's own list."""

import csv
import re
from pathlib import Path

from pybroker.protocol.errors import Refused, Status, WireError

ERRORS = Path(__file__).parents[1] / "golden" / "errors.csv"


def words(name: str) -> str:
    """Return a name in one spelling, whatever its capitals and underscores."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def test_statuses_are_iggys_error_codes_by_number_and_name() -> None:
    with ERRORS.open(newline="") as file:
        listed = {int(line["code"]): words(line["name"]) for line in csv.DictReader(file)}
    assert {status.value: words(status.name) for status in Status if status is not Status.OK} == listed
    assert Status.OK == 0


def test_refusal_says_name_number_and_detail() -> None:
    assert str(Refused(Status.STREAM_ID_NOT_FOUND)) == "STREAM_ID_NOT_FOUND (1009)"
    assert str(Refused(Status.STREAM_ID_NOT_FOUND, "stream 3")) == "STREAM_ID_NOT_FOUND (1009): stream 3"


def test_wire_error_says_where_and_what_was_needed() -> None:
    error = WireError(48, "a size", "0")
    assert str(error) == "at byte 48: need a size, have 0"
    assert error.status is Status.INVALID_COMMAND
