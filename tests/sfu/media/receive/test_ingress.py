"""From the receive slot into the packet cache: what is stored, what is dropped and why."""

import itertools

import numpy as np
import pytest
from aiortc import rtp
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.tracks import close_track
from sfu.parameters import Codec
from sfu.schema.capacities import PACKETS, SEQUENCE_START
from sfu.schema.codes import PacketFlag
from tests.sfu.support.publisher import (
    MS,
    RED,
    START,
    UNKNOWN,
    VP8,
    VP8_DELTA,
    VP8_KEY,
    VP8_RTX,
    VP9,
    Publisher,
    extension_map,
    packet,
    rtx,
)


@pytest.fixture
def publisher() -> Publisher:
    result = Publisher()
    result.add_track("0")
    return result


def start(publisher: Publisher, sequence: int = 100) -> None:
    publisher.receive(packet(sequence, mid="0", payload=VP8_KEY))


def test_a_packet_is_stored_described_and_logged(publisher: Publisher) -> None:
    data = packet(100, mid="0", payload=VP8_KEY, timestamp=5, marker=1)
    publisher.receive(data, arrival=START - 3)
    extended = SEQUENCE_START + 100
    assert publisher.stored(0, extended) == data
    entry = publisher.memory.table("packets")[0][extended & (PACKETS - 1)]
    assert entry["arrival_ns"] == START - 3
    assert (entry["codec"], entry["payload_type"], entry["timestamp"]) == (Codec.VP8, VP8, 5)
    assert (
        entry["flags"] & (PacketFlag.KEY_FRAME | PacketFlag.FRAME_START)
        == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
    )
    assert publisher.log() == [(0, extended & 0xFFFF)]
    assert publisher.memory.thread["first_dirty_track"] == 0
    assert publisher.drops == {}


def test_stream_columns_follow_the_packets(publisher: Publisher) -> None:
    start(publisher)
    publisher.receive(packet(101, timestamp=3000), now=START + 33 * MS)
    stream = publisher.stream()
    assert (stream["codec"], stream["payload_type"], stream["nack"]) == (Codec.VP8, VP8, 1)
    assert stream["clock_rate"] == 90_000
    assert (stream["received"], stream["frames"]) == (2, 2)
    assert (stream["last_ns"], stream["last_timestamp"]) == (START + 33 * MS, 3000)


@pytest.mark.parametrize("first", [0, 65533, 65535])
def test_numbers_are_extended_over_the_wrap(publisher: Publisher, first: int) -> None:
    for k in range(6):
        publisher.receive(packet(first + k, mid="0"))
    for k in range(6):
        assert publisher.stored(0, SEQUENCE_START + first + k) == packet(first + k, mid="0")
    assert publisher.stream()["highest"] == SEQUENCE_START + first + 5


@pytest.mark.parametrize("first", [100, 65534])
def test_late_packets_take_their_place(publisher: Publisher, first: int) -> None:
    for k in (0, 3, 1, 2):
        publisher.receive(packet(first + k, mid="0"))
    assert [low for _, low in publisher.log()] == [(first + k) & 0xFFFF for k in (0, 3, 1, 2)]
    assert publisher.stream()["missing_count"] == 0


def test_duplicates_are_dropped(publisher: Publisher) -> None:
    start(publisher)
    start(publisher)
    assert publisher.drops == {"duplicate": 1}
    assert len(publisher.log()) == 1


def test_what_the_index_no_longer_reaches_is_too_old(publisher: Publisher) -> None:
    start(publisher, 1000)
    publisher.receive(packet(1000 - PACKETS))
    publisher.receive(packet(1000 - PACKETS + 1))
    assert publisher.drops == {"too_old": 1}
    assert len(publisher.log()) == 2


def test_beyond_the_replay_window_a_number_is_ahead(publisher: Publisher) -> None:
    """libsrtp accepted it, so the sender went on while nothing arrived."""
    start(publisher, 40_000)
    publisher.receive(packet(5_000))
    assert publisher.stream()["highest"] == SEQUENCE_START + 65536 + 5_000


