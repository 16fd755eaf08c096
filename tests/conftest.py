"""What all tests share."""

import os
import sys

import pytest

_status = 0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=3, help="rounds of the torture test: send, kill, start, read")
    parser.addoption("--seeds", type=int, default=0, help="fresh seeds to simulate; 0: those of the suite")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    global _status  # noqa: PLW0603
    _status = exitstatus


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without the interpreter's clean-up once the wheel was used: it may abort there (SIGABRT)."""
    if "apache_iggy" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status)
