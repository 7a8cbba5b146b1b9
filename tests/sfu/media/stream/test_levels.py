"""Speaker levels: windows, thresholds, smoothing and decay."""

import math

import pytest

from sfu.media.stream.levels import levels_pass
from tests.sfu.support.publisher import MS, OPUS, START, Publisher, packet

WINDOW = 400 * MS


@pytest.fixture
def publisher() -> Publisher:
    result = Publisher()
    result.add_audio("a")
    return result


def speak(publisher: Publisher, window: int, levels: list[int], first: int = 0) -> float:
    """One window: a 20 ms packet per level (packet `first` of the stream on), then the pass; the level."""
    for k, level in enumerate(levels, first):
        publisher.receive(
            packet(65_500 + k, mid="a", payload_type=OPUS, payload=b"x", timestamp=k * 960, audio_level=(True, level)),
            now=START + k * 20 * MS,
        )
    levels_pass(publisher.record, START + window * WINDOW)
    return float(publisher.stream()["level"])


def linear(level: float) -> float:
    return math.pow(10, -level / 20)


def test_a_whole_window_counts_with_its_loudest_packet(publisher: Publisher) -> None:
    assert speak(publisher, 1, [30] * 19 + [10]) == pytest.approx(linear(10) * 2 / 3)


def test_levels_are_smoothed_over_two_windows(publisher: Publisher) -> None:
    first = speak(publisher, 1, [10] * 20)
    second = speak(publisher, 2, [10] * 20, first=20)
    assert second == pytest.approx(first + (linear(10) - first) * 2 / 3)


@pytest.mark.parametrize(("loud", "speaks"), [(7, False), (8, True)])
def test_forty_percent_of_the_window_must_be_loud(publisher: Publisher, loud: int, speaks: bool) -> None:
    assert (speak(publisher, 1, [5] * loud + [127] * (20 - loud)) > 0) == speaks


@pytest.mark.parametrize(("level", "counts"), [(35, True), (36, False)])
def test_packets_softer_than_35_do_not_count(publisher: Publisher, level: int, counts: bool) -> None:
    speak(publisher, 1, [level] * 20)
    assert (publisher.stream()["level_smoothed"] > 0) == counts


def test_what_the_silent_part_takes_away(publisher: Publisher) -> None:
    level = speak(publisher, 1, [10] * 10 + [127] * 10)
    assert level == pytest.approx(linear(10 - 20 * math.log10(0.5)) * 2 / 3)


def test_a_level_below_the_threshold_is_not_speech(publisher: Publisher) -> None:
    assert speak(publisher, 1, [35] * 20) == 0  # smoothing from silence keeps it below -35 dBov
    for window in range(2, 8):
        level = speak(publisher, window, [34] * 20, first=20 * (window - 1))
    assert level == pytest.approx(linear(34), rel=0.01)


def test_silence_ends_speech(publisher: Publisher) -> None:
    speak(publisher, 1, [10] * 20)
    assert speak(publisher, 2, [127] * 20, first=20) == 0


def test_a_muted_microphone_ends_speech(publisher: Publisher) -> None:
    assert speak(publisher, 1, [10] * 20) > 0
    assert speak(publisher, 2, []) > 0  # one empty window may be a pause
    assert speak(publisher, 3, []) == 0


def test_the_packet_after_a_pause_counts_as_one_packet(publisher: Publisher) -> None:
    speak(publisher, 1, [127])
    after = packet(65_501, payload_type=OPUS, payload=b"x", timestamp=48_000 * 3, audio_level=(True, 0))
    publisher.receive(after, now=START + 3000 * MS)
    assert publisher.stream()["level_active_ms"] == 20


def test_late_packets_are_not_heard_again(publisher: Publisher) -> None:
    publisher.receive(packet(10, mid="a", payload_type=OPUS, payload=b"x", timestamp=960, audio_level=(True, 3)))
    publisher.receive(packet(9, payload_type=OPUS, payload=b"x", timestamp=0, audio_level=(True, 3)))
    assert publisher.stream()["level_packets"] == 1


def test_video_has_no_level() -> None:
    publisher = Publisher()
    publisher.add_track("0")
    publisher.receive(packet(1, mid="0", audio_level=(True, 0)))
    levels_pass(publisher.record, START)
    assert publisher.stream()["level_packets"] == 0
