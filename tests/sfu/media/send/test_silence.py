"""What stands in for a muted track until its media come."""

import itertools

import pytest

from sfu.media.send.silence import MAX_SILENT_PACKETS, PADDING_TURNS, begin_silence, end_silence, silence_pass
from sfu.media.subscriptions import close_subscription, set_paused
from sfu.parameters import Codec
from sfu.schema.codes import MediaKind, NoticeKind
from tests.sfu.support.subscribers import MS, OPUS, PAYLOAD_TYPE, START_OF_KEY, Room, Viewer

SILENT = bytes.fromhex("f8fffe")


def muted(codec: Codec, kind: int, viewers: int = 1) -> tuple[Room, list[Viewer]]:
    room = Room(codec, kind=kind)
    found = [room.add_viewer(rtx=False) for _ in range(viewers)]
    number, clock = (OPUS, 48_000) if kind == MediaKind.AUDIO else (PAYLOAD_TYPE, 90_000)
    for n in range(viewers):
        room.media(n)["codec_of_pt"][number], room.media(n)["clock_of_pt"][number] = codec, clock
        begin_silence(room.record, n)
    return room, found


def wait(room: Room, passes: int) -> None:
    for _ in range(passes):
        room.pass_time(20 * MS)
        silence_pass(room.record, room.now)
        room.collect()


def test_silent_opus_is_followed_by_the_voice_without_a_gap() -> None:
    room, (viewer,) = muted(Codec.OPUS, MediaKind.AUDIO)
    wait(room, 10)
    assert room.notices(NoticeKind.SUBSCRIPTION_STARTED) == []
    room.pass_time(20 * MS)
    for number in range(3):
        room.store(number, timestamp=7_000 + 960 * number, payload=b"voice", flags=0)
        room.forward()
    wait(room, 10)
    packets = viewer.take()
    assert [each.payload for each in packets] == [SILENT] * 10 + [b"voice"] * 3
    assert {each.payload_type for each in packets} == {OPUS}
    assert {(b.sequence_number - a.sequence_number) & 0xFFFF for a, b in itertools.pairwise(packets)} == {1}
    steps = [(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in itertools.pairwise(packets)]
    assert steps[:9] == [960] * 9
    assert 0 < steps[9] <= 1600
    assert steps[10:] == [960] * 2
    assert len(room.notices(NoticeKind.SUBSCRIPTION_STARTED)) == 1
    assert (room.subscription()["packets"], room.subscription()["octets"]) == (13, 10 * 3 + 3 * 5)


def test_it_ends_after_five_seconds() -> None:
    room, (viewer,) = muted(Codec.OPUS, MediaKind.AUDIO)
    wait(room, MAX_SILENT_PACKETS + 20)
    assert len(viewer.take()) == MAX_SILENT_PACKETS
    assert room.memory.thread["first_silent"] == 0


def test_audio_that_is_not_opus_and_video_get_padding() -> None:
    room, (viewer,) = muted(Codec.AUDIO, MediaKind.AUDIO)
    wait(room, 3)
    packets = viewer.take()
    assert [(each.payload, each.padding_size > 0) for each in packets] == [(b"", True)] * 3
    room, (viewer,) = muted(Codec.VP8, kind=1)
    wait(room, 2 * PADDING_TURNS)
    room.vp8(0, 5, flags=START_OF_KEY)
    room.forward()
    packets = viewer.take()
    assert [each.padding_size > 0 for each in packets] == [True, True, False]
    assert [(each.sequence_number - packets[0].sequence_number) & 0xFFFF for each in packets] == [0, 1, 2]


def test_it_waits_for_a_transport_that_can_send_and_for_the_answer() -> None:
    room, (viewer,) = muted(Codec.OPUS, MediaKind.AUDIO)
    room.transport()["secure"] = 0
    wait(room, 400)
    room.transport()["secure"] = 1
    set_paused(room.record, 0, 1)
    wait(room, 400)
    assert viewer.take() == []
    set_paused(room.record, 0, 0)
    wait(room, 5)
    assert len(viewer.take()) == 5


def test_each_subscription_ends_alone() -> None:
    room, viewers = muted(Codec.OPUS, MediaKind.AUDIO, viewers=4)
    wait(room, 2)
    for row in (1, 3):
        close_subscription(room.record, row)
    wait(room, 3)
    assert [len(each.take()) for each in viewers] == [5, 2, 5, 2]
    begin_silence(room.record, 0)  # a second time
    room.store(0, flags=0)
    room.forward()
    wait(room, 3)
    assert [len(each.take()) for each in viewers] == [1, 0, 1, 0]
    begin_silence(room.record, 0)  # media have come
    wait(room, 3)
    assert not any(each.take() for each in viewers)
    assert room.memory.thread["first_silent"] == 0


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_each_knows_its_neighbours_in_whatever_order_they_end(order: tuple[int, ...]) -> None:
    room, _ = muted(Codec.OPUS, MediaKind.AUDIO, viewers=4)
    waiting = [3, 2, 1, 0]
    for ending in order:
        end_silence(room.record, ending)
        waiting.remove(ending)
        before, rows = 0, []
        at = int(room.memory.thread["first_silent"])
        while at:
            assert room.subscription(at - 1)["silent_before"] == before
            rows.append(at - 1)
            before, at = at, int(room.subscription(at - 1)["silent_next"])
        assert rows == waiting
