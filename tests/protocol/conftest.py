"""What the protocol tests share."""

from hypothesis import HealthCheck, settings

# The same examples every time: a failure in CI is one that anybody can repeat.
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")
