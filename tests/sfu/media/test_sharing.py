"""A subscriber's bandwidth, from an estimate to the packets that are sent."""

from typing import Any

import pytest

from sfu.media.allocation.due import (
    FALL_PERCENT,
    INTERVAL_NS,
    RISE_PERCENT,
    list_transport,
    note_estimate,
    note_silence,
)
from sfu.media.allocation.measure import STOPPED
from sfu.media.commands import apply_commands
from sfu.media.send.selection import (
    liveness_pass,
    receive_key_frame_request,
)
from sfu.media.sharing import MAX_RUNS, limited_pass, sharing_pass
from sfu.media.stream.key_frames import KEY_FRAME_EVERY_NS
from sfu.media.subscriptions import close_subscription, set_layers, set_paused
from sfu.schema.allocation_tables import COST_TEMPORAL, MAX_SHARED
from sfu.schema.bandwidth_codes import Held, Reason, Rung
from sfu.schema.codes import Command, MediaKind, NoticeKind, PacketFlag, RowState
from tests.sfu.support.commands import push_command
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.subscribers import MS, SECOND, START_OF_KEY, Room, Viewer

KEY = START_OF_KEY | PacketFlag.FRAME_END
FRAME = PacketFlag.FRAME_START | PacketFlag.FRAME_END
KBIT = 1000
CAMERA = ((60, 30, 60), (200, 100, 200), (700, 350, 700))
"""kbit/s of the temporal layers of three spatial ones; with a tenth of headers on the wire: 165, 550 and 1925."""
SINGLE = ((150,), (500,), (1750,))
"""kbit/s of three spatial layers without temporal ones."""
OVERHEAD = 16 + 28


class Sharing(Room):
    """A simulcast track whose layers were measured, and viewers whose paths have estimates."""

    def __init__(self, rates: tuple[tuple[int, ...], ...] = CAMERA, layers: int = 3) -> None:
        super().__init__(layers=layers)
        self.measure(rates)
        self.numbers = [0] * layers
        self.track["live"] = (1 << layers) - 1

    def measure(self, rates: tuple[tuple[int, ...], ...]) -> None:
        """Let each layer have sent so many kbit/s and a tenth more on the wire, in ten packets a second."""
        for layer, temporals in enumerate(rates[: int(self.track["layer_count"])]):
            for temporal in range(COST_TEMPORAL):
                kbit = temporals[temporal] if temporal < len(temporals) else 0
                self.stream(layer)["layer_bytes"][temporal] = kbit * KBIT * 11 // 80 - 10 * OVERHEAD if kbit else 0
                self.stream(layer)["layer_packets"][temporal] = 10 if kbit else 0

    def add_viewer(self, **rest: bool) -> Viewer:
        """One from whom no feedback is expected."""
        viewer = super().add_viewer(**rest)
        self.transport(len(self.viewers) - 1)["unreported"] = 1
        return viewer

    def watch(self, *, kbit: int = 0) -> Viewer:
        """A viewer, who is sent everything if there is no estimate."""
        viewer = self.add_viewer()
        if kbit:
            self.estimate(kbit, len(self.viewers) - 1)
        self.turn()
        return viewer

    def estimate(self, kbit: int, viewer: int = 0) -> None:
        note_estimate(self.record, self.viewers[viewer].row, kbit * KBIT)

    def turn(self, after: int = 0) -> None:
        """As a turn of the loop does it."""
        self.now += after
        self.memory.thread["now_ns"] = self.now
        sharing_pass(self.record, self.now)
        self.forward()

    def share(self, kbit: int, viewer: int = 0, after: int = INTERVAL_NS) -> None:
        """Share out another estimate."""
        self.estimate(kbit, viewer)
        list_transport(self.record, self.viewers[viewer].row, True)
        self.turn(after)

    def frame(self, layer: int, *, key: bool = False, temporal: int = 0, body: bytes = b"") -> None:
        """A frame of one packet, forwarded."""
        number = self.numbers[layer] = self.numbers[layer] + 1
        flags = KEY if key else FRAME
        self.vp8(number, 50 * layer + number, layer=layer, flags=flags, temporal=temporal, body=body or b"%d" % layer)
        self.forward()

    def keys(self, *layers: int) -> None:
        for layer in layers or range(int(self.track["layer_count"])):
            self.frame(layer, key=True, body=b"key%d" % layer)

    def allowed(self, viewer: int = 0) -> tuple[int, int]:
        """The layers that it may be sent, of those that there are."""
        row = self.subscription(viewer)
        return min(int(row["allowed_spatial"]), 2), min(int(row["allowed_temporal"]), 3)

    def requested(self) -> list[int]:
        """Layers of which a key frame is requested."""
        return [layer for layer in range(int(self.track["layer_count"])) if self.stream(layer)["key_frame_requested"]]

    def forget_requests(self) -> None:
        for layer in range(int(self.track["layer_count"])):
            self.stream(layer)["key_frame_requested"] = 0