def test_unknown_payload_types_are_dropped(publisher: Publisher) -> None:
    publisher.receive(packet(1, mid="0", payload_type=UNKNOWN))
    assert publisher.drops == {"unknown_payload_type": 1}
    assert publisher.stream()["highest"] == -1


def test_unbound_packets_are_dropped_but_counted_for_transport_cc(publisher: Publisher) -> None:
    publisher.receive(packet(1, mid="nobody", transport_sequence_number=10))
    publisher.receive(packet(2, mid="0", payload_type=UNKNOWN, transport_sequence_number=11))
    publisher.receive(
        packet(3, ssrc=5, mid="x", payload_type=VP8_RTX, payload=b"", padding=200, transport_sequence_number=12)
    )
    publisher.receive(packet(4, mid="0", transport_sequence_number=13))
    assert publisher.arrivals["count"] == 4
    assert publisher.drops == {"unassigned_ssrc": 2, "unknown_payload_type": 1}


def test_malformed_packets_are_dropped(publisher: Publisher) -> None:
    publisher.receive(bytes(11))
    publisher.receive(b"\x90" + bytes(11))
    assert publisher.drops == {"rtp_malformed": 2}


def test_protected_packets_are_decrypted(publisher: Publisher) -> None:
    publisher.receive_protected(publisher.out.protect(packet(7, mid="0")))
    assert publisher.stored(0, SEQUENCE_START + 7) == packet(7, mid="0")
    assert publisher.transport["packets_in"] == 1
    assert publisher.transport["bytes_in"] == len(packet(7, mid="0"))
    thread = publisher.memory.thread
    assert (thread["packets_received"], thread["bytes_received"]) == (1, len(publisher.out.protect(packet(8, mid="0"))))


def test_replayed_and_forged_packets_are_counted_apart(publisher: Publisher) -> None:
    good = publisher.out.protect(packet(7, mid="0"))
    publisher.receive_protected(good)
    publisher.receive_protected(good)
    publisher.receive_protected(publisher.out.protect(packet(8))[:-1] + b"\x00")
    publisher.receive_protected(packet(9))
    assert publisher.drops == {"srtp_replay": 1, "srtp_auth": 2}
    assert publisher.transport["packets_in"] == 1
    assert publisher.memory.thread["packets_received"] == 1


def test_a_track_is_listed_once_as_having_news(publisher: Publisher) -> None:
    publisher.add_track("1")
    start(publisher)
    publisher.receive(packet(101))
    publisher.receive(packet(1, ssrc=2222, mid="1"))
    assert publisher.memory.thread["first_dirty_track"] == 1
    assert publisher.track(1)["dirty_next"] == 0
    assert publisher.track(0)["dirty_next"] == -1
    close_track(publisher.record, 0)
    assert publisher.memory.thread["first_dirty_track"] == 1
    assert publisher.track(1)["dirty_next"] == -1


def test_the_cache_never_wraps_inside_a_packet(publisher: Publisher) -> None:
    publisher.stream()["cache_bytes"] = 1 << 17
    sizes = itertools.cycle([1200, 40, 1200, 900, 7])
    expected = {}
    for k, size in zip(range(400), sizes, strict=False):
        data = packet(65_400 + k, mid="0", payload=VP8_DELTA + bytes([k & 255]) * size)
        expected[SEQUENCE_START + 65_400 + k] = data
        publisher.receive(data)
    kept = 0
    for sequence, data in expected.items():
        try:
            stored = publisher.stored(0, sequence)
        except KeyError:
            continue
        kept += 1
        assert stored == data
    assert 150 < kept < 400  # the packet cache is smaller than what was sent
    assert publisher.drops == {}


