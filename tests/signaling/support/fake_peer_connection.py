"""Peer connections without SDP: an offer is JSON, `{"sections": [{"mid", "kind", "cid", "codecs", "layers"}]}`.

A section with a cid sends, one without receives. They follow the contract of `signaling.sdp.peer_connection`.
"""

import json
from collections.abc import Callable
from typing import Any

from sfu.parameters import (
    Codec,
    Encoding,
    Kind,
    PublishParameters,
    SubscribeParameters,
    TransportId,
)
from signaling.rooms.tracks import parse_codec
from signaling.sdp.candidates import Trickled, chosen
from signaling.sdp.codecs import Format
from signaling.sdp.forwarding import Forwarding, Sent
from signaling.sdp.negotiation import Selection, Source
from signaling.sdp.peer_connection import (
    AnswerResult,
    PublishDecision,
    Published,
    SdpError,
    SendingSection,
    WantedTrack,
)
from signaling.sdp.session_description import RtpMap
from tests.signaling.support.fake_engine import FakeEngine

DECODES = frozenset((Codec.OPUS, Codec.VP8, Codec.VP9, Codec.AV1, Codec.H264))


def parse(sdp: str) -> list[dict[str, Any]]:
    try:
        sections: list[dict[str, Any]] = json.loads(sdp)["sections"]
    except (ValueError, KeyError) as error:
        raise SdpError("not the tests' JSON") from error
    return sections


class _Forwarding:
    """Wanted tracks and their sections."""

    def __init__(
        self,
        engine: FakeEngine,
        may_pause: bool,
        path_memory: int,
        only_tcp: bool,
        beside: TransportId | None = None,
    ) -> None:
        self._engine = engine
        self._local = chosen(engine.open_transport(may_pause, path_memory, beside), only_tcp)
        self.transport = self._local.id
        self.forwardings: dict[str, Forwarding] = {}
        """By track sid."""
        self._decodes = DECODES

    @property
    def _active(self) -> dict[str, Sent]:
        return {sid: each.sent for sid, each in self.forwardings.items() if each.sent is not None}

    def candidates(self) -> Trickled:
        return Trickled(self._local, "0")

    def want(self, track: WantedTrack) -> None:
        forwarding = self.forwardings.setdefault(track.track_sid, Forwarding(track))
        forwarding.wanted = track
        if forwarding.sent is not None and forwarding.sent.selection.source not in track.sources:
            self._stop(track.track_sid)

    def unwant(self, track_sid: str) -> None:
        self._stop(track_sid)
        self.forwardings.pop(track_sid, None)

    def unsupported(self) -> frozenset[str]:
        return frozenset(
            sid for sid, each in self.forwardings.items() if each.sent is None and self._source(each.wanted) is None
        )

    def close(self) -> None:
        self._engine.close_transport(self.transport)
        self.forwardings.clear()

    def _source(self, track: WantedTrack) -> Source | None:
        return next((source for source in track.sources if source[0] in self._decodes), None)

    def _waiting(self) -> list[WantedTrack]:
        return [
            each.wanted
            for each in self.forwardings.values()
            if each.sent is None and self._source(each.wanted) is not None
        ]

    def _start(self, track: WantedTrack, mid: str) -> None:
        source = self._source(track)
        assert source is not None
        begin = track.begin()
        parameters = SubscribeParameters(
            mid,
            96,
            cname=track.cname,
            spatial=begin.spatial,
            temporal=begin.temporal,
            silence=begin.silence,
            paused=begin.blocked,
            playout_delay_ms=begin.playout_delay_ms,
            codec=source[0],
        )
        local = self._engine.subscribe(source[2], self.transport, parameters)
        selection = Selection(source, Format(RtpMap(96, source[0].name, 90_000), source[0]))
        self.forwardings[track.track_sid].sent = Sent(mid, selection, local)

    def _stop(self, track_sid: str) -> None:
        forwarding = self.forwardings.get(track_sid)
        if forwarding is None or forwarding.sent is None:
            return
        if forwarding.subscription in self._engine.subscriptions:
            self._engine.unsubscribe(forwarding.sent.local.id)
        forwarding.sent = None


