"""Buckets, quantiles, and histograms that are added up."""

import random
from math import ceil

import pytest
from pybroker.benchmarks.harness.histogram import VALUE_MAX, Histogram, end_of, index_of, merged

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
WIDTH_MAX = 1 / 128


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 257, 511, 512, 1_000_000, 123_456_789, VALUE_MAX])
def test_a_bucket_ends_at_most_a_128th_behind_its_values(value: int) -> None:
    assert value <= end_of(index_of(value)) <= value * (1 + WIDTH_MAX)


def test_buckets_follow_each_other_without_gaps() -> None:
    for index in range(index_of(VALUE_MAX)):
        assert index_of(end_of(index)) == index
        assert index_of(end_of(index) + 1) == index + 1


def test_quantiles_of_small_values_are_exact() -> None:
    histogram = histogram_of(list(range(1, 101)))
    assert [histogram.quantile(share) for share in SHARES] == [50, 90, 95, 99, 100, 100]


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_those_of_the_sorted_values_within_a_bucket(seed: int) -> None:
    values = [int(10 ** random.Random(seed * 10_000 + n).uniform(0, 11)) for n in range(2000)]
    histogram = histogram_of(values)
    for share in SHARES:
        exact = sorted(values)[ceil(share * len(values)) - 1]
        assert exact <= histogram.quantile(share) <= exact * (1 + WIDTH_MAX)


def test_extremes_mean_and_deviation_are_exact() -> None:
    histogram = histogram_of([2_000_001, 4_000_003, 4_000_003, 4_000_003, 5_000_005, 5_000_005, 7_000_007, 9_000_009])
    assert (histogram.minimum, histogram.maximum) == (2_000_001, 9_000_009)
    assert histogram.mean == 5_000_004.5
    assert histogram.deviation == pytest.approx(2_000_002, rel=1e-6)


def test_merged_histograms_are_that_of_all_values() -> None:
    generator = random.Random(7)
    values = [generator.randrange(1 << 34) for _ in range(3000)]
    whole = histogram_of(values)
    parts = merged(histogram_of(values[start::3]).counts() for start in range(3))
    assert parts.counts() == whole.counts()
    assert [parts.quantile(share) for share in SHARES] == [whole.quantile(share) for share in SHARES]


def test_merging_nothing_changes_nothing() -> None:
    histogram = merged([Histogram().counts(), histogram_of([5]).counts(), Histogram().counts()])
    assert histogram.counts() == histogram_of([5]).counts()


def test_an_empty_histogram_says_zero() -> None:
    histogram = Histogram()
    assert (histogram.quantile(0.5), histogram.mean, histogram.deviation) == (0, 0.0, 0.0)


def test_values_beyond_the_last_bucket_count_as_the_largest() -> None:
    assert histogram_of([VALUE_MAX * 3]).quantile(1.0) == VALUE_MAX
    assert histogram_of([-1]).quantile(1.0) == 0
