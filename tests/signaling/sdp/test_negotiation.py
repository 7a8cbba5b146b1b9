"""From offered sections to answered ones."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sfu.parameters import (
    NO_CODECS,
    Codec,
    DtlsRole,
    Encoding,
    Extension,
    IceCredentials,
    Kind,
    LocalSubscription,
    PayloadType,
    SubscribeParameters,
    TrackId,
)
from signaling.sdp.bundle import Bundle
from signaling.sdp.codecs import Format, supported_formats
from signaling.sdp.matching import Matching
from signaling.sdp.negotiation import (
    MAX_REMOTE_MESSAGE_SIZE,
    PublishDecision,
    WantedTrack,
    accepted_extensions,
    answered_feedback,
    build_profile,
    publish_formats,
    rejected_section,
    remote_transport,
    used_first,
    with_track,
)
from signaling.sdp.offered import bundled_mids, encodings_of, is_acceptable, sending_section, track_id
from signaling.sdp.parsing import SdpError, parse
from signaling.sdp.session_description import Direction, Extmap, Profile, RtpMap, Section, SessionDescription

HEAD = "v=0\no=-\ns=-\nt=0 0\n"
VIDEO_LAYERS = "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00"
TCC = Extmap(3, "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01")
VP8 = Format(
    RtpMap(96, "VP8", 90_000), Codec.VP8, "max-fs=1", ("goog-remb", "transport-cc", "nack", "nack pli", "ccm x")
)
RTX = Format(RtpMap(97, "rtx", 90_000), Codec.RTX, "apt=96", (), 96)
OPUS = Format(RtpMap(111, "opus", 48_000, 2), Codec.OPUS)
RED = Format(RtpMap(63, "red", 48_000, 2), Codec.RED, "111/111", (), 111)


def session(name: str) -> SessionDescription:
    return parse((Path(__file__).parents[1] / "offers" / f"{name}.sdp").read_text())


def video(lines: str) -> Section:
    return parse(f"{HEAD}m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:0\n{lines}").sections[0]


def decision(codec: Codec | None = None, *, red: bool = True) -> PublishDecision:
    return PublishDecision(codec, "TR_x", dtx=True, stereo=False, red=red)


def track(*sources: tuple[Codec, str, int]) -> WantedTrack:
    return WantedTrack("TR_v", "PA_p", Kind.VIDEO, tuple((c, f, TrackId(r)) for c, f, r in sources), "PA_p")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", (Encoding(),)),
        ("a=rid:q send\na=rid:h send\na=rid:f send\na=simulcast:send q;h;f\n", ("q", "h", "f")),
        ("a=rid:f send\na=rid:h send\na=rid:q send\na=simulcast:send f;h;q\n", ("q", "h", "f")),
        ("a=rid:h send\na=rid:q send\na=simulcast:send h;q\n", ("q", "h")),
        ("a=rid:low send\na=rid:top send\na=simulcast:send top;~low\n", ("top", "low")),
        ("a=rid:1 send\na=rid:2 send\na=rid:3 send\na=rid:4 send\na=simulcast:send 1,2;3;4;9\n", ("1", "3", "4")),
        ("a=rid:a send\na=rid:b recv\n", ("a",)),
        ("a=rid:seventeen-letters send\na=rid:\u00e9 send\na=rid:c send\n", ("c",)),
        ("a=rid:1 send\na=rid:2 send\na=rid:3 send\na=rid:4 send\n", ("1", "2", "3")),
        ("a=ssrc:7 cname:c\na=ssrc:8 cname:c\na=ssrc-group:FID 7 8\n", (Encoding(ssrc=7, rtx_ssrc=8),)),
        ("a=ssrc-group:FID 7 8\na=ssrc:8 cname:c\na=ssrc:7 cname:c\n", (Encoding(ssrc=7, rtx_ssrc=8),)),
        (
            "a=ssrc-group:SIM 1 2 3 4\na=ssrc-group:FID 1 11\na=ssrc-group:FID 3 13\na=ssrc-group:FID 9 9 9\n",
            (Encoding(ssrc=1, rtx_ssrc=11), Encoding(ssrc=2), Encoding(ssrc=3, rtx_ssrc=13)),
        ),
    ],
)
def test_layers_are_listed_from_low_to_high(lines: str, expected: tuple[str | Encoding, ...]) -> None:
    layers = tuple(Encoding(rid=e) if isinstance(e, str) else e for e in expected)
    assert encodings_of(video(lines), rids=True) == layers


def test_rids_without_their_extension_are_not_used() -> None:
    section = video("a=rid:q send\na=simulcast:send q\na=ssrc:5 cname:x\n")
    assert encodings_of(section, rids=False) == (Encoding(ssrc=5),)


@pytest.mark.parametrize(
    ("lines", "cid"),
    [
        ("a=msid:stream camera\n", "camera"),
        ("a=msid:stream\n", ""),
        ("a=ssrc:1 cname:c\na=ssrc:1 msid:stream camera\n", "camera"),
        ("", ""),
    ],
)
def test_the_track_id_comes_from_msid(lines: str, cid: str) -> None:
    assert track_id(video(lines)) == cid


def test_the_room_is_asked_with_each_codec_once_in_its_common_format() -> None:
    section = session("chromium-publish").sections[3]
    formats = supported_formats(section.profile, Kind.VIDEO)
    asked = sending_section(section, Kind.VIDEO, formats, rids=True)
    assert [codec for codec, _ in asked.codecs] == [Codec.VP8, Codec.H264, Codec.AV1, Codec.VP9]
    assert "42e01f" in asked.codecs[1][1]
    assert [e.rid for e in asked.encodings] == ["q", "h", "f"]
    assert asked.cid
    assert asked.mid == "3"


def test_known_extensions_are_echoed_with_mirrored_directions() -> None:
    firefox = {e.uri.rpartition("/")[2]: e for e in accepted_extensions(session("firefox").sections[1].profile, True)}
    assert firefox["playout-delay"].direction is Direction.SENDONLY
    assert firefox["abs-send-time"].direction is None
    rids = [e for e in firefox.values() if "stream-id" in e.uri]
    assert [(e.id, e.direction) for e in rids] == [(9, Direction.RECVONLY), (10, Direction.RECVONLY)]
    chromium = {e.uri for e in accepted_extensions(session("chromium-publish").sections[3].profile, True)}
    assert VIDEO_LAYERS in chromium
    assert not any("toffset" in uri or "video-timing" in uri for uri in chromium)


def test_illegal_and_doubled_extensions_are_not_echoed() -> None:
    mid, rid = "urn:ietf:params:rtp-hdrext:sdes:mid", "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
    offered = (
        Extmap(15, TCC.uri),
        Extmap(1, mid, Direction.INACTIVE),
        Extmap(2, mid),
        Extmap(2, rid),
        Extmap(4, mid),
        Extmap(20, rid),
        Extmap(5, "urn:unknown"),
    )
    assert accepted_extensions(Profile(extensions=offered), False) == (Extmap(2, mid),)
    assert accepted_extensions(Profile(extensions=offered), True) == (Extmap(2, mid), Extmap(20, rid))


def test_a_number_has_one_meaning_in_a_bundle() -> None:
    bundle = Bundle()
    assert bundle.admit_formats((VP8, RTX)) == (VP8, RTX)
    h264 = Format(RtpMap(96, "H264", 90_000), Codec.H264)
    vp9 = Format(RtpMap(98, "VP9", 90_000), Codec.VP9)
    assert bundle.admit_formats((h264, RTX, vp9)) == (vp9,)
    assert bundle.admit_extensions((TCC,)) == (TCC,)
    orientation = "urn:3gpp:video-orientation"
    assert bundle.admit_extensions((Extmap(3, orientation), Extmap(4, TCC.uri))) == ()
    allocation = Extmap(9, VIDEO_LAYERS)
    assert bundle.admit_extensions((TCC, allocation)) == (TCC, allocation)
    media = bundle.parameters(mixed=True)
    assert media.payload_types == {
        96: PayloadType(Codec.VP8, 90_000, -1, True),
        97: PayloadType(Codec.RTX, 90_000, 96),
        98: PayloadType(Codec.VP9, 90_000),
    }
    assert media.extensions == {3: Extension.TRANSPORT_CC, 9: Extension.VIDEO_LAYERS}
    assert media.mixed_extensions


def test_nack_in_one_section_is_no_contradiction() -> None:
    bundle = Bundle()
    with_nack = Format(OPUS.rtpmap, Codec.OPUS, "", ("nack",))
    for formats in ((OPUS,), (with_nack,), (OPUS, RED)):
        assert bundle.admit_formats(formats) is formats
    assert bundle.parameters(False).payload_types[111].nack


def test_a_publisher_gets_every_codec_the_wanted_one_first_with_its_companion() -> None:
    vp9 = Format(RtpMap(98, "VP9", 90_000), Codec.VP9)
    assert publish_formats((vp9, VP8, RTX), decision(Codec.VP8)) == (VP8, RTX, vp9)
    assert publish_formats((vp9, VP8, RTX), decision()) == (vp9, VP8, RTX)
    assert publish_formats((vp9, VP8, RTX), decision(Codec.AV1)) == (vp9, VP8, RTX)


def test_where_all_codecs_are_barred_nothing_may_be_sent() -> None:
    barring = replace(decision(), barred=frozenset({Codec.VP8}))
    vp9 = Format(RtpMap(98, "VP9", 90_000), Codec.VP9)
    assert barring.admitted((VP8, RTX, vp9)) == {Codec.VP9}
    assert barring.admitted((VP8, RTX)) == NO_CODECS, "for the engine an empty set is everything"


def test_red_comes_first_when_it_is_wanted() -> None:
    pcmu = Format(RtpMap(0, "PCMU", 8_000), Codec.AUDIO)
    assert publish_formats((OPUS, RED, pcmu), decision()) == (RED, OPUS, pcmu)
    assert publish_formats((RED, pcmu, OPUS), decision(Codec.OPUS)) == (RED, OPUS, pcmu)
    assert publish_formats((RED, OPUS, pcmu), decision(red=False)) == (OPUS, pcmu)
    assert publish_formats((pcmu, OPUS), decision()) == (pcmu, OPUS)


def test_the_first_receiver_that_the_client_decodes_is_selected() -> None:
    wanted = track((Codec.AV1, "", 1), (Codec.VP8, "", 2), (Codec.VP9, "", 3))
    selection = Matching().select(wanted, (VP8, RTX))
    assert selection is not None
    assert (selection.engine_track, selection.media, selection.rtx, selection.red) == (2, VP8, RTX, None)
    assert selection.parameters("5", "name", paused=False) == SubscribeParameters(
        "5", 96, 97, -1, "name", codec=Codec.VP8
    )
    assert Matching().select(track((Codec.AV1, "", 1)), (VP8, RTX)) is None
    other = Format(RtpMap(100, "H264", 90_000), Codec.H264)
    assert used_first((other, VP8, RTX), selection) == (VP8, RTX, other)


def test_red_is_selected_beside_opus() -> None:
    selection = Matching().select(track((Codec.OPUS, "", 1)), (RED, OPUS))
    assert selection is not None
    assert selection.parameters("0", "", paused=True) == SubscribeParameters(
        "0", 111, -1, 63, paused=True, codec=Codec.OPUS
    )
    assert selection.formats == (OPUS, RED)


@pytest.mark.parametrize(
    ("extensions", "sends", "kept"),
    [
        ((TCC,), False, ("transport-cc", "nack", "nack pli")),
        ((TCC,), True, ("transport-cc", "nack", "nack pli")),
        ((), True, ("goog-remb", "nack", "nack pli")),
        ((), False, ("nack", "nack pli")),
    ],
)
def test_one_kind_of_congestion_feedback_is_answered(
    extensions: tuple[Extmap, ...], sends: bool, kept: tuple[str, ...]
) -> None:
    profile = build_profile(answered_feedback((VP8, RTX), extensions, sends=sends), extensions, opus="")
    assert tuple(f.value for f in profile.feedback) == kept
    assert profile.fmtps == ((97, "apt=96"),)
    assert profile.formats == ("96", "97")


def test_a_track_that_we_send_is_named_for_livekits_clients() -> None:
    text = with_track(Section("video"), track(), LocalSubscription(1, 10, 11)).serialize()  # type: ignore[arg-type]
    assert "a=msid:PA_p|TR_v TR_v\r\n" in text
    assert "a=ssrc-group:FID 10 11\r\n" in text
    assert "a=ssrc:10 cname:PA_p\r\na=ssrc:10 msid:PA_p|TR_v TR_v\r\na=ssrc:11 cname:PA_p\r\n" in text
    single = with_track(Section("audio"), track(), LocalSubscription(1, 10, 0))  # type: ignore[arg-type]
    assert single.ssrc_groups == ()
    assert {s.ssrc for s in single.ssrcs} == {10}


@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:0\na=rtcp-mux\n", True),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:0\n", False),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0\na=rtcp-mux\n", False),
        ("m=audio 0 UDP/TLS/RTP/SAVPF 0\na=mid:0\na=rtcp-mux\n", False),
        ("m=audio 0 UDP/TLS/RTP/SAVPF 0\na=mid:0\na=rtcp-mux\na=bundle-only\n", True),
        ("m=audio 9 RTP/AVP 0\na=mid:0\na=rtcp-mux\n", False),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:a-mid-of-17-chars\na=rtcp-mux\n", False),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:\u00e9\na=rtcp-mux\n", False),
        ("m=text 9 UDP/TLS/RTP/SAVPF 0\na=mid:0\na=rtcp-mux\n", False),
        ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:0\n", True),
        ("m=application 9 UDP/BFCP webrtc-datachannel\na=mid:0\n", False),
        ("m=application 9 UDP/DTLS/SCTP other\na=mid:0\n", False),
    ],
)
def test_only_sections_that_can_share_one_transport_are_accepted(line: str, accepted: bool) -> None:
    assert is_acceptable(parse(HEAD + line).sections[0]) is accepted


def test_one_section_needs_no_bundle_group_and_two_do() -> None:
    one = "m=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:0\n"
    assert bundled_mids(parse(HEAD + one)) == ("0",)
    assert bundled_mids(parse(HEAD + one + one.replace("mid:0", "mid:1"))) == ()
    assert bundled_mids(parse(HEAD + "a=group:BUNDLE 1 0 1\na=group:BUNDLE 2\n" + one)) == ("1", "0")


def test_a_rejection_echoes_kind_and_formats() -> None:
    offered = parse(HEAD + "m=text 9 UDP/TLS/RTP/SAVPF 98 99\na=mid:0\n").sections[0]
    assert rejected_section(offered).serialize().startswith("m=text 0 UDP/TLS/RTP/SAVPF 98 99\r\nc=")


def test_the_peers_half_of_the_transport_is_read() -> None:
    offer = session("firefox")
    remote = remote_transport(offer, offer.sections, None)
    assert remote.ice == IceCredentials("7a3be19c", "5e0c4a7d9b1f2e3386aa41c07d5f9e12")
    assert remote.fingerprints == offer.transport.fingerprints
    assert (remote.sctp_port, remote.max_message_size) == (5000, 1073741823)
    assert remote_transport(session("gstreamer"), session("gstreamer").sections, None).sctp_port is None
    assert len(remote_transport(session("aiortc"), session("aiortc").sections, None).fingerprints) == 3


@pytest.mark.parametrize(("line", "size"), [("a=max-message-size:0", MAX_REMOTE_MESSAGE_SIZE), ("a=x", 65_536)])
def test_message_sizes_have_defaults(line: str, size: int) -> None:
    text = session("firefox").serialize().replace("a=max-message-size:1073741823", line)
    offer = parse(text)
    assert remote_transport(offer, offer.sections, None).max_message_size == size


def test_role_and_certificate_stay_for_the_life_of_a_connection() -> None:
    offer = session("firefox")
    first = remote_transport(offer, offer.sections, None)
    assert first.role is DtlsRole.SERVER
    passive = parse(offer.serialize().replace("setup:actpass", "setup:passive"))
    assert remote_transport(passive, passive.sections, None).role is DtlsRole.CLIENT
    assert remote_transport(passive, passive.sections, first).role is DtlsRole.SERVER
    other = parse(re.sub(r"(a=fingerprint:sha-256) \w\w", r"\1 00", offer.serialize()))
    with pytest.raises(SdpError, match="cannot change"):
        remote_transport(other, other.sections, first)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("a=ice-ufrag:7a3be19c", "a=ice-ufrag:7a3", "a=ice-ufrag"),
        ("a=ice-pwd:5e0c4a7d9b1f2e3386aa41c07d5f9e12", "a=ice-pwd:short", "a=ice-pwd"),
        ("a=ice-ufrag:7a3be19c", "a=ice-ufrag:7a3bé", "ASCII"),
        ("a=fingerprint:sha-256", "a=fingerprint:", "a=fingerprint"),
    ],
)
def test_a_transport_that_cannot_connect_is_refused(old: str, new: str, reason: str) -> None:
    offer = parse(session("firefox").serialize().replace(old, new))
    with pytest.raises(SdpError, match=reason):
        remote_transport(offer, offer.sections, None)
