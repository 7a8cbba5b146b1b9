"""A packet's whole way: a publisher's socket, SRTP, the loop, SRTP, a subscriber's socket; and what comes back.

Peers are plain sockets with libsrtp, packets are made and read by aiortc, the clock is driven by hand.
"""

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from aiortc import rtp

from sfu.control import rows
from sfu.control.net.sockets import Sockets
from sfu.media import loop
from sfu.media.pacing.pacer import PACE_NS
from sfu.media.send.silence import MAX_PADDING_PACKETS
from sfu.parameters import (
    Codec,
    Encoding,
    Extension,
    Kind,
    MediaParameters,
    PayloadType,
    PublishParameters,
    SubscribeParameters,
)
from sfu.schema.codes import Command, NoticeKind
from sfu.schema.memory import Memory
from sfu.schema.subscription_tables import EVERYTHING_SPATIAL, EVERYTHING_TEMPORAL
from sfu.schema.thread_tables import FORWARDING_DELAYS_NS
from tests.sfu.support.commands import push_command
from tests.sfu.support.ice import drop_counts, notices
from tests.sfu.support.publisher import (
    EXTENSIONS,
    MS,
    PAYLOAD_TYPES,
    START,
    VP8,
    VP8_DELTA,
    VP8_KEY,
    VP8_RTX,
    packet,
)
from tests.sfu.support.socket_peer import SocketPeer
from tests.sfu.support.table_sockets import without_arrival_times

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

SSRC, RTX_SSRC = 1111, 2222
OUT_SSRC, OUT_RTX_SSRC = 3333, 4444
OUT_VP8, OUT_RTX = 120, 121
PATIENCE_S = 5.0
PUBLISHER_MEDIA = MediaParameters(
    {
        number: PayloadType(codec, clock, associated, bool(nack))
        for number, (codec, clock, associated, nack) in PAYLOAD_TYPES.items()
    },
    {number: kind for kind, number in EXTENSIONS.items()},
)
SUBSCRIBER_MEDIA = MediaParameters(
    {OUT_VP8: PayloadType(Codec.VP8, 90_000, nack=True), OUT_RTX: PayloadType(Codec.RTX, 90_000, OUT_VP8)},
    {3: Extension.MID, 9: Extension.TRANSPORT_CC},
)


def split_compound(data: bytes) -> list[bytes]:
    """The packets of an RTCP compound, RFC 3550 section 6.4.1."""
    parts, at = [], 0
    while at < len(data):
        end = at + 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(data[at:end])
        at = end
    return parts


def is_transport_cc(packet: bytes) -> bool:
    """draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1; aiortc does not know it."""
    return packet[1] == rtp.RTCP_RTPFB and packet[0] & 31 == 15


class Peer(SocketPeer):
    """A client that reads what it gets."""

    def received(self) -> tuple[list[rtp.RtpPacket], list[object]]:
        """RTP and RTCP packets that arrived, decrypted and parsed."""
        media, control = [], list[object]()
        for data in self.datagrams():
            if 192 <= data[1] <= 223:
                parts = split_compound(self.incoming.unprotect_rtcp(data))
                control += [
                    packet for part in parts if not is_transport_cc(part) for packet in rtp.RtcpPacket.parse(part)
                ]
            else:
                media.append(rtp.RtpPacket.parse(self.incoming.unprotect(data)))
        return media, control

    def transport_feedback(self) -> list[bytes]:
        """Transport-wide congestion control packets that arrived."""
        compounds = [self.incoming.unprotect_rtcp(data) for data in self.datagrams() if 192 <= data[1] <= 223]
        return [part for plain in compounds for part in split_compound(plain) if is_transport_cc(part)]


SUBSCRIBE = SubscribeParameters("m7", OUT_VP8, OUT_RTX, cname="someone")