class TestRtx:
    def start(self, publisher: Publisher, first: int = 100) -> None:
        publisher.receive(packet(first, mid="0", payload=VP8_KEY))
        publisher.receive(packet(first + 2))

    @pytest.mark.parametrize("first", [100, 65534, 65535])
    def test_the_original_is_restored(self, publisher: Publisher, first: int) -> None:
        self.start(publisher, first)
        original = packet(first + 1, timestamp=77, marker=1, payload=VP8_DELTA + b"lost")
        publisher.receive(rtx(original, 9, ssrc=999, mid="0"))
        stored = rtp.RtpPacket.parse(publisher.stored(0, SEQUENCE_START + first + 1), extension_map())
        wanted = rtp.RtpPacket.parse(original)
        for field in ("sequence_number", "timestamp", "marker", "payload_type", "ssrc", "payload"):
            assert getattr(stored, field) == getattr(wanted, field)
        assert stored.extensions.mid == "0"
        entry = publisher.memory.table("packets")[0][(first + 1) & (PACKETS - 1)]
        assert (entry["codec"], entry["flags"] & PacketFlag.FRAME_START) == (Codec.VP8, PacketFlag.FRAME_START)
        assert publisher.stream()["missing_count"] == 0
        assert publisher.memory.thread["retransmissions_received"] == 1
        assert publisher.stream()["received"] == 2  # RFC 4588: the report is about the original stream

    def test_padding_after_the_payload_stays(self, publisher: Publisher) -> None:
        self.start(publisher)
        wrapped = packet(5, ssrc=999, payload_type=VP8_RTX, payload=b"\x00\x65" + VP8_DELTA, padding=9, mid="0")
        publisher.receive(wrapped)
        stored = rtp.RtpPacket.parse(publisher.stored(0, SEQUENCE_START + 101))
        assert (stored.payload, stored.padding_size) == (VP8_DELTA, 9)

    @pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x65"])
    def test_padding_probes_bind_their_ssrc_and_are_dropped(self, publisher: Publisher, payload: bytes) -> None:
        probe = packet(5, ssrc=999, payload_type=VP8_RTX, payload=payload, padding=100, mid="0")
        publisher.receive(probe)
        thread = publisher.memory.thread
        assert (thread["retransmissions_received"], thread["retransmission_bytes_received"]) == (1, len(probe))
        assert publisher.stream()["rtx_ssrc"] == 999
        assert publisher.drops == {"rtx_empty": 1}

    def test_nothing_is_repaired_before_the_stream_starts(self, publisher: Publisher) -> None:
        publisher.receive(rtx(packet(1), 5, ssrc=999, mid="0"))
        assert publisher.drops == {"rtx_unknown": 1}

    def test_a_number_far_ahead_is_not_believed(self, publisher: Publisher) -> None:
        self.start(publisher)
        publisher.receive(rtx(packet(100 + 2000), 5, ssrc=999, mid="0"))
        assert publisher.drops == {"rtx_unknown": 1}

    def test_a_number_little_ahead_is_taken(self, publisher: Publisher) -> None:
        self.start(publisher)
        publisher.receive(rtx(packet(104), 5, ssrc=999, mid="0"))
        assert publisher.stored(0, SEQUENCE_START + 104)
        assert publisher.stream()["highest"] == SEQUENCE_START + 104
        missing = publisher.stream()["missing"]["sequence"][: int(publisher.stream()["missing_count"])]
        assert list(missing - SEQUENCE_START) == [101, 103]

    def test_an_old_number_is_too_old(self, publisher: Publisher) -> None:
        self.start(publisher, 5000)
        publisher.receive(rtx(packet(5002 - PACKETS), 5, ssrc=999, mid="0"))
        assert publisher.drops == {"too_old": 1}

    def test_a_repair_of_what_arrived_is_a_duplicate(self, publisher: Publisher) -> None:
        self.start(publisher)
        publisher.receive(rtx(packet(102), 5, ssrc=999, mid="0"))
        assert publisher.drops == {"duplicate": 1}

    def test_payload_types_do_not_change_what_an_ssrc_is(self, publisher: Publisher) -> None:
        self.start(publisher)
        publisher.receive(rtx(packet(101), 5, ssrc=999, mid="0"))
        publisher.receive(packet(6, ssrc=999))
        publisher.receive(rtx(packet(103), 7, ssrc=1111))
        assert publisher.drops == {"unknown_payload_type": 2}


