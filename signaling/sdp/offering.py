"""The peer connection on which we offer: the subscriber connection of a client with two of them.

Who calls it: the renegotiation of a participant. The first m-section is for data channels, so that there always is one.
Each other m-section carries one track and keeps its mid. When its track goes away, it is inactive in one offer, and
then may carry another track. For clients that announce a track only once on each m-section, it is rejected instead, and
used again under another mid. One offer is outstanding at a time; later changes go into the next one.
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
from signaling.sdp.candidates import Trickled, chosen, with_candidates
from signaling.sdp.codecs import BASELINE_FMTP, OPUS_FMTP, OWN_FORMATS, Format, companions, decoders
from signaling.sdp.forwarding import Forwarding, Forwardings, what_is_sent
from signaling.sdp.matching import Matching
from signaling.sdp.negotiation import (
    FEEDBACK,
    Selection,
    WantedTrack,
    build_profile,
    data_section,
    local_transport,
    remote_transport,
    reports_arrivals,
    with_track,
)
from signaling.sdp.offered import bundled_mids, is_acceptable
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
"""The extension ids that we offer. All fit the one-byte form."""
_URIS = {extension: uri for uri, extension in EXTENSION_URIS.items()}
_COMMON = {
    kind: tuple(f for f in formats if f.codec in (Codec.OPUS, Codec.VP8) or f.fmtp == BASELINE_FMTP)
    for kind, formats in OWN_FORMATS.items()
}
"""The formats that are offered in addition to a track's own, so that a client with none of those keeps the m-section
for the next track. For video they are the two that browsers must have (RFC 7742 section 5). pion may know only one of
them, and fails on the whole description if it knows no codec of an m-section."""


@dataclass(slots=True)
class _MSection:
    """One audio or video m-section of ours."""

    mid: str
    kind: Kind
    formats: tuple[Format, ...] = ()
    """The formats that were offered last, with the one in use first."""
    forwarding: Forwarding | None = None
    """The track that is sent here, or was sent until it was no longer wanted."""
    resting: bool = False
    """The track went away, and the client has not yet answered an offer that said so."""
    dead: bool = False
    """The client rejected it, for good."""
    closed: bool = False
    """We reject it since its track went away, until it is used again under another mid."""
    known: bool = False
    """The client has answered an offer with this mid. Before that, the client may not have seen the mid; it must not be
    offered a rejected m-section with another mid than it knows."""
    offered: tuple[object, str] = (None, "")
    """(what its text in the last offer depended on, that text)."""

    @property
    def rejected(self) -> bool:
        """Whether it is offered with port 0, outside the bundle."""
        return self.dead or self.closed

    def rest(self, *, close: bool) -> None:
        """Take its track away, and if `close`, reject it once the client knows its mid."""
        self.forwarding, self.resting, self.closed = None, True, close and self.known

    def renew(self, mid: str) -> None:
        """Use it again under a mid that is new to the client."""
        self.mid, self.closed, self.known = mid, False, False


@dataclass(slots=True)
class _Learned:
    """What this client's answers have refused."""

    refused_payload_types: set[int] = field(default_factory=set)
    without_nack: set[int] = field(default_factory=set)
    refused_extensions: set[tuple[Kind, str]] = field(default_factory=set)
    """(kind, URI): browsers support different ones for audio and video."""
    without_reports: set[Kind] = field(default_factory=set)
    """Without transport-cc."""
    mixed: bool = False

    def formats(self, kind: Kind) -> tuple[Format, ...]:
        """Return what we offer, without what was refused."""
        return tuple(f for f in OWN_FORMATS[kind] if f.payload_type not in self.refused_payload_types)

    def all_formats(self) -> dict[Kind, tuple[Format, ...]]:
        """Return the formats that we offer, of both kinds, without those that were refused."""
        return {kind: self.formats(kind) for kind in Kind}

    def extensions(self, kind: Kind) -> tuple[Extmap, ...]:
        """Return what we offer, without what was refused."""
        offered = ((number, _URIS[extension]) for number, extension in _EXTENSIONS[kind].items())
        return tuple(Extmap(number, uri) for number, uri in offered if (kind, uri) not in self.refused_extensions)

    def media(self) -> MediaParameters:
        """Return the meaning of our numbers for the engine. An answer can refuse them, but not change them."""
        payload_types = {}
        for kind in Kind:
            for each in self.formats(kind):
                nack = kind is Kind.VIDEO and each.associated < 0 and each.payload_type not in self.without_nack
                payload_types[each.payload_type] = replace(each.parameters(), nack=nack)
        extensions = {e.id: EXTENSION_URIS[e.uri] for kind in Kind for e in self.extensions(kind)}
        return MediaParameters(payload_types, extensions, self.mixed, frozenset(self.without_reports))