class FakeAnsweringConnection(_Forwarding):
    """The client offers."""

    def __init__(
        self, engine: FakeEngine, *, may_pause: bool = False, path_memory: int = 0, only_tcp: bool = False
    ) -> None:
        super().__init__(engine, may_pause, path_memory, only_tcp)
        self._published: dict[str, Published] = {}
        self._free: dict[str, Kind] = {}
        self._receiving: dict[str, Kind] = {}

    def answer(self, offer: str, decide: Callable[[SendingSection], PublishDecision | None]) -> AnswerResult:
        sections = parse(offer)
        sending = {section["mid"]: section for section in sections if section.get("cid")}
        ended = [
            entry for mid, entry in self._published.items() if mid not in sending or sending[mid]["cid"] != entry.cid
        ]
        for entry in ended:
            del self._published[entry.mid]
            self._engine.unpublish(entry.engine_track)
        undecided = [section for mid, section in sending.items() if mid not in self._published]
        published = [new for section in undecided if (new := self._publish(section, decide)) is not None]
        self._decodes = frozenset(codec for section in sections for codec in _codecs(section)) or DECODES
        self._receiving = {section["mid"]: Kind(section["kind"]) for section in sections if not section.get("cid")}
        for track_sid, active in list(self._active.items()):
            if active.mid in sending:
                self._stop(track_sid)
        used = {sent.mid for sent in self._active.values()}
        self._free = {
            section["mid"]: Kind(section["kind"])
            for section in sections
            if not section.get("cid") and section["mid"] not in used
        }
        for track in self._waiting():
            mid = next((mid for mid, kind in self._free.items() if kind is track.kind), None)
            if mid is not None:
                del self._free[mid]
                self._start(track, mid)
        names = {mid: entry.track_sid for mid, entry in self._published.items()}
        names |= {sent.mid: sid for sid, sent in self._active.items()}
        return AnswerResult("answer", names, tuple(published), tuple(ended), candidates=self.candidates())

    def receiving_sections(self) -> tuple[frozenset[str], frozenset[str]]:
        of = self._receiving.items()
        audio, video = (frozenset(mid for mid, each in of if each is kind) for kind in (Kind.AUDIO, Kind.VIDEO))
        return audio, video

    def missing_sections(self) -> tuple[int, int] | None:
        waiting = [track.kind for track in self._waiting()]
        if not waiting:
            return None
        free = list(self._free.values())
        missing = [max(0, waiting.count(kind) - free.count(kind)) for kind in (Kind.AUDIO, Kind.VIDEO)]
        return missing[0], missing[1]

    def _publish(
        self, section: dict[str, Any], decide: Callable[[SendingSection], PublishDecision | None]
    ) -> Published | None:
        kind, mid, cid = Kind(section["kind"]), section["mid"], section["cid"]
        codecs = tuple((codec, f"fmtp of {codec.name}") for codec in _codecs(section))
        layers = section.get("layers", 1)
        encodings = tuple(Encoding(rid="qhf"[layer] if layers > 1 else "") for layer in range(layers))
        decision = decide(SendingSection(mid, kind, cid, codecs, encodings))
        if decision is None:
            return None
        media = [entry for entry in codecs if entry[0] is not Codec.RED]
        codec, fmtp = next((entry for entry in media if entry[0] is decision.codec), media[0])
        parameters = PublishParameters(kind, mid, encodings, *decision.voices, screen=decision.screen)
        engine_track = self._engine.publish(self.transport, parameters)
        preferred_first = sorted(codecs, key=lambda entry: entry[0] not in (codec, Codec.RED))
        formats = tuple((96 + number, *entry) for number, entry in enumerate(preferred_first))
        self._published[mid] = Published(
            mid, decision.track_sid, cid, engine_track, kind, codec, fmtp, formats, len(encodings)
        )
        return self._published[mid]


class FakeOfferingConnection(_Forwarding):
    """We offer."""

    def __init__(
        self,
        engine: FakeEngine,
        *,
        renews_sections: bool = False,
        may_pause: bool = False,
        path_memory: int = 0,
        beside: TransportId | None = None,
        only_tcp: bool = False,
    ) -> None:
        super().__init__(engine, may_pause, path_memory, only_tcp, beside)
        self.renews_sections = renews_sections
        self._outstanding = False
        self._offered = False
        self._changed = False

    def want(self, track: WantedTrack) -> None:
        super().want(track)
        self._changed = True

    def unwant(self, track_sid: str) -> None:
        super().unwant(track_sid)
        self._changed = True

    def offer(self, ice_restart: bool = False) -> tuple[str, dict[str, str]] | None:
        if self._outstanding and not ice_restart:
            return None
        if self._offered and not self._changed and not ice_restart:
            return None
        if ice_restart:
            self._engine.restart_ice(self.transport)
        self._outstanding, self._offered, self._changed = True, True, False
        for number, track in enumerate(self._waiting()):
            self._start(track, f"s{self.transport}-{len(self._active)}-{number}")
            self.forwardings[track.track_sid].answered = False
        return "offer", {sent.mid: sid for sid, sent in self._active.items()}

    def accept_answer(self, sdp: str) -> None:
        self._decodes = frozenset(codec for section in parse(sdp) for codec in _codecs(section)) or DECODES
        self._outstanding = False
        for sid, forwarding in self.forwardings.items():
            forwarding.answered = True
            if self._source(forwarding.wanted) is not None:
                continue
            self._stop(sid)


def _codecs(section: dict[str, Any]) -> list[Codec]:
    return [codec for name in section.get("codecs", ()) if (codec := parse_codec(name)) is not None]
