"""Writes the answers of a connection on which the client offers. An m-section that did not change is not made anew."""

import secrets

from sfu.parameters import DtlsRole, LocalTransport, RemoteTransport
from signaling.sdp.candidates import with_candidates
from signaling.sdp.codecs import OPUS_FMTP, opus_fmtp
from signaling.sdp.forwarding import what_is_sent
from signaling.sdp.m_sections import Layout, MSection
from signaling.sdp.negotiation import (
    answered_feedback,
    build_profile,
    data_section,
    local_transport,
    publish_extensions,
    publish_formats,
    rejected_section,
    used_first,
    with_track,
)
from signaling.sdp.session_description import Direction, Section, SessionDescription, Setup, Transport
from signaling.sdp.simulcast import with_simulcast


class AnswerWriter:
    """The answers of one connection, which have one session id and rising versions."""

    def __init__(self) -> None:
        self._session_id = secrets.randbits(62)
        self._version = 0

    def write(self, layout: Layout, local: LocalTransport, remote: RemoteTransport | None) -> str:
        """Return the text of an answer.

        Args:
            layout: the m-sections of the offer, with what each is used for now.
            local: our half of the transport.
            remote: the client's half; None while no m-section was accepted.
        """
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
            elif (m_section := layout.m_sections.get(section.mid)) is not None:
                texts.append(_section_text(m_section, first, local, remote))
            else:
                data = data_section(section.mid, _transport(local, remote), section.protocol)
                texts.append(_finish(data, first, local))
        return "".join(texts)


def _transport(local: LocalTransport, remote: RemoteTransport | None) -> Transport:
    assert remote is not None, "an answer with accepted m-sections comes after the remote half"
    return local_transport(local, Setup.ACTIVE if remote.role is DtlsRole.CLIENT else Setup.PASSIVE)


def _finish(section: Section, first: bool, local: LocalTransport) -> str:
    return (with_candidates(section, local) if first else section).serialize()


def _section_text(m_section: MSection, first: bool, local: LocalTransport, remote: RemoteTransport | None) -> str:
    """Return the text of an m-section, which is made anew only if something in it may have changed."""
    current, track = what_is_sent(m_section.forwarding)
    key: tuple[object, ...] = (
        m_section.section,
        first,
        local,
        m_section.direction,
        m_section.formats,
        m_section.extensions,
    )
    key += (m_section.published, m_section.decision, current, track)
    if m_section.answered[0] != key:
        m_section.answered = key, _finish(_answer_section(m_section, _transport(local, remote)), first, local)
    return m_section.answered[1]


def _answer_section(m_section: MSection, transport: Transport) -> Section:
    current, track = what_is_sent(m_section.forwarding)
    formats, opus, direction = m_section.formats, OPUS_FMTP, Direction.INACTIVE
    extensions = m_section.extensions
    if m_section.published is not None and m_section.decision is not None:
        formats, direction = publish_formats(formats, m_section.decision), Direction.RECVONLY
        opus = opus_fmtp(dtx=m_section.decision.dtx, stereo=m_section.decision.stereo)
        extensions = publish_extensions(extensions, m_section.published.codec)
    elif current is not None and track is not None:
        formats, direction = used_first(formats, current.selection), Direction.SENDONLY
        opus += ";sprop-stereo=1" * track.stereo
    formats = answered_feedback(formats, extensions, sends=current is not None)
    section = Section(
        kind=m_section.kind.value,
        protocol=m_section.section.protocol,
        profile=build_profile(formats, extensions, opus=opus),
        mid=m_section.mid,
        direction=direction,
        rtcp_mux=True,
        rtcp_rsize=m_section.section.rtcp_rsize,
        extmap_allow_mixed=m_section.section.extmap_allow_mixed,
        transport=transport,
    )
    if current is not None and track is not None:
        return with_track(section, track, current.local)
    return with_simulcast(section, m_section.section) if m_section.published is not None else section
