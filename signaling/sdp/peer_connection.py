"""The peer connection on which the client offers: it publishes there and, in single mode, receives there too.

Who calls it: the room's side of a participant. It knows m-sections and the engine, no rooms. One call of
`AnsweringConnection.answer` is one offer and answer: everything is decided before the engine is told, and an m-section
that neither the client nor we have changed costs a look-up.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import structlog

from sfu.engine import Engine, EngineError
from sfu.parameters import (
    Codec,
    DtlsRole,
    Kind,
    PublishParameters,
    RemoteTransport,
    TrackId,
    TransportId,
)
from signaling.sdp.codecs import OPUS_FMTP, PRIMARY, Format, supported_formats
from signaling.sdp.forwarding import Forwarding, Forwardings, Sent
from signaling.sdp.matching import Matching, Vacancies, kind_of_source
from signaling.sdp.negotiation import (
    RID_URI,
    Beginning,
    Bundle,
    PublishDecision,
    SendingSection,
    WantedTrack,
    accepted_extensions,
    answered_feedback,
    build_profile,
    bundled_mids,
    data_section,
    encodings_of,
    is_acceptable,
    is_data,
    kind_of,
    local_transport,
    opus_fmtp,
    publish_extensions,
    publish_formats,
    rejected_section,
    remote_transport,
    sending_section,
    track_id,
    used_first,
    with_candidates,
    with_simulcast,
    with_track,
)
from signaling.sdp.offering import OfferingConnection
from signaling.sdp.parsing import KnownSections, SdpError, parse
from signaling.sdp.session_description import Direction, Extmap, Section, SessionDescription, Setup, Transport

__all__ = [
    "AnswerResult",
    "AnsweringConnection",
    "Beginning",
    "OfferingConnection",
    "PublishDecision",
    "Published",
    "SdpError",
    "SendingSection",
    "WantedTrack",
]

log = structlog.get_logger("signaling.peer_connection")


@dataclass(frozen=True, slots=True)
class Published:
    """An engine track that an offer started or stopped."""

    mid: str
    track_sid: str
    cid: str
    engine_track: TrackId
    kind: Kind
    codec: Codec
    """The codec preferred; what the client really sends is told by the engine."""
    fmtp: str
    """Belongs into `WantedTrack.sources`."""
    formats: tuple[tuple[int, Codec, str], ...] = ()
    """(payload type, codec, `Format.description`) of what was accepted, in this order; without RTX."""


@dataclass(frozen=True, slots=True)
class AnswerResult:
    """What one offer led to."""

    sdp: str
    mid_to_track_id: dict[str, str]
    published: tuple[Published, ...]
    """New engine tracks."""
    ended: tuple[Published, ...]
    """Engine tracks that the offer stopped; the engine knows already."""
    changed: tuple[Published, ...] = ()
    """Engine tracks that may send in other formats than before."""


@dataclass(slots=True)
class _Slot:
    """One bundled audio or video m-section."""

    section: Section
    kind: Kind
    direction: Direction
    """The client's."""
    formats: tuple[Format, ...] = ()
    """Those of the client that we support and the bundle admits."""
    extensions: tuple[Extmap, ...] = ()
    decision: PublishDecision | None = None
    published: Published | None = None
    forwarding: Forwarding | None = None
    """What we send here, or sent until its track was no longer wanted."""
    resting: bool = False
    """The last answer took the track away. Clients announce a track on an m-section only if it was quiet before."""
    answered: tuple[object, str] = (None, "")
    """(what the last answer for this m-section depended on, its text)."""

    @property
    def mid(self) -> str:
        return self.section.mid

    @property
    def free(self) -> bool:
        return self.direction.receives and self.published is None and self.forwarding is None


@dataclass(slots=True)
class _Layout:
    """An offer, looked at."""

    session: SessionDescription
    bundle: tuple[Section, ...]
    """Accepted m-sections in the order of the group; the first one carries the transport."""
    slots: dict[str, _Slot]
    mixed: bool
    registry: Bundle = field(default_factory=Bundle)


