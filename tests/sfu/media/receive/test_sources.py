"""How an SSRC finds its stream."""

import pytest
from pylibsrtp import Error

from sfu.media.receive.sources import DISPLACED_NS, UNASSIGNED_IDLE_NS, close_sources
from sfu.media.tracks import close_track
from sfu.parameters import Codec
from sfu.schema.capacities import CROWDED_UNASSIGNED, MAX_UNASSIGNED, SEQUENCE_START, UNASSIGNED_PER_TRANSPORT
from sfu.schema.codes import MediaKind, NoticeKind
from tests.sfu.support.publisher import MS, OPUS, ROW, START, VP8, VP8_KEY, VP8_RTX, Publisher, packet, rtx


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def assigned(publisher: Publisher) -> dict[int, int]:
    """stream row -> SSRC, of the streams that have a source."""
    sources = publisher.memory.table("sources")
    return {
        row: int(sources[int(publisher.stream(row)["source"])]["ssrc"])
        for row in range(publisher.streams)
        if publisher.stream(row)["source"] >= 0
    }


def known(publisher: Publisher) -> list[int]:
    """SSRCs in the transport's list of sources."""
    result, row = [], int(publisher.transport["first_source"])
    while row >= 0:
        result.append(int(publisher.memory.table("sources")[row]["ssrc"]))
        row = int(publisher.memory.table("sources")[row]["next"])
    return result


def test_by_the_ssrc_of_the_sdp(publisher: Publisher) -> None:
    publisher.add_track("0", ssrcs=(10,), rtx_ssrcs=(11,))
    publisher.add_track("1", ssrcs=(20,), rtx_ssrcs=(21,))
    publisher.receive(packet(1, ssrc=20))
    publisher.receive(packet(2, ssrc=10))
    publisher.receive(rtx(packet(4), 1, ssrc=11))
    assert assigned(publisher) == {0: 10, 1: 20}
    assert publisher.stream(0)["rtx_source"] >= 0


def test_layers_without_rids_are_told_apart_by_the_ssrcs_of_the_sdp(publisher: Publisher) -> None:
    publisher.add_track("0", rids=("", "", ""), ssrcs=(10, 20, 30))
    for ssrc in (30, 10, 20):
        publisher.receive(packet(1, ssrc=ssrc, mid="0"))
    assert assigned(publisher) == {0: 10, 1: 20, 2: 30}
    assert [layer for layer, _ in publisher.log()] == [2, 0, 1]


def test_by_mid_and_rid(publisher: Publisher) -> None:
    publisher.add_track("0", rids=("q", "h", "f"))
    publisher.add_track("1", rids=("q", "h", "f"))
    publisher.receive(packet(1, ssrc=10, mid="1", rtp_stream_id="h"))
    publisher.receive(packet(1, ssrc=20, mid="0", rtp_stream_id="f"))
    assert assigned(publisher) == {4: 10, 2: 20}


def test_once_assigned_a_packet_needs_neither(publisher: Publisher) -> None:
    publisher.add_track("0", rids=("q", "h", "f"))
    publisher.receive(packet(1, ssrc=10, mid="0", rtp_stream_id="h"))
    publisher.receive(packet(2, ssrc=10))
    assert len(publisher.log()) == 2


def test_by_mid_and_repaired_rid(publisher: Publisher) -> None:
    publisher.add_track("0", rids=("q", "h", "f"))
    publisher.receive(packet(1, ssrc=11, payload_type=VP8_RTX, mid="0", repaired_rtp_stream_id="f", payload=b""))
    assert publisher.stream(2)["rtx_ssrc"] == 11
    assert assigned(publisher) == {}


def test_by_mid_alone_when_there_is_one_layer(publisher: Publisher) -> None:
    publisher.add_track("0")
    publisher.add_track("1")
    publisher.receive(packet(1, ssrc=10, mid="1"))
    assert assigned(publisher) == {1: 10}


def test_not_by_mid_alone_when_there_are_several(publisher: Publisher) -> None:
    publisher.add_track("0", rids=("q", "f"))
    publisher.receive(packet(1, ssrc=10, mid="0"))
    publisher.receive(packet(1, ssrc=11, mid="0", rtp_stream_id="x"))
    assert assigned(publisher) == {}
    assert publisher.drops == {"unassigned_ssrc": 2}


