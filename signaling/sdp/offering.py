"""The peer connection on which we offer: the subscriber connection of a client with two of them.

Who calls it: the room's side of a participant. The first m-section is for data channels, so that there is always one;
each later one carries one track, keeps its mid, and after having been quiet for one offer carries another. For clients
that hear of a track only once on each m-section, it is rejected instead of quiet, and comes back with another mid.
There is one offer outstanding at a time; what changes meanwhile goes out with the next one.
"""

import secrets
from collections import deque
from dataclasses import dataclass, field, replace

from sfu.engine import Engine
from sfu.parameters import (
    EXTENSION_URIS,
    Codec,
    Extension,
    Kind,
    MediaParameters,
    RemoteTransport,
    TransportId,
)
from signaling.sdp.codecs import BASELINE_FMTP, OPUS_FMTP, OWN_FORMATS, Format, companions, decoders
from signaling.sdp.forwarding import Forwarding, Forwardings, Sent
from signaling.sdp.matching import Matching
from signaling.sdp.negotiation import (
    FEEDBACK,
    Selection,
    WantedTrack,
    build_profile,
    bundled_mids,
    data_section,
    is_acceptable,
    local_transport,
    remote_transport,
    reports_arrivals,
    with_candidates,
    with_track,
)
from signaling.sdp.parsing import MAX_SECTIONS, KnownSections, SdpError, parse
from signaling.sdp.session_description import Direction, Extmap, Profile, Section, SessionDescription, Setup

DATA_MID = "0"
_AUDIO_EXTENSIONS = {
    1: Extension.AUDIO_LEVEL,
    2: Extension.ABS_SEND_TIME,
    3: Extension.TRANSPORT_CC,
    4: Extension.MID,
    9: Extension.ABS_CAPTURE_TIME,
}
_VIDEO_EXTENSIONS = {
    2: Extension.ABS_SEND_TIME,
    3: Extension.TRANSPORT_CC,
    4: Extension.MID,
    5: Extension.PLAYOUT_DELAY,
    8: Extension.COLOR_SPACE,
    9: Extension.ABS_CAPTURE_TIME,
    12: Extension.DEPENDENCY,
    13: Extension.ORIENTATION,
}
_EXTENSIONS = {Kind.AUDIO: _AUDIO_EXTENSIONS, Kind.VIDEO: _VIDEO_EXTENSIONS}
"""The ids that we offer; all fit the one-byte form."""
_URIS = {extension: uri for uri, extension in EXTENSION_URIS.items()}
_COMMON = {
    kind: tuple(f for f in formats if f.codec in (Codec.OPUS, Codec.VP8) or f.fmtp == BASELINE_FMTP)
    for kind, formats in OWN_FORMATS.items()
}
"""Offered beside a track's own codecs: a client that has none of those keeps the m-section open for the next track.
For video these are the two that browsers must have (RFC 7742 section 5). A Go client may be given one of them alone,
and pion fails on the whole description where it knows no codec of an m-section."""


@dataclass(slots=True)
class _Place:
    """One audio or video m-section of ours."""

    mid: str
    kind: Kind
    formats: tuple[Format, ...] = ()
    """The formats that were offered last, with the one in use first."""
    forwarding: Forwarding | None = None
    """What is sent on it, or was until its track was no longer wanted."""
    resting: bool = False
    """Its track went away, and no answer to an offer that said so has come yet."""
    dead: bool = False
    """The client rejected it for good."""
    closed: bool = False
    """We reject it since its track went away, and it has no meaning to the client until it gets another mid."""
    known: bool = False
    """The client has answered an offer with this mid. It may not have seen it before, and cannot be offered a rejected
    m-section with another mid than the one that it knows there."""
    offered: tuple[object, str] = (None, "")
    """(what the last offer for this m-section depended on, its text)."""

    @property
    def rejected(self) -> bool:
        """It stands in the offer with port 0, outside the bundle."""
        return self.dead or self.closed

    def rest(self, *, close: bool) -> None:
        """Its track went away."""
        self.forwarding, self.resting, self.closed = None, True, close and self.known

    def renew(self, mid: str) -> None:
        """Use it for another track, as an m-section that the client does not know yet."""
        self.mid, self.closed, self.known = mid, False, False


