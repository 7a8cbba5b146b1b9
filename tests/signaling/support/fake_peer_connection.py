"""Peer connections without SDP: an offer is JSON, `{"sections": [{"mid", "kind", "cid", "codecs", "layers"}]}`.

A section with a cid sends, one without receives. They follow the contract of `signaling.sdp.peer_connection`.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from sfu.parameters import (
    Codec,
    Encoding,
    Kind,
    PublishParameters,
    SubscribeParameters,
    SubscriptionId,
)
from signaling.rooms.tracks import parse_codec
from signaling.sdp.negotiation import Source
from signaling.sdp.peer_connection import (
    AnswerResult,
    PublishDecision,
    Published,
    SdpError,
    SendingSection,
    WantedTrack,
)
from tests.signaling.support.fake_engine import FakeEngine

DECODES = frozenset((Codec.OPUS, Codec.VP8, Codec.VP9, Codec.AV1, Codec.H264))


def parse(sdp: str) -> list[dict[str, Any]]:
    try:
        sections: list[dict[str, Any]] = json.loads(sdp)["sections"]
    except (ValueError, KeyError) as exc:
        raise SdpError("not the tests' JSON") from exc
    return sections


class _Active(NamedTuple):
    mid: str
    source: Source
    subscription: SubscriptionId


class _Forwarding:
    """Wanted tracks and their sections."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.transport = engine.open_transport().id
        self._wanted: dict[str, WantedTrack] = {}
        self._active: dict[str, _Active] = {}
        """By track sid."""
        self._decodes = DECODES

    def want(self, track: WantedTrack) -> None:
        self._wanted[track.track_sid] = track
        active = self._active.get(track.track_sid)
        if active is not None and active.source not in track.receivers:
            self._stop(track.track_sid)

    def unwant(self, track_sid: str) -> None:
        self._wanted.pop(track_sid, None)
        self._stop(track_sid)

    def subscription(self, track_sid: str) -> SubscriptionId | None:
        active = self._active.get(track_sid)
        return active.subscription if active is not None else None

    def unsupported(self) -> frozenset[str]:
        return frozenset(
            sid for sid, track in self._wanted.items() if sid not in self._active and self._source(track) is None
        )

    def close(self) -> None:
        self._engine.close_transport(self.transport)
        self._wanted.clear()
        self._active.clear()

    def _source(self, track: WantedTrack) -> Source | None:
        return next((source for source in track.receivers if source[0] in self._decodes), None)

    def _waiting(self) -> list[WantedTrack]:
        return [
            track for sid, track in self._wanted.items() if sid not in self._active and self._source(track) is not None
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
            codec=source[0],
        )
        local = self._engine.subscribe(source[2], self.transport, parameters)
        self._active[track.track_sid] = _Active(mid, source, local.id)

    def _stop(self, track_sid: str) -> None:
        active = self._active.pop(track_sid, None)
        if active is not None and active.subscription in self._engine.subscriptions:
            self._engine.unsubscribe(active.subscription)


class FakeAnsweringConnection(_Forwarding):
    """The client offers."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine)
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
            self._engine.unpublish(entry.receiver)
        undecided = [section for mid, section in sending.items() if mid not in self._published]
        published = [new for section in undecided if (new := self._publish(section, decide)) is not None]
        self._decodes = frozenset(codec for section in sections for codec in _codecs(section)) or DECODES
        self._receiving = {section["mid"]: Kind(section["kind"]) for section in sections if not section.get("cid")}
        for track_sid, active in list(self._active.items()):
            if active.mid in sending:
                self._stop(track_sid)
        used = {mid for mid, *_ in self._active.values()}
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
        names |= {mid: sid for sid, (mid, *_) in self._active.items()}
        return AnswerResult("answer", names, tuple(published), tuple(ended))

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
        parameters = PublishParameters(kind, mid, encodings, decision.svc, *decision.voices)
        receiver = self._engine.publish(self.transport, parameters)
        preferred_first = sorted(codecs, key=lambda entry: entry[0] not in (codec, Codec.RED))
        formats = tuple((96 + number, *entry) for number, entry in enumerate(preferred_first))
        self._published[mid] = Published(mid, decision.track_sid, cid, receiver, kind, codec, fmtp, formats)
        return self._published[mid]


class FakeOfferingConnection(_Forwarding):
    """We offer."""

    def __init__(self, engine: FakeEngine, *, renews_sections: bool = False) -> None:
        super().__init__(engine)
        self.renews_sections = renews_sections
        self._outstanding = False
        self._offered = False
        self._changed = False
        self._unanswered: set[str] = set()

    def answered(self, track_sid: str) -> bool:
        return track_sid not in self._unanswered

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
            self._unanswered.add(track.track_sid)
        return "offer", {mid: sid for sid, (mid, *_) in self._active.items()}

    def accept_answer(self, sdp: str) -> None:
        self._decodes = frozenset(codec for section in parse(sdp) for codec in _codecs(section)) or DECODES
        self._outstanding = False
        self._unanswered.clear()
        for sid in [sid for sid, track in self._wanted.items() if self._source(track) is None]:
            self._stop(sid)


def _codecs(section: dict[str, Any]) -> list[Codec]:
    return [codec for name in section.get("codecs", ()) if (codec := parse_codec(name)) is not None]