def bodies(viewer: Viewer) -> list[bytes]:
    return [packet.payload[5:] for packet in viewer.take()]


def test_without_an_estimate_nothing_is_limited() -> None:
    room = Sharing()
    viewer = room.watch()
    room.keys()
    room.turn(SECOND)
    assert room.allowed() == (2, 3)
    assert bodies(viewer) == [b"key0", b"key2"]
    assert room.transport()["preferred_bps"] == room.transport()["allocated_bps"] == 1925 * KBIT


def test_who_waits_for_a_part_of_a_higher_layer_has_all_of_the_present_one_until_then() -> None:
    room = Sharing()
    room.watch(kbit=800)
    room.keys()
    assert (room.allowed(), int(room.subscription()["layer"])) == ((1, 3), 1)
    room.share(1_600)
    assert (room.allowed(), int(room.subscription()["layer"])) == ((2, 1), 1)
    assert room.subscription()["target_temporal"] >= 2
    room.keys(2)
    assert (int(room.subscription()["layer"]), int(room.subscription()["target_temporal"])) == (2, 1)


def test_who_negotiated_feedback_begins_with_little_and_is_not_limited_if_none_comes() -> None:
    room = Sharing()
    room.add_viewer()
    room.transport()["unreported"] = 0
    room.turn()
    room.keys()
    room.turn(INTERVAL_NS)
    assert room.allowed() == (1, 1)
    assert room.subscription()["reason"] == Reason.BANDWIDTH
    note_silence(room.record, room.viewers[0].row)
    room.turn(INTERVAL_NS)
    assert room.allowed() == (2, 3)
    assert room.subscription()["reason"] == Reason.CLIENT
    room.estimate(500)
    room.turn()
    assert room.allowed() == (1, 1)


def test_who_negotiated_no_feedback_for_video_is_not_limited() -> None:
    room = Sharing()
    room.add_viewer()
    room.transport()["unreported"] = 0
    room.media()["numbered"][MediaKind.VIDEO] = 0
    room.turn()
    room.keys()
    room.turn(INTERVAL_NS)
    assert room.allowed() == (2, 3)


@pytest.mark.parametrize(
    ("kbit", "allowed", "reason"),
    [
        (3_000, (2, 3), Reason.CLIENT),
        (1_300, (2, 1), Reason.BANDWIDTH),
        (700, (1, 3), Reason.BANDWIDTH),
        (200, (0, 3), Reason.BANDWIDTH),
        (80, (0, 0), Reason.BANDWIDTH),
    ],
)
def test_an_estimate_limits_what_is_sent(kbit: int, allowed: tuple[int, int], reason: Reason) -> None:
    room = Sharing()
    room.watch()
    room.keys()
    room.estimate(kbit)
    room.turn()
    assert room.allowed() == allowed
    assert room.subscription()["reason"] == reason
    assert room.transport()["preferred_bps"] == 1925 * KBIT
    assert 0 < room.transport()["allocated_bps"] <= min(kbit, 1925) * KBIT
    assert room.transport()["limited"] == (reason == Reason.BANDWIDTH)


def test_a_new_viewer_of_a_limited_path_begins_with_what_fits() -> None:
    room = Sharing()
    room.keys()
    room.add_viewer()
    room.estimate(700)
    room.turn()
    room.viewers[0].take()
    subscription = room.subscription()
    assert (subscription["layer"], subscription["by_bandwidth"]) == (1, 0)


