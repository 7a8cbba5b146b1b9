"""A track and its subscribers for kernel tests: packets are stored as ingress stores them, what leaves is decrypted."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiortc import rtp
from pylibsrtp import Policy, Session, ffi

from sfu.control.rows import Tables
from sfu.control.security.srtp_keys import SendingCipher, derive
from sfu.media.pacing.pacer import pace
from sfu.media.send.egress import forward_all
from sfu.media.stream.arrivals import list_track
from sfu.media.subscriptions import open_subscription
from sfu.media.tracks import open_track
from sfu.media.wire.describe import describe
from sfu.media.wire.rtp import parse_header
from sfu.parameters import Codec, Extension
from sfu.schema.capacities import CACHE_BYTES, MEDIA_PER_TRANSPORT, PACKETS, SCRATCH_HISTORY, SEQUENCE_START, TRACK_LOG
from sfu.schema.codes import MediaKind, PacketFlag, RowState
from sfu.schema.memory import Memory
from tests.sfu.support.ice import notices

SECOND = 1_000_000_000
MS = 1_000_000
START = 1_000 * SECOND
FIRST = 70_000
"""Extended sequence number of the first packet of every stream."""
PUBLISHER = 3
SUBSCRIBER = 10
PRIMARY, REPAIR = 0x1000, 0x2000
"""SSRCs of the first subscription; the next ones count up."""
PAYLOAD_TYPE, RTX_PAYLOAD_TYPE, OPUS, RED = 100, 101, 111, 63
KEY = bytes(range(28))
EXTENSIONS = {Extension.MID: 1, Extension.TRANSPORT_CC: 4, Extension.ABS_SEND_TIME: 6, Extension.AUDIO_LEVEL: 5}
START_OF_KEY = PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.SWITCH_UP
WHOLE = PacketFlag.FRAME_START | PacketFlag.FRAME_END


def _session(kind: int) -> Session:
    policy = Policy(key=KEY, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
    policy.window_size = 1024
    return Session(policy)


@dataclass
class Viewer:
    """One subscribing transport and what it has received, decrypted."""

    row: int
    subscription: int
    inbound: Session
    outbound: Session
    cipher: SendingCipher
    received: list[bytes] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)

    def take(self) -> list[rtp.RtpPacket]:
        """What came since the last call, parsed by aiortc."""
        packets, self.received = self.received, []
        return [rtp.RtpPacket.parse(data) for data in packets]


class Room:
    """One track of one publisher, and viewers."""

    def __init__(self, codec: Codec = Codec.VP8, layers: int = 1, kind: int = MediaKind.VIDEO) -> None:
        self.memory = Memory()
        self.record = self.memory.record
        self.codec, self.kind, self.now = codec, kind, START
        self.viewers: list[Viewer] = []
        self._open_transport(PUBLISHER)
        track = self.track
        track["kind"], track["layer_count"], track["transport"] = kind, layers, PUBLISHER
        track["streams"] = -1
        for layer in range(layers):
            track["streams"][layer] = layer
            stream = self.stream(layer)
            stream["kind"], stream["layer"], stream["transport"] = kind, layer, PUBLISHER
            stream["cache_bytes"] = CACHE_BYTES["low"]
            stream["cache_start"] = layer * CACHE_BYTES["low"]
            stream["ssrc"] = 77 + layer
        open_track(self.record, 0)
        for layer in range(layers):
            self.stream(layer)["clock_rate"] = 90_000 if kind == MediaKind.VIDEO else 48_000

    def _open_transport(self, row: int) -> Any:
        transport = self.memory.table("transports")[row]
        transport["state"], transport["path"], transport["secure"] = RowState.OPEN, row, 1
        transport["first_track"] = transport["first_subscription"] = transport["first_source"] = -1
        transport["media"] = row * MEDIA_PER_TRANSPORT
        media = self.memory.table("media")[row * MEDIA_PER_TRANSPORT]
        media["numbered"] = 1
        transport["next_number"] = SEQUENCE_START
        transport["unreported"] = 1  # not paced; `limit` says otherwise
        for kind, number in EXTENSIONS.items():
            media["id_of_extension"][kind] = number
        self.memory.thread["transport_end"] = max(int(self.memory.thread["transport_end"]), row + 1)
        return transport

    @property
    def track(self) -> Any:
        return self.memory.table("tracks")[0]

    def stream(self, layer: int = 0) -> Any:
        return self.memory.table("streams")[layer]

    def subscription(self, viewer: int = 0) -> Any:
        return self.memory.table("subscriptions")[self.viewers[viewer].subscription]

    def transport(self, viewer: int = 0) -> Any:
        return self.memory.table("transports")[self.viewers[viewer].row]

    def media(self, viewer: int = 0) -> Any:
        return self.memory.table("media")[self.viewers[viewer].row * MEDIA_PER_TRANSPORT]

    def add_viewer(self, *, rtx: bool = True, red: bool = False, mid_known: bool = True) -> Viewer:
        number = len(self.viewers)
        row = SUBSCRIBER + number
        inbound, outbound = _session(Policy.SSRC_ANY_INBOUND), _session(Policy.SSRC_ANY_OUTBOUND)
        viewer = Viewer(row, number, inbound, outbound, SendingCipher(*derive(KEY[:16], KEY[16:])))
        transport = self._open_transport(row)
        Tables(self.memory).write_cipher(row, viewer.cipher)
        transport["srtp_out"] = int(ffi.cast("uintptr_t", viewer.outbound._srtp[0]))
        self.viewers.append(viewer)
        subscription = self.subscription(number)
        subscription["kind"], subscription["track"], subscription["transport"] = self.kind, 0, row
        subscription["generation"] = 40 + number
        subscription["ssrc"] = PRIMARY + number
        subscription["rtx_ssrc"] = REPAIR + number if rtx else 0
        subscription["history"], subscription["history_use"] = number if rtx else SCRATCH_HISTORY, 40 + number
        subscription["payload_type"] = PAYLOAD_TYPE if self.kind == MediaKind.VIDEO else OPUS
        subscription["rtx_payload_type"] = RTX_PAYLOAD_TYPE if rtx else -1
        subscription["red_payload_type"] = RED if red else -1
        subscription["mid"][:2] = (ord("v"), ord("1"))
        subscription["mid_bytes"] = 2
        subscription["cname"][:4] = np.frombuffer(b"name", np.uint8)
        subscription["cname_bytes"] = 4
        open_subscription(self.record, number, self.now)
        subscription["mid_acknowledged"] = subscription["rtx_mid_acknowledged"] = mid_known
        return viewer

    def store(
        self,
        number: int,
        *,
        layer: int = 0,
        timestamp: int | None = None,
        payload: bytes = b"payload",
        marker: bool = True,
        flags: int = WHOLE | PacketFlag.SWITCH_UP,
        padding: int = 0,
        extensions: dict[Extension, bytes] | None = None,
        **columns: Any,
    ) -> int:
        """Store packet FIRST + number as ingress does, and log it. columns: further columns of packet_t."""
        stream, sequence = self.stream(layer), FIRST + number
        header, places = bytearray(12), {}
        for kind, value in (extensions or {}).items():
            places[kind] = (len(header), len(value))
            header += value
        data = bytes(header) + payload + bytes(padding)
        cache = int(stream["cache_bytes"])
        if (int(stream["cache_written"]) & (cache - 1)) + len(data) > cache:
            stream["cache_written"] += cache - (int(stream["cache_written"]) & (cache - 1))
        start = int(stream["cache_written"])
        at = int(stream["cache_start"]) + (start & (cache - 1))
        self.memory.arena[at : at + len(data)] = np.frombuffer(data, np.uint8)
        stream["cache_written"] += len(data)
        index = sequence & (PACKETS - 1)
        packet = self.memory.table("packets")[layer][index]
        packet["tl0_at"] = packet["picture_at"] = packet["primary_at"] = packet["tl0"] = 0
        packet["spatial"] = packet["temporal"] = packet["indications"] = 0
        packet["picture_id"] = packet["frame_number"] = -1
        packet["template"] = 255
        packet["sequence"], packet["start"], packet["arrival_ns"] = sequence, start, self.now
        packet["timestamp"] = (3000 * number if timestamp is None else timestamp) & 0xFFFFFFFF
        packet["size"], packet["payload_at"], packet["padding"] = len(data), len(header), padding
        packet["codec"], packet["marker"], packet["flags"] = columns.pop("codec", self.codec), marker, flags
        packet["extension_at"] = packet["extension_bytes"] = 0
        for kind, (place, size) in places.items():
            packet["extension_at"][kind], packet["extension_bytes"][kind] = place, size
        for name, value in columns.items():
            packet[name] = value
        stream["highest"] = max(int(stream["highest"]), sequence)
        if flags & PacketFlag.FRAME_START:
            stream["frames"] += 1
        if flags & PacketFlag.KEY_FRAME and flags & PacketFlag.FRAME_START:
            stream["key_sequence"], stream["key_ns"], stream["key_frame_requested"] = sequence, self.now, 0
            stream["key_position"] = self.track["log_written"]
        track = self.track
        track["log"][int(track["log_written"]) & (TRACK_LOG - 1)] = layer << 16 | sequence & 0xFFFF
        track["log_written"] += 1
        list_track(self.record, 0)
        return sequence

    def store_whole(self, data: bytes, number: int) -> Any:
        """Store and log a real RTP packet as number FIRST + `number`, described by the kernels; returns its row."""
        buffer, incoming = np.frombuffer(data, np.uint8), self.memory.table("incoming")[0]
        assert parse_header(self.record, PUBLISHER * MEDIA_PER_TRANSPORT, buffer, len(data), incoming)
        self.store(number, payload=data[12:], timestamp=int(incoming["timestamp"]), flags=0)
        packet = self.memory.table("packets")[0][(FIRST + number) & (PACKETS - 1)]
        for name in ("payload_at", "padding", "payload_type", "marker", "extension_at", "extension_bytes"):
            packet[name] = incoming[name]
        describe(self.record, 0, packet, buffer)
        if packet["flags"] & PacketFlag.KEY_FRAME and packet["flags"] & PacketFlag.FRAME_START:
            stream = self.stream()
            stream["key_sequence"], stream["key_ns"], stream["key_frame_requested"] = FIRST + number, self.now, 0
            stream["key_position"] = self.track["log_written"] - 1
        return packet

    def vp8(
        self, number: int, picture: int, tl0: int = 0, *, wide: bool = True, start: bool = True, **rest: Any
    ) -> None:
        """A VP8 packet whose descriptor has a picture id and TL0PICIDX."""
        head = b"\x90\xc0" + ((0x8000 | picture).to_bytes(2, "big") if wide else bytes([picture])) + bytes([tl0])
        rest.setdefault("flags", (PacketFlag.FRAME_START if start else 0) | PacketFlag.SWITCH_UP | PacketFlag.FRAME_END)
        self.store(
            number,
            payload=head + rest.pop("body", b"frame"),
            picture_id=picture,
            picture_at=2,
            picture_bytes=2 if wide else 1,
            tl0=tl0,
            tl0_at=4 if wide else 3,
            **rest,
        )

    def forward(self) -> None:
        """Forward what is stored and what waits, and hand what left to the viewers."""
        self.memory.thread["now_ns"] = self.now
        forward_all(self.record, self.memory.arena, self.now)
        pace(self.record, self.memory.arena, self.now)
        self.collect()

    def limit(self, bps: int, viewer: int = 0) -> None:
        """Let a viewer's path carry so much, by its feedback."""
        row = self.viewers[viewer].row
        transport, estimate = self.transport(viewer), self.memory.table("estimates")[row]
        if not transport["estimated"]:
            estimate["by_reports"] = estimate["silent"] = estimate["rtt_ns"] = 0
        transport["estimated"], transport["unreported"], transport["estimate_bps"] = 1, 0, bps
        transport["free_number"] = 0
        estimate["feedbacks"], estimate["target_bps"] = 1, bps

    def turn(self, after: int = 0) -> None:
        """Forward what is stored and what waits, so many ns later."""
        self.now += after
        self.forward()

    def collect(self) -> None:
        """Hand queued datagrams to the viewers, RTP and RTCP apart."""
        count = int(self.memory.thread["tx_count"])
        self.memory.thread["tx_count"] = 0
        self.memory.thread["flushes"] += count > 0
        sizes, slots, paths = self.memory.table("tx_size"), self.memory.table("tx"), self.memory.table("tx_path")
        by_row = {viewer.row: viewer for viewer in self.viewers}
        for slot in range(count):
            viewer, data = by_row[int(paths[slot])], bytes(slots[slot][: sizes[slot]])
            if 192 <= data[1] <= 223:
                viewer.control.append(viewer.inbound.unprotect_rtcp(data))
            else:
                viewer.received.append(viewer.inbound.unprotect(data))

    def pass_time(self, nanoseconds: int) -> None:
        self.now += nanoseconds

    def notices(self, kind: int) -> list[tuple[int, int]]:
        """(row, value) of every notice of this kind that was not taken yet; those of other kinds are taken too."""
        return [(row, value) for this, row, value in notices(self.memory) if this == kind]
