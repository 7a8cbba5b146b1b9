"""A publishing peer for kernel tests: rows as the control thread writes them, packets made by aiortc, real SRTP."""

from typing import Any

import numpy as np
from aiortc import rtp
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi

from sfu.media.receive.ingress import receive_plain, receive_rtp
from sfu.media.tracks import open_track
from sfu.parameters import EXTENSION_URIS, Codec, Extension
from sfu.schema.capacities import CACHE_BYTES, MEDIA_PER_TRANSPORT, PACKETS
from sfu.schema.codes import MediaKind, RowState
from sfu.schema.memory import Memory
from tests.sfu.support.ice import all_notices, drop_counts

SECOND = 1_000_000_000
MS = 1_000_000
START = 1_000 * SECOND
ROW = 5
PATH = 3
OUR_SSRC = 0xABCDEF01

EXTENSIONS = {
    Extension.MID: 1,
    Extension.RID: 2,
    Extension.REPAIRED_RID: 3,
    Extension.TRANSPORT_CC: 4,
    Extension.AUDIO_LEVEL: 5,
    Extension.ABS_SEND_TIME: 6,
    Extension.ORIENTATION: 7,
    Extension.COLOR_SPACE: 40,
}
OPUS, RED, VP8, VP8_RTX, VP9, VP9_RTX, UNKNOWN = 111, 63, 96, 97, 98, 99, 77
PAYLOAD_TYPES = {  # number: (codec, clock rate, associated, nack)
    OPUS: (Codec.OPUS, 48_000, -1, 0),
    RED: (Codec.RED, 48_000, OPUS, 0),
    VP8: (Codec.VP8, 90_000, -1, 1),
    VP8_RTX: (Codec.RTX, 90_000, VP8, 0),
    VP9: (Codec.VP9, 90_000, -1, 1),
    VP9_RTX: (Codec.RTX, 90_000, VP9, 0),
}
VP8_KEY = bytes.fromhex("9080010000009d012a80026801") + bytes(20)
VP8_DELTA = bytes.fromhex("90800201000000") + bytes(20)

KEY = bytes(range(28))


