"""A room whose viewer has a path that carries so much, for tests of what waits: frames go in, what leaves comes out."""

import itertools

from aiortc import rtp

from sfu.media.pacing.pacer import PACE_NS
from sfu.media.subscriptions import open_subscription
from sfu.schema.capacities import CACHE_BYTES
from sfu.schema.codes import MediaKind, PacketFlag, RowState
from tests.sfu.support.subscribers import SECOND, Room, Viewer

BODY = bytes(1_000)
WIRE_BYTES = 1_100
"""About what a packet with BODY has on the wire."""


class Stream:
    """Frames of VP8 for a room: numbers, picture ids and timestamps go on by themselves."""

    def __init__(self, room: Room, layer: int = 0) -> None:
        self.room, self.layer = room, layer
        self.number, self.picture = 0, 5

    def frame(self, packets: int = 1, *, key: bool = False, temporal: int = 0, body: bytes = BODY) -> int:
        """One frame of so many packets; returns its timestamp."""
        timestamp = 3_000 * self.picture
        for k in range(packets):
            flags = (PacketFlag.KEY_FRAME if key else 0) | (PacketFlag.FRAME_START if k == 0 else 0)
            flags |= (PacketFlag.FRAME_END if k == packets - 1 else 0) | PacketFlag.SWITCH_UP
            self.room.vp8(
                self.number,
                self.picture,
                layer=self.layer,
                start=k == 0,
                flags=flags,
                marker=k == packets - 1,
                timestamp=timestamp,
                temporal=temporal,
                body=body,
            )
            self.number += 1
        self.picture += 1
        return timestamp


def prepared(bps: int, layers: int = 1, cache: int = CACHE_BYTES["high"]) -> tuple[Room, list[Stream]]:
    """A room whose one viewer has started on layer 0, and has a path that carries `bps`."""
    room = Room(layers=layers)
    for layer in range(layers):
        room.stream(layer)["cache_bytes"], room.stream(layer)["cache_start"] = cache, layer * cache
    room.add_viewer()
    streams = [Stream(room, layer) for layer in range(layers)]
    streams[0].frame(key=True, body=b"small")
    room.turn()
    assert len(room.viewers[0].take()) == 1
    room.limit(bps)
    room.turn(SECOND)
    return room, streams


def second_track(room: Room, **columns: int) -> None:
    """Another video track with one stream, and a subscription of viewer 0's transport to it (row 1)."""
    track, stream = room.memory.table("tracks")[1], room.memory.table("streams")[5]
    track["kind"], track["layer_count"], track["transport"], track["streams"] = MediaKind.VIDEO, 1, 3, (5, -1, -1)
    stream["kind"], stream["transport"], stream["track"] = MediaKind.VIDEO, 3, 1
    track["state"], track["dirty_next"], track["first_subscription"], track["live"] = RowState.OPEN, -2, -1, 1
    stream["state"], stream["ssrc"] = RowState.OPEN, 99
    for name, value in columns.items():
        track[name] = value
    first, other = room.subscription(), room.memory.table("subscriptions")[1]
    for name in ("kind", "transport", "payload_type", "rtx_payload_type", "red_payload_type", "mid_bytes", "mid"):
        other[name] = first[name]
    other["track"], other["ssrc"], other["rtx_ssrc"], other["history"] = 1, 0x5000, 0x6000, 1
    open_subscription(room.record, 1, room.now)


def numbers(packets: list[rtp.RtpPacket]) -> list[int]:
    return [packet.sequence_number for packet in packets]


def assert_no_gap(packets: list[rtp.RtpPacket]) -> None:
    """Sequence numbers, and picture ids of VP8, go on by one."""
    for one, other in itertools.pairwise(packets):
        assert (other.sequence_number - one.sequence_number) & 0xFFFF == 1
        pictures = [int.from_bytes(packet.payload[2:4], "big") & 0x7FFF for packet in (one, other)]
        assert pictures[1] - pictures[0] == (1 if one.timestamp != other.timestamp else 0)


def drain(room: Room, viewer: int = 0, milliseconds: int = 10_000) -> list[rtp.RtpPacket]:
    """What leaves for a viewer until nothing waits."""
    room.turn()
    got = room.viewers[viewer].take()
    for _ in range(milliseconds // 5):
        if not room.transport(viewer)["first_waiting"]:
            break
        room.turn(PACE_NS)
        got += room.viewers[viewer].take()
    assert not room.transport(viewer)["first_waiting"]
    return got


def drain_after_turn(room: Room, viewer: Viewer) -> list[rtp.RtpPacket]:
    room.turn()
    return viewer.take() + drain(room)
