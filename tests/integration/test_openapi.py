"""Requests made up from the API's document, against a running server: it answers each as the document says."""

from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pybroker.broker.listeners.http.openapi import document
from pybroker.broker.listeners.http.routes import ROUTES
from schemathesis.specs.openapi import checks
from support.rest import message, new_topic, to_partition
from support.server import Server

CASES = 10
CASE_TIMEOUT_S = 20
# An answer without an end; and logins, where made-up passwords wait longer and longer.
LEFT_OUT = ["follow", "login_user", "login_with_token"]
# A document can't say all that makes no sense: a name that is taken, base64.
UNCHECKED = [cast(Any, checks).positive_data_acceptance]
# What there is, for half of the requests; the user who asks and the root user are left alone.
THERE = {"stream": "s", "topic": "t", "group": "g", "consumer": "1", "partition_id": 0, "user": "alice"}
OURS = {"0", "1", "iggy", "tester"}
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
API = cast(Any, schemathesis.openapi.from_dict(document(ROUTES)))
API.config.phases.update(phases=["fuzzing"])


def post(url: str, token: str, path: str, body: object) -> Any:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    response = httpx.post(f"{url}{path}", json=body, headers=headers, trust_env=False)
    assert response.is_success, response.text
    return response.json() if response.content else None


def prepare(url: str) -> dict[str, str]:
    """Make what there is, and return the headers of a user who may do everything."""
    root = post(url, "", "/users/login", {"username": "iggy", "password": "iggy"})["access_token"]["token"]
    everything = httpx.get(f"{url}/users/0", headers={"authorization": f"Bearer {root}"}, trust_env=False).json()
    for name in ("tester", "alice"):
        user = {"username": name, "password": name, "status": "active", "permissions": everything["permissions"]}
        post(url, root, "/users", user)
    post(url, root, "/streams", {"name": "s"})
    post(url, root, "/streams/s/topics", new_topic("t", 2))
    post(url, root, "/streams/s/topics/t/consumer-groups", {"name": "g"})
    post(url, root, "/streams/s/topics/t/messages", to_partition(message(b"1"), message(b"2")))
    tester = post(url, "", "/users/login", {"username": "tester", "password": "tester"})["access_token"]["token"]
    token = post(url, tester, "/personal-access-tokens", {"name": "made-up requests", "expiry": 0})["token"]
    return {"Authorization": f"Bearer {token}"}


def aim(values: dict[str, Any]) -> None:
    """Let half of the values in a path name what there is."""
    for name, value in values.items():
        is_ours = name == "user" and str(value) in OURS
        if is_ours or (name in THERE and len(str(value)) % 2):
            values[name] = THERE[name]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a server, and headers that sign in."""
    with Server(tmp_path_factory.mktemp("openapi") / "data") as server:
        url = f"http://{server.http_address}"
        yield url, prepare(url)
        assert httpx.get(f"{url}/ready", trust_env=False).text == "ready"
        assert "bug in pybroker" not in server.log()


@API.exclude(operation_id=LEFT_OUT).parametrize()
@settings(max_examples=CASES, derandomize=True, deadline=None, suppress_health_check=SLOW)
def test_made_up_requests_are_answered_as_the_document_says(case: Any, served: tuple[str, dict[str, str]]) -> None:
    url, headers = served
    aim(case.path_parameters or {})
    case.call_and_validate(base_url=url, headers=headers, excluded_checks=UNCHECKED, timeout=CASE_TIMEOUT_S)
