"""Key frames that are requested because the bandwidth of viewers changed."""

from collections import deque

import pytest

from sfu.media.relay_in import receive_relayed
from sfu.media.rtcp.feedback import feedback_pass
from sfu.media.send.relay_out import add_mirror, relay_back
from sfu.media.send.selection import liveness_pass, receive_key_frame_request
from sfu.media.stream.key_frames import KEY_FRAME_EVERY_NS, KEY_FRAME_IDLE_RETRY_NS, request_key_frame
from sfu.media.stream.switches import SWITCH_SHARED_NS, TRACK_KEPT, TRACK_WINDOW_NS, VIEWER_KEPT, VIEWER_WINDOW_NS
from sfu.media.subscriptions import set_layers, set_paused
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import TRACK_SWITCHES, VIEWER_SWITCHES
from sfu.schema.codes import KeyFrameRequest
from tests.sfu.media.test_sharing import SINGLE, Sharing
from tests.sfu.support.subscribers import MS, PUBLISHER, SECOND, SUBSCRIBER

HOME, AWAY = 0, 1
THINNED = ((100, 50), (480, 60), (1_700, 50))
"""kbit/s of temporal layers. Without its upper one a layer is sent until the key frame of the one below comes, if
it costs little more than there is: no picture stands."""
GENERATION, MIRROR_GENERATION = 3, 9


def most_within(times: list[int], window: int) -> int:
    """The most of these times that lie within any window."""
    recent: deque[int] = deque()
    most = 0
    for time in times:
        recent.append(time)
        while time - recent[0] >= window:
            recent.popleft()
        most = max(most, len(recent))
    return most


def forgive(room: Sharing) -> None:
    """Let no failed upgrade hold a viewer back."""
    for viewer in range(len(room.viewers)):
        subscription = room.subscription(viewer)
        subscription["failures"] = subscription["failed_ns"] = 0


def switches(room: Sharing, kbits: tuple[int, ...], seconds: int, viewers: int = 1) -> list[int]:
    """When key frames are requested while the estimates of viewers take these values in turns, a second each; each
    request is answered."""
    requests = []
    for second in range(seconds):
        for viewer in range(viewers):
            room.share(kbits[(second + viewer) % len(kbits)], viewer, after=SECOND // viewers)
            forgive(room)
            if room.requested():
                requests.append(room.now)
                room.keys()
        liveness_pass(room.record, room.now)
    return requests


def use_up(room: Sharing) -> None:
    """Let the requests of the last minute be as many as there may be."""
    room.track["switches_ns"] = room.now


def test_changes_of_bandwidth_ask_a_publisher_no_more_than_six_times_in_any_minute() -> None:
    room = Sharing(THINNED)
    for _ in range(4):
        room.watch(kbit=620)
    room.keys()
    times = switches(room, (450, 620), 300, viewers=4)
    assert most_within(times, TRACK_WINDOW_NS) == TRACK_SWITCHES
    assert len(times) > 20, "the budget comes back"


def test_one_viewer_causes_no_more_than_three_in_any_ten_seconds() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=800)
    room.keys()
    times = []
    for _ in range(60):
        room.track["switches_ns"] = 0  # the track's own limit is another one
        times += switches(room, (500, 800), 2)
    assert most_within(times, VIEWER_WINDOW_NS) == VIEWER_SWITCHES
    assert len(times) > 20


def test_another_viewer_may_cause_more() -> None:
    room = Sharing(SINGLE)
    for _ in range(2):
        room.watch(kbit=800)
    room.keys()
    room.subscription(0)["switches_ns"] = room.now
    room.share(500, 0, after=SWITCH_SHARED_NS)
    assert room.requested() == []
    room.share(500, 1, after=SWITCH_SHARED_NS)
    assert room.requested() == [0]
    room.keys()
    assert [int(room.subscription(viewer)["layer"]) for viewer in range(2)] == [0, 0], "both are served"


def test_some_of_a_viewers_requests_are_kept_for_when_it_needs_less() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=300)
    room.keys()
    room.subscription()["switches_ns"][: VIEWER_SWITCHES - VIEWER_KEPT] = room.now
    room.share(800, after=SWITCH_SHARED_NS)
    assert (room.requested(), int(room.subscription()["target_layer"])) == ([], 1)
    room.keys()
    assert room.subscription()["layer"] == 1, "one that comes anyway is taken"
    room.share(300, after=SWITCH_SHARED_NS)
    assert room.requested() == [0]


