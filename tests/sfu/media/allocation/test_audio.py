"""When a subscriber's audio is made cheaper."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.allocation.audio import (
    ALL_VOICES_PERCENT,
    LEAST_TRACK_BPS,
    MOST_TRACK_BPS,
    PLAIN_BPS,
    REDUNDANT_BPS,
    TRIED_NS,
    TRY_EVERY_NS,
    VOICES_PERCENT,
    is_limited,
    is_plain,
    track_claim,
)
from sfu.schema.estimate_tables import START_BPS
from sfu.schema.transport_tables import TRANSPORT
from tests.sfu.support.simulated_link import MS, SECOND

NOW = 1_000 * SECOND
BPS = 10 * START_BPS


def subscriber(*, limited: bool, since: int = 0) -> Any:
    row = np.full(1, TRANSPORT.blank)[0]
    row["voices_only"], row["voices_ns"] = limited, since
    return row


def limits(*, limited: bool, audio: int, estimate: int, probed: bool = True, since: int = 0) -> bool:
    return bool(is_limited(subscriber(limited=limited, since=since), audio, estimate, probed, NOW))


@pytest.mark.parametrize(
    ("estimate", "was", "plain"),
    [
        (PLAIN_BPS - 1, False, True),
        (PLAIN_BPS, False, False),
        (PLAIN_BPS, True, True),
        (REDUNDANT_BPS - 1, True, True),
        (REDUNDANT_BPS, True, False),
        (0, True, False),
    ],
)
def test_redundancy_is_left_out_on_a_narrow_path_and_comes_back_later_than_it_went(
    estimate: int, was: bool, plain: bool
) -> None:
    assert is_plain(was, estimate) == plain


def test_audio_that_takes_too_much_is_limited_and_freed_later_than_that() -> None:
    too_much, little = BPS * VOICES_PERCENT // 100 + 1, BPS * ALL_VOICES_PERCENT // 100
    assert limits(limited=False, audio=too_much, estimate=BPS)
    assert not limits(limited=False, audio=too_much - 1, estimate=BPS)
    assert limits(limited=True, audio=little + 1, estimate=BPS)
    assert not limits(limited=True, audio=little, estimate=BPS)


def test_nothing_is_limited_without_an_estimate() -> None:
    assert not limits(limited=False, audio=BPS, estimate=0)
    assert not limits(limited=True, audio=BPS, estimate=0)


def test_without_video_audio_is_limited_only_where_the_path_was_shown_to_be_narrow() -> None:
    """The estimate of who is sent audio only does not grow beyond what that needs."""
    assert not limits(limited=False, audio=10 * BPS, estimate=START_BPS, probed=False)
    assert limits(limited=False, audio=10 * BPS, estimate=START_BPS - 1, probed=False)
    assert limits(limited=False, audio=10 * BPS, estimate=START_BPS, probed=True)


@pytest.mark.parametrize(
    ("limited", "passed", "expected"),
    [
        (True, TRY_EVERY_NS - MS, True),
        (True, TRY_EVERY_NS, False),
        (False, TRIED_NS - MS, False),
        (False, TRIED_NS, True),
    ],
)
def test_without_video_all_audio_is_tried_now_and_then(limited: bool, passed: int, expected: bool) -> None:
    rest = {"audio": START_BPS, "estimate": START_BPS // 2, "since": NOW - passed}
    assert limits(limited=limited, probed=False, **rest) == expected
    if limited:
        assert limits(limited=True, probed=True, **rest), "where it is probed, that says when"


@pytest.mark.parametrize(
    ("estimate", "tracks", "claim"),
    [
        (1_000_000, 2, 350_000),
        (1_000_000, 4, 175_000),
        (300_000, 3, LEAST_TRACK_BPS),
        (30_000, 0, LEAST_TRACK_BPS),
        (50_000_000, 1, MOST_TRACK_BPS),
    ],
)
def test_one_track_claims_its_part_within_bounds(estimate: int, tracks: int, claim: int) -> None:
    assert track_claim(estimate, tracks, False) == claim
    assert track_claim(estimate, tracks, True) <= claim


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.integers(0, 1 << 32), st.integers(1, 1 << 32), st.integers(1, 1 << 32))
def test_more_bandwidth_never_limits_audio_and_a_constant_one_never_flaps(
    limited: bool, audio: int, one: int, other: int
) -> None:
    small, large = (limits(limited=limited, audio=audio, estimate=each) for each in sorted((one, other)))
    assert small >= large
    assert limits(limited=small, audio=audio, estimate=min(one, other)) == small
    plain_small, plain_large = (bool(is_plain(limited, each)) for each in sorted((one, other)))
    assert plain_small >= plain_large
    assert is_plain(plain_small, min(one, other)) == plain_small