def test_audio_is_taken_off_first() -> None:
    room = Sharing()
    room.watch(kbit=700)
    room.keys()
    room.share(700)
    assert room.allowed() == (1, 3)
    tracks, streams, subscriptions = (room.memory.table(name) for name in ("tracks", "streams", "subscriptions"))
    tracks[5]["state"] = streams[5]["state"] = subscriptions[5]["state"] = RowState.OPEN
    tracks[5]["kind"] = subscriptions[5]["kind"] = MediaKind.AUDIO
    tracks[5]["layer_count"], tracks[5]["streams"] = 1, [5, -1, -1]
    streams[5]["layer_bytes"][0], streams[5]["layer_packets"][0] = 20_000, 50
    subscriptions[5]["track"], subscriptions[5]["next_of_transport"] = 5, room.transport()["first_subscription"]
    room.transport()["first_subscription"] = 5
    room.share(700)
    assert room.allowed() == (1, 1)
    tracks[5]["group"] = 1
    room.share(700)
    assert room.allowed() == (1, 3), "others are louder: it is not sent"


def test_what_is_paused_by_its_viewer_takes_nothing() -> None:
    room = Sharing()
    room.watch(kbit=700)
    room.keys()
    set_paused(room.record, 0, 1)
    room.turn(INTERVAL_NS)
    assert room.transport()["preferred_bps"] == 0
    set_paused(room.record, 0, 0)
    room.turn(INTERVAL_NS)
    assert room.transport()["preferred_bps"] == 1925 * KBIT


def test_what_is_preferred_anew_is_shared_out_anew() -> None:
    room = Sharing()
    room.watch(kbit=3_000)
    room.keys()
    set_layers(room.record, 0, 1, 1)
    room.turn(INTERVAL_NS)
    assert room.transport()["preferred_bps"] == 330 * KBIT
    assert room.subscription()["reason"] == Reason.CLIENT


def test_a_layer_that_goes_is_shared_out_anew() -> None:
    room = Sharing()
    room.watch(kbit=3_000)
    room.keys()
    for _ in range(40):
        room.frame(0)
        room.frame(1)
        liveness_pass(room.record, room.now)
    room.turn(INTERVAL_NS)
    assert room.subscription()["reason"] == Reason.NOT_LIVE
    assert room.transport()["preferred_bps"] == 550 * KBIT


# when
def shared(room: Sharing, viewer: int = 0) -> int:
    return int(room.transport(viewer)["shared_bps"]) // KBIT


