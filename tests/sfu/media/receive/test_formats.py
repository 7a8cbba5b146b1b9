"""A stream whose publisher turns to another of the codecs that its answer named."""

import numpy as np
import pytest

from sfu.media.receive.formats import CODEC_CHANGE_NS, take_format
from sfu.parameters import Codec, Extension
from sfu.schema.capacities import MEDIA_PER_TRANSPORT, SEQUENCE_START
from sfu.schema.codes import MediaKind, NoticeKind, PacketFlag
from tests.sfu.support.publisher import (
    MS,
    OPUS,
    RED,
    START,
    VP8,
    VP8_KEY,
    VP8_RTX,
    VP9,
    VP9_RTX,
    Publisher,
    packet,
    rtx,
)
from tests.sfu.support.subscribers import FIRST, PUBLISHER, SUBSCRIBER, Room

KEY = PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.FRAME_END
VP9_KEY = bytes.fromhex("8c0000") + bytes(20)
VP8_KEY_IN_TWO_BYTES = bytes.fromhex("10009d012a") + bytes(20)


@pytest.fixture
def publisher() -> Publisher:
    """A publisher that has sent a key frame of VP8 as packet 100 of SSRC 10."""
    result = Publisher()
    result.add_track("0")
    result.receive(packet(100, ssrc=10, mid="0", payload=VP8_KEY))
    return result


def vp9(sequence: int) -> bytes:
    return packet(sequence, ssrc=10, payload_type=VP9, payload=VP9_KEY)


def started(publisher: Publisher) -> list[tuple[int, int, int]]:
    """(SSRC, codec, payload type) of every start that was told and not heard yet."""
    extras = [extra for kind, _, _, _, extra in publisher.notices() if kind == NoticeKind.STREAM_STARTED]
    return [(extra & 0xFFFFFFFF, extra >> 32 & 0xFF, extra >> 40) for extra in extras]


def test_a_change_is_told_and_begins_the_stream_anew(publisher: Publisher) -> None:
    publisher.receive(packet(102, ssrc=10))
    assert started(publisher) == [(10, Codec.VP8, VP8)]
    publisher.receive(vp9(103))
    assert started(publisher) == [(10, Codec.VP9, VP9)]
    stream = publisher.stream()
    assert (stream["codec"], stream["payload_type"]) == (Codec.VP9, VP9)
    assert stream["key_sequence"] in (-1, SEQUENCE_START + 103)
    assert stream["missing_count"] == 0, "nobody can use the end of what was before"
    assert publisher.stored(0, SEQUENCE_START + 103) == vp9(103)


def test_a_codec_is_kept_for_a_while(publisher: Publisher) -> None:
    publisher.receive(vp9(101), now=START + MS)
    assert [codec for _, codec, _ in started(publisher)] == [Codec.VP9]
    publisher.receive(packet(102, ssrc=10), now=START + CODEC_CHANGE_NS)
    assert publisher.drops == {"codec_changed": 1}
    assert started(publisher) == []
    publisher.receive(packet(103, ssrc=10, payload=VP8_KEY), now=START + CODEC_CHANGE_NS + 2 * MS)
    assert [codec for _, codec, _ in started(publisher)] == [Codec.VP8]


def test_what_comes_late_of_the_codec_before_is_dropped(publisher: Publisher) -> None:
    publisher.receive(rtx(packet(100, ssrc=10, payload=VP8_KEY), 1, ssrc=11, mid="0"))
    publisher.receive(vp9(104))
    publisher.receive(packet(103, ssrc=10))
    publisher.receive(rtx(packet(102, ssrc=10), 2, ssrc=11))
    publisher.receive(rtx(packet(106, ssrc=10), 3, ssrc=11))
    assert publisher.drops == {"duplicate": 1, "codec_changed": 3}
    assert publisher.stream()["highest"] == SEQUENCE_START + 104
    publisher.receive(rtx(vp9(105), 4, ssrc=11, payload_type=VP9_RTX))
    assert publisher.stored(0, SEQUENCE_START + 105)


def test_only_what_the_section_may_carry_is_taken() -> None:
    publisher = Publisher()
    row = publisher.add_track("0")
    publisher.track(row)["codecs"] = 1 << Codec.VP8
    publisher.receive(packet(1, ssrc=10, mid="0", payload_type=VP9, payload=VP9_KEY))
    publisher.receive(packet(2, ssrc=11, mid="0", payload_type=VP9_RTX))
    assert publisher.drops == {"unassigned_ssrc": 2}
    publisher.receive(packet(2, ssrc=10, mid="0", payload=VP8_KEY))
    publisher.receive(vp9(3))
    assert publisher.drops == {"unassigned_ssrc": 2, "unknown_payload_type": 1}
    assert publisher.stream()["highest"] == SEQUENCE_START + 2
    assert started(publisher) == [(10, Codec.VP8, VP8)]