class Call:
    """A publisher with one VP8 track, and a subscriber to it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        """host: what the server binds."""
        self.memory = Memory()
        self.memory.open_wakeups()
        self.sockets = Sockets(self.memory, 0, (host,))
        without_arrival_times(self.memory)
        self.tables = rows.Tables(self.memory)
        self.now = START
        self.publisher = Peer(self, "publishe", 77, PUBLISHER_MEDIA)
        self.subscriber = Peer(self, "subscrib", 78, SUBSCRIBER_MEDIA)
        parameters = PublishParameters(Kind.VIDEO, "v0", (Encoding(ssrc=SSRC, rtx_ssrc=RTX_SSRC),))
        self.track, self.track_generation, _ = self.tables.take_track(self.publisher.row, parameters)
        self.command(Command.OPEN_TRACK, self.track, self.track_generation)
        self.subscription, self.subscription_generation = self.tables.take_subscription(
            self.track,
            self.subscriber.row,
            Kind.VIDEO,
            (OUT_SSRC, OUT_RTX_SSRC),
            SUBSCRIBE,
        )
        self.command(Command.OPEN_SUBSCRIPTION, self.subscription, self.subscription_generation)
        self.turn()

    def close(self) -> None:
        self.command(Command.CLOSE_SUBSCRIPTION, self.subscription, self.subscription_generation)
        self.command(Command.CLOSE_TRACK, self.track, self.track_generation)
        for peer in (self.publisher, self.subscriber):
            self.command(Command.CLOSE_TRANSPORT, peer.row, peer.generation)
        self.turn()
        for peer in (self.publisher, self.subscriber):
            peer.socket.close()
        self.sockets.close()
        self.memory.close_wakeups()

    def command(self, kind: int, row: int, generation: int, **fields: int) -> None:
        if kind == Command.OPEN_SUBSCRIPTION:
            fields = {"spatial": EVERYTHING_SPATIAL, "temporal": EVERYTHING_TEMPORAL} | fields
        assert push_command(self.memory, kind, row, generation, **fields)

    def turn(self, pass_ns: int = 0) -> None:
        self.now += pass_ns
        loop.turn(self.memory.record, self.memory.arena, self.now)

    def publish(self, *numbers: int, first_key: bool = False) -> None:
        """Send packets with these sequence numbers, each a frame of its own; one turn takes them."""
        for n in numbers:
            payload = VP8_KEY if first_key and n == numbers[0] else VP8_DELTA
            self.publisher.send_rtp(
                packet(
                    n, ssrc=SSRC, payload=payload, timestamp=3000 * n, marker=1, transport_sequence_number=n, mid="v0"
                )
            )
        self.turn(MS)


@pytest.fixture
def call() -> Iterator[Call]:
    with contextlib.closing(Call()) as call:
        yield call


def of_kind(control: list[object], kind: type) -> list[object]:
    return [each for each in control if isinstance(each, kind)]


def test_published_packets_reach_the_subscriber_rewritten(call: Call) -> None:
    call.publish(100, 101, 102, first_key=True)
    media, _ = call.subscriber.received()
    assert [(each.ssrc, each.payload_type) for each in media] == [(OUT_SSRC, OUT_VP8)] * 3
    first = media[0].sequence_number
    assert [(each.sequence_number - first) & 0xFFFF for each in media] == [0, 1, 2]
    assert [(each.timestamp - media[0].timestamp) & 0xFFFFFFFF for each in media] == [0, 3000, 6000]
    assert media[0].payload[-20:] == bytes(20)
    assert len(media[0].payload) == len(VP8_KEY)
    kinds = [kind for kind, _, _ in notices(call.memory)]
    assert {NoticeKind.PATH_SELECTED, NoticeKind.STREAM_STARTED, NoticeKind.SUBSCRIPTION_STARTED} <= set(kinds)
    assert drop_counts(call.memory) == {}


def test_one_packet_of_each_turn_that_sends_is_a_sample_of_the_delay(call: Call) -> None:
    thread = call.memory.thread
    before = thread["delays"].copy()
    call.publish(100, 101, 102, first_key=True)
    assert (thread["delays"] - before).tolist() == [1] + [0] * len(FORWARDING_DELAYS_NS)
    call.turn(MS)
    call.publisher.send_rtcp(bytes(rtp.RtcpRrPacket(ssrc=SSRC)))
    call.turn(MS)
    assert int((thread["delays"] - before).sum()) == 1, "nothing was forwarded"


@pytest.mark.parametrize(
    ("delay", "bucket"),
    [
        (0, 0),
        (50_000, 0),
        (50_001, 1),
        (500_000_000, len(FORWARDING_DELAYS_NS) - 1),
        (10**12, len(FORWARDING_DELAYS_NS)),
    ],
)
def test_a_delay_counts_below_its_bound(call: Call, delay: int, bucket: int) -> None:
    thread = call.memory.thread
    before, total = thread["delays"].copy(), int(thread["delay_sum_ns"])
    loop._note_delay(call.memory.record, int(thread["now_ns"]) - delay)
    assert np.flatnonzero(thread["delays"] - before).tolist() == [bucket]
    assert int(thread["delay_sum_ns"]) - total == delay


def test_nothing_comes_back_to_the_publisher_as_media(call: Call) -> None:
    call.publish(100, 101, first_key=True)
    media, _ = call.publisher.received()
    assert media == []


def test_subscription_opened_paused_sends_nothing_until_it_may_and_then_the_key_frame_that_it_missed(
    call: Call,
) -> None:
    call.command(Command.CLOSE_SUBSCRIPTION, call.subscription, call.subscription_generation)
    call.turn()
    call.subscription, call.subscription_generation = call.tables.take_subscription(
        call.track, call.subscriber.row, Kind.VIDEO, (OUT_SSRC + 1, OUT_RTX_SSRC + 1), SUBSCRIBE
    )
    call.command(Command.OPEN_SUBSCRIPTION, call.subscription, call.subscription_generation, paused=1)
    call.publish(100, 101, 102, first_key=True)
    assert call.subscriber.received()[0] == []
    call.command(Command.SET_PAUSED, call.subscription, call.subscription_generation, paused=0)
    call.turn(MS)
    media, _ = call.subscriber.received()
    assert [each.ssrc for each in media] == [OUT_SSRC + 1] * 3
    assert len(media[0].payload) == len(VP8_KEY)


def reopen(call: Call, **fields: int) -> None:
    """The subscription anew, with other SSRCs."""
    call.command(Command.CLOSE_SUBSCRIPTION, call.subscription, call.subscription_generation)
    call.turn()
    call.subscription, call.subscription_generation = call.tables.take_subscription(
        call.track, call.subscriber.row, Kind.VIDEO, (OUT_SSRC + 1, OUT_RTX_SSRC + 1), SUBSCRIBE
    )
    call.command(Command.OPEN_SUBSCRIPTION, call.subscription, call.subscription_generation, **fields)
    call.turn()


def test_subscription_opens_with_its_layers(call: Call) -> None:
    targets = []
    for layers in ({}, {"spatial": 0, "temporal": 1}, {"spatial": 99, "temporal": -1}):
        reopen(call, **layers)
        row = call.memory.table("subscriptions")[call.subscription]
        targets.append((int(row["preferred_spatial"]), int(row["preferred_temporal"])))
    assert targets == [(2, 3), (0, 1), (3, 0)]


def test_padding_shows_a_muted_track_until_media_come_and_media_continue_its_numbers(call: Call) -> None:
    reopen(call, paused=1, silent=1)
    for _ in range(20):
        call.turn(20 * MS)
    assert call.subscriber.received()[0] == []
    call.command(Command.SET_PAUSED, call.subscription, call.subscription_generation, paused=0)
    silent = []
    for _ in range(20):
        call.turn(20 * MS)
        silent += call.subscriber.received()[0]
    assert len(silent) == 4
    assert {(each.ssrc, each.payload_type, each.payload, each.marker) for each in silent} == {
        (OUT_SSRC + 1, OUT_VP8, b"", 0)
    }
    assert all(each.padding_size > 0 for each in silent)
    call.publish(100, 101, first_key=True)
    media, _ = call.subscriber.received()
    for _ in range(20):
        call.turn(20 * MS)
    assert call.subscriber.received()[0] == [], "no more of it"
    numbers = [each.sequence_number for each in (*silent, *media)]
    assert [(number - numbers[0]) & 0xFFFF for number in numbers] == [0, 1, 2, 3, 4, 5]
    steps = [(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in itertools.pairwise((*silent, *media))]
    assert steps[:3] == [9000] * 3
    assert 0 < steps[3] <= 9000
    assert steps[4] == 3000


def test_a_muted_track_is_shown_for_five_seconds_at_most(call: Call) -> None:
    reopen(call, silent=1)
    silent = []
    for _ in range(400):
        call.turn(20 * MS)
        silent += call.subscriber.received()[0]
    assert len(silent) == MAX_PADDING_PACKETS
    assert call.memory.thread["first_silent"] == 0


def test_lost_packet_is_sent_again_when_the_subscriber_asks(call: Call) -> None:
    call.publish(*range(100, 105), first_key=True)
    media, _ = call.subscriber.received()
    lost = media[2]
    call.turn(100 * MS)
    call.subscriber.send_rtcp(
        bytes(rtp.RtcpRtpfbPacket(fmt=rtp.RTCP_RTPFB_NACK, ssrc=1, media_ssrc=OUT_SSRC, lost=[lost.sequence_number]))
    )
    call.turn(MS)
    repairs, _ = call.subscriber.received()
    assert [(each.ssrc, each.payload_type) for each in repairs] == [(OUT_RTX_SSRC, OUT_RTX)]
    restored = rtp.unwrap_rtx(repairs[0], payload_type=OUT_VP8, ssrc=OUT_SSRC)
    assert (restored.sequence_number, restored.timestamp) == (lost.sequence_number, lost.timestamp)
    assert restored.payload == lost.payload


def test_gap_in_what_arrives_is_asked_for_and_the_repair_is_forwarded(call: Call) -> None:
    call.publish(100, 101, 103, 104, first_key=True)
    call.subscriber.received()
    control: list[object] = []
    for _ in range(10):
        call.turn(20 * MS)
        control += call.publisher.received()[1]
    asked = [each for each in of_kind(control, rtp.RtcpRtpfbPacket) if each.fmt == rtp.RTCP_RTPFB_NACK]  # type: ignore[attr-defined]
    assert asked
    assert all((each.media_ssrc, each.lost) == (SSRC, [102]) for each in asked)  # type: ignore[attr-defined]
    original = rtp.RtpPacket(payload_type=VP8, sequence_number=102, timestamp=3000 * 102, ssrc=SSRC, payload=VP8_DELTA)
    repair = rtp.wrap_rtx(original, payload_type=VP8_RTX, sequence_number=9, ssrc=RTX_SSRC)
    call.publisher.send_rtp(repair.serialize())
    call.turn(MS)
    media, _ = call.subscriber.received()
    assert len(media) == 1
    assert media[0].ssrc == OUT_SSRC


def test_key_frame_request_of_the_subscriber_reaches_the_publisher(call: Call) -> None:
    call.publish(100, 101, first_key=True)
    for _ in range(40):  # past any throttle
        call.turn(20 * MS)
    call.publisher.received()
    call.subscriber.send_rtcp(bytes(rtp.RtcpPsfbPacket(fmt=rtp.RTCP_PSFB_PLI, ssrc=1, media_ssrc=OUT_SSRC)))
    call.turn(MS)
    call.turn(20 * MS)
    _, control = call.publisher.received()
    requests = of_kind(control, rtp.RtcpPsfbPacket)
    assert [(each.fmt, each.media_ssrc) for each in requests] == [(rtp.RTCP_PSFB_PLI, SSRC)]  # type: ignore[attr-defined]


def test_publisher_gets_transport_wide_feedback(call: Call) -> None:
    call.publish(*range(100, 110), first_key=True)
    found = list[bytes]()
    for _ in range(10):
        call.turn(20 * MS)
        found += call.publisher.transport_feedback()
    assert found
    assert int.from_bytes(found[0][4:8], "big") == call.publisher.our_ssrc
    assert int.from_bytes(found[0][12:14], "big") == 100, "base sequence number"
    assert sum(int.from_bytes(each[14:16], "big") for each in found) == 10, "each packet is reported once"


def test_both_sides_get_reports(call: Call) -> None:
    control: tuple[list[object], list[object]] = ([], [])
    ntp, timestamp = (3_900_000_000 << 32), 3000 * 100
    call.publish(100, first_key=True)
    info = rtp.RtcpSenderInfo(ntp_timestamp=ntp, rtp_timestamp=timestamp, packet_count=1, octet_count=1)
    call.publisher.send_rtcp(bytes(rtp.RtcpSrPacket(ssrc=SSRC, sender_info=info)))
    for n in range(101, 180):
        call.publish(n)
        call.turn(19 * MS)
        for peer, found in zip((call.publisher, call.subscriber), control, strict=True):
            found += peer.received()[1]
    receiver = of_kind(control[0], rtp.RtcpRrPacket)
    assert {block.ssrc for each in receiver for block in each.reports} == {SSRC}  # type: ignore[attr-defined]
    senders = of_kind(control[1], rtp.RtcpSrPacket)
    assert senders
    assert {each.ssrc for each in senders} == {OUT_SSRC}  # type: ignore[attr-defined]
    names = {item for each in of_kind(control[1], rtp.RtcpSdesPacket) for chunk in each.chunks for item in chunk.items}  # type: ignore[attr-defined]
    assert (1, b"someone") in names


def test_replayed_and_forged_packets_are_counted_and_go_nowhere(call: Call) -> None:
    call.publish(100, first_key=True)
    call.subscriber.received()
    protected = call.publisher.outgoing.protect(packet(101, ssrc=SSRC, timestamp=3000, mid="v0"))
    forged = bytearray(protected)
    forged[-1] ^= 1
    for data in (bytes(forged), protected, protected):
        call.publisher.send_datagram(data)
        call.turn(MS)
    media, _ = call.subscriber.received()
    assert len(media) == 1
    assert drop_counts(call.memory) == {"srtp_auth": 1, "srtp_replay": 1}


def test_packets_keep_flowing_across_the_wrap_of_sequence_numbers(call: Call) -> None:
    numbers = [(65_530 + n) & 0xFFFF for n in range(12)]
    call.publish(*numbers, first_key=True)
    call.now += PACE_NS  # ten of them leave at once for a path that has not shown that it takes more
    call.turn()
    media, _ = call.subscriber.received()
    first = media[0].sequence_number
    assert [(each.sequence_number - first) & 0xFFFF for each in media] == list(range(12))


def test_closing_ends_the_flow_and_frees_everything(call: Call) -> None:
    call.publish(100, first_key=True)
    call.subscriber.received()
    notices(call.memory)
    call.command(Command.CLOSE_SUBSCRIPTION, call.subscription, call.subscription_generation)
    call.publish(101)
    assert call.subscriber.received()[0] == []
    call.command(Command.CLOSE_TRANSPORT, call.publisher.row, call.publisher.generation)
    call.turn()
    assert [(kind, row) for kind, row, _ in notices(call.memory)] == [
        (NoticeKind.CLOSED_SUBSCRIPTION, call.subscription),
        (NoticeKind.CLOSED_TRACK, call.track),
        (NoticeKind.CLOSED_TRANSPORT, call.publisher.row),
    ]
    assert not call.memory.table("source_slots").clip(0).any()
    assert not call.memory.table("outgoing_slots").clip(0).any()
    call.publish(102)
    assert drop_counts(call.memory)["unknown_address"] == 1
