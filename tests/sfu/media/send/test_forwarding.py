"""egress end to end: stored packets in, decrypted packets of each subscriber out."""

import numpy as np
import pytest
from aiortc import rtp
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.control.rows import pack_playout_delay
from sfu.media.send.retransmit import answer_nack
from sfu.media.send.selection import receive_key_frame_request
from sfu.media.subscriptions import close_subscription, set_layers, set_paused
from sfu.parameters import EXTENSION_URIS, Codec, Extension
from sfu.schema.capacities import PACKETS, SEQUENCE_START, TX_BYTES, TX_SLOTS
from sfu.schema.codes import Drop, MediaKind, NoticeKind, PacketFlag, RowState
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.subscribers import (
    EXTENSIONS,
    MS,
    OPUS,
    PAYLOAD_TYPE,
    PRIMARY,
    RED,
    SECOND,
    START_OF_KEY,
    SUBSCRIBER,
    WHOLE,
    Room,
    Viewer,
)

KEY = START_OF_KEY | PacketFlag.FRAME_END


def extension_map(ids: dict[Extension, int]) -> rtp.HeaderExtensionsMap:
    uris = {kind: uri for uri, kind in EXTENSION_URIS.items()}
    result = rtp.HeaderExtensionsMap()
    parameters = [RTCRtpHeaderExtensionParameters(id=number, uri=uris[kind]) for kind, number in ids.items()]
    result.configure(RTCRtpParameters(headerExtensions=parameters))
    return result


def elements(data: bytes) -> dict[int, bytes]:
    """Extension id -> data of a packet, by aiortc's unpacking of either form."""
    if not data[0] & 0x10:
        return {}
    profile, size = int.from_bytes(data[12:14], "big"), 4 * int.from_bytes(data[14:16], "big")
    return dict(rtp.unpack_header_extensions(profile, data[16 : 16 + size]))


@pytest.fixture
def room() -> Room:
    """VP8 without layers; its viewer has started."""
    result = Room()
    result.add_viewer()
    result.vp8(0, 5, flags=KEY)
    result.forward()
    result.viewers[0].take()
    return result


def test_a_viewer_starts_with_a_key_frame_and_is_announced_once() -> None:
    room = Room()
    viewer = room.add_viewer()
    room.vp8(0, 5)
    room.forward()
    assert viewer.take() == []
    assert room.stream()["key_frame_requested"]
    room.vp8(1, 6, flags=KEY)
    room.vp8(2, 7)
    room.forward()
    first, second = viewer.take()
    assert (first.ssrc, first.payload_type, first.marker) == (PRIMARY, PAYLOAD_TYPE, 1)
    assert first.sequence_number < 32768
    assert (second.sequence_number, second.timestamp - first.timestamp) == (first.sequence_number + 1, 3000)
    assert room.notices(NoticeKind.SUBSCRIPTION_STARTED) == [(0, 0)]
    assert (room.subscription()["packets"], room.subscription()["octets"]) == (2, 20)


def test_a_new_viewer_starts_from_the_recent_key_frame_in_the_cache_without_asking() -> None:
    room = Room()
    room.vp8(0, 5, flags=KEY)
    room.vp8(1, 6)
    room.forward()
    room.pass_time(500 * MS)
    viewer = room.add_viewer()
    room.forward()
    assert [packet.timestamp for packet in viewer.take()] == [0, 3000]
    assert not room.stream()["key_frame_requested"]
    room.vp8(2, 7)
    room.forward()
    assert [packet.timestamp for packet in viewer.take()] == [6000]


@pytest.mark.parametrize(("age", "behind"), [(1_100 * MS, 1), (10 * MS, 97)])
def test_a_key_frame_that_is_old_or_far_back_is_not_replayed(age: int, behind: int) -> None:
    room = Room()
    room.vp8(0, 5, flags=KEY)
    for number in range(1, behind + 1):
        room.vp8(number, 5 + number)
        room.forward()
    room.pass_time(age)
    viewer = room.add_viewer()
    room.vp8(behind + 1, 6 + behind)
    room.forward()
    assert viewer.take() == []
    assert room.stream()["key_frame_requested"]


def test_packets_that_overtook_the_start_of_the_key_frame_follow_it() -> None:
    room = Room()
    viewer = room.add_viewer()
    room.vp8(2, 5, start=False, timestamp=0, body=b"third")
    room.vp8(1, 5, start=False, timestamp=0, body=b"second", marker=False)
    room.vp8(0, 5, flags=START_OF_KEY, timestamp=0, body=b"first", marker=False)
    room.forward()
    assert [packet.payload[5:] for packet in viewer.take()] == [b"first", b"second", b"third"]


