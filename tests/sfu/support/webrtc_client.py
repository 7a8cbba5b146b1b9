"""aiortc's RTCPeerConnection as the client of an engine; offers and answers are made from aiortc's own SDP objects."""

import asyncio
import copy
from collections.abc import Sequence

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, sdp
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack
from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceCandidate, RTCIceParameters

from sfu.engine import Engine
from sfu.parameters import (
    EXTENSION_URIS,
    Codec,
    DtlsRole,
    Encoding,
    IceCredentials,
    Kind,
    LocalTransport,
    MediaParameters,
    PayloadType,
    RemoteTransport,
    TransportId,
)

CODECS = {"audio/opus": Codec.OPUS, "video/VP8": Codec.VP8, "video/H264": Codec.H264, "video/rtx": Codec.RTX}
OPUS = 96
"""aiortc's payload type for it."""
OUR_SETUP = {DtlsRole.SERVER: "server", DtlsRole.CLIENT: "client"}


class WebRtcClient:
    """One peer connection that offers; `connect` plays signalling between it and a transport of an engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        labels: Sequence[str] = ("_reliable", "_lossy"),
        audio: bool = False,
        port: int | None = None,
    ) -> None:
        """port: of what carries datagrams to the engine; None: its own."""
        self.engine = engine
        self._port = port
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channels: dict[str, RTCDataChannel] = {label: self._channel(label) for label in labels}
        self.stranger = self.pc.createDataChannel("of nobody")
        self.messages: asyncio.Queue[tuple[str, bytes | str]] = asyncio.Queue()
        self.tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
        self.local: LocalTransport | None = None
        self.offer: sdp.SessionDescription | None = None
        self.pc.on("datachannel", self._accepted)
        self.pc.on("track", self.tracks.put_nowait)
        if audio:
            self.pc.addTrack(AudioStreamTrack())
        for channel in self.channels.values():
            self._listen(channel)

    @property
    def transport(self) -> TransportId:
        assert self.local is not None
        return self.local.id

    async def connect(
        self,
        role: DtlsRole = DtlsRole.SERVER,
        *,
        fingerprints: tuple[tuple[str, str], ...] = (),
        data: bool = True,
        late: bool = False,
    ) -> None:
        """Offer, let the engine take it as the side `role` of DTLS, answer. `fingerprints` replaces the client's;
        `late` leaves telling the engine to `accept`."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        self.offer = sdp.SessionDescription.parse(self.pc.localDescription.sdp)
        self.local = self.engine.open_transport()
        first = self.offer.media[0]
        assert first.dtls is not None
        own = tuple((each.algorithm, each.value) for each in first.dtls.fingerprints)
        assert first.ice is not None
        ice = IceCredentials(first.ice.usernameFragment or "", first.ice.password or "")
        self._remote = RemoteTransport(ice, fingerprints or own, role, 5000 if data else None)
        if not late:
            self.accept()
        await self.pc.setRemoteDescription(RTCSessionDescription(self._answer(role), "answer"))

    def accept(self) -> None:
        """Give the client's half to the engine."""
        assert self.local is not None
        assert self.offer is not None
        self.engine.set_media(self.local.id, media_parameters(self.offer))
        self.engine.connect(self.local.id, self._remote)

    def encodings(self, kind: Kind) -> tuple[str, Encoding]:
        """mid and encoding of the section on which the client sends `kind`."""
        assert self.offer is not None
        media = next(each for each in self.offer.media if each.kind == kind.value)
        return media.rtp.muxId, Encoding(ssrc=media.ssrc[0].ssrc)

    async def close(self) -> None:
        await self.pc.close()

    def _answer(self, role: DtlsRole) -> str:
        assert self.offer is not None
        assert self.local is not None
        answer = sdp.SessionDescription()
        answer.origin = "- 1 1 IN IP4 127.0.0.1"
        answer.group, answer.msid_semantic = copy.deepcopy(self.offer.group), []
        for offered in self.offer.media:
            media = copy.copy(offered)
            media.msid, media.ssrc, media.ssrc_group = None, [], []
            candidates = [each for each in self.local.candidates if not each.tcp]
            media.port = self._port or candidates[0].port
            media.ice = RTCIceParameters(self.local.ice.ufrag, self.local.ice.password, iceLite=True)
            media.ice_candidates = [
                RTCIceCandidate(1, each.foundation, each.address, media.port, each.priority, "udp", "host")
                for each in candidates
            ]
            media.ice_candidates_complete = True
            fingerprint = RTCDtlsFingerprint(*self.local.fingerprint)
            media.dtls = RTCDtlsParameters([fingerprint], OUR_SETUP[role])
            answer.media.append(media)
        return str(answer)

    def _channel(self, label: str) -> RTCDataChannel:
        ordered = label == "_reliable"
        return self.pc.createDataChannel(label, ordered=ordered, maxRetransmits=None if ordered else 0)

    def _accepted(self, channel: RTCDataChannel) -> None:
        self.channels[channel.label] = channel
        self._listen(channel)

    def _listen(self, channel: RTCDataChannel) -> None:
        channel.on("message", lambda message: self.messages.put_nowait((channel.label, message)))


def media_parameters(offer: sdp.SessionDescription) -> MediaParameters:
    """What an offer says about payload types and header extensions, all accepted."""
    payload_types, extensions = {}, {}
    for media in offer.media:
        if media.kind == "application":
            continue
        for codec in media.rtp.codecs:
            assert codec.payloadType is not None
            payload_types[codec.payloadType] = PayloadType(
                CODECS.get(codec.mimeType, Codec.AUDIO if media.kind == "audio" else Codec.NONE),
                codec.clockRate,
                int(codec.parameters.get("apt") or -1),
                any(feedback.type == "nack" and not feedback.parameter for feedback in codec.rtcpFeedback),
            )
        for extension in media.rtp.headerExtensions:
            if extension.uri in EXTENSION_URIS:
                extensions[extension.id] = EXTENSION_URIS[extension.uri]
    return MediaParameters(payload_types, extensions)