def test_red_and_opus_are_one(publisher: Publisher) -> None:
    publisher.add_audio("a")
    for sequence in range(6):
        kind, payload = (RED, bytes([OPUS, 1, 2])) if sequence % 2 else (OPUS, b"opus")
        publisher.receive(packet(sequence, ssrc=20, mid="a", payload_type=kind, payload=payload))
    assert started(publisher) == [(10, Codec.VP8, VP8), (20, Codec.OPUS, OPUS)]
    assert publisher.drops == {}


def test_another_source_may_bring_another_codec_at_once(publisher: Publisher) -> None:
    publisher.receive(vp9(101))
    publisher.receive(packet(7, ssrc=12, mid="0", payload=VP8_KEY), now=START + MS)
    assert started(publisher)[-1] == (12, Codec.VP8, VP8)
    assert publisher.drops == {}


def test_a_retransmission_without_media_before_it_is_still_refused(publisher: Publisher) -> None:
    publisher.add_track("1")
    publisher.receive(rtx(packet(5, ssrc=30), 1, ssrc=31, mid="1", payload_type=VP8_RTX))
    assert publisher.drops == {"rtx_unknown": 1}


@pytest.fixture
def room() -> Room:
    """Two viewers of VP8, negotiated as that, to whom a key frame was forwarded."""
    result = Room()
    for number in range(2):
        result.add_viewer()
        result.subscription(number)["codec"] = Codec.VP8
    result.vp8(0, 5, flags=KEY)
    result.stream()["codec"], result.stream()["payload_type"] = Codec.VP8, VP8
    result.forward()
    assert [len(viewer.take()) for viewer in result.viewers] == [1, 1]
    return result


def turn(room: Room, number: int) -> None:
    """The publisher's packet with this number is VP9."""
    media, incoming = room.memory.table("media")[PUBLISHER * MEDIA_PER_TRANSPORT], room.memory.table("incoming")[0]
    media["codec_of_pt"][VP9] = Codec.VP9
    incoming["payload_type"] = VP9
    assert take_format(room.record, 0, media, incoming, FIRST + number, room.now)
    room.stream()["codec"], room.stream()["payload_type"] = Codec.VP9, VP9
    room.store(number, codec=Codec.VP9, flags=KEY)


def test_a_viewer_of_the_codec_before_gets_nothing_of_the_new_one(room: Room) -> None:
    room.vp8(1, 6)
    turn(room, 2)
    room.forward()
    assert [viewer.take() for viewer in room.viewers] == [[], []]
    assert [room.subscription(number)["layer"] for number in range(2)] == [-1, -1]
    room.store(3, codec=Codec.VP9)
    room.vp8(4, 7, flags=KEY)  # had it gone back, they would go on
    room.forward()
    assert [len(viewer.take()) for viewer in room.viewers] == [1, 1]


def test_a_viewer_negotiated_for_the_new_codec_starts_with_its_key_frame(room: Room) -> None:
    turn(room, 1)
    viewer = room.add_viewer()
    room.subscription(2)["codec"] = Codec.VP9
    room.forward()
    assert len(viewer.take()) == 1
    assert [other.take() for other in room.viewers[:2]] == [[], []]


def test_opus_and_red_go_to_whoever_takes_opus() -> None:
    room = Room(Codec.OPUS, kind=MediaKind.AUDIO)
    viewer = room.add_viewer(rtx=False, red=True)
    room.subscription()["codec"] = Codec.OPUS
    room.store(0)
    room.store(1, codec=Codec.RED, primary_at=1)
    room.forward()
    assert len(viewer.take()) == 2
    other = Room(Codec.AUDIO, kind=MediaKind.AUDIO)
    refused = other.add_viewer(rtx=False)
    other.subscription()["codec"] = Codec.OPUS
    other.store(0)
    other.forward()
    assert refused.take() == []


def test_vp8_without_picture_ids_is_shown_where_descriptors_were_negotiated() -> None:
    """What Chromium sends when VP8 has to do on a section that was answered for a scalable codec."""
    room = Room()
    viewer = room.add_viewer()
    room.subscription()["codec"] = Codec.VP8
    room.memory.table("media")[SUBSCRIBER * MEDIA_PER_TRANSPORT]["id_of_extension"][Extension.DEPENDENCY] = 12
    descriptor = {Extension.DEPENDENCY: bytes([0xC0, 0, 1])}
    for number in range(4):
        flags = KEY if number == 0 else PacketFlag.FRAME_START | PacketFlag.FRAME_END
        room.store(number, payload=VP8_KEY_IN_TWO_BYTES, flags=flags, extensions=descriptor, temporal=number % 2)
    room.forward()
    packets = viewer.take()
    assert [p.sequence_number - packets[0].sequence_number for p in packets] == [0, 1, 2, 3]
    assert all(p.payload == VP8_KEY_IN_TWO_BYTES for p in packets)
    assert np.all(room.subscription()["dropped"] == 0)
