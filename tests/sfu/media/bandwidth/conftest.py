"""A row of the estimate table, opened."""

from typing import Any

import numpy as np
import pytest

from sfu.media.bandwidth.estimate import open_estimate
from sfu.schema.estimate_tables import estimate_t
from tests.sfu.support.bottleneck import START_NS


@pytest.fixture
def estimate() -> Any:
    row = np.zeros(1, estimate_t)[0]
    open_estimate(row, START_NS)
    return row