def test_by_a_rid_that_only_one_track_has(publisher: Publisher) -> None:
    publisher.add_track("0", rids=("a", "b"))
    publisher.add_track("1", rids=("c", "b"))
    publisher.receive(packet(1, ssrc=10, rtp_stream_id="c"))
    publisher.receive(packet(1, ssrc=11, rtp_stream_id="b"))
    assert assigned(publisher) == {2: 10}


def test_by_the_only_track_of_the_kind(publisher: Publisher) -> None:
    publisher.add_track("0", kind=MediaKind.VIDEO)
    publisher.add_track("1", kind=MediaKind.AUDIO)
    publisher.receive(packet(1, ssrc=10, payload_type=OPUS, payload=b"x"))
    publisher.receive(packet(1, ssrc=20))
    assert assigned(publisher) == {1: 10, 0: 20}


def test_not_by_kind_when_two_tracks_have_it(publisher: Publisher) -> None:
    publisher.add_track("0")
    publisher.add_track("1")
    publisher.receive(packet(1, ssrc=10))
    assert assigned(publisher) == {}


def test_a_source_without_mid_takes_no_stream_from_another(publisher: Publisher) -> None:
    publisher.add_track("0")
    publisher.receive(packet(1, ssrc=10))
    publisher.receive(packet(1, ssrc=20))
    assert assigned(publisher) == {0: 10}


def test_audio_is_not_assigned_to_a_video_track(publisher: Publisher) -> None:
    publisher.add_track("0", kind=MediaKind.VIDEO, ssrcs=(10,))
    publisher.receive(packet(1, ssrc=10, mid="0", payload_type=OPUS))
    assert publisher.drops == {"unassigned_ssrc": 1}


def test_an_ssrc_that_came_before_its_track_is_assigned_later(publisher: Publisher) -> None:
    publisher.receive(packet(1, ssrc=10, mid="0"))
    assert publisher.transport["unassigned"] == 1
    publisher.add_track("0")
    publisher.receive(packet(2, ssrc=10, mid="0"))
    assert assigned(publisher) == {0: 10}
    assert publisher.transport["unassigned"] == 0


def test_the_start_is_told_once(publisher: Publisher) -> None:
    publisher.add_track("0", rids=("q", "f"))
    for sequence in range(3):
        publisher.receive(packet(sequence, ssrc=10, mid="0", rtp_stream_id="f"))
    assert publisher.notices() == [(NoticeKind.STREAM_STARTED, 0, 7, 1, 10 | int(Codec.VP8) << 32 | VP8 << 40)]


