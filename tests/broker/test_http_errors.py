"""What a refusal looks like over HTTP."""

import csv
import json
from pathlib import Path

import pytest
from pybroker.broker.listeners.http.errors import refusal
from pybroker.protocol.errors import Refused, Status

GOLDEN = Path(__file__).parents[1] / "golden" / "errors.csv"


def shown(error: Refused) -> dict[str, object]:
    return json.loads(bytes(refusal(error).body))


def test_every_status_has_iggys_number_and_name() -> None:
    with GOLDEN.open() as lines:
        named = {int(row["code"]): row["http_code"] for row in csv.DictReader(lines)}
    for status in Status:
        if status in named:
            body = shown(Refused(status))
            assert (body["id"], body["code"]) == (status, named[status])


@pytest.mark.parametrize(
    ("status", "http_status", "field"),
    [
        (Status.STREAM_ID_NOT_FOUND, 404, "stream_id"),
        (Status.TOPIC_ID_NOT_FOUND, 404, "topic_id"),
        (Status.CONSUMER_OFFSET_NOT_FOUND, 404, None),
        (Status.STREAM_NAME_NOT_FOUND, 400, None),
        (Status.UNAUTHENTICATED, 401, None),
        (Status.INVALID_PERSONAL_ACCESS_TOKEN, 401, None),
        (Status.UNAUTHORIZED, 403, None),
        (Status.INVALID_CREDENTIALS, 400, None),
        (Status.TOPIC_NAME_ALREADY_EXISTS, 400, "name"),
        (Status.USER_ALREADY_EXISTS, 400, "username"),
    ],
)
def test_the_http_status_and_the_field_are_iggys(status: Status, http_status: int, field: str | None) -> None:
    assert refusal(Refused(status)).status_code == http_status
    assert shown(Refused(status))["field"] == field


def test_the_reason_says_what_was_wrong() -> None:
    assert shown(Refused(Status.TOO_MANY_PARTITIONS, "1001"))["reason"] == "Too many partitions: 1001"
    assert shown(Refused(Status.TOO_MANY_PARTITIONS))["reason"] == "Too many partitions"


def test_what_broke_inside_is_not_told() -> None:
    try:
        raise Refused(Status.CANNOT_APPEND_TO_FILE, "/data/logs/1") from OSError("/data/logs/1")
    except Refused as error:
        assert shown(error)["reason"] == "Cannot append to file"
