"""Session descriptions of the load generator: offers from templates, and what it needs of an answer."""

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from bench.plans import AUDIO_PAYLOAD_TYPE, RTX_PAYLOAD_TYPE, VIDEO_PAYLOAD_TYPE, Layer, Plan, SendStream, TrackPlan
from sfu.control.data.association import LOCAL_PORT
from sfu.control.data.sctp import MAX_MESSAGE_BYTES
from sfu.parameters import DtlsRole

MID_ID, RID_ID, TRANSPORT_CC_ID, AUDIO_LEVEL_ID = 1, 2, 3, 4
"""Header extension ids of every offer."""
SPEECH_LEVEL = 0x80 | 20
"""The audio level of every packet: voice at -20 dBov, as one byte of RFC 6464."""
_EXTENSIONS = {
    MID_ID: "urn:ietf:params:rtp-hdrext:sdes:mid",
    RID_ID: "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    TRANSPORT_CC_ID: "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    AUDIO_LEVEL_ID: "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
}
USABLE_CANDIDATE = re.compile(r"candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host", re.IGNORECASE)
"""Matches a host candidate for UDP over IPv4; the groups are its address and port."""
_HEAD = (
    "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\n"
    "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na=fingerprint:{algorithm} {digest}\r\na=setup:actpass\r\n"
)
_SECTION = (
    "m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\n"
    "{extensions}{codecs}"
)

_DATA_SECTION = (
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=sctp-port:{port}\r\n"
    "a=max-message-size:{size}\r\n"
)


def _extension_lines(*identifiers: int) -> str:
    return "".join(f"a=extmap:{identifier} {_EXTENSIONS[identifier]}\r\n" for identifier in identifiers)


_FORMATS = {"audio": f"{AUDIO_PAYLOAD_TYPE}", "video": f"{VIDEO_PAYLOAD_TYPE} {RTX_PAYLOAD_TYPE}"}
_CODECS = {
    "audio": (
        f"a=rtpmap:{AUDIO_PAYLOAD_TYPE} opus/48000/2\r\na=fmtp:{AUDIO_PAYLOAD_TYPE} minptime=10;useinbandfec=1\r\n"
        f"a=rtcp-fb:{AUDIO_PAYLOAD_TYPE} transport-cc\r\n"
    ),
    "video": (
        f"a=rtpmap:{VIDEO_PAYLOAD_TYPE} VP8/90000\r\na=rtpmap:{RTX_PAYLOAD_TYPE} rtx/90000\r\n"
        f"a=fmtp:{RTX_PAYLOAD_TYPE} apt={VIDEO_PAYLOAD_TYPE}\r\n"
        + "".join(
            f"a=rtcp-fb:{VIDEO_PAYLOAD_TYPE} {each}\r\n" for each in ("transport-cc", "nack", "nack pli", "ccm fir")
        )
    ),
}
_EXTENSION_IDS = {"audio": (MID_ID, TRANSPORT_CC_ID, AUDIO_LEVEL_ID), "video": (MID_ID, RID_ID, TRANSPORT_CC_ID)}
_TRANSPORT_CC_FEEDBACK = re.compile(r"a=rtcp-fb:\d+ transport-cc\r\n")


def _section(kind: str, mid: int, direction: str, *, reports: bool = True) -> str:
    codecs = _CODECS[kind] if reports else _TRANSPORT_CC_FEEDBACK.sub("", _CODECS[kind])
    return _SECTION.format(
        kind=kind,
        mid=mid,
        direction=direction,
        formats=_FORMATS[kind],
        extensions=_extension_lines(*(each for each in _EXTENSION_IDS[kind] if reports or each != TRANSPORT_CC_ID)),
        codecs=codecs,
    )


def _sending_lines(track: TrackPlan, cid: str, ssrcs: Sequence[int]) -> str:
    """Return the lines that describe a track's streams: rids of its layers, or its only SSRC, which pion needs."""
    lines = f"a=msid:- {cid}\r\n"
    rids = [layer.rid for layer in track.layers if layer.rid]
    if rids:
        lines += "".join(f"a=rid:{rid} send\r\n" for rid in rids)
        lines += f"a=simulcast:send {';'.join(rids)}\r\n"
    else:
        lines += "".join(f"a=ssrc:{ssrc} cname:bench\r\na=ssrc:{ssrc} msid:- {cid}\r\n" for ssrc in ssrcs)
    return lines


def choose_ssrcs(plan: Plan) -> list[list[int]]:
    """Choose a random SSRC for each layer of each track that the plan publishes."""
    return [[secrets.randbits(32) | 1 for _ in track.layers] for track in plan.publish]


