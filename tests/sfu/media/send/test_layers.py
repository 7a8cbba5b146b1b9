"""Simulcast and temporal layers: what is forwarded, when it changes, and of whom a key frame is requested."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.send.selection import DEAD_FRAMES, choose_layer, liveness_pass
from sfu.media.subscriptions import prefer_layers, renew_target, set_layers, set_paused
from sfu.parameters import Codec
from sfu.schema.capacities import MEDIA_PER_TRANSPORT
from sfu.schema.codes import NoticeKind, PacketFlag
from sfu.schema.track_tables import track_t
from tests.sfu.support import publisher
from tests.sfu.support.subscribers import MS, PUBLISHER, SECOND, START_OF_KEY, Room, Viewer

KEY = START_OF_KEY | PacketFlag.FRAME_END
FRAME = PacketFlag.FRAME_START | PacketFlag.FRAME_END
NTP_2020 = 3_786_825_600 << 32


def simulcast(layers: int = 3, *, target: int = 2) -> tuple[Room, Viewer]:
    """All layers have begun, the last one forwarded is `target`."""
    room = Room(layers=layers)
    viewer = room.add_viewer()
    set_layers(room.record, 0, target, 3)
    for layer in range(layers):
        room.vp8(0, 50 * layer, layer=layer, flags=KEY, body=b"key%d" % layer)
        room.forward()
    return room, viewer


def bodies(viewer: Viewer) -> list[bytes]:
    return [packet.payload[5:] for packet in viewer.take()]


def advance(room: Room, layers: tuple[int, ...], first: int, count: int) -> None:
    """`count` delta frames on each of `layers`, with the pass between them."""
    for number in range(first, first + count):
        for layer in layers:
            room.vp8(number, 50 * layer + number, layer=layer, flags=FRAME, body=b"%d" % layer)
        room.forward()
        liveness_pass(room.record, room.now)


def test_a_viewer_takes_the_first_key_frame_and_moves_up_with_those_that_follow() -> None:
    _, viewer = simulcast()
    packets = viewer.take()
    assert [packet.payload[5:] for packet in packets] == [b"key0", b"key1", b"key2"]
    assert [packet.sequence_number - packets[0].sequence_number for packet in packets] == [0, 1, 2]
    pictures = [int.from_bytes(packet.payload[2:4], "big") & 0x7FFF for packet in packets]
    assert pictures == [0, 1, 2]


@pytest.mark.parametrize("target", [0, 1, 2])
def test_a_viewer_begins_with_the_layer_that_it_opened_for(target: int) -> None:
    room, _ = simulcast()
    viewer = room.add_viewer()
    prefer_layers(room.record, 1, target, 3)
    room.forward()
    assert bodies(viewer) == [b"key%d" % target]
    assert not any(room.stream(layer)["key_frame_requested"] for layer in range(3)), "the packet cache had one"


def test_only_the_layer_of_the_target_flows() -> None:
    room, viewer = simulcast(target=1)
    viewer.take()
    advance(room, (0, 1, 2), 1, 2)
    assert bodies(viewer) == [b"1", b"1"]


H264_SETS = b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in (b"\x67\x42", b"\x68\xce"))
H264_IDR, H264_SLICE = b"\x65\x88", b"\x41\x9a"


def test_h264_begins_with_its_parameter_sets_when_they_come_after_the_slice_they_belong_to() -> None:
    room = Room(Codec.H264)
    room.memory.table("media")[PUBLISHER * MEDIA_PER_TRANSPORT]["codec_of_pt"][publisher.VP8] = Codec.H264

    def store(number: int, payload: bytes, timestamp: int) -> None:
        data = publisher.packet(number, ssrc=77, timestamp=timestamp, payload=payload, marker=1)
        room.store_whole(data, number)
        room.forward()

    store(0, H264_SETS, 0)
    store(1, H264_IDR, 0)
    viewer = room.add_viewer()
    room.pass_time(2 * SECOND)  # that key frame is too old to begin with
    store(2, H264_SLICE, 3_000)
    store(4, H264_IDR, 6_000)
    assert viewer.take() == []
    assert room.stream()["key_frame_requested"]
    store(5, H264_SLICE, 9_000)
    store(3, H264_SETS, 6_000)
    assert [each.payload for each in viewer.take()] == [H264_SETS, H264_IDR, H264_SLICE]


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 2)])
def test_a_change_waits_for_a_key_frame_of_the_target_layer(before: int, after: int) -> None:
    room, viewer = simulcast(target=before)
    viewer.take()
    set_layers(room.record, 0, after, 3)
    assert [int(room.stream(layer)["key_frame_requested"]) for layer in range(3)] == [
        layer == after for layer in range(3)
    ]
    advance(room, (0, 1, 2), 1, 2)
    assert bodies(viewer) == [b"%d" % before] * 2
    room.vp8(3, 300, layer=after, flags=KEY, body=b"switched")
    room.vp8(3, 300, layer=before, flags=FRAME, body=b"old")
    room.forward()
    assert bodies(viewer) == [b"switched"]
    assert room.subscription()["layer"] == after


@pytest.mark.parametrize(("preferred", "allowed", "target"), [(2, 1, 1), (1, 2, 1), (0, 2, 0), (2, 0, 0)])
def test_the_lower_one_of_the_layers_preferred_and_allowed_is_sent(preferred: int, allowed: int, target: int) -> None:
    room, viewer = simulcast()
    viewer.take()
    set_layers(room.record, 0, preferred, preferred)
    room.subscription()["allowed_spatial"] = room.subscription()["allowed_temporal"] = allowed
    renew_target(room.record, 0)
    subscription = room.subscription()
    assert (subscription["target_spatial"], subscription["target_layer"]) == (target, target)
    for layer in range(3):
        room.vp8(1, 50 * layer + 1, layer=layer, flags=KEY, body=b"key%d" % layer)
    room.forward()
    assert bodies(viewer)[-1] == b"key%d" % target
    assert subscription["target_temporal"] == target
    set_layers(room.record, 0, 2, 3)
    assert room.subscription()["target_spatial"] == allowed, (
        "what may be sent stays when the subscriber changes its mind"
    )


def test_nothing_is_sent_while_no_layer_is_allowed_or_the_subscriber_has_paused() -> None:
    room, viewer = simulcast()
    viewer.take()
    for paused, allowed in ((0, -1), (1, -1), (1, 2), (0, -1)):
        room.subscription()["allowed_spatial"] = allowed
        renew_target(room.record, 0)
        set_paused(room.record, 0, paused)
        assert room.subscription()["paused"]
    advance(room, (0, 1, 2), 1, 2)
    assert bodies(viewer) == []
    room.subscription()["allowed_spatial"] = 2
    renew_target(room.record, 0)
    assert room.subscription()["paused"] == 0
    room.vp8(3, 103, layer=2, flags=KEY, body=b"again")
    room.forward()
    assert bodies(viewer)[-1] == b"again"


def test_a_switch_inside_a_frame_leaves_one_number_free() -> None:
    room, viewer = simulcast(target=0)
    set_layers(room.record, 0, 1, 3)
    room.vp8(1, 1, layer=0, marker=False, flags=PacketFlag.FRAME_START)
    room.forward()
    last = viewer.take()[-1]
    room.vp8(1, 60, layer=1, flags=KEY)
    room.forward()
    assert viewer.take()[0].sequence_number == last.sequence_number + 2


def test_late_packets_from_before_a_switch_are_not_sent() -> None:
    room, viewer = simulcast(target=0)
    set_layers(room.record, 0, 1, 3)
    room.vp8(5, 60, layer=1, flags=KEY)
    room.forward()
    viewer.take()
    room.vp8(1, 1, layer=0)
    room.vp8(4, 59, layer=1)
    room.forward()
    assert viewer.take() == []


def test_a_dead_layer_is_left_for_the_best_live_one_at_its_key_frame() -> None:
    room, viewer = simulcast()
    advance(room, (0, 1, 2), 1, 1)
    advance(room, (0, 1), 2, DEAD_FRAMES)
    assert room.notices(NoticeKind.LAYERS_CHANGED)[-1] == (0, 0b011)
    assert room.stream(1)["key_frame_requested"]
    viewer.take()
    room.vp8(DEAD_FRAMES + 2, 120, layer=1, flags=KEY, body=b"down")
    room.forward()
    assert bodies(viewer) == [b"down"]


def test_no_layer_dies_while_nothing_advances() -> None:
    room, _ = simulcast()
    for _ in range(100):
        room.pass_time(SECOND)
        liveness_pass(room.record, room.now)
    assert room.track["live"] == 0b111


def test_a_dead_layer_lives_again_with_its_key_frame() -> None:
    room, viewer = simulcast()
    advance(room, (0, 1), 1, DEAD_FRAMES + 1)
    assert room.track["live"] == 0b011
    viewer.take()
    room.vp8(40, 190, layer=2, flags=KEY, body=b"back")
    room.forward()
    assert room.track["live"] == 0b111
    assert bodies(viewer) == [b"back"]


def test_when_only_layers_above_the_target_live_the_lowest_of_them_flows() -> None:
    room = Room(layers=3)
    viewer = room.add_viewer()
    set_layers(room.record, 0, 0, 3)
    room.vp8(0, 0, layer=2, flags=KEY, body=b"two")
    room.forward()
    room.vp8(0, 0, layer=1, flags=KEY, body=b"one")
    room.forward()
    assert bodies(viewer) == [b"two", b"one"]


@given(live=st.integers(0, 7), target=st.integers(0, 3))
def test_the_chosen_layer_is_the_best_live_one_up_to_the_target_else_the_lowest(live: int, target: int) -> None:
    rows = np.zeros(1, track_t)
    rows["layer_count"], rows["live"] = 3, live
    layers = [layer for layer in range(3) if live >> layer & 1]
    below = [layer for layer in layers if layer <= target]
    expected = below[-1] if below else layers[0] if layers else -1
    assert choose_layer(rows[0], target) == expected


def test_a_waiting_viewer_asks_again_until_the_key_frame_comes() -> None:
    room, _ = simulcast(target=0)
    set_layers(room.record, 0, 2, 3)
    room.stream(2)["key_frame_requested"] = 0
    liveness_pass(room.record, room.now)
    assert room.stream(2)["key_frame_requested"]
    room.stream(2)["key_frame_requested"] = 0
    set_paused(room.record, 0, 1)
    liveness_pass(room.record, room.now)
    assert not room.stream(2)["key_frame_requested"]


def test_timestamps_of_layers_are_aligned_by_sender_reports() -> None:
    room, viewer = simulcast(target=0)
    viewer.take()
    room.stream(0)["report_ntp"], room.stream(0)["report_timestamp"] = NTP_2020, 1_000
    # layer 1 reported half a second later, on a clock that is 500,000 ticks ahead and has wrapped
    room.stream(1)["report_ntp"] = NTP_2020 + (1 << 31)
    room.stream(1)["report_timestamp"] = (1_000 + 45_000 + 500_000 + (1 << 32) - 600_000) & 0xFFFFFFFF
    set_layers(room.record, 0, 1, 3)
    room.vp8(1, 1, layer=0, timestamp=9_000, flags=FRAME)
    room.forward()
    room.pass_time(200 * MS)  # what arrival would say
    room.vp8(1, 60, layer=1, timestamp=(500_000 - 600_000 + 12_000) & 0xFFFFFFFF, flags=KEY)
    room.forward()
    old, new = viewer.take()
    assert (old.timestamp, new.timestamp) == (9_000, 12_000)


def test_timestamps_of_layers_are_aligned_by_arrival_without_reports() -> None:
    room, viewer = simulcast(target=0)
    set_layers(room.record, 0, 1, 3)
    room.vp8(1, 1, layer=0, timestamp=3_000, flags=FRAME)
    room.forward()
    room.pass_time(100 * MS)
    room.vp8(1, 60, layer=1, timestamp=77, flags=KEY)
    room.vp8(2, 61, layer=1, timestamp=77 + 2_000, flags=FRAME)
    room.forward()
    assert [packet.timestamp for packet in viewer.take()][-2:] == [12_000, 14_000]


def test_reports_that_disagree_with_the_clock_on_the_wall_are_not_believed() -> None:
    room, viewer = simulcast(target=0)
    room.stream(0)["report_ntp"], room.stream(1)["report_ntp"] = NTP_2020, NTP_2020 + (60 << 32)
    set_layers(room.record, 0, 1, 3)
    room.vp8(1, 1, layer=0, timestamp=3_000, flags=FRAME)
    room.forward()
    room.pass_time(100 * MS)
    room.vp8(1, 60, layer=1, timestamp=77, flags=KEY)
    room.forward()
    assert viewer.take()[-1].timestamp == 12_000


def test_timestamps_move_forward_at_a_switch_within_one_instant() -> None:
    room, viewer = simulcast(target=0)
    set_layers(room.record, 0, 1, 3)
    room.vp8(1, 1, layer=0, timestamp=3_000, flags=FRAME)
    room.vp8(1, 60, layer=1, timestamp=3_000, flags=KEY)
    room.forward()
    assert [packet.timestamp for packet in viewer.take()][-2:] == [3_000, 6_000]


def temporal_room() -> tuple[Room, Viewer]:
    room = Room()
    viewer = room.add_viewer()
    room.vp8(0, 0, 0, flags=KEY, body=b"0")
    room.forward()
    return room, viewer


def layer_frame(room: Room, number: int, temporal: int, *, switch: bool = False) -> None:
    flags = FRAME | (PacketFlag.SWITCH_UP if switch or temporal == 0 else 0)
    room.vp8(number, number, number, temporal=temporal, flags=flags, body=b"%d" % number)


def test_higher_temporal_layers_are_dropped_without_gaps_in_sequence_and_picture_ids() -> None:
    room, viewer = temporal_room()
    set_layers(room.record, 0, 2, 1)
    for number, temporal in enumerate((2, 1, 2, 0, 2, 1, 2, 0), start=1):
        layer_frame(room, number, temporal, switch=True)
    room.forward()
    packets = viewer.take()
    assert [int(packet.payload[5:]) for packet in packets] == [0, 2, 4, 6, 8]
    assert [packet.sequence_number - packets[0].sequence_number for packet in packets] == [0, 1, 2, 3, 4]
    assert [packet.payload[3] for packet in packets] == [0, 1, 2, 3, 4]


def test_temporal_layers_go_up_only_at_a_switching_point() -> None:
    room, viewer = temporal_room()
    set_layers(room.record, 0, 2, 0)
    layer_frame(room, 1, 1)
    set_layers(room.record, 0, 2, 3)
    room.forward()
    viewer.take()
    room, viewer = temporal_room()
    set_layers(room.record, 0, 2, 0)
    for number, temporal in enumerate((1, 0), start=1):
        layer_frame(room, number, temporal)
    room.forward()
    set_layers(room.record, 0, 2, 3)
    for number, (temporal, switch) in enumerate(((2, False), (1, False), (2, False), (1, True), (2, True)), start=3):
        layer_frame(room, number, temporal, switch=switch)
    room.forward()
    assert [int(body) for body in bodies(viewer)] == [0, 2, 6, 7]


def test_a_lower_target_takes_effect_at_the_next_frame() -> None:
    room, viewer = temporal_room()
    room.vp8(1, 1, temporal=1, flags=PacketFlag.FRAME_START, marker=False, body=b"1", timestamp=3000)
    room.forward()
    set_layers(room.record, 0, 2, 0)
    room.vp8(2, 1, temporal=1, flags=PacketFlag.FRAME_END, body=b"2", timestamp=3000)
    layer_frame(room, 3, 1)
    layer_frame(room, 4, 0)
    room.forward()
    assert bodies(viewer) == [b"0", b"1", b"2", b"4"]


@pytest.mark.parametrize("back", [45_000, 90_000 * 3600, 1 << 31])
def test_temporal_layers_follow_the_target_after_timestamps_that_went_back(back: int) -> None:
    room, viewer = temporal_room()
    start = 1 << 30  # ahead of the key frame, whose timestamp is small

    def later(number: int) -> int:
        return (start + 3000 * number - back) & 0xFFFFFFFF

    for number, temporal in ((1, 0), (2, 1)):
        room.vp8(number, number, temporal=temporal, body=b"%d" % number, timestamp=start + 3000 * number)
    room.forward()
    set_layers(room.record, 0, 2, 0)
    for number, temporal in ((3, 0), (4, 1), (5, 0)):
        room.vp8(number, number, temporal=temporal, body=b"%d" % number, timestamp=later(number))
    room.forward()
    assert bodies(viewer) == [b"0", b"1", b"2", b"3", b"5"]
    set_layers(room.record, 0, 2, 3)
    for number, temporal in ((6, 1), (7, 0)):
        room.vp8(number, number, temporal=temporal, body=b"%d" % number, timestamp=later(number))
    room.forward()
    assert bodies(viewer) == [b"6", b"7"]


def test_a_late_packet_of_an_older_picture_is_no_newer_one() -> None:
    room, viewer = temporal_room()
    room.vp8(1, 1, temporal=1, flags=PacketFlag.FRAME_START, marker=False, body=b"1", timestamp=3000)
    room.vp8(3, 2, temporal=0, flags=FRAME | PacketFlag.SWITCH_UP, body=b"3", timestamp=6000)
    room.forward()
    room.vp8(2, 1, temporal=1, flags=PacketFlag.FRAME_END, body=b"2", timestamp=3000)
    room.forward()
    assert room.subscription()["picture_timestamp"] == 6000
    assert sorted(bodies(viewer)) == [b"0", b"1", b"2", b"3"]


def test_picture_ids_go_on_at_a_key_frame_of_an_encoder_that_began_anew() -> None:
    room, viewer = temporal_room()
    room.vp8(1, 20_000, tl0=9, flags=KEY, body=b"anew", timestamp=90_000)
    room.vp8(2, 20_001, tl0=10, flags=FRAME, body=b"next", timestamp=93_000)
    room.forward()
    packets = viewer.take()
    assert [packet.payload[2:4] for packet in packets] == [b"\x80\x00", b"\x80\x01", b"\x80\x02"]
    assert [packet.payload[4] for packet in packets] == [0, 1, 2]


def test_the_output_clock_follows_timestamps_that_went_back() -> None:
    """Else a switch hours later would start from where it stood."""
    room, _ = temporal_room()
    room.vp8(1, 1, timestamp=90_000 * 3600)
    room.forward()
    room.vp8(2, 2, timestamp=5_000)
    room.forward()
    assert room.subscription()["last_timestamp"] == 5_000
    room.vp8(3, 3, timestamp=2_000)  # a frame that others precede, not a clock that began anew
    room.forward()
    assert room.subscription()["last_timestamp"] == 5_000


def test_the_rest_of_a_dropped_frame_is_dropped_even_when_the_target_rises_meanwhile() -> None:
    room, viewer = temporal_room()
    set_layers(room.record, 0, 2, 0)
    room.vp8(1, 1, temporal=1, flags=PacketFlag.FRAME_START | PacketFlag.SWITCH_UP, marker=False, timestamp=3000)
    room.forward()
    set_layers(room.record, 0, 2, 1)
    room.vp8(2, 1, temporal=1, flags=PacketFlag.SWITCH_UP, timestamp=3000)
    room.forward()
    assert bodies(viewer) == [b"0"]


def test_vp9_simulcast_shifts_picture_ids_at_a_switch_and_keeps_their_distances() -> None:
    room = Room(Codec.VP9, layers=2)
    viewer = room.add_viewer()

    def vp9(number: int, picture: int, layer: int, **rest: Any) -> None:
        head = b"\x80" + (0x8000 | picture).to_bytes(2, "big")
        room.store(number, payload=head + b"x", layer=layer, picture_id=picture, picture_at=1, picture_bytes=2, **rest)

    vp9(0, 40, 0, flags=KEY)
    room.forward()
    vp9(0, 9_000, 1, flags=KEY)
    vp9(1, 9_003, 1)
    room.forward()
    assert [int.from_bytes(packet.payload[1:3], "big") & 0x7FFF for packet in viewer.take()] == [40, 41, 44]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(("now", "lost", "late")), st.integers(0, 2)),
        max_size=60,
    ),
    st.booleans(),
)
def test_sequence_and_picture_ids_stay_consecutive_over_any_targets(
    steps: list[tuple[int, bool, str, int]], wide: bool
) -> None:
    """Without loss both count up by one per frame sent; a frame that was lost holds exactly one place."""
    room = Room()
    viewer = room.add_viewer()
    first = 0x7FFF - 20 if wide else 0x7F - 20
    mask = 0x7FFF if wide else 0x7F
    room.vp8(0, first, wide=wide, flags=KEY, body=b"0")
    room.forward()
    late: list[int] = []
    sent: dict[int, tuple[int, int]] = {}

    def store(number: int, temporal: int, switch: bool) -> None:
        flags = FRAME | (PacketFlag.SWITCH_UP if switch else 0)
        room.vp8(number, (first + number) & mask, wide=wide, temporal=temporal, flags=flags, body=b"%d" % number)
        room.forward()

    for number, (target, switch, arrival, temporal) in enumerate(steps, start=1):
        set_layers(room.record, 0, 2, target)
        if arrival == "lost":
            late.append(number)
            continue
        store(number, temporal, switch)
        if arrival == "late" and late:
            store(late.pop(), 0, True)
    for packet in viewer.take():
        at = 5 if wide else 4
        picture = int.from_bytes(packet.payload[2:4], "big") if wide else packet.payload[2]
        sent[int(packet.payload[at:])] = (packet.sequence_number, picture & mask)
    numbers = sorted(sent)
    base_sequence, base_picture = sent[0]
    distances = [((sent[n][0] - base_sequence) & 0xFFFF, (sent[n][1] - base_picture) & mask) for n in numbers]
    assert [a for a, _ in distances] == sorted({a for a, _ in distances})
    assert all(a & mask == b for a, b in distances)
    lost = sum(step[2] == "lost" for step in steps)
    assert distances[-1][0] <= len(numbers) - 1 + lost