def test_every_viewer_gets_its_own_ssrc_and_transport_wide_numbers(room: Room) -> None:
    second = room.add_viewer()
    for number in range(1, 4):
        room.vp8(number, 5 + number, flags=KEY if number == 1 else WHOLE)
    room.forward()
    first_packets, second_packets = room.viewers[0].received, second.received
    ids = extension_map(EXTENSIONS)
    for data, ssrc, base in ((first_packets, PRIMARY, 1), (second_packets, PRIMARY + 1, 0)):
        parsed = [rtp.RtpPacket.parse(packet, ids) for packet in data]
        sent = 4 - base if ssrc == PRIMARY else len(data)
        assert {packet.ssrc for packet in parsed} == {ssrc}
        assert [packet.extensions.transport_sequence_number for packet in parsed] == list(range(base, base + sent))


def test_a_kind_that_is_not_reported_takes_no_transport_wide_numbers() -> None:
    room = Room(kind=MediaKind.AUDIO, codec=Codec.OPUS)
    room.add_viewer()
    room.media()["numbered"][MediaKind.AUDIO] = 0
    room.store(0)
    room.forward()
    (data,) = room.viewers[0].received
    assert EXTENSIONS[Extension.TRANSPORT_CC] not in elements(data)
    assert int(room.transport()["next_number"]) == SEQUENCE_START


def test_a_number_is_used_up_only_by_a_packet_that_is_queued(room: Room) -> None:
    first = int(room.transport()["next_number"])
    room.store(10, payload=bytes(2000))
    room.store(11)
    room.forward()
    assert drop_counts(room.memory) == {"too_large": 1}
    assert int(room.transport()["next_number"]) == first + 1


def test_what_is_protected_is_the_plain_packet(room: Room) -> None:
    room.store(1, payload=bytes(range(200)), picture_id=-1)
    room.forward()
    assert room.viewers[0].take()[0].payload == bytes(range(200))


def test_mid_is_sent_until_a_receiver_report_named_the_ssrc() -> None:
    room = Room(Codec.OPUS, kind=MediaKind.AUDIO)
    viewer = room.add_viewer(mid_known=False)
    room.store(0)
    room.forward()
    room.subscription()["mid_acknowledged"] = 1
    room.store(1)
    room.forward()
    first, second = map(elements, viewer.received)
    assert first[EXTENSIONS[Extension.MID]] == b"v1"
    assert EXTENSIONS[Extension.MID] not in second
    assert set(second) == {EXTENSIONS[Extension.TRANSPORT_CC], EXTENSIONS[Extension.ABS_SEND_TIME]}


def test_a_playout_delay_of_ours_is_told_until_a_receiver_report_named_the_ssrc() -> None:
    room = Room()
    viewer = room.add_viewer(mid_known=False)
    room.media()["id_of_extension"][Extension.PLAYOUT_DELAY] = 9
    room.subscription()["playout_delay"] = pack_playout_delay((120, 2_000))
    publishers = {Extension.PLAYOUT_DELAY: b"\0\0\0"}
    room.store(0, flags=KEY, extensions=publishers)
    room.forward()
    room.subscription()["mid_acknowledged"] = 1
    room.store(1, extensions=publishers)
    room.forward()
    first, second = map(elements, viewer.received)
    assert first[9] == (12 << 12 | 200).to_bytes(3, "big")
    assert 9 not in second
    room.subscription()["playout_delay"] = 0
    room.store(2, extensions=publishers)
    room.forward()
    assert elements(viewer.received[2])[9] == b"\0\0\0"


def test_send_time_is_seconds_in_six_and_eighteen_bits() -> None:
    room = Room(Codec.OPUS, kind=MediaKind.AUDIO)
    viewer = room.add_viewer()
    room.now = 65 * SECOND + SECOND // 4
    room.store(0)
    room.forward()
    assert int.from_bytes(elements(viewer.received[0])[6], "big") == (1 << 18) + (1 << 16)


def test_only_negotiated_extensions_are_copied_under_the_subscribers_ids() -> None:
    room = Room(Codec.OPUS, kind=MediaKind.AUDIO)
    viewer = room.add_viewer()
    room.media()["id_of_extension"][Extension.AUDIO_LEVEL] = 9
    room.store(0, extensions={Extension.AUDIO_LEVEL: b"\x85", Extension.ORIENTATION: b"\x01"})
    room.forward()
    block = elements(viewer.received[0])
    assert block[9] == b"\x85"
    assert set(block) == {9, 4, 6}