def test_some_of_a_tracks_requests_are_kept_for_those_who_need_less() -> None:
    room = Sharing(SINGLE)
    rising = TRACK_SWITCHES - TRACK_KEPT + 1
    for viewer in range(rising + 1):
        room.watch()
        room.estimate(200 if viewer < rising else 800, viewer)
    room.turn()
    room.keys()
    risen = 0
    for viewer in range(rising):
        room.share(800, viewer, after=SWITCH_SHARED_NS)
        risen += len(room.requested()) > 0
        room.forget_requests()
    assert risen == TRACK_SWITCHES - TRACK_KEPT
    room.share(300, rising, after=SWITCH_SHARED_NS)
    assert room.requested() == [0]


def test_a_picture_that_stands_does_not_wait_for_a_budget_that_is_used_up() -> None:
    """Without temporal layers nothing of the old layer is sent once it costs too much."""
    room = Sharing(SINGLE)
    room.watch(kbit=3_000)
    room.keys()
    use_up(room)
    room.share(300, after=SWITCH_SHARED_NS)
    assert (room.requested(), room.subscription()["held"]) == ([], Held.SWITCH)
    room.turn(KEY_FRAME_EVERY_NS - SWITCH_SHARED_NS - MS)
    liveness_pass(room.record, room.now)
    assert room.requested() == []
    room.turn(MS)
    liveness_pass(room.record, room.now)
    assert room.requested() == [0]
    room.keys()
    assert room.subscription()["layer"] == 0


def test_nor_does_one_that_was_paused_for_lack_of_bandwidth() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=3_000)
    room.keys()
    use_up(room)
    room.subscription()["layer"], room.subscription()["by_bandwidth"] = -1, 1
    room.subscription()["in_highest"] += 1_000  # nothing that is stored is a beginning
    room.turn(KEY_FRAME_EVERY_NS - MS)
    liveness_pass(room.record, room.now)
    assert room.requested() == []
    room.turn(MS)
    liveness_pass(room.record, room.now)
    assert room.requested() == [2]


def test_switches_at_nearly_the_same_time_share_a_request() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=800)
    room.watch(kbit=800)
    room.keys()
    room.share(500, 0)
    assert room.requested() == [0]
    room.forget_requests()
    room.share(500, 1, after=SWITCH_SHARED_NS - MS)
    assert room.requested() == []
    room.keys()
    assert [int(room.subscription(viewer)["layer"]) for viewer in range(2)] == [0, 0]


def test_a_viewers_first_picture_is_no_switch() -> None:
    room = Sharing()
    use_up(room)
    room.track["live"] = 0b111
    room.watch(kbit=800)
    assert room.requested() == [1]
    assert room.viewers[0].row == SUBSCRIBER


def test_a_client_that_repeats_what_it_prefers_has_no_denied_layer_requested() -> None:
    room = Sharing(THINNED)
    room.watch(kbit=620)
    room.keys()
    room.share(450, after=SWITCH_SHARED_NS)
    assert (room.requested(), int(room.subscription()["layer"])) == ([0], 1)
    use_up(room)
    room.forget_requests()
    set_layers(room.record, 0, 2, 3)
    assert room.requested() == [], "it is still counted"
    assert room.subscription()["target_temporal"] == 0, "the denied layer is thinned out still"
    receive_key_frame_request(room.record, 0, room.now)
    assert room.requested() == []


def test_a_picture_that_stands_at_a_denied_layer_has_a_lower_one_requested_now_and_then() -> None:
    room = Sharing(THINNED)
    room.watch(kbit=620)
    room.keys()
    room.share(450, after=SWITCH_SHARED_NS)
    use_up(room)
    room.forget_requests()
    room.now += KEY_FRAME_EVERY_NS
    receive_key_frame_request(room.record, 0, room.now)
    assert room.requested() == [0], "the budget of the track is used up, and the viewer has no picture"


def test_a_client_that_goes_on_after_a_pause_is_no_switch() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=800)
    room.keys()
    use_up(room)
    room.share(500, after=SWITCH_SHARED_NS)
    for paused in (1, 0):
        set_paused(room.record, 0, paused)
    room.turn(2 * SECOND)
    liveness_pass(room.record, room.now)
    assert room.requested() == [0]


