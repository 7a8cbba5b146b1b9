import asyncio
import struct
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from pylibsrtp import Session

from bench.accounting import socket_drops
from bench.clients.endpoint import Endpoint
from bench.plans import Connected, Layer, Plan, TrackPlan
from bench.targets.naive import NaiveTarget

CAMERA = TrackPlan("video", (Layer("q", 30, 300), Layer("f", 230, 1200)))
PICTURE_LOSS_INDICATION = struct.Struct("!BBHII")


@pytest.fixture
async def target() -> AsyncIterator[NaiveTarget]:
    naive = NaiveTarget({})
    await naive.start((0,))
    yield naive
    await naive.stop()


def endpoint_of(participant: Connected) -> Endpoint:
    assert isinstance(participant.owner, Endpoint)
    return participant.owner


def inbound(participant: Connected) -> Session:
    return endpoint_of(participant)._sessions[1]


def rtp(ssrc: int, sequence_number: int, payload: bytes = b"payload") -> bytes:
    return struct.pack("!BBHII", 0x80, 0x80 | 96, sequence_number, 3000 * sequence_number, ssrc) + payload


async def received(participant: Connected, count: int) -> list[bytes]:
    """The next `count` RTP packets, decrypted."""
    packets: list[bytes] = []
    while len(packets) < count:
        datagram = await asyncio.get_running_loop().sock_recv(participant.socket, 2048)
        if datagram[0] >> 6 == 2 and not 192 <= datagram[1] <= 223:
            packets.append(inbound(participant).unprotect(datagram))
    return packets


async def received_rtcp(participant: Connected) -> bytes:
    while True:
        datagram = await asyncio.get_running_loop().sock_recv(participant.socket, 2048)
        if datagram[0] >> 6 == 2 and 192 <= datagram[1] <= 223:
            return bytes(inbound(participant).unprotect_rtcp(datagram))


async def call(target: NaiveTarget) -> tuple[Connected, list[Connected]]:
    publisher = await target.join(Plan("room", "camera", (CAMERA,), subscribe=False))
    viewers = [await target.join(Plan("room", f"viewer{k}")) for k in range(2)]
    await target.settle()
    return publisher, viewers


async def test_packets_reach_every_subscriber_in_numbers_of_their_own(target: NaiveTarget) -> None:
    publisher, viewers = await call(target)
    ssrc = publisher.sends[0].ssrc
    for sequence_number in range(10):
        endpoint_of(publisher).send_rtp(rtp(ssrc, sequence_number, b"packet %d" % sequence_number))
    streams = []
    for viewer in viewers:
        packets = await received(viewer, 10)
        assert [packet[12:] for packet in packets] == [b"packet %d" % k for k in range(10)]
        numbers = [struct.unpack_from("!HII", packet, 2) for packet in packets]
        steps = [(b[0] - a[0] & 0xFFFF, b[1] - a[1] & 0xFFFFFFFF) for a, b in pairwise(numbers)]
        assert steps == [(1, 3000)] * 9
        streams.append(numbers[0][2])
    assert len({ssrc, *streams}) == 3
    assert target.drops() == {}
    assert socket_drops(target.pid()) == 0


async def test_the_best_layer_of_a_simulcast_track_is_the_one_that_is_sent(target: NaiveTarget) -> None:
    publisher = await target.join(Plan("room", "camera", (CAMERA,)))
    assert [stream.layer.rid for stream in publisher.sends] == ["f"]
    assert publisher.check


async def test_a_nack_is_answered_with_rtx(target: NaiveTarget) -> None:
    publisher, (viewer, _) = await call(target)
    endpoint_of(publisher).send_rtp(rtp(publisher.sends[0].ssrc, 7, b"the one"))
    (packet,) = await received(viewer, 1)
    number, _, ssrc = struct.unpack_from("!HII", packet, 2)
    nack = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, ssrc, number, 0)
    viewer.socket.send(endpoint_of(viewer)._sessions[0].protect_rtcp(nack))
    (repair,) = await received(viewer, 1)
    assert repair[1] & 0x7F == 97
    assert repair[12:] == struct.pack("!H", number) + b"the one"


async def test_the_publisher_is_asked_for_a_key_frame_by_subscriptions_and_by_viewers(target: NaiveTarget) -> None:
    publisher, (viewer, _) = await call(target)
    wanted = PICTURE_LOSS_INDICATION.pack(0x81, 206, 2, 0, publisher.sends[0].ssrc)
    assert [await received_rtcp(publisher) for _ in range(2)] == [wanted] * 2
    endpoint_of(publisher).send_rtp(rtp(publisher.sends[0].ssrc, 1))
    (packet,) = await received(viewer, 1)
    request = PICTURE_LOSS_INDICATION.pack(0x81, 206, 2, 1, struct.unpack_from("!I", packet, 8)[0])
    viewer.socket.send(endpoint_of(viewer)._sessions[0].protect_rtcp(request))
    assert await received_rtcp(publisher) == wanted


async def test_who_left_gets_nothing_and_others_go_on(target: NaiveTarget) -> None:
    publisher, (gone, viewer) = await call(target)
    await target.leave(gone)
    endpoint_of(publisher).send_rtp(rtp(publisher.sends[0].ssrc, 1, b"after"))
    (packet,) = await received(viewer, 1)
    assert packet[12:] == b"after"
    assert gone.socket.fileno() == -1


async def test_rooms_are_separate_and_garbage_is_ignored(target: NaiveTarget) -> None:
    publisher, (viewer, _) = await call(target)
    stranger = await target.join(Plan("another", "camera", (CAMERA,)))
    await target.settle()
    for garbage in (b"\x00", b"\x80" * 40, b"\x80\xc8" + bytes(30), bytes([22]) * 60, b"\xff"):
        publisher.socket.send(garbage)
    endpoint_of(stranger).send_rtp(rtp(stranger.sends[0].ssrc, 1, b"elsewhere"))
    endpoint_of(publisher).send_rtp(rtp(publisher.sends[0].ssrc, 2, b"here"))
    (packet,) = await received(viewer, 1)
    assert packet[12:] == b"here"


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="loop"):
        NaiveTarget({"loop": "trio"})
    with pytest.raises(ValueError, match="loop"):
        NaiveTarget({"speed": "more"})
