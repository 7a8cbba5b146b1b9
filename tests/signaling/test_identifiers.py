"""Random identifiers: their form, and that every character may be any of the alphabet."""

from collections import Counter
from collections.abc import Callable

import pytest
from livekit.protocol.models import AUDIO, CAMERA, MICROPHONE, VIDEO

from signaling import identifiers


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (identifiers.room_sid, "RM_"),
        (identifiers.participant_sid, "PA_"),
        (identifiers.node_id, "ND_"),
        (lambda: identifiers.track_sid(VIDEO, CAMERA), "TR_VC"),
        (lambda: identifiers.track_sid(AUDIO, MICROPHONE), "TR_AM"),
    ],
)
def test_identifiers_have_a_prefix_and_twelve_random_characters(make: Callable[[], str], prefix: str) -> None:
    made = [make() for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert {each[: len(prefix)] for each in made} == {prefix}
    assert {len(each) for each in made} == {len(prefix) + 12}
    for place in range(len(prefix), len(prefix) + 12):
        counts = Counter(each[place] for each in made)
        # 57 characters, each 35 times on average: none is missing, and none comes twice as often as it should.
        assert len(counts) == 57
        assert max(counts.values()) < 2.5 * len(made) / 57