@pytest.mark.parametrize(("mixed", "profile", "present"), [(1, 0x1000, True), (0, 0xBEDE, False)])
def test_a_large_element_needs_the_two_byte_form_and_permission(mixed: int, profile: int, present: bool) -> None:
    room = Room()
    viewer = room.add_viewer()
    room.media()["mixed_extensions"] = mixed
    room.media()["id_of_extension"][Extension.COLOR_SPACE] = 13
    room.store(0, extensions={Extension.COLOR_SPACE: bytes(range(28))}, flags=KEY)
    room.forward()
    data = viewer.received[0]
    assert int.from_bytes(data[12:14], "big") == profile
    assert elements(data).get(13) == (bytes(range(28)) if present else None)
    assert {4, 6} <= set(elements(data))


def test_ids_above_fourteen_need_the_two_byte_form() -> None:
    room = Room(Codec.OPUS, kind=MediaKind.AUDIO)
    viewer = room.add_viewer()
    room.media()["id_of_extension"][Extension.TRANSPORT_CC] = 20
    room.store(0)
    room.media()["mixed_extensions"] = 1
    room.forward()
    room.media()["mixed_extensions"] = 0
    room.store(1)
    room.forward()
    first, second = map(elements, viewer.received)
    assert set(first) == {20, 6}
    assert set(second) == {6}


def test_without_extensions_the_header_is_twelve_bytes() -> None:
    room = Room(Codec.OPUS, kind=MediaKind.AUDIO)
    viewer = room.add_viewer()
    room.media()["id_of_extension"][:] = 0
    room.store(0, payload=b"abc")
    room.forward()
    assert len(viewer.received[0]) == 15
    assert viewer.received[0][0] == 0x80


def test_padding_is_not_copied_and_empty_packets_are_renumbered_away(room: Room) -> None:
    room.vp8(1, 6, padding=7)
    room.store(2, payload=b"", padding=255, flags=0)
    room.vp8(3, 7)
    room.forward()
    first, second = room.viewers[0].take()
    assert (first.payload[5:], first.padding_size) == (b"frame", 0)
    assert second.sequence_number == first.sequence_number + 1


def test_packets_of_a_frame_that_differ_by_a_byte_leave_in_equal_size(room: Room) -> None:
    room.memory.thread["segment_offload"] = 1
    sizes = [100, 100, 101, 101, 60]
    for number, size in enumerate(sizes):
        room.vp8(1 + number, 6, timestamp=3000, start=number == 0, marker=number == 4, body=bytes(size))
    room.forward()
    viewer = room.viewers[0]
    lengths = [len(data) for data in viewer.received]
    assert len(set(lengths[:4])) == 1
    assert lengths[4] == lengths[0] - 41
    assert [len(packet.payload) - 5 for packet in viewer.take()] == sizes


def test_a_lost_packet_keeps_its_number_and_takes_it_when_it_comes(room: Room) -> None:
    viewer = room.viewers[0]
    room.vp8(1, 6)
    room.vp8(3, 8)
    room.forward()
    first, third = viewer.take()
    room.vp8(2, 7)
    room.forward()
    assert third.sequence_number == first.sequence_number + 2
    assert viewer.take()[0].sequence_number == first.sequence_number + 1


@pytest.mark.parametrize("cipher", [True, False], ids=["our GCM", "libsrtp"])
@pytest.mark.parametrize("behind", [63, 64, 65, 200, PACKETS - 1])
def test_a_repair_that_comes_late_is_sent_as_if_it_had_come_in_time(cipher: bool, behind: int) -> None:
    """Every third frame is of a higher temporal layer that the viewer does not want."""
    room, lost = Room(), 4
    viewer = room.add_viewer()
    if not cipher:
        room.transport()["cipher"] = 0
    room.vp8(0, 0, flags=KEY)
    room.forward()
    set_layers(room.record, 0, 2, 0)

    def send(number: int) -> None:
        room.vp8(number, number, temporal=number % 3 == 2, body=b"%d" % number)
        room.forward()

    for number in range(1, lost + behind + 1):
        if number != lost:
            send(number)
    first, *others = viewer.take()
    send(lost)
    (repair,) = viewer.take()
    assert repair.payload[5:] == b"%d" % lost
    kept = [n for n in range(1, lost + behind + 1) if n % 3 != 2]
    place = kept.index(lost) + 1
    assert repair.sequence_number == first.sequence_number + place
    ids = {int.from_bytes(packet.payload[2:4], "big") & 0x7FFF for packet in (first, repair, *others)}
    assert ids == set(range(len(kept) + 1))
    assert int.from_bytes(repair.payload[2:4], "big") & 0x7FFF == place
    send(lost)  # again: under the same index another packet would give the key away
    assert viewer.take() == []
    answer_nack(room.record, room.memory.arena, 0, repair.sequence_number, room.now)
    room.collect()
    assert viewer.take()[0].payload[2:] == repair.payload