def offer(
    plan: Plan,
    cids: list[str],
    receiving: list[str],
    ice: tuple[str, str],
    fingerprint: tuple[str, str],
    version: int,
    ssrcs: list[list[int]],
) -> str:
    """Write an offer. Its mids are 0, 1, 2 and so on.

    The m-sections are first the tracks that the plan publishes, then one of each kind in `receiving`, and last the data
    channels if the plan has them. `cids` are the plan's track ids, `ice` is ufrag and password, and `ssrcs` is what
    `choose_ssrcs` returned.
    """
    count = len(plan.publish) + len(receiving) + plan.data
    text = _HEAD.format(
        version=version,
        mids=" ".join(map(str, range(count))),
        ufrag=ice[0],
        password=ice[1],
        algorithm=fingerprint[0],
        digest=fingerprint[1],
    )
    for mid, (track, cid, own) in enumerate(zip(plan.publish, cids, ssrcs, strict=True)):
        text += _section(track.kind, mid, "sendonly") + _sending_lines(track, cid, own)
    for mid, kind in enumerate(receiving, len(plan.publish)):
        text += _section(kind, mid, "recvonly", reports=plan.reports)
    if plan.data:
        text += _DATA_SECTION.format(mid=count - 1, port=LOCAL_PORT, size=MAX_MESSAGE_BYTES)
    return text


@dataclass(frozen=True, slots=True)
class Remote:
    """What an answer says about the server's end."""

    ufrag: str
    password: str
    address: tuple[str, int]
    """The address and port of its first IPv4 host candidate for UDP."""
    extensions: frozenset[int]
    """Ids of the header extensions that it accepts."""
    sctp_port: int = 0
    """The SCTP port of its data channels; 0: it has none."""
    our_role: DtlsRole = DtlsRole.CLIENT
    """The role that the answer's `a=setup` leaves to this end (RFC 8842 section 5.3)."""

    @classmethod
    def parse(cls, text: str, trickled: Iterable[str] = ()) -> Self:
        """Read an answer.

        Args:
            text: its SDP.
            trickled: candidates that came beside it, without `a=`.

        Raises:
            ValueError: a part is missing.
        """
        text += "".join(f"a={candidate}\r\n" for candidate in trickled)
        ufrag, password = (re.search(rf"a=ice-{name}:(\S+)", text) for name in ("ufrag", "pwd"))
        candidate = USABLE_CANDIDATE.search(text)
        if ufrag is None or password is None or candidate is None:
            raise ValueError(f"an answer without ICE credentials or an IPv4 candidate: {text[:500]!r}")
        extensions = frozenset(int(number) for number in re.findall(r"a=extmap:(\d+)", text))
        port = re.search(r"a=sctp-port:(\d+)", text)
        address = candidate[1], int(candidate[2])
        role = DtlsRole.SERVER if re.search(r"(?m)^a=setup:active", text) else DtlsRole.CLIENT
        return cls(ufrag[1], password[1], address, extensions, int(port[1]) if port is not None else 0, role)


def send_streams(plan: Plan, remote: Remote, ssrcs: list[list[int]]) -> list[SendStream]:
    """Return what the participant sends, in the order of its tracks and their layers, with its chosen SSRCs."""
    streams = []
    for mid, (track, own) in enumerate(zip(plan.publish, ssrcs, strict=True)):
        for layer, ssrc in zip(track.layers, own, strict=True):
            elements = _element(MID_ID, str(mid).encode()) if MID_ID in remote.extensions else b""
            elements += _kind_elements(track, layer, remote.extensions)
            streams.append(
                SendStream(
                    ssrc=ssrc,
                    payload_type=AUDIO_PAYLOAD_TYPE if track.kind == "audio" else VIDEO_PAYLOAD_TYPE,
                    kind=track.kind,
                    layer=layer,
                    frames_per_second=track.frames_per_second,
                    extensions=elements,
                    transport_cc_id=TRANSPORT_CC_ID if TRANSPORT_CC_ID in remote.extensions else 0,
                )
            )
    return streams


def _kind_elements(track: TrackPlan, layer: Layer, accepted: frozenset[int]) -> bytes:
    if track.kind == "audio":
        return _element(AUDIO_LEVEL_ID, bytes((SPEECH_LEVEL,))) if AUDIO_LEVEL_ID in accepted else b""
    return _element(RID_ID, layer.rid.encode()) if layer.rid and RID_ID in accepted else b""


def _element(identifier: int, value: bytes) -> bytes:
    """Write a one-byte header extension element (RFC 8285 section 4.2)."""
    return bytes((identifier << 4 | len(value) - 1,)) + value