def test_a_key_frame_answers_the_request_and_ends_older_searches(publisher: Publisher) -> None:
    start(publisher)
    publisher.receive(packet(105))
    assert publisher.stream()["missing_count"] == 4
    publisher.stream()["key_frame_requested"] = 1
    publisher.receive(packet(108, payload=VP8_KEY), now=START + 5)
    stream = publisher.stream()
    assert (stream["key_frame_requested"], stream["key_ns"]) == (0, START + 5)
    assert stream["key_sequence"] == SEQUENCE_START + 108
    assert stream["missing_count"] == 0


def test_a_late_key_frame_does_not_replace_a_newer_one(publisher: Publisher) -> None:
    start(publisher, 100)
    publisher.receive(packet(110, payload=VP8_KEY))
    publisher.receive(packet(105, payload=VP8_KEY))
    assert publisher.stream()["key_sequence"] == SEQUENCE_START + 110


def test_the_codec_may_change_at_any_packet(publisher: Publisher) -> None:
    start(publisher)
    publisher.receive(packet(101, payload_type=VP9, payload=b"\x8a\x01"))
    assert (publisher.stream()["codec"], publisher.stream()["payload_type"]) == (Codec.VP9, VP9)
    entry = publisher.memory.table("packets")[0][101]
    assert entry["codec"] == Codec.VP9


def test_red_and_opus_share_a_stream() -> None:
    publisher = Publisher()
    publisher.add_audio("a")
    publisher.receive(packet(1, payload_type=RED, payload=b"\x6fabc", mid="a"))
    publisher.receive(packet(2, payload_type=111, payload=b"abc"))
    assert len(publisher.log()) == 2
    assert publisher.stream()["codec"] == Codec.OPUS


def test_a_media_row_that_was_never_set_drops_everything(publisher: Publisher) -> None:
    publisher.transport["media"] = -1
    publisher.receive(packet(1, mid="0"))
    assert publisher.drops == {"rtp_malformed": 1}


@pytest.fixture(scope="module")
def busy() -> Publisher:
    result = Publisher()
    result.add_track("0", rids=("q", "h", "f"))
    result.add_track("1", ssrcs=(7,), rtx_ssrcs=(8,))
    result.add_audio("a")
    return result


known_packets = st.builds(
    packet,
    st.integers(0, 65535),
    ssrc=st.sampled_from([7, 8, 9, 10]),
    payload_type=st.sampled_from([VP8, VP8_RTX, VP9, RED, 111, UNKNOWN]),
    payload=st.binary(max_size=60),
    padding=st.integers(0, 20),
    mid=st.sampled_from(["0", "1", "a", "x", None]),
    rtp_stream_id=st.sampled_from(["q", "f", "x", None]),
    repaired_rtp_stream_id=st.sampled_from(["q", None]),
    transport_sequence_number=st.integers(0, 65535),
)


@given(data=st.binary(max_size=200) | known_packets, now=st.integers(1, 1 << 50))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_stored_or_counted(busy: Publisher, data: bytes, now: int) -> None:
    before = sum(busy.drops.values())
    logged = sum(int(busy.track(row)["log_written"]) for row in range(3))
    busy.receive(data, now=now)
    after = sum(int(busy.track(row)["log_written"]) for row in range(3))
    assert (after - logged) + (sum(busy.drops.values()) - before) == 1
    assert np.all(busy.memory.table("streams")["missing_count"][:5] >= 0)


def test_opening_a_track_on_used_rows_starts_afresh() -> None:
    publisher = Publisher()
    publisher.add_track("0")
    start(publisher)
    close_track(publisher.record, 0)
    publisher.tracks = publisher.streams = 0
    publisher.add_track("0")
    publisher.receive(packet(100, ssrc=2222, mid="0"))
    assert publisher.drops == {}
    assert publisher.log() == [(0, 100)]
    assert publisher.transport["first_track"] == 0