def test_a_paused_viewer_gets_nothing_and_resumes_with_a_key_frame_without_a_gap(room: Room) -> None:
    viewer, last = room.viewers[0], int(room.subscription()["out_highest"]) & 0xFFFF
    set_paused(room.record, 0, 1)
    for number in range(1, 5):
        room.vp8(number, 5 + number)
    room.forward()
    assert viewer.take() == []
    room.pass_time(1_100 * MS)
    set_paused(room.record, 0, 0)
    room.vp8(5, 10)
    room.forward()
    assert viewer.take() == []
    assert room.stream()["key_frame_requested"]
    room.vp8(6, 11, flags=KEY)
    room.forward()
    packet = viewer.take()[0]
    assert packet.sequence_number == last + 1
    assert int.from_bytes(packet.payload[2:4], "big") & 0x7FFF == 6
    assert packet.timestamp == 18_000  # the same clock goes on


def test_paused_audio_resumes_with_the_next_packet() -> None:
    room = Room(Codec.OPUS, kind=MediaKind.AUDIO)
    viewer = room.add_viewer()
    room.store(0, timestamp=0)
    room.forward()
    set_paused(room.record, 0, 1)
    room.store(1, timestamp=960)
    room.forward()
    set_paused(room.record, 0, 0)
    room.pass_time(40 * MS)
    room.store(2, timestamp=1920)
    room.forward()
    first, second = viewer.take()
    assert second.sequence_number == first.sequence_number + 1
    assert second.timestamp - first.timestamp == 1920


def test_another_source_in_place_of_the_first_waits_for_its_key_frame_and_moves_forward(room: Room) -> None:
    viewer = room.viewers[0]
    room.stream()["ssrc"] = 999
    room.pass_time(100 * MS)
    room.vp8(5, 900, timestamp=5)
    room.forward()
    assert viewer.take() == []
    room.vp8(6, 901, timestamp=10, flags=KEY)
    room.forward()
    packet = viewer.take()[0]
    assert packet.timestamp == 9000
    assert int.from_bytes(packet.payload[2:4], "big") & 0x7FFF == 6


@pytest.mark.parametrize("column", ["secure", "path"])
def test_a_transport_that_is_not_ready_is_skipped_and_starts_later(column: str) -> None:
    room = Room()
    viewer = room.add_viewer()
    ready = int(room.transport()[column])
    room.transport()[column] = -1 if column == "path" else 0
    room.vp8(0, 5, flags=KEY)
    room.forward()
    assert viewer.take() == []
    assert not room.subscription()["started"]
    room.transport()[column] = ready
    room.vp8(1, 6)
    room.forward()
    assert len(viewer.take()) == 2


def test_red_is_unwrapped_for_those_who_did_not_negotiate_it() -> None:
    room = Room(Codec.RED, kind=MediaKind.AUDIO)
    plain, red = room.add_viewer(), room.add_viewer(red=True)
    room.store(0, payload=b"\xe0\x01\x00\x03\x60old" + b"primary", primary_at=8)
    room.forward()
    unwrapped, whole = plain.take()[0], red.take()[0]
    assert (unwrapped.payload_type, unwrapped.payload) == (OPUS, b"primary")
    assert whole.payload_type == RED
    assert whole.payload == bytes([0x80 | OPUS]) + b"\x01\x00\x03" + bytes([OPUS]) + b"oldprimary"


def test_opus_of_a_red_track_is_sent_as_opus() -> None:
    room = Room(Codec.RED, kind=MediaKind.AUDIO)
    viewer = room.add_viewer(red=True)
    room.store(0, codec=Codec.OPUS)
    room.store(1, payload=b"\x6f", primary_at=0)
    room.forward()
    assert [packet.payload_type for packet in viewer.take()] == [OPUS, RED]