def srtp_pair() -> tuple[Session, Session]:
    """Two sessions: what the first protects, the second takes."""

    def session(kind: int) -> Session:
        policy = Policy(key=KEY, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
        policy.window_size = 1024
        return Session(policy)

    return session(Policy.SSRC_ANY_OUTBOUND), session(Policy.SSRC_ANY_INBOUND)


def extension_map() -> rtp.HeaderExtensionsMap:
    """aiortc's view of EXTENSIONS."""
    uris = {kind: uri for uri, kind in EXTENSION_URIS.items()}
    result = rtp.HeaderExtensionsMap()
    parameters = RTCRtpParameters()
    parameters.headerExtensions = [
        RTCRtpHeaderExtensionParameters(id=number, uri=uris[kind]) for kind, number in EXTENSIONS.items()
    ]
    result.configure(parameters)
    return result


_EXTENSION_MAP = extension_map()


def packet(
    sequence: int,
    *,
    ssrc: int = 1111,
    payload_type: int = VP8,
    timestamp: int = 0,
    payload: bytes = VP8_DELTA,
    marker: int = 0,
    padding: int = 0,
    **extensions: Any,
) -> bytes:
    """A plaintext RTP packet; extensions are aiortc's names: mid, rtp_stream_id, transport_sequence_number, ..."""
    result = rtp.RtpPacket(
        payload_type=payload_type,
        marker=marker,
        sequence_number=sequence & 0xFFFF,
        timestamp=timestamp & 0xFFFFFFFF,
        ssrc=ssrc,
        payload=payload,
    )
    result.padding_size = padding
    for name, value in extensions.items():
        setattr(result.extensions, name, value)
    return bytes(result.serialize(_EXTENSION_MAP))


def rtx(original: bytes, sequence: int, *, ssrc: int, payload_type: int = VP8_RTX, **extensions: Any) -> bytes:
    """The RTX packet that carries `original`."""
    parsed = rtp.RtpPacket.parse(original, _EXTENSION_MAP)
    wrapped = rtp.wrap_rtx(parsed, payload_type=payload_type, sequence_number=sequence & 0xFFFF, ssrc=ssrc)
    wrapped.extensions = rtp.HeaderExtensions(**extensions)
    return bytes(wrapped.serialize(_EXTENSION_MAP))


class Publisher:
    """One transport with SRTP and a path, and what it publishes."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.record = self.memory.record
        self.out, inward = srtp_pair()
        outward, self.inbound = srtp_pair()
        self._sessions = (inward, outward)
        self.tracks = self.streams = 0
        transport = self.transport
        transport["state"] = RowState.OPEN
        transport["secure"] = 1
        transport["generation"] = 9
        transport["ssrc"] = OUR_SSRC
        transport["path"] = PATH
        transport["first_track"] = transport["first_source"] = transport["first_subscription"] = -1
        transport["media"] = ROW * MEDIA_PER_TRANSPORT
        transport["srtp_in"] = int(ffi.cast("uintptr_t", inward._srtp[0]))
        transport["srtp_out"] = int(ffi.cast("uintptr_t", outward._srtp[0]))
        self.memory.thread["transport_end"] = ROW + 1
        write_media(self.media)

    @property
    def transport(self) -> Any:
        return self.memory.table("transports")[ROW]

    @property
    def media(self) -> Any:
        return self.memory.table("media")[ROW * MEDIA_PER_TRANSPORT]

    @property
    def arrivals(self) -> Any:
        return self.memory.table("arrivals")[ROW]

    def stream(self, row: int = 0) -> Any:
        return self.memory.table("streams")[row]

    def track(self, row: int = 0) -> Any:
        return self.memory.table("tracks")[row]

    def add_track(
        self,
        mid: str = "0",
        kind: int = MediaKind.VIDEO,
        rids: tuple[str, ...] = ("",),
        ssrcs: tuple[int, ...] = (),
        rtx_ssrcs: tuple[int, ...] = (),
    ) -> int:
        """Open a track with one stream per rid; returns its row. Stream rows count up from 0."""
        row, self.tracks = self.tracks, self.tracks + 1
        track = self.track(row)
        track["kind"], track["generation"], track["transport"] = kind, 7 + row, ROW
        track["mid_bytes"] = len(mid)
        track["mid"][: len(mid)] = np.frombuffer(mid.encode(), np.uint8)
        track["layer_count"] = len(rids)
        track["streams"] = -1
        for layer, rid in enumerate(rids):
            number, self.streams = self.streams, self.streams + 1
            track["streams"][layer] = number
            stream = self.stream(number)
            stream["layer"], stream["kind"], stream["track"], stream["transport"] = layer, kind, row, ROW
            stream["rid_bytes"] = len(rid)
            stream["rid"][: len(rid)] = np.frombuffer(rid.encode(), np.uint8)
            stream["ssrc"] = ssrcs[layer] if ssrcs else 0
            stream["rtx_ssrc"] = rtx_ssrcs[layer] if rtx_ssrcs else 0
            stream["cache_bytes"] = CACHE_BYTES["low"]
            stream["cache_start"] = number * CACHE_BYTES["low"]
        open_track(self.record, row)
        return row

    def add_audio(self, mid: str = "a") -> int:
        return self.add_track(mid, kind=MediaKind.AUDIO)

    def receive(self, data: bytes, now: int = START, arrival: int | None = None) -> None:
        """A packet that is decrypted already."""
        self.memory.table("rx")[0][: len(data)] = np.frombuffer(data, np.uint8)
        receive_plain(self.record, self.memory.arena, 0, len(data), ROW, now if arrival is None else arrival, now)

    def receive_protected(self, data: bytes, now: int = START) -> None:
        """An SRTP packet as it came from the network."""
        self.memory.table("rx")[0][: len(data)] = np.frombuffer(data, np.uint8)
        receive_rtp(self.record, self.memory.arena, 0, len(data), ROW, now, now)

    @property
    def drops(self) -> dict[str, int]:
        return drop_counts(self.memory)

    def notices(self) -> list[tuple[int, int, int, int, int]]:
        """(kind, row, generation, value, extra) of every notice that was not taken yet."""
        return all_notices(self.memory)

    def sent(self) -> list[bytes]:
        """Plaintext of the RTCP datagrams that were sent since the last call."""
        count = int(self.memory.thread["tx_count"])
        self.memory.thread["tx_count"] = 0
        sizes, slots, paths = self.memory.table("tx_size"), self.memory.table("tx"), self.memory.table("tx_path")
        assert all(paths[k] == PATH for k in range(count))
        return [self.inbound.unprotect_rtcp(bytes(slots[k][: sizes[k]])) for k in range(count)]

    def stored(self, stream: int, sequence: int) -> bytes:
        """The stored packet with an extended sequence number; raises KeyError when it is not in the packet cache."""
        entry = self.memory.table("packets")[stream][sequence & (PACKETS - 1)]
        row = self.stream(stream)
        oldest = max(row["cache_written"] - row["cache_bytes"], row["cache_oldest"])
        if entry["sequence"] != sequence or entry["start"] < oldest:
            raise KeyError(sequence)
        at = int(row["cache_start"]) + (int(entry["start"]) & (int(row["cache_bytes"]) - 1))
        return bytes(self.memory.arena[at : at + int(entry["size"])])

    def log(self, track: int = 0) -> list[tuple[int, int]]:
        """(layer, low 16 bits of the sequence number) of every arrival in the track's log."""
        row = self.track(track)
        return [(int(entry) >> 16, int(entry) & 0xFFFF) for entry in row["log"][: int(row["log_written"])]]


def write_media(media: Any) -> None:
    """EXTENSIONS and PAYLOAD_TYPES as the control thread writes them into a media row."""
    for kind, number in EXTENSIONS.items():
        media["extension_of_id"][number] = kind
        media["id_of_extension"][kind] = number
    media["associated_pt"] = -1
    for number, (codec, clock, associated, nack) in PAYLOAD_TYPES.items():
        media["codec_of_pt"][number] = codec
        media["clock_of_pt"][number] = clock
        media["associated_pt"][number] = associated
        media["nack_of_pt"][number] = nack