def test_a_request_ends_when_nobody_is_to_be_sent_the_layer_any_more() -> None:
    room = Sharing(SINGLE)
    room.watch()
    room.keys()
    room.memory.table("streams")["source"][:3] = 0
    room.memory.table("transports")[PUBLISHER]["srtp_out"] = room.transport()["srtp_out"]
    request_key_frame(room.record, 2)
    feedback_pass(room.record, room.now)
    assert (room.requested(), int(room.stream(2)["pli_ns"])) == ([2], room.now)
    room.memory.thread["tx_count"] = 0
    room.share(300, after=KEY_FRAME_IDLE_RETRY_NS)
    assert room.requested() == [0, 2]
    asked_ns = int(room.stream(2)["pli_ns"])
    feedback_pass(room.record, room.now)
    assert (room.requested(), int(room.stream(2)["pli_ns"])) == ([0], asked_ns)
    room.stream(2)["key_frame_requested"] = KeyFrameRequest.ORDERED
    feedback_pass(room.record, room.now)
    assert room.stream(2)["pli_ns"] == room.now, "the control thread knows what it does"
    room.memory.thread["tx_count"] = 0


class Threads:
    """A track in one media thread, its mirror in another, and a viewer in each."""

    def __init__(self) -> None:
        self.home, self.away = Sharing(THINNED), Sharing(THINNED)
        memories = [self.home.memory, self.away.memory]
        for room in (self.home, self.away):
            room.memory.join(memories)
            room.memory.open_wakeups()
            room.watch(kbit=620)
            room.keys()
        self.home.track["generation"] = GENERATION
        add_mirror(self.home.record, self.home.memory.arena, 0, AWAY, 0, MIRROR_GENERATION, self.home.now)
        self.home.memory.table("relays")[AWAY]["read"] = 0
        mirror, transport = self.away.track, self.away.memory.table("transports")[PUBLISHER]
        mirror["generation"] = MIRROR_GENERATION
        mirror["source_thread"], mirror["source_row"], mirror["source_generation"] = HOME, 0, GENERATION
        transport["relayed"], transport["secure"], transport["path"] = 1, 0, -1
        transport["first_track"] = 0

    def pass_on(self) -> None:
        """Tell the publisher's thread what the other one requests."""
        relay_back(self.away.record, self.away.now)
        receive_relayed(self.home.record, self.home.memory.arena, self.home.now)

    def answer(self) -> bool:
        """Whether the publisher is asked; what it answers reaches both threads."""
        if not self.home.requested():
            return False
        self.home.keys()
        self.away.keys()
        return True

    def close(self) -> None:
        for room in (self.home, self.away):
            room.memory.close_wakeups()


@pytest.fixture
def threads() -> Threads:
    return Threads()


def test_a_track_is_asked_no_more_often_because_several_threads_have_viewers(threads: Threads) -> None:
    times = []
    for second in range(240):
        for room, other in ((threads.home, threads.away), (threads.away, threads.home)):
            room.share((450, 620)[second % 2], after=SECOND // 2)
            other.turn(SECOND // 2)
            forgive(room)
            threads.pass_on()
            if threads.answer():
                times.append(room.now)
        for room in (threads.home, threads.away):
            liveness_pass(room.record, room.now)
    threads.close()
    assert most_within(times, TRACK_WINDOW_NS) <= TRACK_SWITCHES
    assert len(times) > 10


def test_what_the_publishers_thread_refuses_is_asked_again_until_nobody_waits_for_it(threads: Threads) -> None:
    home, away = threads.home, threads.away
    use_up(home)
    away.share(450, after=SWITCH_SHARED_NS)
    home.turn(SWITCH_SHARED_NS)
    assert away.stream(0)["key_frame_requested"] == KeyFrameRequest.SWITCH_DOWN
    threads.pass_on()
    assert home.requested() == []
    assert away.requested() == [0]
    home.track["switches_ns"] = 0
    for room in (home, away):
        room.turn(KEY_FRAME_IDLE_RETRY_NS)
    threads.pass_on()
    assert home.requested() == [0]
    home.forget_requests()
    away.share(620, after=SWITCH_SHARED_NS)
    for room in (home, away):
        room.turn(KEY_FRAME_IDLE_RETRY_NS)
    threads.pass_on()
    threads.close()
    assert (away.requested(), home.requested()) == ([], [])


def test_a_viewer_that_cannot_go_on_does_not_wait_behind_a_refused_switch(threads: Threads) -> None:
    home, away = threads.home, threads.away
    use_up(home)
    away.share(450, after=SWITCH_SHARED_NS)
    threads.pass_on()
    assert home.requested() == []
    request_key_frame(away.record, 0)
    threads.pass_on()
    threads.close()
    assert home.requested() == [0]