class AnsweringConnection:
    """A client's connection on which the client makes the offers."""

    def __init__(self, engine: Engine) -> None:
        """Open a transport; raises `EngineError` when there is no room for one."""
        self._engine = engine
        self._local = engine.open_transport()
        self.transport: TransportId = self._local.id
        self._remote: RemoteTransport | None = None
        self._forwardings = Forwardings(engine, self.transport)
        self.forwardings = self._forwardings.by_sid
        """Everything that is wanted, by the track's sid; for reading."""
        self._known = KnownSections()
        self._slots: dict[str, _Slot] = {}
        self._session_id = secrets.randbits(62)
        self._version = 0

    def answer(self, offer: str, decide: Callable[[SendingSection], PublishDecision | None]) -> AnswerResult:
        """Take an offer, tell the engine, return the answer.

        `decide` is asked for each m-section on which the client sends and nothing is received yet: new ones, those
        refused before, and those whose track changed. Raises `SdpError`, with nothing changed, when the offer cannot
        be used.
        """
        layout = self._lay_out(parse(offer, self._known))
        # With every m-section rejected the transport stays as it is.
        remote = remote_transport(layout.session, layout.bundle, self._remote) if layout.bundle else None
        ended = self._end_publications(layout.slots)
        undecided = [slot for slot in layout.slots.values() if slot.direction.sends and slot.published is None]
        for slot in undecided:
            slot.decision = decide(sending_section(slot.section, slot.kind, slot.formats, _has_rids(slot)))
        before, self._slots = self._slots, layout.slots
        receiving = (slot.section for slot in layout.slots.values() if slot.direction.receives)
        self._engine.set_media(self.transport, layout.registry.parameters(layout.mixed, receiving))
        changed = self._change_publications(before)
        published = tuple(p for slot in undecided if (p := self._publish(slot)) is not None)
        self._forward()
        self._connect(remote)
        return AnswerResult(self._serialize(layout), self._mid_to_track_id(), published, ended, changed)

    def want(self, track: WantedTrack) -> None:
        """Forward a track from the next answer on."""
        self._forwardings.want(track)

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding at once; the client hears of it with the next answer, which frees the m-section."""
        self._forwardings.unwant(track_sid)

    def receiving_sections(self) -> tuple[frozenset[str], frozenset[str]]:
        """Mids of the (audio, video) m-sections of the last offer on which the client receives and does not send."""
        usable = self._usable()
        audio, video = (
            frozenset(slot.mid for slot in usable if slot.kind is kind) for kind in (Kind.AUDIO, Kind.VIDEO)
        )
        return audio, video

    def _usable(self) -> list[_Slot]:
        return [slot for slot in self._slots.values() if slot.direction.receives and slot.published is None]

    def missing_sections(self) -> tuple[int, int] | None:
        """(audio, video) m-sections that the client must add to its next offer; None when no offer is needed.

        (0, 0) asks for an offer as it is. Before the first offer there is nothing to ask for: it comes by itself.
        """
        if not self._slots and self._remote is None:
            return None
        usable = self._usable()
        spare = [slot for slot in usable if not self._forwardings.holds(slot.forwarding)]
        missing = {Kind.AUDIO: 0, Kind.VIDEO: 0}
        outdated = any(slot.forwarding is not None for slot in spare)
        matching = Matching()
        vacancies = Vacancies(spare, matching)
        held = {slot.forwarding: slot for slot in usable if self._forwardings.holds(slot.forwarding)}
        for forwarding in self._supported_waiting(matching):
            outdated = True
            own, track = held.get(forwarding), forwarding.wanted
            if own is not None and own.kind is track.kind and matching.takes(track, own.formats):
                continue
            slot = vacancies.find(track)
            if slot is None:
                missing[track.kind] += 1
            else:
                vacancies.take(slot)
        return (missing[Kind.AUDIO], missing[Kind.VIDEO]) if outdated else None

    def unsupported(self) -> frozenset[str]:
        """Wanted tracks none of whose codecs the client offers; empty while the client's codecs are not known."""
        waiting = self._forwardings.waiting()
        supported = {each.track_sid for each in self._supported_waiting(Matching())}
        return frozenset(each.track_sid for each in waiting) - supported

    def close(self) -> None:
        """Close the transport with all that is received and sent on it."""
        self._engine.close_transport(self.transport)
        self._slots.clear()
        self.forwardings.clear()

    def _supported_waiting(self, matching: Matching) -> Iterator[Forwarding]:
        offered: dict[Kind, dict[int, tuple[Format, ...]]] = {kind: {} for kind in Kind}
        for slot in self._slots.values():
            if slot.direction.receives:
                offered[slot.kind][id(slot.formats)] = slot.formats
        known: dict[tuple[object, ...], bool] = {}
        for forwarding in self._forwardings.waiting():
            track = forwarding.wanted
            kind = track.kind, *map(kind_of_source, track.sources)
            if kind not in known:
                candidates = offered[track.kind].values()
                known[kind] = not candidates or any(matching.takes(track, formats) for formats in candidates)
            if known[kind]:
                yield forwarding

    # Looking at an offer.

    def _lay_out(self, session: SessionDescription) -> _Layout:
        by_mid = {section.mid: section for section in session.sections if is_acceptable(section)}
        mixed = True
        slots: dict[str, _Slot] = {}
        bundle = []
        data = False
        registry = Bundle()
        for mid in bundled_mids(session):
            section = by_mid.get(mid)
            if section is None or (is_data(section) and data):
                continue
            if is_data(section):
                data = True
            elif (slot := self._slot(session, section, registry)) is not None:
                slots[mid] = slot
                mixed = mixed and session.allows_mixed(section)
            else:
                continue
            bundle.append(section)
        if not bundle and self._remote is None:
            raise SdpError("the offer has no m-section that can be used: BUNDLE with rtcp-mux over DTLS is needed")
        return _Layout(session, tuple(bundle), slots, mixed and bool(slots), registry)

    def _slot(self, session: SessionDescription, section: Section, registry: Bundle) -> _Slot | None:
        """The m-section's state, a copy of what it was before this offer; None when it has no codec of ours."""
        kind = kind_of(section)
        assert kind is not None, "an acceptable m-section that is not for data is audio or video"
        old = self._slots.get(section.mid)
        direction = session.direction_of(section)
        if old is not None and old.kind is kind:
            slot = replace(old, section=section, direction=direction)
        else:
            slot = _Slot(section, kind, direction)
        slot.formats = registry.admit_formats(supported_formats(section.profile, kind))
        slot.extensions = registry.admit_extensions(accepted_extensions(section.profile, session.allows_mixed(section)))
        return slot if any(f.codec in PRIMARY for f in slot.formats) else None

    # Telling the engine.

    def _end_publications(self, slots: dict[str, _Slot]) -> tuple[Published, ...]:
        """Unpublish what the client no longer sends."""
        ended = []
        for mid, old in self._slots.items():
            new = slots.get(mid)
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

    def _change_publications(self, before: dict[str, _Slot]) -> tuple[Published, ...]:
        """Let what is published already be sent in the formats that this offer has."""
        changed = []
        for mid, old in before.items():
            slot = self._slots.get(mid)
            if slot is None or slot.published is None or slot.decision is None or slot.formats == old.formats:
                continue
            formats = publish_formats(slot.formats, slot.decision)
            slot.published = replace(slot.published, formats=_descriptions(formats))
            self._engine.set_codecs(slot.published.engine_track, _codecs(formats))
            changed.append(slot.published)
        return tuple(changed)

    def _publish(self, slot: _Slot) -> Published | None:
        if slot.decision is None:
            return None
        encodings = encodings_of(slot.section, _has_rids(slot))
        svc = slot.decision.svc and len(encodings) == 1
        formats = publish_formats(slot.formats, slot.decision)
        try:
            parameters = PublishParameters(
                slot.kind, slot.mid, encodings, svc, *slot.decision.voices, codecs=_codecs(formats)
            )
            engine_track = self._engine.publish(self.transport, parameters)
        except EngineError as error:
            log.warning("publication refused", track=slot.decision.track_sid, reason=str(error))
            slot.decision = None
            return None
        accepted = next(f for f in formats if f.codec in PRIMARY)
        slot.published = Published(
            mid=slot.mid,
            track_sid=slot.decision.track_sid,
            cid=track_id(slot.section),
            engine_track=engine_track,
            kind=slot.kind,
            codec=accepted.codec,
            fmtp=accepted.description,
            formats=_descriptions(formats),
        )
        return slot.published

    def _forward(self) -> None:
        """Settle which track goes on which m-section: what is sent stays, what waits gets a free one."""
        for forwarding in self.forwardings.values():
            if forwarding.sent is not None:
                slot = self._slots.get(forwarding.sent.mid)
                if slot is None or not _still_sends(slot, forwarding, forwarding.sent):
                    self._forwardings.stop(forwarding)
        for slot in self._slots.values():
            unused = slot.published is not None or not slot.direction.receives
            slot.resting = slot.forwarding is not None and (unused or not self._forwardings.holds(slot.forwarding))
            if slot.resting:
                slot.forwarding = None
        matching = Matching()
        slots = {slot.forwarding: slot for slot in self._slots.values() if slot.forwarding is not None}
        free = Vacancies((slot for slot in self._slots.values() if slot.free and not slot.resting), matching)
        for forwarding in self._forwardings.waiting():
            self._start(forwarding, slots.get(forwarding), free, matching)

    def _start(self, forwarding: Forwarding, own: _Slot | None, free: Vacancies[_Slot], matching: Matching) -> None:
        """Send on the m-section that the track had, else on the first free one that takes it."""
        track = forwarding.wanted
        takes = own is not None and own.kind is track.kind and matching.takes(track, own.formats)
        if own is not None and not takes:
            own.forwarding, own.resting = None, True
        slot = own if takes else free.find(track)
        selection = matching.select(track, slot.formats) if slot is not None else None
        if slot is None or selection is None or not self._forwardings.start(forwarding, slot.mid, selection):
            return
        slot.forwarding = forwarding
        free.take(slot)

    def _connect(self, remote: RemoteTransport | None) -> None:
        """The first description starts the transport; new credentials restart ICE (RFC 8839 section 4.4.1.1)."""
        before, self._remote = self._remote, remote or self._remote
        if remote is None:
            return
        restarted = before is not None and remote.ice != before.ice
        if restarted:
            self._local = self._engine.restart_ice(self.transport)
        if before is None or restarted or remote.sctp_port != before.sctp_port:
            self._engine.connect(self.transport, remote)

    # Writing the answer.

    def _mid_to_track_id(self) -> dict[str, str]:
        published = {slot.mid: slot.published.track_sid for slot in self._slots.values() if slot.published}
        return published | dict(self._forwardings.by_mid())

    def _serialize(self, layout: _Layout) -> str:
        self._version += 1
        accepted = {section.mid for section in layout.bundle}
        header = SessionDescription(
            origin=f"- {self._session_id} {self._version} IN IP4 127.0.0.1",
            bundles=(tuple(section.mid for section in layout.bundle),) if layout.bundle else (),
            ice_lite=True,
            extmap_allow_mixed=layout.session.extmap_allow_mixed,
        )
        texts = [header.serialize()]
        for section in layout.session.sections:
            first = bool(layout.bundle) and section is layout.bundle[0]
            if section.mid not in accepted:
                texts.append(rejected_section(section).serialize())
            elif (slot := layout.slots.get(section.mid)) is not None:
                texts.append(self._slot_text(slot, first))
            else:
                texts.append(self._finish(data_section(section.mid, self._transport(), section.protocol), first))
        return "".join(texts)

    def _transport(self) -> Transport:
        assert self._remote is not None, "an answer with accepted m-sections comes after the remote half"
        return local_transport(self._local, Setup.ACTIVE if self._remote.role is DtlsRole.CLIENT else Setup.PASSIVE)

    def _finish(self, section: Section, first: bool) -> str:
        return (with_candidates(section, self._local) if first else section).serialize()

    def _slot_text(self, slot: _Slot, first: bool) -> str:
        """The m-section of the answer; made anew only if something in it can have changed."""
        current, track = _what_is_sent(slot)
        key: tuple[object, ...] = (slot.section, first, self._local, slot.direction, slot.formats, slot.extensions)
        key += (slot.published, slot.decision, current, track)
        if slot.answered[0] != key:
            slot.answered = key, self._finish(self._answer_section(slot), first)
        return slot.answered[1]

    def _answer_section(self, slot: _Slot) -> Section:
        current, track = _what_is_sent(slot)
        formats, opus, direction = slot.formats, OPUS_FMTP, Direction.INACTIVE
        extensions = slot.extensions
        if slot.published is not None and slot.decision is not None:
            formats, direction = publish_formats(formats, slot.decision), Direction.RECVONLY
            opus = opus_fmtp(dtx=slot.decision.dtx, stereo=slot.decision.stereo)
            extensions = publish_extensions(extensions, slot.published.codec)
        elif current is not None and track is not None:
            formats, direction = used_first(formats, current.selection), Direction.SENDONLY
            opus += ";sprop-stereo=1" * track.stereo
        formats = answered_feedback(formats, extensions, sends=current is not None)
        section = Section(
            kind=slot.kind.value,
            protocol=slot.section.protocol,
            profile=build_profile(formats, extensions, opus=opus),
            mid=slot.mid,
            direction=direction,
            rtcp_mux=True,
            rtcp_rsize=slot.section.rtcp_rsize,
            extmap_allow_mixed=slot.section.extmap_allow_mixed,
            transport=self._transport(),
        )
        if current is not None and track is not None:
            return with_track(section, track, current.local)
        return with_simulcast(section, slot.section) if slot.published is not None else section


def _descriptions(formats: tuple[Format, ...]) -> tuple[tuple[int, Codec, str], ...]:
    return tuple((f.payload_type, f.codec, f.description) for f in formats if f.codec is not Codec.RTX)


def _codecs(formats: tuple[Format, ...]) -> frozenset[Codec]:
    return frozenset(f.codec for f in formats if f.codec is not Codec.RTX)


def _has_rids(slot: _Slot) -> bool:
    return any(extension.uri == RID_URI for extension in slot.extensions)


def _what_is_sent(slot: _Slot) -> tuple[Sent | None, WantedTrack | None]:
    forwarding = slot.forwarding
    if forwarding is None or forwarding.sent is None:
        return None, None
    return forwarding.sent, forwarding.wanted


def _still_sends(slot: _Slot, forwarding: Forwarding, current: Sent) -> bool:
    """Whether a running subscription is still what the m-section was answered with."""
    unchanged = {f.payload_type: f.codec for f in slot.formats}
    return (
        slot.forwarding is forwarding
        and slot.published is None
        and slot.direction.receives
        and all(unchanged.get(f.payload_type) is f.codec for f in current.selection.formats)
    )