def test_a_fall_is_acted_on_at_once_and_a_rise_after_a_while() -> None:
    room = Sharing()
    room.watch(kbit=1_000)
    room.keys()
    room.turn(INTERVAL_NS)
    room.estimate(1_000 - 10 * FALL_PERCENT + 1)
    room.turn(MS)
    assert shared(room) == 1_000, "too little to matter"
    room.estimate(1_000 - 10 * FALL_PERCENT)
    room.turn(MS)
    assert shared(room) == 950
    room.estimate(950 * (100 + RISE_PERCENT) // 100)
    room.turn(INTERVAL_NS)
    assert shared(room) == 950, "a little less than that"
    room.transport()["allocated_ns"] = room.now
    room.estimate(950 * (100 + RISE_PERCENT) // 100 + 1)
    room.turn(INTERVAL_NS - MS)
    assert shared(room) == 950
    room.turn(MS)
    assert shared(room) == 1_093


def test_no_more_than_some_transports_in_a_turn_and_the_others_in_the_next_ones() -> None:
    room = Sharing()
    count = 2 * MAX_RUNS + 3
    for _ in range(count):
        room.add_viewer()
    done = []
    for _ in range(3):
        room.turn()
        done.append(sum(int(room.transport(viewer)["allocated_ns"] > 0) for viewer in range(count)))
    assert done == [MAX_RUNS, 2 * MAX_RUNS, count]
    assert room.memory.thread["first_due"] == -1


def test_those_whose_time_has_not_come_do_not_hold_up_the_others() -> None:
    room = Sharing()
    for viewer in range(2 * MAX_RUNS):
        room.add_viewer()
        room.turn()
        room.estimate(1_000, viewer)
        room.turn(MS)
        room.estimate(2_000, viewer)
    room.add_viewer()
    room.turn(MS)
    assert room.transport(2 * MAX_RUNS)["allocated_ns"] == room.now
    room.turn(INTERVAL_NS)
    room.turn()
    assert [shared(room, viewer) for viewer in range(2 * MAX_RUNS)] == 2 * MAX_RUNS * [2_000]


def test_a_transport_that_closes_while_it_is_listed_is_left_out() -> None:
    room = Sharing()
    room.add_viewer()
    room.add_viewer()
    room.transport(0)["state"] = RowState.FREE
    room.turn()
    assert room.transport(0)["allocated_ns"] == 0
    assert room.transport(1)["allocated_ns"] > 0
    close_subscription(room.record, 1)
    room.transport(1)["state"] = RowState.FREE
    room.turn(SECOND)
    assert room.memory.thread["first_due"] == -1


def test_more_videos_than_are_shared_out_are_sent_key_frames_only_and_counted() -> None:
    room = Sharing()
    room.watch(kbit=1_000_000)
    subscriptions = room.memory.table("subscriptions")
    for number in range(1, MAX_SHARED + 2):
        subscriptions[number] = subscriptions[0]
        subscriptions[number]["next_of_transport"] = number - 1
    room.transport()["first_subscription"] = MAX_SHARED + 1
    room.keys()
    room.share(1_000_000)
    assert [int(rung) for rung in subscriptions["rung"][: MAX_SHARED + 2]] == [
        *2 * [Rung.KEY_FRAMES_ONLY],
        *MAX_SHARED * [Rung.HIGHER],
    ]
    assert drop_counts(room.memory)["allocation_full"] >= 2


def test_priorities_and_dimensions_of_a_client_decide_who_steps_down() -> None:
    room = Sharing()
    room.watch(kbit=10_000)
    room.subscription()["generation"] = 40
    fields = {"spatial": 2, "temporal": 3, "priority": 2, "pixels": 1920 * 1080}
    push_command(room.memory, Command.SET_LAYERS, 0, 40, **fields)
    apply_commands(room.record, room.memory.arena, room.now)
    room.share(10_000)
    demand = room.memory.table("demands")[0]
    assert (demand["priority"], demand["pixels"], demand["screen"]) == (2, 1920 * 1080, 0)
    room.track["screen"] = 1
    room.share(10_000)
    assert demand["screen"] == 1


# down
def test_on_the_way_down_upper_temporal_layers_are_left_out_until_the_key_frame_comes() -> None:
    room = Sharing()
    viewer = room.watch(kbit=3_000)
    room.keys()
    room.forget_requests()
    room.share(1_600)
    assert room.allowed() == (2, 1)
    room.share(700)
    assert room.subscription()["held"] == Held.SWITCH, "far too much is sent"
    room = Sharing()
    viewer = room.watch(kbit=800)
    room.keys()
    room.share(600)
    assert (room.allowed(), room.requested()) == ((1, 3), [])
    viewer.take()
    room.share(500)
    room.share(430)
    assert (room.allowed(), room.requested()) == ((1, 1), [])
    room.share(320)
    assert (room.allowed(), room.requested()) == ((0, 3), [0]), "asked for at once"
    for temporal in (0, 2, 1, 2):
        room.frame(1, temporal=temporal, body=b"t%d" % temporal)
    assert bodies(viewer) == [b"t0"]
    room.frame(0, key=True, body=b"down")
    for temporal in (0, 2, 1, 2):
        room.frame(0, temporal=temporal, body=b"t%d" % temporal)
        room.frame(1, temporal=temporal, body=b"old")
    assert bodies(viewer) == [b"down", b"t0", b"t2", b"t1", b"t2"]


def test_where_there_are_no_temporal_layers_the_old_layer_ends_at_a_frame() -> None:
    room = Sharing(SINGLE)
    viewer = room.watch(kbit=800)
    room.keys()
    viewer.take()
    room.vp8(3, 60, layer=1, flags=PacketFlag.FRAME_START, marker=False, body=b"begun")
    room.forward()
    room.share(500)
    assert (room.allowed(), room.requested()) == ((0, 3), [0])
    room.vp8(4, 60, layer=1, timestamp=9_000, flags=PacketFlag.FRAME_END, start=False, body=b"ended")
    room.vp8(5, 61, layer=1, flags=FRAME, body=b"more")
    room.vp8(6, 62, layer=1, flags=KEY, body=b"key frame of the old layer")
    room.forward()
    packets = viewer.take()
    assert [packet.payload[5:] for packet in packets] == [b"begun", b"ended"]
    room.frame(0, key=True, body=b"down")
    room.frame(0, body=b"goes on")
    after = viewer.take()
    assert [packet.payload[5:] for packet in after] == [b"down", b"goes on"]
    assert [packet.sequence_number - packets[-1].sequence_number for packet in after] == [1, 2], "nothing is missed"
    assert room.subscription()["held"] == Held.NOTHING


def test_a_switch_that_is_taken_back_while_the_picture_stands_goes_on_with_a_key_frame() -> None:
    room = Sharing(SINGLE)
    viewer = room.watch(kbit=800)
    room.keys()
    viewer.take()
    room.share(500)
    room.frame(1, body=b"left out")
    room.forget_requests()
    room.share(2_000, after=SECOND)
    assert room.allowed() == (1, 3)
    assert room.requested() == [1]
    room.frame(1, body=b"cannot be decoded")
    assert bodies(viewer) == []
    room.frame(1, key=True, body=b"again")
    assert bodies(viewer) == [b"again"]


def test_a_picture_does_not_stand_for_ever_when_the_layer_that_it_waits_for_goes() -> None:
    """The old one is the lowest that is left. It costs too much, but its key frames are shown."""
    room = Sharing(SINGLE)
    viewer = room.watch(kbit=800)
    room.keys()
    room.share(500)
    assert room.subscription()["held"] == Held.SWITCH
    for _ in range(40):
        room.frame(1)
        liveness_pass(room.record, room.now)
    room.turn(INTERVAL_NS)
    viewer.take()
    room.frame(1, key=True, body=b"the old layer")
    room.frame(1, body=b"goes on")
    assert bodies(viewer) == [b"the old layer"]
    assert (room.subscription()["held"], room.subscription()["rung"]) == (Held.KEY_FRAMES, Rung.KEY_FRAMES_ONLY)


def test_nobody_is_asked_for_a_layer_that_is_denied() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=800)
    room.keys()
    room.share(500)
    room.forget_requests()
    room.now += SECOND
    receive_key_frame_request(room.record, 0, room.now)
    assert 1 not in room.requested()
    assert 2 not in room.requested()


# below the lowest layer
def test_a_path_that_carries_next_to_nothing_is_sent_key_frames_only() -> None:
    room = Sharing()
    viewer = room.watch(kbit=200)
    room.keys()
    viewer.take()
    room.share(20)
    assert room.subscription()["rung"] == Rung.KEY_FRAMES_ONLY
    room.frame(0, body=b"delta")
    room.frame(1, key=True)
    room.frame(0, key=True, body=b"key")
    room.frame(0, body=b"delta")
    room.frame(0, key=True, body=b"next key")
    packets = viewer.take()
    assert [packet.payload[5:] for packet in packets] == [b"key", b"next key"]
    assert packets[1].sequence_number == packets[0].sequence_number + 1
    room.share(300, after=SECOND)
    room.frame(0, body=b"needs what was left out")
    assert bodies(viewer) == []
    room.frame(0, key=True, body=b"whole again")
    room.frame(0, body=b"delta")
    assert bodies(viewer) == [b"whole again", b"delta"]


def test_all_who_get_key_frames_only_share_one_in_some_seconds() -> None:
    room = Sharing()
    for viewer in range(2):
        room.watch()
        room.estimate(20, viewer)
    room.keys(0)
    room.turn()
    room.forget_requests()
    requests = 0
    for _ in range(200):
        limited_pass(room.record)
        room.turn(INTERVAL_NS)
        if room.requested():
            requests += 1
            room.keys(0)
    assert requests == 200 * INTERVAL_NS // KEY_FRAME_EVERY_NS


def test_a_pause_is_told_and_always_ended() -> None:
    """Also when the track was paused by its viewer meanwhile (livekit#2069)."""
    room = Sharing()
    viewer = room.watch(kbit=200)
    room.transport()["may_pause"] = 1
    room.keys()
    viewer.take()
    room.share(10)
    assert room.notices(NoticeKind.ALLOWANCE_CHANGED) == [(0, 1)]
    assert room.subscription()["reason"] == Reason.PAUSED
    room.frame(0, key=True)
    assert bodies(viewer) == []
    set_paused(room.record, 0, 1)
    room.share(300, after=SECOND)
    set_paused(room.record, 0, 0)
    room.turn(INTERVAL_NS)
    assert room.notices(NoticeKind.ALLOWANCE_CHANGED) == [(0, 0)]
    room.frame(0, key=True, body=b"back")
    assert bodies(viewer) == [b"back"]


# up
def test_on_the_way_up_the_old_layer_flows_until_the_key_frame_is_complete() -> None:
    room = Sharing()
    viewer = room.watch(kbit=200)
    room.keys()
    viewer.take()
    room.share(800, after=SECOND)
    assert (room.allowed(), room.requested()) == ((1, 3), [1])
    start = PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
    at: dict[str, Any] = {"layer": 1, "timestamp": 90_000, "marker": False}
    room.vp8(2, 60, flags=start, body=b"a", **at)
    room.frame(0, body=b"old")
    room.vp8(4, 60, flags=PacketFlag.KEY_FRAME, start=False, body=b"c", **at)
    room.frame(0, body=b"old")
    at["marker"] = True
    room.vp8(5, 60, flags=PacketFlag.KEY_FRAME | PacketFlag.FRAME_END, start=False, body=b"d", **at)
    room.frame(0, body=b"old")
    assert bodies(viewer) == [b"old", b"old", b"old"]
    at["marker"] = False
    room.vp8(3, 60, flags=PacketFlag.KEY_FRAME, start=False, body=b"b, repaired", **at)
    room.frame(0, body=b"too late")
    assert bodies(viewer) == [b"a", b"b, repaired", b"c", b"d"]


def test_a_layer_that_rests_is_granted_as_soon_as_the_estimate_exceeds_its_last_cost() -> None:
    room = Sharing(SINGLE)
    viewer = room.watch(kbit=800)
    room.keys()
    room.track["live"], room.track["resting"] = 0b011, 0b100
    room.stream(2)["quiet_checks"] = STOPPED
    room.share(1_900)
    assert (room.allowed(), room.subscription()["reason"]) == ((1, 3), Reason.BANDWIDTH), "it cost 1925 kbit/s"
    assert room.transport()["preferred_bps"] == 1925 * KBIT, "so the path is probed for it"
    room.share(2_200)
    assert room.allowed() == (2, 3)
    assert room.transport()["allocated_bps"] == 1925 * KBIT, "it has its place before it comes"
    viewer.take()
    room.frame(1)
    assert bodies(viewer) == [b"1"], "until then the best one that comes is sent"
    room.frame(2, key=True, body=b"again")
    assert bodies(viewer) == [b"again"]


def test_a_layer_that_rests_and_was_never_measured_costs_what_it_may_cost() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=800)
    room.track["live"], room.track["resting"] = 0b011, 0b100
    room.stream(2)["layer_bytes"] = 0
    room.share(1_700)
    assert (room.allowed(), room.subscription()["reason"]) == ((1, 3), Reason.BANDWIDTH), "three times the one below"
    room.share(2_000)
    assert room.allowed() == (2, 3)


def test_nothing_rests_of_a_track_that_is_muted() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=800)
    room.keys()
    room.track["live"], room.track["resting"] = 0b011, 0b100
    for layer in range(3):
        room.stream(layer)["quiet_checks"] = STOPPED
    room.share(800)
    assert room.transport()["allocated_bps"] < KBIT
    room.track["live"] = 0
    room.share(800)
    assert room.transport()["preferred_bps"] == 0
