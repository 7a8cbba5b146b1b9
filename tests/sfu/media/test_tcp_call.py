"""Viewers over TCP in simulated time: a path that takes everything, one that stands still for a while, and who is
beside one that does."""

import struct
from itertools import pairwise

import pytest

from sfu.media.net.frame_queue import MAX_QUEUED_MS
from sfu.parameters import Kind
from sfu.schema.codes import Drop
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.simulated_call import OPUS, START, VP8, Departure, SimulatedCall, Viewer, simulated_call
from tests.sfu.support.simulated_link import MS, SECOND, Link

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

BUFFER_BYTES = 4096
STALL_S = 5.0


def free_link() -> Link:
    return Link(START, delay_ns=5 * MS)


def connection_of(call: SimulatedCall, viewer: Viewer) -> object:
    assert viewer.tcp is not None
    return call.memory.table("connections")[viewer.tcp.row]


def frames_shown(viewer: Viewer, since: int) -> int:
    return sum(at >= since for screen in viewer.screens.values() for at in screen.shown)


def audio_lag(packet: Departure) -> int:
    """How many packets of 20 ms were made since this one, but for an offset that stays."""
    return (packet.at - START) // (20 * MS) - packet.timestamp // 960


@pytest.mark.parametrize("transport_cc", [True, False])
def test_viewer_over_tcp_is_sent_all_that_one_over_udp_is(transport_cc: bool) -> None:
    with simulated_call() as call:
        publisher = call.publish(150_000, 500_000, 1_700_000)
        tcp = call.view(free_link(), transport_cc=transport_cc, tcp_buffer_bytes=0)
        udp = call.view(free_link(), transport_cc=transport_cc)
        call.run(8.0)
        since, requests = call.now, publisher.key_requests
        call.run(5.0)
        assert frames_shown(tcp, since) == pytest.approx(frames_shown(udp, since), abs=2)
        assert frames_shown(tcp, since) > 140
        assert tcp.seconds[-1].layer == 2
        assert sum(at >= since for at in tcp.audio_times) == 250
        assert publisher.key_requests == requests
        assert not {"tcp_queue_full", "send_failed"} & drop_counts(call.memory).keys()


@pytest.mark.parametrize(
    ("transport_cc", "buffer_bytes"), [(True, BUFFER_BYTES), (False, BUFFER_BYTES), (False, 16 * BUFFER_BYTES)]
)
def test_after_a_stall_a_viewer_goes_on_with_what_is_new(transport_cc: bool, buffer_bytes: int) -> None:
    with simulated_call() as call:
        publisher = call.publish(1_000_000)
        viewer = call.view(free_link(), transport_cc=transport_cc, tcp_buffer_bytes=buffer_bytes)
        viewer.blocks = True
        call.run(6.0)
        assert frames_shown(viewer, call.now - SECOND) >= 28
        offset = next(audio_lag(each) for each in viewer.left if each.payload_type == OPUS)
        viewer.reads = False
        requests = publisher.key_requests
        call.run(STALL_S)
        assert connection_of(call, viewer)["stalled"]  # type: ignore[index]
        assert call.memory.table("drops")[Drop.TCP_QUEUE_FULL] > 0
        viewer.reads, resumed = True, call.now
        call.run(2.0)
        late = [each for each in viewer.left if each.at > resumed + 500 * MS and each.payload_type == OPUS]
        assert late
        assert all(abs(audio_lag(each) - offset) <= 3 for each in late), "audio is not live"
        assert frames_shown(viewer, resumed + SECOND) >= 25
        assert 1 <= publisher.key_requests - requests <= 4
        assert connection_of(call, viewer)["count"] == 0  # type: ignore[index]
        since = call.now
        call.run(5.0)
        assert frames_shown(viewer, since) >= 5 * 28, "what the stall cost limits nothing"


