"""The peer connection on which the client offers: it publishes there and, in single mode, receives there too.

Who calls it: the renegotiation of a participant. It knows m-sections and the engine, and no rooms. A call of
`AnsweringConnection.answer` decides everything before it calls the engine. An m-section that did not change costs one
look-up.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import structlog

from sfu.engine import Engine, EngineError
from sfu.parameters import (
    Kind,
    PublishParameters,
    RemoteTransport,
    TransportId,
)
from signaling.sdp.answer import AnswerWriter
from signaling.sdp.bundle import Bundle
from signaling.sdp.candidates import Trickled, chosen, trickled
from signaling.sdp.codecs import PRIMARY, Format, announced, descriptions, supported_formats
from signaling.sdp.forwarding import Forwarding, Forwardings, Sent
from signaling.sdp.m_sections import Layout, MSection, Published
from signaling.sdp.matching import FreeSections, Matching, kind_of_source
from signaling.sdp.negotiation import (
    Beginning,
    PublishDecision,
    WantedTrack,
    accepted_extensions,
    publish_formats,
    remote_transport,
)
from signaling.sdp.offered import (
    SendingSection,
    bundled_mids,
    encodings_of,
    is_acceptable,
    is_data,
    kind_of,
    sending_section,
    track_id,
)
from signaling.sdp.offering import OfferingConnection
from signaling.sdp.parsing import KnownSections, SdpError, parse
from signaling.sdp.session_description import Section, SessionDescription

__all__ = ["AnswerResult", "AnsweringConnection", "Beginning", "OfferingConnection", "PublishDecision", "Published"]
__all__ += ["SdpError", "SendingSection", "WantedTrack"]

log = structlog.get_logger("signaling.peer_connection")


@dataclass(frozen=True, slots=True)
class AnswerResult:
    """The answer to one offer, and what the offer changed."""

    sdp: str
    mid_to_track_id: dict[str, str]
    published: tuple[Published, ...]
    """Engine tracks that the offer started."""
    ended: tuple[Published, ...]
    """Engine tracks that the offer stopped. The engine has closed them already."""
    changed: tuple[Published, ...] = ()
    """Engine tracks that may send in other formats than before."""
    candidates: Trickled | None = None
    """Our candidates in the answer; None: it accepts no m-section."""


class AnsweringConnection:
    """A client's connection on which the client makes the offers."""

    def __init__(
        self, engine: Engine, *, may_pause: bool = False, path_memory: int = 0, only_tcp: bool = False
    ) -> None:
        """Open a transport.

        Args:
            engine: the media engine.
            may_pause, path_memory: see `Engine.open_transport`.
            only_tcp: the client is given TCP candidates only, if there are any.

        Raises:
            EngineError: the engine has no room for one.
        """
        self._engine = engine
        self._only_tcp = only_tcp
        self._local = chosen(engine.open_transport(may_pause, path_memory), only_tcp)
        self.transport: TransportId = self._local.id
        self._remote: RemoteTransport | None = None
        self._forwardings = Forwardings(engine, self.transport)
        self.forwardings = self._forwardings.by_sid
        """The wanted tracks, by sid. Only `Forwardings` changes this."""
        self._known = KnownSections()
        self._m_sections: dict[str, MSection] = {}
        self._writer = AnswerWriter()

    def answer(self, offer: str, decide: Callable[[SendingSection], PublishDecision | None]) -> AnswerResult:
        """Take an offer, call the engine and return the answer.

        `decide` is called for each m-section on which the client sends and nothing is received yet: new ones, those
        refused before, and those whose track changed.

        Raises:
            SdpError: the offer cannot be used; nothing was changed.
        """
        layout = self._lay_out(parse(offer, self._known))
        # With every m-section rejected the transport stays as it is.
        remote = remote_transport(layout.session, layout.bundle, self._remote) if layout.bundle else None
        ended = self._end_publications(layout.m_sections)
        undecided = [each for each in layout.m_sections.values() if each.direction.sends and each.published is None]
        for m_section in undecided:
            has_rids = m_section.has_rids
            m_section.decision = decide(sending_section(m_section.section, m_section.kind, m_section.formats, has_rids))
        before, self._m_sections = self._m_sections, layout.m_sections
        receiving = (each.section for each in layout.m_sections.values() if each.direction.receives)
        self._engine.set_media(self.transport, layout.registry.parameters(layout.mixed, receiving))
        changed = self._change_publications(before)
        published = tuple(p for each in undecided if (p := self._publish(each)) is not None)
        self._forward()
        self._connect(remote)
        sdp, tracks = self._writer.write(layout, self._local, self._remote), self._mid_to_track_id()
        candidates = trickled(self._local, layout.bundle, layout.session.sections)
        return AnswerResult(sdp, tracks, published, ended, changed, candidates)

    def want(self, track: WantedTrack) -> None:
        """Forward a track from the next answer on."""
        self._forwardings.want(track)

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding at once. The next answer tells the client, and frees the m-section."""
        self._forwardings.unwant(track_sid)

    def receiving_sections(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the mids of (audio, video) m-sections in the last offer on which the client only receives."""
        usable = self._usable()
        audio, video = (
            frozenset(each.mid for each in usable if each.kind is kind) for kind in (Kind.AUDIO, Kind.VIDEO)
        )
        return audio, video

    def _usable(self) -> list[MSection]:
        return [each for each in self._m_sections.values() if each.direction.receives and each.published is None]

    def missing_sections(self) -> tuple[int, int] | None:
        """Return how many (audio, video) m-sections the next offer must add; None: no offer is needed.

        (0, 0) asks for an offer with the m-sections that there are. The first offer comes without being asked for.
        """
        if not self._m_sections and self._remote is None:
            return None
        usable = self._usable()
        spare = [each for each in usable if not self._forwardings.holds(each.forwarding)]
        missing = {Kind.AUDIO: 0, Kind.VIDEO: 0}
        outdated = any(each.forwarding is not None for each in spare)
        matching = Matching()
        free = FreeSections(spare, matching)
        held = {each.forwarding: each for each in usable if self._forwardings.holds(each.forwarding)}
        for forwarding in self._supported_waiting(matching):
            outdated = True
            own, track = held.get(forwarding), forwarding.wanted
            if own is not None and own.kind is track.kind and matching.takes(track, own.formats):
                continue
            m_section = free.find(track)
            if m_section is None:
                missing[track.kind] += 1
            else:
                free.take(m_section)
        return (missing[Kind.AUDIO], missing[Kind.VIDEO]) if outdated else None

    def unsupported(self) -> frozenset[str]:
        """Return the sids of wanted tracks for which the client offers no codec; empty before its first offer."""
        waiting = self._forwardings.waiting()
        supported = {each.track_sid for each in self._supported_waiting(Matching())}
        return frozenset(each.track_sid for each in waiting) - supported

    def close(self) -> None:
        """Close the transport with all that is received and sent on it."""
        self._engine.close_transport(self.transport)
        self._m_sections.clear()
        self.forwardings.clear()

    def _supported_waiting(self, matching: Matching) -> Iterator[Forwarding]:
        offered: dict[Kind, dict[int, tuple[Format, ...]]] = {kind: {} for kind in Kind}
        for m_section in self._m_sections.values():
            if m_section.direction.receives:
                offered[m_section.kind][id(m_section.formats)] = m_section.formats
        known: dict[tuple[object, ...], bool] = {}
        for forwarding in self._forwardings.waiting():
            track = forwarding.wanted
            kind = track.kind, *map(kind_of_source, track.sources)
            if kind not in known:
                candidates = offered[track.kind].values()
                known[kind] = not candidates or any(matching.takes(track, formats) for formats in candidates)
            if known[kind]:
                yield forwarding

    # Reading the offer.

    def _lay_out(self, session: SessionDescription) -> Layout:
        by_mid = {section.mid: section for section in session.sections if is_acceptable(section)}
        mixed = True
        m_sections: dict[str, MSection] = {}
        bundle = []
        data = False
        registry = Bundle()
        for mid in bundled_mids(session):
            section = by_mid.get(mid)
            if section is None or (is_data(section) and data):
                continue
            if is_data(section):
                data = True
            elif (m_section := self._admit(session, section, registry)) is not None:
                m_sections[mid] = m_section
                mixed = mixed and session.allows_mixed(section)
            else:
                continue
            bundle.append(section)
        if not bundle and self._remote is None:
            raise SdpError("the offer has no m-section that can be used: BUNDLE with rtcp-mux over DTLS is needed")
        return Layout(session, tuple(bundle), m_sections, mixed and bool(m_sections), registry)

    def _admit(self, session: SessionDescription, section: Section, registry: Bundle) -> MSection | None:
        """Return the state of an m-section, as a changed copy of its earlier state; None: it has no codec of ours."""
        kind = kind_of(section)
        assert kind is not None, "an acceptable m-section that is not for data is audio or video"
        old = self._m_sections.get(section.mid)
        direction = session.direction_of(section)
        if old is not None and old.kind is kind:
            m_section = replace(old, section=section, direction=direction)
        else:
            m_section = MSection(section, kind, direction)
        m_section.formats = registry.admit_formats(supported_formats(section.profile, kind))
        extensions = accepted_extensions(section.profile, session.allows_mixed(section))
        m_section.extensions = registry.admit_extensions(extensions)
        return m_section if any(f.codec in PRIMARY for f in m_section.formats) else None

    # Calling the engine.

    def _end_publications(self, m_sections: dict[str, MSection]) -> tuple[Published, ...]:
        """Unpublish what the client no longer sends."""
        ended = []
        for mid, old in self._m_sections.items():
            new = m_sections.get(mid)
            if old.published is None:
                continue
            stays = new is not None and new.published is old.published and new.direction.sends
            if new is not None and stays and track_id(new.section) == old.published.cid:
                continue
            self._engine.unpublish(old.published.engine_track)
            ended.append(old.published)
            if new is not None:
                new.published = new.decision = None
        return tuple(ended)

    def _change_publications(self, before: dict[str, MSection]) -> tuple[Published, ...]:
        """Let the client send what is published already in the formats of this offer."""
        changed = []
        for mid, old in before.items():
            new = self._m_sections.get(mid)
            if new is None or new.published is None or new.decision is None or new.formats == old.formats:
                continue
            formats = publish_formats(new.formats, new.decision)
            new.published = replace(new.published, formats=descriptions(formats))
            self._engine.set_codecs(new.published.engine_track, new.decision.admitted(formats))
            changed.append(new.published)
        return tuple(changed)

    def _publish(self, m_section: MSection) -> Published | None:
        if (decision := m_section.decision) is None:
            return None
        formats = publish_formats(m_section.formats, decision)
        accepted = next(f for f in formats if f.codec in PRIMARY)
        encodings = announced(encodings_of(m_section.section, m_section.has_rids), decision.bitrates, accepted.codec)
        try:
            parameters = PublishParameters(
                m_section.kind, m_section.mid, encodings, *decision.voices, decision.admitted(formats), decision.screen
            )
            engine_track = self._engine.publish(self.transport, parameters)
        except EngineError as error:
            log.warning("publication refused", track=decision.track_sid, reason=str(error))
            m_section.decision = None
            return None
        m_section.published = Published(
            mid=m_section.mid,
            track_sid=decision.track_sid,
            cid=track_id(m_section.section),
            engine_track=engine_track,
            kind=m_section.kind,
            codec=accepted.codec,
            fmtp=accepted.description,
            formats=descriptions(formats),
            streams=len(encodings),
        )
        return m_section.published

    def _forward(self) -> None:
        """Assign tracks to m-sections: tracks that are sent stay, tracks that wait get a free one."""
        for forwarding in self.forwardings.values():
            if forwarding.sent is not None:
                m_section = self._m_sections.get(forwarding.sent.mid)
                if m_section is None or not _still_sends(m_section, forwarding, forwarding.sent):
                    self._forwardings.stop(forwarding)
        for m_section in self._m_sections.values():
            before, usable = m_section.forwarding, m_section.direction.receives and m_section.published is None
            m_section.resting = before is not None and not (usable and self._forwardings.holds(before))
            if m_section.resting:
                m_section.forwarding = None
        matching = Matching()
        m_sections = {each.forwarding: each for each in self._m_sections.values() if each.forwarding is not None}
        free = FreeSections((each for each in self._m_sections.values() if each.free and not each.resting), matching)
        for forwarding in self._forwardings.waiting():
            self._start(forwarding, m_sections.get(forwarding), free, matching)

    def _start(
        self, forwarding: Forwarding, own: MSection | None, free: FreeSections[MSection], matching: Matching
    ) -> None:
        """Send a track on the m-section that it had, or else on the first free one that takes it."""
        track = forwarding.wanted
        takes = own is not None and own.kind is track.kind and matching.takes(track, own.formats)
        if own is not None and not takes:
            own.forwarding, own.resting = None, True
        m_section = own if takes else free.find(track)
        selection = matching.select(track, m_section.formats) if m_section is not None else None
        if m_section is None or selection is None or not self._forwardings.start(forwarding, m_section.mid, selection):
            return
        m_section.forwarding = forwarding
        free.take(m_section)

    def _connect(self, remote: RemoteTransport | None) -> None:
        """Connect the transport by the first description. New credentials restart ICE (RFC 8839 section 4.4.1.1)."""
        before, self._remote = self._remote, remote or self._remote
        if remote is None:
            return
        restarted = before is not None and remote.ice != before.ice
        if restarted:
            self._local = chosen(self._engine.restart_ice(self.transport), self._only_tcp)
        if before is None or restarted or remote.sctp_port != before.sctp_port:
            self._engine.connect(self.transport, remote)

    def _mid_to_track_id(self) -> dict[str, str]:
        published = {each.mid: each.published.track_sid for each in self._m_sections.values() if each.published}
        return published | dict(self._forwardings.by_mid())


def _still_sends(m_section: MSection, forwarding: Forwarding, current: Sent) -> bool:
    """Tell whether a running subscription still fits its m-section."""
    unchanged = {f.payload_type: f.codec for f in m_section.formats}
    return (
        m_section.forwarding is forwarding
        and m_section.published is None
        and m_section.direction.receives
        and all(unchanged.get(f.payload_type) is f.codec for f in current.selection.formats)
    )
