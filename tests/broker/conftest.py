"""What the broker tests share."""

import pytest
from hypothesis import HealthCheck, settings
from support.broker import Broker

# The same examples every time: a failure in CI is one that anybody can repeat.
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture
def broker() -> Broker:
    """A broker without streams."""
    return Broker()