def test_malformed_red_is_not_passed_off_as_opus() -> None:
    room = Room(Codec.RED, kind=MediaKind.AUDIO)
    viewer = room.add_viewer()
    room.store(0, payload=b"\xff\xff", primary_at=0)
    room.forward()
    assert viewer.take() == []


def test_a_packet_that_does_not_fit_is_counted(room: Room) -> None:
    room.store(1, payload=bytes(TX_BYTES - 70))
    room.forward()
    assert room.viewers[0].take() == []
    assert room.memory.table("drops").sum() == 1


def test_bytes_that_the_cache_has_overwritten_are_not_sent(room: Room) -> None:
    room.vp8(1, 6)
    room.stream()["cache_written"] += room.stream()["cache_bytes"]
    room.forward()
    assert room.viewers[0].take() == []


def test_a_key_frame_request_is_passed_on_unless_one_is_on_its_way(room: Room) -> None:
    room.transport()["rtt_ns"] = 50 * MS
    receive_key_frame_request(room.record, 0, room.now + 10 * MS)
    assert not room.stream()["key_frame_requested"]
    receive_key_frame_request(room.record, 0, room.now + 60 * MS)
    assert room.stream()["key_frame_requested"]


def test_closing_unlinks_the_subscription_and_frees_its_srtp_streams(room: Room) -> None:
    room.add_viewer()
    room.add_viewer()
    close_subscription(room.record, 1)
    assert room.memory.table("subscriptions")[1]["state"] == RowState.FREE
    assert room.notices(NoticeKind.CLOSED_SUBSCRIPTION) == [(1, 0)]
    room.vp8(1, 6, flags=KEY)
    room.forward()
    assert [len(viewer.take()) for viewer in room.viewers] == [1, 0, 1]
    for row in (2, 0):
        close_subscription(room.record, row)
    assert room.track["first_subscription"] == -1
    assert room.memory.table("transports")[SUBSCRIBER]["first_subscription"] == -1
    room.vp8(2, 7)
    room.forward()


def test_rows_used_again_number_afresh(room: Room) -> None:
    close_subscription(room.record, 0)
    room.viewers.clear()
    room.pass_time(SECOND)
    viewer: Viewer = room.add_viewer()
    room.vp8(1, 9, flags=KEY)
    room.forward()
    assert len(viewer.take()) == 1
    assert room.subscription()["packets"] == 1


def test_more_than_one_batch_and_more_than_all_slots_go_out_in_order(room: Room) -> None:
    for viewer in range(1, 6):
        room.add_viewer()
        assert viewer == len(room.viewers) - 1
    for number in range(1, 101):
        room.vp8(number, 5 + number, flags=KEY if number == 1 else WHOLE)
    room.memory.table("sockets")["fd"] = -1  # what does not fit into the slots is lost, not sent
    room.forward()
    assert [int(room.subscription(k)["packets"]) for k in range(6)] == [101] + [100] * 5
    assert int(room.memory.table("drops")[Drop.SEND_FAILED]) == 600 // TX_SLOTS * TX_SLOTS
    rest = [packet.sequence_number for viewer in room.viewers for packet in viewer.take()]
    assert rest == [rest[0] + k for k in range(600 % TX_SLOTS)]  # all of the last subscriber in the list


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("next", "lost", "late", "twice", "empty")), st.booleans()), max_size=40))
def test_sequence_numbers_and_payloads_stay_paired_over_any_arrival(room_steps: list[tuple[str, bool]]) -> None:
    room = Room()
    viewer = room.add_viewer()
    room.vp8(0, 0, flags=KEY, body=b"0")
    late: list[int] = []
    number = 0
    for kind, flush in room_steps:
        if kind == "late" and late:
            room.vp8(late.pop(), 0, body=b"late", flags=PacketFlag.FRAME_START)
            continue
        number += 1
        if kind == "lost":
            late.append(number)
        elif kind == "empty":
            room.store(number, payload=b"", flags=0)
        else:
            room.vp8(number, number, body=str(number).encode())
        if flush:
            room.forward()
    room.forward()
    packets = viewer.take()
    numbers = [packet.sequence_number for packet in packets]
    assert len(set(numbers)) == len(numbers)
    in_order = [
        int(packet.payload[5:])
        for packet in sorted(packets, key=lambda p: p.sequence_number)
        if packet.payload[5:] != b"late"
    ]
    assert in_order == sorted(in_order)
    assert np.all(np.diff(sorted(numbers)) <= 1 + len(room_steps))