class TestUnassigned:
    def flood(self, publisher: Publisher, count: int, now: int = START, first: int = 1) -> None:
        for ssrc in range(first, first + count):
            publisher.receive(packet(1, ssrc=ssrc), now=now)

    def test_there_is_room_for_a_few(self, publisher: Publisher) -> None:
        self.flood(publisher, UNASSIGNED_PER_TRANSPORT + 10)
        assert publisher.drops == {"unassigned_ssrc": UNASSIGNED_PER_TRANSPORT, "unassigned_full": 10}
        assert len(known(publisher)) == UNASSIGNED_PER_TRANSPORT

    def test_assigned_ones_do_not_count(self, publisher: Publisher) -> None:
        publisher.add_track("0", ssrcs=(9999,))
        self.flood(publisher, UNASSIGNED_PER_TRANSPORT - 1)
        publisher.receive(packet(1, ssrc=9999))
        self.flood(publisher, 1, first=500)
        assert "unassigned_full" not in publisher.drops

    def test_silent_ones_give_way(self, publisher: Publisher) -> None:
        self.flood(publisher, UNASSIGNED_PER_TRANSPORT)
        later = START + UNASSIGNED_IDLE_NS + 1
        publisher.receive(packet(2, ssrc=1), now=later)
        self.flood(publisher, 5, now=later, first=500)
        assert "unassigned_full" not in publisher.drops
        assert set(range(500, 505)) | {1} <= set(known(publisher))
        assert len(known(publisher)) == UNASSIGNED_PER_TRANSPORT

    def test_a_flood_does_not_keep_a_stream_from_flowing(self, publisher: Publisher) -> None:
        publisher.add_track("0", ssrcs=(9999,))
        publisher.receive(packet(1, ssrc=9999))
        self.flood(publisher, 100)
        publisher.receive(packet(2, ssrc=9999))
        assert len(publisher.log()) == 2

    def test_libsrtp_keeps_no_state_of_those_turned_away(self, publisher: Publisher) -> None:
        self.flood(publisher, UNASSIGNED_PER_TRANSPORT)
        data = publisher.out.protect(packet(1, ssrc=7777))
        publisher.receive_protected(data)
        publisher.receive_protected(data)  # with state kept this would be a replay
        assert publisher.drops["unassigned_full"] == 2

    def test_when_all_together_have_too_many_each_may_have_a_few(self, publisher: Publisher) -> None:
        publisher.memory.thread["unassigned"] = MAX_UNASSIGNED
        publisher.add_track("0", ssrcs=(9999,))
        publisher.receive(packet(1, ssrc=9999))
        self.flood(publisher, CROWDED_UNASSIGNED + 10)
        assert publisher.drops == {"unassigned_ssrc": CROWDED_UNASSIGNED, "unassigned_full": 10}
        assert len(known(publisher)) == 1 + CROWDED_UNASSIGNED
        assert assigned(publisher) == {0: 9999}

    def test_tracks_that_end_leave_no_more_of_them(self, publisher: Publisher) -> None:
        for row in range(UNASSIGNED_PER_TRANSPORT + 10):
            publisher.add_track(str(row), ssrcs=(1000 + row,))
            publisher.receive(packet(1, ssrc=1000 + row))
        assert (len(known(publisher)), publisher.memory.thread["unassigned"]) == (UNASSIGNED_PER_TRANSPORT + 10, 0)
        for row in range(UNASSIGNED_PER_TRANSPORT + 10):
            close_track(publisher.record, row)
        assert len(known(publisher)) == publisher.transport["unassigned"] == UNASSIGNED_PER_TRANSPORT
        assert publisher.memory.thread["unassigned"] == UNASSIGNED_PER_TRANSPORT
        close_sources(publisher.record, ROW)
        assert publisher.memory.thread["unassigned"] == 0


