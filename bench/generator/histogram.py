"""Latencies counted in buckets whose width grows with the latency: about 3 % wide from nanoseconds to minutes."""

import numpy as np
from numba import njit

from bench.results import Latency

STEPS_BITS = 5
STEPS = 1 << STEPS_BITS
"""Buckets per octave."""
BUCKETS = 40 * STEPS
"""Up to about 2^44 ns; longer ones are counted in the last bucket."""


@njit(cache=True)
def bucket_of(value):
    """Return the bucket of a latency in ns. Below 2 * STEPS ns each value has its own; negative ones count as 0."""
    value = max(np.int64(value), 0)
    shift = 0
    while value >> shift >= 2 * STEPS:
        shift += 1
    return min(shift * STEPS + (value >> shift), BUCKETS - 1)


def upper_bound(bucket: int) -> int:
    """Return the largest latency in ns that `bucket_of` puts into a bucket."""
    shift = max(bucket // STEPS - 1, 0)
    return (bucket - shift * STEPS + 1 << shift) - 1


def latency(histogram: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Latency:
    """Return percentiles in microseconds of counts by bucket, each the upper bound of its bucket; all 0 if none."""
    total = int(histogram.sum())
    if total == 0:
        return Latency(0.0, 0.0, 0.0, 0.0, 0.0, 0)
    sums = np.cumsum(histogram)

    def percentile(share: float) -> float:
        return upper_bound(int(np.searchsorted(sums, share * total))) / 1e3

    return Latency(percentile(0.5), percentile(0.9), percentile(0.99), percentile(0.999), percentile(1.0), count=total)
