"""Buckets of latencies: in order, without holes, about three percent wide; percentiles of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.generator.histogram import BUCKETS, STEPS, bucket_of, latency, upper_bound


@settings(deadline=None)
@given(st.integers(0, (1 << 43) - 1))
def test_a_value_lies_between_the_bounds_of_its_bucket(value: int) -> None:
    bucket = bucket_of(value)
    assert (upper_bound(bucket - 1) if bucket else -1) < value <= upper_bound(bucket)


@settings(deadline=None)
@given(st.integers(2 * STEPS, (1 << 43) - 1))
def test_buckets_are_narrow(value: int) -> None:
    assert upper_bound(bucket_of(value)) <= value * (1 + 1 / STEPS)


@pytest.mark.parametrize(("value", "bucket"), [(-5, 0), (1 << 62, BUCKETS - 1)])
def test_what_is_out_of_range_is_counted_at_the_ends(value: int, bucket: int) -> None:
    assert bucket_of(value) == bucket


def test_percentiles_of_known_latencies() -> None:
    histogram = np.zeros(BUCKETS, np.int64)
    for microseconds in range(1, 1001):
        histogram[bucket_of(microseconds * 1000)] += 1
    found = latency(histogram)
    assert found.count == 1000
    exact = {"p50": 500, "p90": 900, "p99": 990, "p999": 999, "maximum": 1000}
    for name, microseconds in exact.items():
        assert getattr(found, name) == pytest.approx(microseconds, rel=0.04), name


def test_nothing_measured_is_all_zero() -> None:
    found = latency(np.zeros(BUCKETS, np.int64))
    assert (found.p50, found.maximum, found.count) == (0.0, 0.0, 0)