class OfferingConnection:
    """A client's connection on which we make the offers; the client only receives on it."""

    def __init__(
        self,
        engine: Engine,
        *,
        renews_sections: bool = False,
        may_pause: bool = False,
        path_memory: int = 0,
        beside: TransportId | None = None,
        only_tcp: bool = False,
    ) -> None:
        """Open a transport.

        Args:
            engine: the media engine.
            renews_sections: give an m-section whose track went away another mid before it is used again, as RFC 8829
                section 5.2.2 allows after a rejection. It is a new one to the client then, and there are never more
                m-sections than tracks were sent at one time.
            may_pause: see `Engine.open_transport`.
            path_memory: see `Engine.open_transport`.
            beside: see `Engine.open_transport`.
            only_tcp: the client is given TCP candidates only, if there are any.

        Raises:
            EngineError: the engine has no room for a transport.
        """
        self._engine = engine
        self._renews_sections = renews_sections
        self._mids = 0
        """The number of mids given so far, without that of the data channels."""
        self._only_tcp = only_tcp
        self._local = chosen(engine.open_transport(may_pause, path_memory, beside), only_tcp)
        self.transport: TransportId = self._local.id
        self._remote: RemoteTransport | None = None
        self._forwardings = Forwardings(engine, self.transport)
        self.forwardings = self._forwardings.by_sid
        """The wanted tracks, by sid. Only `Forwardings` changes this."""
        self._known = KnownSections()
        self._m_sections: list[_MSection] = []
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
        if any(each.forwarding is not None and each.forwarding.track_sid == track_sid for each in self._m_sections):
            self._changed = True

    def unsupported(self) -> frozenset[str]:
        """Return the sids of wanted tracks for which the client has no codec, as far as its answers show."""
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
        self._m_sections.clear()

    def offer(self, ice_restart: bool = False) -> tuple[str, dict[str, str]] | None:
        """Return the next offer as (SDP, mid to track id); None while one is outstanding, or if nothing changed.

        With `ice_restart` there always is one, with new credentials. It replaces an outstanding offer, whose answer may
        have been lost with the client's socket.
        """
        if not ice_restart and (self._outstanding or not self._changed):
            return None
        if ice_restart and self._remote is not None:
            self._local = chosen(self._engine.restart_ice(self.transport), self._only_tcp)
        self._engine.set_media(self.transport, self._learned.media())
        self._assign_tracks()
        self._changed = False
        self._outstanding = True
        return self._serialize(), dict(self._forwardings.by_mid())

    def candidates(self) -> Trickled:
        """Return our candidates of the last offer."""
        return Trickled(self._local, DATA_MID)

    def accept_answer(self, sdp: str) -> None:
        """Take the answer to the outstanding offer.

        Afterwards there may be a next offer, which offers what was refused in another way or no longer.

        Raises:
            SdpError: the answer does not fit the offer; nothing was changed.
        """
        if not self._outstanding:
            raise SdpError("an answer without an offer")
        session = parse(sdp, self._known)
        if len(session.sections) != 1 + len(self._m_sections):
            raise SdpError("the answer has another number of m-sections than the offer")
        accepted = self._accepted(session)
        remote = remote_transport(session, accepted, self._remote)
        mids = {section.mid for section in accepted}
        self._outstanding = False
        for forwarding in self.forwardings.values():
            forwarding.answered = True
        if len(self._m_sections) + 1 >= MAX_SECTIONS and any(each.resting for each in self._m_sections):
            self._changed = True  # tracks may have waited for an m-section to have rested
        for m_section, section in zip(self._m_sections, session.sections[1:], strict=True):
            if not m_section.dead:
                self._learn(m_section, section, session, accepted=m_section.mid in mids)
        self._engine.set_media(self.transport, self._learned.media())
        before, self._remote = self._remote, remote
        if before is None or before.ice != remote.ice:
            self._engine.connect(self.transport, remote)

    # Making an offer.

    def _assign_tracks(self) -> None:
        """Assign tracks to m-sections, and subscribe to them, because the offer names their SSRCs."""
        for m_section in self._m_sections:
            if m_section.forwarding is not None and not self._forwardings.holds(m_section.forwarding):
                m_section.rest(close=self._renews_sections)
        formats, matching = self._learned.all_formats(), Matching()
        live = [each for each in self._m_sections if not each.dead]
        own = {each.forwarding: each for each in live if each.forwarding is not None}
        free = {
            kind: deque(each for each in live if each.kind is kind and each.forwarding is None and not each.resting)
            for kind in Kind
        }
        for forwarding in self._forwardings.waiting():
            track = forwarding.wanted
            selection = matching.select(track, formats[track.kind])
            if selection is None or forwarding.declined:
                continue
            chosen = own.get(forwarding) or next(iter(free[track.kind]), None) or self._new_section(track.kind)
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
        for m_section in self._m_sections:
            if m_section.forwarding is not None and m_section.forwarding.sent is None:
                m_section.rest(close=self._renews_sections)

    def _new_section(self, kind: Kind) -> _MSection | None:
        """Add an m-section at the end; None if there are `MAX_SECTIONS`."""
        if len(self._m_sections) + 1 >= MAX_SECTIONS:
            return None
        self._m_sections.append(_MSection(self._new_mid(), kind, _COMMON[kind]))
        return self._m_sections[-1]

    def _new_mid(self) -> str:
        self._mids += 1
        return str(self._mids)

    def _formats_for(self, track: WantedTrack, selection: Selection) -> tuple[Format, ...]:
        """Return the formats to offer for a track: the one in use, all others that fit, and the common ones."""
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
        live = [each.mid for each in self._m_sections if not each.rejected]
        header = SessionDescription(
            origin=f"- {self._session_id} {self._version} IN IP4 127.0.0.1",
            bundles=((DATA_MID, *live),),
            ice_lite=True,
            extmap_allow_mixed=True,
        )
        transport = local_transport(self._local, Setup.ACTPASS)
        data = with_candidates(data_section(DATA_MID, transport), self._local)
        return header.serialize() + data.serialize() + "".join(self._section_text(each) for each in self._m_sections)

    def _section_text(self, m_section: _MSection) -> str:
        current, track = what_is_sent(m_section.forwarding)
        extensions = self._learned.extensions(m_section.kind)
        key = (self._local, m_section.mid, m_section.formats, extensions, m_section.rejected, current, track)
        if m_section.offered[0] != key:
            m_section.offered = key, self._offered_section(m_section, extensions).serialize()
        return m_section.offered[1]

    def _offered_section(self, m_section: _MSection, extensions: tuple[Extmap, ...]) -> Section:
        if m_section.rejected:
            numbers = tuple(str(f.payload_type) for f in m_section.formats)
            return Section(m_section.kind.value, 0, profile=Profile(numbers), mid=m_section.mid)
        current, track = what_is_sent(m_section.forwarding)
        opus = OPUS_FMTP + ";sprop-stereo=1" * (track is not None and track.stereo)
        feedback = FEEDBACK if m_section.kind is Kind.VIDEO else ("transport-cc",)
        formats = [replace(f, feedback=() if f.associated >= 0 else feedback) for f in m_section.formats]
        section = Section(
            kind=m_section.kind.value,
            profile=build_profile(formats, extensions, opus=opus),
            mid=m_section.mid,
            direction=Direction.SENDONLY if current else Direction.INACTIVE,
            rtcp_mux=True,
            rtcp_rsize=True,
            transport=local_transport(self._local, Setup.ACTPASS),
        )
        return with_track(section, track, current.local) if track and current else section

    # Reading the answer.

    def _accepted(self, session: SessionDescription) -> tuple[Section, ...]:
        """Return the m-sections that the client accepted. Only a rejected one may leave out its mid."""
        expected = [DATA_MID, *(each.mid for each in self._m_sections)]
        for mid, section in zip(expected, session.sections, strict=True):
            if section.mid not in ("", mid):
                raise SdpError(f'the answer has m-section "{section.mid}" in the place of "{mid}"')
        usable = {section.mid: section for section in session.sections if is_acceptable(section)}
        accepted = tuple(usable[mid] for mid in bundled_mids(session) if mid in usable)
        if not accepted:
            raise SdpError("the answer accepts no m-section of the bundle")
        return accepted

    def _learn(self, m_section: _MSection, section: Section, session: SessionDescription, *, accepted: bool) -> None:
        m_section.resting = False
        if m_section.closed:
            return
        forwarding = m_section.forwarding
        m_section.dead, m_section.known = not accepted, True
        if self._renews_sections and accepted and forwarding is None:
            m_section.rest(close=True)
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
            variants = (f.payload_type for f in m_section.formats if f.codec is media.codec)
            missing |= {number for number in variants if str(number) not in answered_numbers}
        if missing:
            self._learned.refused_payload_types |= missing
            self._withdraw(forwarding)
        self._learned.mixed = session.allows_mixed(section)
        answered = {extension.uri for extension in section.profile.extensions}
        offered = {extension.uri for extension in self._learned.extensions(m_section.kind)}
        self._learned.refused_extensions |= {(m_section.kind, uri) for uri in offered - answered}
        if not reports_arrivals(section.profile):
            self._learned.without_reports.add(m_section.kind)
        if not any(f.value == "nack" and f.payload_type in (media.payload_type, -1) for f in section.profile.feedback):
            self._learned.without_nack.add(media.payload_type)

    def _withdraw(self, forwarding: Forwarding) -> None:
        """Stop sending a track. The next offer says so, or offers the track in another way on its m-section."""
        self._forwardings.stop(forwarding)
        self._changed = True