@dataclass(slots=True)
class _Learned:
    """What the answers of this client told about it."""

    refused_payload_types: set[int] = field(default_factory=set)
    without_nack: set[int] = field(default_factory=set)
    refused_extensions: set[tuple[Kind, str]] = field(default_factory=set)
    """(kind, URI): browsers support different ones for audio and video."""
    without_reports: set[Kind] = field(default_factory=set)
    """Without transport-cc."""
    mixed: bool = False

    def formats(self, kind: Kind) -> tuple[Format, ...]:
        """Ours, without those that were refused."""
        return tuple(f for f in OWN_FORMATS[kind] if f.payload_type not in self.refused_payload_types)

    def all_formats(self) -> dict[Kind, tuple[Format, ...]]:
        """Ours of both kinds, without those that were refused."""
        return {kind: self.formats(kind) for kind in Kind}

    def extensions(self, kind: Kind) -> tuple[Extmap, ...]:
        """Ours, without those that were refused."""
        offered = ((number, _URIS[extension]) for number, extension in _EXTENSIONS[kind].items())
        return tuple(Extmap(number, uri) for number, uri in offered if (kind, uri) not in self.refused_extensions)

    def media(self) -> MediaParameters:
        """For the engine: the meaning of our numbers, which no answer can change, only refuse."""
        payload_types = {}
        for kind in Kind:
            for each in self.formats(kind):
                nack = kind is Kind.VIDEO and each.associated < 0 and each.payload_type not in self.without_nack
                payload_types[each.payload_type] = replace(each.parameters(), nack=nack)
        extensions = {e.id: EXTENSION_URIS[e.uri] for kind in Kind for e in self.extensions(kind)}
        return MediaParameters(payload_types, extensions, self.mixed, frozenset(self.without_reports))