class TestRestart:
    """The publisher restarts an encoding under another SSRC."""

    @pytest.fixture
    def publisher(self) -> Publisher:
        result = Publisher()
        result.add_track("0", rids=("q", "f"))
        result.receive(packet(500, ssrc=10, mid="0", rtp_stream_id="f"))
        result.receive(packet(501, ssrc=10))
        return result

    @pytest.mark.parametrize("first", [0, 499, 502, 30_000, 65_535])
    def test_the_numbers_of_the_stream_go_on(self, publisher: Publisher, first: int) -> None:
        for k in range(4):
            publisher.receive(packet(first + k, ssrc=20, mid="0", rtp_stream_id="f", payload=VP8_KEY), now=START + MS)
        stream = publisher.stream(1)
        assert assigned(publisher) == {1: 20}
        highest = int(stream["highest"])
        assert SEQUENCE_START + 501 < highest < SEQUENCE_START + 501 + 20
        assert (highest - int(stream["sequence_shift"])) & 0xFFFF == (first + 3) & 0xFFFF
        for k in range(4):
            expected = packet(first + k, ssrc=20, mid="0", rtp_stream_id="f", payload=VP8_KEY)
            assert publisher.stored(1, highest - 3 + k) == expected

    def test_a_packet_that_was_overtaken_at_the_change_still_fits(self, publisher: Publisher) -> None:
        publisher.receive(packet(1001, ssrc=20, mid="0", rtp_stream_id="f"))
        publisher.receive(packet(1000, ssrc=20, mid="0", rtp_stream_id="f"))
        assert publisher.drops == {}
        assert publisher.stored(1, int(publisher.stream(1)["highest"]) - 1)

    def test_the_start_is_told_again(self, publisher: Publisher) -> None:
        assert [extra & 0xFFFFFFFF for *_, extra in publisher.notices()] == [10]
        publisher.receive(packet(1, ssrc=20, mid="0", rtp_stream_id="f"))
        assert [extra & 0xFFFFFFFF for *_, extra in publisher.notices()] == [20]

    def test_repairs_of_the_new_ssrc_are_understood(self, publisher: Publisher) -> None:
        publisher.receive(packet(1000, ssrc=20, mid="0", rtp_stream_id="f"))
        publisher.receive(packet(1002, ssrc=20))
        publisher.receive(rtx(packet(1001), 1, ssrc=21, mid="0", repaired_rtp_stream_id="f"))
        assert publisher.drops == {}
        assert publisher.stored(1, int(publisher.stream(1)["highest"]) - 1)

    def test_two_that_share_a_name_do_not_alternate(self, publisher: Publisher) -> None:
        for k in range(5):
            publisher.receive(packet(900 + k, ssrc=20, mid="0", rtp_stream_id="f"), now=START + k)
            publisher.receive(packet(600 + k, ssrc=10, mid="0", rtp_stream_id="f"), now=START + k)
        assert assigned(publisher) == {1: 20}
        assert publisher.drops == {"unassigned_ssrc": 5}
        publisher.receive(packet(605, ssrc=10, mid="0", rtp_stream_id="f"), now=START + DISPLACED_NS + MS)
        assert assigned(publisher) == {1: 10}

    def test_the_reports_begin_anew(self, publisher: Publisher) -> None:
        publisher.stream(1)["acknowledged"] = 1
        publisher.receive(packet(1, ssrc=20, mid="0", rtp_stream_id="f"))
        stream = publisher.stream(1)
        assert stream["acknowledged"] == 0
        assert stream["highest"] - stream["base"] + 1 == stream["received"]


def test_closing_a_track_leaves_its_ssrcs_unassigned(publisher: Publisher) -> None:
    publisher.add_track("0", ssrcs=(10,), rtx_ssrcs=(11,))
    publisher.receive(packet(1, ssrc=10))
    publisher.receive(rtx(packet(0), 1, ssrc=11))
    close_track(publisher.record, 0)
    assert publisher.transport["unassigned"] == 2
    assert publisher.transport["first_track"] == -1
    assert publisher.notices()[-1][:3] == (NoticeKind.CLOSED_TRACK, 0, 7)
    publisher.receive(packet(2, ssrc=10))
    assert publisher.drops["unassigned_ssrc"] == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_tracks_are_closed_in_any_order(publisher: Publisher, order: tuple[int, ...]) -> None:
    for row in range(3):
        publisher.add_track(str(row))
        publisher.receive(packet(1, ssrc=row + 1, mid=str(row)))
    for row in order:
        close_track(publisher.record, row)
    assert publisher.transport["first_track"] == -1
    assert publisher.memory.thread["first_dirty_track"] == -1


def test_closing_the_sources_frees_every_row(publisher: Publisher) -> None:
    publisher.add_track("0")
    free = int(publisher.memory.thread["free_source"])
    publisher.receive(packet(1, ssrc=10, mid="0"))
    for ssrc in range(100, 130):
        publisher.receive(packet(1, ssrc=ssrc, mid="x"))
    close_track(publisher.record, 0)
    close_sources(publisher.record, ROW)
    assert known(publisher) == []
    assert not publisher.memory.table("source_slots").clip(min=0).any()
    rows, row = set(), int(publisher.memory.thread["free_source"])
    while row >= 0:
        rows.add(row)
        row = int(publisher.memory.table("sources")[row]["next"])
    assert len(rows) == len(publisher.memory.table("sources"))
    assert publisher.memory.thread["unassigned"] == 0
    assert free in rows


def test_an_unauthenticated_packet_takes_no_place(publisher: Publisher) -> None:
    publisher.receive_protected(packet(1, ssrc=10, mid="0") + bytes(16))
    assert publisher.drops == {"srtp_auth": 1}
    assert known(publisher) == []
    with pytest.raises(Error):
        publisher.inbound.unprotect(packet(1) + bytes(16))
