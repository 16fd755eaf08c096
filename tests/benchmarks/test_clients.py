"""What is said of clients under load: medians over rounds, so that one disturbed round changes nothing."""

import pytest
from pybroker.benchmarks.clients import Load, Result

LOAD = Load(count=10, size=100, requests=2)


def result(*rounds: list[float], cpu_seconds: float = 0.0) -> Result:
    return Result(LOAD, list(rounds), cpu_seconds)


def test_rate_is_that_of_the_median_round() -> None:
    assert result([1.0, 1.0], [50.0, 50.0], [0.5, 0.5]).rate == 10.0


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    base = result([1.0, 1.0], [2.0, 2.0], [4.0, 4.0])
    assert result([2.0, 2.0], [8.0, 8.0], [8.0, 8.0]).ratio_to(base) == 0.5
    assert base.ratio_to(base) == 1.0


def test_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="shorter"):
        result([1.0, 1.0]).ratio_to(result([1.0, 1.0], [1.0, 1.0]))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_latency_counts_requests_of_all_rounds(share: float, expected: float) -> None:
    assert result([0.004, 0.001], [0.003, 0.002]).latency_ms(share) == pytest.approx(expected)


def test_processor_time_is_for_all_messages() -> None:
    assert result([1.0, 1.0], [1.0, 1.0], cpu_seconds=2.0).cpu_per_million == pytest.approx(2.0 / 40 * 1e6)