class OfferingConnection:
    """A client's connection on which we make the offers; the client only receives on it."""

    def __init__(self, engine: Engine, *, renews_sections: bool = False) -> None:
        """Open a transport; raises `EngineError` when there is no room for one.

        `renews_sections`: an m-section whose track went away gets another mid before it is used again, as RFC 8829
        section 5.2.2 lets an offerer do after a rejection. To the client it is a new one then, and the m-sections are
        no more than ever carried tracks at once.
        """
        self._engine = engine
        self._renews_sections = renews_sections
        self._mids = 0
        """Given to m-sections so far, beside that for data."""
        self._local = engine.open_transport()
        self.transport: TransportId = self._local.id
        self._remote: RemoteTransport | None = None
        self._forwardings = Forwardings(engine, self.transport)
        self.forwardings = self._forwardings.by_sid
        """Everything that is wanted, by the track's sid; for reading."""
        self._known = KnownSections()
        self._places: list[_Place] = []
        self._learned = _Learned()
        self._changed = True
        self._outstanding = False
        self._session_id = secrets.randbits(62)
        self._version = 0

    def want(self, track: WantedTrack) -> None:
        """Forward a track from the next offer on."""
        forwarding = self._forwardings.want(track)
        if forwarding.sent is None and not forwarding.declined:
            self._changed = True

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding at once; the client hears of it with the next offer."""
        self._forwardings.unwant(track_sid)
        if any(place.forwarding is not None and place.forwarding.track_sid == track_sid for place in self._places):
            self._changed = True

    def unsupported(self) -> frozenset[str]:
        """Wanted tracks none of whose codecs the client accepts, as far as its answers told."""
        waiting = self._forwardings.waiting()
        formats, matching = self._learned.all_formats(), Matching()
        return frozenset(
            each.track_sid
            for each in waiting
            if each.declined or not matching.takes(each.wanted, formats[each.wanted.kind])
        )

    def close(self) -> None:
        """Close the transport with all that is sent on it."""
        self._engine.close_transport(self.transport)
        self.forwardings.clear()
        self._places.clear()

    def offer(self, ice_restart: bool = False) -> tuple[str, dict[str, str]] | None:
        """(SDP, mid to track id) of the next offer; None while one is outstanding or when nothing changed.

        With `ice_restart` there always is one, with new credentials; it replaces an outstanding one, whose answer may
        have been lost with the client's socket.
        """
        if not ice_restart and (self._outstanding or not self._changed):
            return None
        if ice_restart and self._remote is not None:
            self._local = self._engine.restart_ice(self.transport)
        self._engine.set_media(self.transport, self._learned.media())
        self._place_tracks()
        self._changed = False
        self._outstanding = True
        return self._serialize(), dict(self._forwardings.by_mid())

    def accept_answer(self, sdp: str) -> None:
        """Take the answer to the outstanding offer; raises `SdpError`, with nothing changed, if it does not fit.

        Afterwards `offer` may have more to say: what was refused is offered in another way, or no longer.
        """
        if not self._outstanding:
            raise SdpError("an answer without an offer")
        session = parse(sdp, self._known)
        if len(session.sections) != 1 + len(self._places):
            raise SdpError("the answer has another number of m-sections than the offer")
        accepted = self._accepted(session)
        remote = remote_transport(session, accepted, self._remote)
        mids = {section.mid for section in accepted}
        self._outstanding = False
        for forwarding in self.forwardings.values():
            forwarding.answered = True
        if len(self._places) + 1 >= MAX_SECTIONS and any(place.resting for place in self._places):
            self._changed = True  # tracks may have waited for an m-section to have rested
        for place, section in zip(self._places, session.sections[1:], strict=True):
            if not place.dead:
                self._learn(place, section, session, accepted=place.mid in mids)
        self._engine.set_media(self.transport, self._learned.media())
        before, self._remote = self._remote, remote
        if before is None or before.ice != remote.ice:
            self._engine.connect(self.transport, remote)

    # Making an offer.

    def _place_tracks(self) -> None:
        """Settle which track goes on which m-section, and subscribe: the SSRCs stand in the offer."""
        for place in self._places:
            if place.forwarding is not None and not self._forwardings.holds(place.forwarding):
                place.rest(close=self._renews_sections)
        formats, matching = self._learned.all_formats(), Matching()
        live = [place for place in self._places if not place.dead]
        own = {place.forwarding: place for place in live if place.forwarding is not None}
        free = {
            kind: deque(p for p in live if p.kind is kind and p.forwarding is None and not p.resting) for kind in Kind
        }
        for forwarding in self._forwardings.waiting():
            track = forwarding.wanted
            selection = matching.select(track, formats[track.kind])
            if selection is None or forwarding.declined:
                continue
            chosen = own.get(forwarding) or next(iter(free[track.kind]), None) or self._new_place(track.kind)
            if chosen is not None and chosen.closed:
                chosen.renew(self._new_mid())
            if chosen is not None and self._forwardings.start(forwarding, chosen.mid, selection, paused=True):
                forwarding.answered = False
                chosen.forwarding = forwarding
                chosen.formats = self._formats_for(track, selection)
                if free[track.kind] and free[track.kind][0] is chosen:
                    free[track.kind].popleft()
            elif chosen is not None and chosen.forwarding is None and chosen not in free[track.kind]:
                free[track.kind].append(chosen)
        for place in self._places:
            if place.forwarding is not None and place.forwarding.sent is None:
                place.rest(close=self._renews_sections)

    def _new_place(self, kind: Kind) -> _Place | None:
        """One more m-section, at the end; None when there are as many as there may be."""
        if len(self._places) + 1 >= MAX_SECTIONS:
            return None
        self._places.append(_Place(self._new_mid(), kind, _COMMON[kind]))
        return self._places[-1]

    def _new_mid(self) -> str:
        self._mids += 1
        return str(self._mids)

    def _formats_for(self, track: WantedTrack, selection: Selection) -> tuple[Format, ...]:
        """The formats of a track: the used one, all others that would do (one answer tells), and the common ones."""
        ours = self._learned.formats(track.kind)
        chosen = list(selection.formats)
        others = [f for codec, description, _ in track.sources for f in decoders(codec, description, ours)]
        others += [f for f in ours if f in _COMMON[track.kind]]
        for other in others:
            if other not in chosen:
                chosen += [other, *companions(other, ours, Codec.RTX)]
        return tuple(chosen)

    # Writing the offer.

    def _serialize(self) -> str:
        self._version += 1
        live = [place.mid for place in self._places if not place.rejected]
        header = SessionDescription(
            origin=f"- {self._session_id} {self._version} IN IP4 127.0.0.1",
            bundles=((DATA_MID, *live),),
            ice_lite=True,
            extmap_allow_mixed=True,
        )
        transport = local_transport(self._local, Setup.ACTPASS)
        data = with_candidates(data_section(DATA_MID, transport), self._local)
        return header.serialize() + data.serialize() + "".join(self._place_text(place) for place in self._places)

    def _place_text(self, place: _Place) -> str:
        current, track = _what_is_sent(place)
        extensions = self._learned.extensions(place.kind)
        key = (self._local, place.mid, place.formats, extensions, place.rejected, current, track)
        if place.offered[0] != key:
            place.offered = key, self._place_section(place, extensions).serialize()
        return place.offered[1]

    def _place_section(self, place: _Place, extensions: tuple[Extmap, ...]) -> Section:
        if place.rejected:
            numbers = tuple(str(f.payload_type) for f in place.formats)
            return Section(place.kind.value, 0, profile=Profile(numbers), mid=place.mid)
        current, track = _what_is_sent(place)
        opus = OPUS_FMTP + ";sprop-stereo=1" * (track is not None and track.stereo)
        feedback = FEEDBACK if place.kind is Kind.VIDEO else ("transport-cc",)
        formats = [replace(f, feedback=() if f.associated >= 0 else feedback) for f in place.formats]
        section = Section(
            kind=place.kind.value,
            profile=build_profile(formats, extensions, opus=opus),
            mid=place.mid,
            direction=Direction.SENDONLY if current else Direction.INACTIVE,
            rtcp_mux=True,
            rtcp_rsize=True,
            transport=local_transport(self._local, Setup.ACTPASS),
        )
        return with_track(section, track, current.local) if track and current else section

    # Reading the answer.

    def _accepted(self, session: SessionDescription) -> tuple[Section, ...]:
        """The m-sections that the client accepted; an m-section may leave out its mid only by being rejected."""
        expected = [DATA_MID, *(place.mid for place in self._places)]
        for mid, section in zip(expected, session.sections, strict=True):
            if section.mid not in ("", mid):
                raise SdpError(f'the answer has m-section "{section.mid}" in the place of "{mid}"')
        usable = {section.mid: section for section in session.sections if is_acceptable(section)}
        accepted = tuple(usable[mid] for mid in bundled_mids(session) if mid in usable)
        if not accepted:
            raise SdpError("the answer accepts no m-section of the bundle")
        return accepted

    def _learn(self, place: _Place, section: Section, session: SessionDescription, *, accepted: bool) -> None:
        place.resting = False
        if place.closed:
            return
        forwarding = place.forwarding
        place.dead, place.known = not accepted, True
        if self._renews_sections and accepted and forwarding is None:
            place.rest(close=True)
            self._changed = True
        if forwarding is None or forwarding.sent is None:
            return
        current = forwarding.sent
        if not accepted or not session.direction_of(section).receives:
            forwarding.declined = True
            self._withdraw(forwarding)
            return
        media = current.selection.media
        answered_numbers = set(section.profile.formats)
        missing = {f.payload_type for f in current.selection.formats if str(f.payload_type) not in answered_numbers}
        if media.payload_type in missing:
            variants = (f.payload_type for f in place.formats if f.codec is media.codec)
            missing |= {number for number in variants if str(number) not in answered_numbers}
        if missing:
            self._learned.refused_payload_types |= missing
            self._withdraw(forwarding)
        self._learned.mixed = session.allows_mixed(section)
        answered = {extension.uri for extension in section.profile.extensions}
        offered = {extension.uri for extension in self._learned.extensions(place.kind)}
        self._learned.refused_extensions |= {(place.kind, uri) for uri in offered - answered}
        if not reports_arrivals(section.profile):
            self._learned.without_reports.add(place.kind)
        if not any(f.value == "nack" and f.payload_type in (media.payload_type, -1) for f in section.profile.feedback):
            self._learned.without_nack.add(media.payload_type)

    def _withdraw(self, forwarding: Forwarding) -> None:
        """Stop sending; the next offer says so, or sends the track in another way on the same m-section."""
        self._forwardings.stop(forwarding)
        self._changed = True


def _what_is_sent(place: _Place) -> tuple[Sent | None, WantedTrack | None]:
    forwarding = place.forwarding
    return (forwarding.sent, forwarding.wanted) if forwarding is not None else (None, None)
