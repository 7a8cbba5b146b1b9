"""What viewers hear over links that do not carry all audio, in simulated time."""

from collections import Counter

import pytest

from sfu.parameters import Kind
from sfu.schema.bandwidth_codes import Reason
from sfu.schema.capacities import VOICES
from tests.sfu.support.simulated_call import OPUS, RED, START, Encoders, SimulatedCall, Viewer, simulated_call
from tests.sfu.support.simulated_link import MS, SECOND, Link

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

LAYERS = 150_000, 500_000, 1_700_000
REDUNDANT = Encoders(red=True)


def heard(viewer: Viewer, first: float, last: float) -> Counter[int]:
    """Packets of each audio subscription, by its row, in seconds from `first` to `last`."""
    return Counter(row for at, row, _ in viewer.heard if START + first * SECOND <= at < START + last * SECOND)


def kinds(viewer: Viewer, first: float, last: float) -> set[int]:
    """Payload types of the audio packets in seconds from `first` to `last`."""
    return {number for at, _, number in viewer.heard if START + first * SECOND <= at < START + last * SECOND}


def test_redundancy_is_left_out_where_little_fits_and_no_packet_is_missed() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS, encoders=REDUNDANT)
        viewer = call.view(Link(START, ((0.0, 3_000_000), (6.0, 180_000), (26.0, 3_000_000)), delay_ns=20 * MS))
        call.run(50.0)
        assert kinds(viewer, 1, 6) == {RED}
        assert kinds(viewer, 12, 26) == {OPUS}
        assert sum(heard(viewer, 12, 26).values()) >= 0.99 * 14 * 50
        assert kinds(viewer, 46, 50) == {RED}


def speak(call: SimulatedCall, loud: set[int]) -> None:
    """Some publishers speak, and the others are heard from afar; levels move, as those of people do."""
    for number, publisher in enumerate(call.publishers):
        publisher.level = (30 if number in loud else 80) + call.now // (20 * MS) % 5


def test_only_the_loudest_are_heard_where_not_all_fit_and_who_begins_is_heard_soon() -> None:
    with simulated_call() as call:
        for _ in range(12):
            call.publish(encoders=REDUNDANT)
        call.publish(*LAYERS, audio=False)
        loud = {0, 1, 2}
        viewer = call.view(Link(START, ((0.0, 3_000_000), (6.0, 700_000)), delay_ns=20 * MS))
        rows = [viewer.subscription_to(publisher, Kind.AUDIO) for publisher in call.publishers[:12]]
        call.run(5.0, lambda: speak(call, loud))
        assert set(heard(viewer, 3, 5)) == set(rows), "there is room for all"
        call.run(11.0, lambda: speak(call, loud))
        packets = heard(viewer, 12, 16)
        assert set(packets) == {rows[0], rows[1], rows[2]}
        assert len(packets) == VOICES
        assert min(packets.values()) >= 0.99 * 4 * 50
        loud = {7, 8, 9}
        begun = call.now
        call.run(2.0, lambda: speak(call, loud))
        first = {row: min(at for at, each, _ in viewer.heard if each == row and at >= begun) for row in rows[7:10]}
        assert max(first.values()) - begun < 300 * MS, "pauses between words of the others keep their places so long"
        assert set(heard(viewer, 17, 18)) == {rows[7], rows[8], rows[9]}


def test_without_video_everybody_is_heard_on_a_path_of_which_nothing_bad_is_known() -> None:
    with simulated_call() as call:
        for _ in range(14):
            call.publish(encoders=REDUNDANT)
        viewer = call.view(Link(START, ((0.0, 3_000_000),), delay_ns=20 * MS))
        call.run(12.0, lambda: speak(call, {1}))
        assert len(heard(viewer, 10, 12)) == 14
        assert min(heard(viewer, 2, 12).values()) >= 0.99 * 10 * 50


FAT = Encoders(audio_bytes=1_250)
"""Half a Mbit/s of sound."""


def layers(viewer: Viewer, first: int, last: int) -> set[int]:
    return {each.layer for each in viewer.seconds[first:last]}


def test_a_track_that_takes_most_of_the_path_is_left_out_beside_video() -> None:
    with simulated_call() as call:
        fat = call.publish(encoders=FAT)
        usual = call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, 900_000),), delay_ns=20 * MS))
        call.run(20.0)
        packets = heard(viewer, 12, 20)
        assert packets[viewer.subscription_to(usual, Kind.AUDIO)] >= 0.99 * 8 * 50
        assert packets[viewer.subscription_to(fat, Kind.AUDIO)] == 0
        row = call.memory.table("subscriptions")[viewer.subscription_to(fat, Kind.AUDIO)]
        assert row["reason"] == Reason.BANDWIDTH
        assert (550_000 > row["primary_bps"] > 500_000, row["redundant_bps"]) == (True, 0)
        assert layers(viewer, 12, 20) == {1}


def test_such_a_track_is_sent_where_there_is_room_and_where_there_is_no_video() -> None:
    with simulated_call() as call:
        fat = call.publish(encoders=FAT)
        listener = call.view(Link(START, ((0.0, 900_000),), delay_ns=20 * MS))
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, 10_000_000),), delay_ns=20 * MS))
        call.run(15.0)
        for each in (listener, viewer):
            assert heard(each, 8, 15)[each.subscription_to(fat, Kind.AUDIO)] >= 0.99 * 7 * 50
        assert layers(viewer, 8, 15) == {2}


def test_no_track_claims_more_than_sound_can_need() -> None:
    with simulated_call() as call:
        fat = call.publish(encoders=Encoders(audio_bytes=668, red=True))
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, 10_000_000),), delay_ns=20 * MS))
        call.run(12.0)
        row = viewer.subscription_to(fat, Kind.AUDIO)
        assert {number for at, each, number in viewer.heard if each == row and at > START + 8 * SECOND} == {OPUS}
        assert heard(viewer, 8, 12)[row] >= 0.99 * 4 * 50, "without what it repeats it is sent"