def test_nobody_waits_for_viewers_who_never_read() -> None:
    with simulated_call() as call:
        call.publish(1_000_000)
        udp = call.view(free_link())
        call.run(4.0)
        stalled = [call.view(free_link(), tcp_buffer_bytes=BUFFER_BYTES) for _ in range(10)]
        for each in stalled:
            each.reads = False
        call.run(1.0)
        since, before = call.now, drop_counts(call.memory)
        call.run(4.0)
        video = [each for each in udp.left if each.payload_type == VP8 and each.at >= since]
        audio = [each for each in udp.left if each.payload_type == OPUS and each.at >= since]
        assert len(audio) == pytest.approx(200, abs=1)
        assert sum(each.marker for each in video) == pytest.approx(120, abs=1)
        grown = {name for name, count in drop_counts(call.memory).items() if count > before.get(name, 0)}
        assert grown <= {"tcp_queue_full", "pacer_old", "pacer_overtaken", "pacer_temporal", "log_overwritten"}
        for each in stalled:
            assert connection_of(call, each)["congested"]  # type: ignore[index]


def numbers_used(call: SimulatedCall, viewers: list[Viewer]) -> list[int]:
    """All that counts packets which were numbered for viewers, and encrypted."""
    rows = [row for each in viewers for _, row in each.subscriptions.values()]
    subscriptions = call.memory.table("subscriptions")[rows]
    names = ("packets", "out_highest", "index_highest", "rtx_sequence")
    used = [int(each) for name in names for each in subscriptions[name]]
    return used + [int(call.memory.table("transports")[each.row]["next_number"]) for each in viewers]


def test_nothing_is_numbered_or_encrypted_for_viewers_who_take_nothing() -> None:
    with simulated_call() as call:
        publisher = call.publish(1_000_000)
        stalled = [call.view(free_link(), tcp_buffer_bytes=BUFFER_BYTES) for _ in range(3)]
        call.run(4.0)
        for each in stalled:
            each.reads = False
        call.run(1.0)
        used, sent, came = numbers_used(call, stalled), int(call.memory.thread["bytes_sent"]), publisher.control_bytes
        dropped = int(call.memory.table("drops")[Drop.TCP_QUEUE_FULL])
        call.run(4.0)
        assert numbers_used(call, stalled) == used
        assert int(call.memory.thread["bytes_sent"]) - sent == publisher.control_bytes - came > 0
        assert call.memory.table("drops")[Drop.TCP_QUEUE_FULL] - dropped >= 3 * 4 * 50
        for each in stalled:
            each.reads = True
        call.run(1.0)
        for each in stalled:
            numbers = [packet.sequence for packet in each.left if packet.payload_type == OPUS]
            gone = sum((after - before - 1) & 0xFFFF for before, after in pairwise(numbers))
            assert 0 < gone * 20 <= 3 * MAX_QUEUED_MS, "what had waited when the connection stalled"


def test_viewer_whose_only_connection_ended_goes_on_over_the_next_with_a_key_frame() -> None:
    with simulated_call() as call:
        publisher = call.publish(500_000)
        viewer = call.view(free_link(), tcp_buffer_bytes=0)
        call.run(4.0)
        assert viewer.tcp is not None
        viewer.tcp.socket.close()
        call.viewers.remove(viewer)
        call.run(1.0)
        assert call.memory.table("transports")[viewer.row]["path"] == -1
        requests = publisher.key_requests
        viewer.connect_tcp(call, 0)
        call.viewers.append(viewer)
        again = call.now
        call.run(2.0)
        assert publisher.key_requests == requests + 1
        assert frames_shown(viewer, again) > 45
        ssrc = next(number for number, (kind, _) in viewer.subscriptions.items() if kind is Kind.VIDEO)
        assert viewer.screens[ssrc].shown[-1] > call.now - 50 * MS


def test_headers_of_frames_are_those_of_rfc_4571() -> None:
    with simulated_call() as call:
        call.publish(500_000)
        viewer = call.view(free_link(), tcp_buffer_bytes=0)
        viewer.reads = False
        call.run(0.5)
        assert viewer.tcp is not None
        data, at = viewer.tcp.socket.recv(1 << 20), 0
        while at + 2 <= len(data):
            (size,) = struct.unpack_from("!H", data, at)
            assert data[at + 2] >> 6 == 2, "no RTP or RTCP where a frame begins"
            at += 2 + size
        assert at == len(data)
