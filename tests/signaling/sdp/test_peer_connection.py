"""Offers of clients against the engine: what is published, forwarded, ended and answered."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sfu.parameters import (
    Codec,
    DtlsRole,
    Encoding,
    Extension,
    Kind,
    PublishParameters,
    SubscribeParameters,
    TrackId,
)
from signaling.sdp.negotiation import DEPENDENCY_URI
from signaling.sdp.parsing import parse
from signaling.sdp.peer_connection import (
    AnsweringConnection,
    AnswerResult,
    PublishDecision,
    SdpError,
    SendingSection,
    WantedTrack,
)
from signaling.sdp.session_description import Direction, SessionDescription, Setup, Simulcast
from tests.signaling.support.recording_engine import FINGERPRINT, RecordingEngine, subscription_of

ALL_VIDEO = frozenset({Codec.VP8, Codec.VP9, Codec.H264, Codec.AV1})
Decide = Callable[[SendingSection], PublishDecision | None]


def offer(name: str) -> str:
    return (Path(__file__).parents[1] / "offers" / f"{name}.sdp").read_text()


def publish(codec: Codec | None = None, *, stereo: bool = False) -> Decide:
    return lambda section: PublishDecision(codec, f"TR_{section.mid}", dtx=True, stereo=stereo, red=True)


def refuse(section: SendingSection) -> PublishDecision | None:
    return None


def track(sid: str, kind: Kind = Kind.VIDEO, *sources: tuple[Codec, str, int], stereo: bool = False) -> WantedTrack:
    listed = sources or ((Codec.OPUS if kind is Kind.AUDIO else Codec.VP8, "", 900),)
    return WantedTrack(sid, "PA_p", kind, tuple((c, f, TrackId(r)) for c, f, r in listed), "PA_p", stereo)


def directions(result: AnswerResult) -> dict[str, Direction | None]:
    return {section.mid: section.direction for section in parse(result.sdp).sections if section.port}


def set_direction(text: str, mid: str, direction: str) -> str:
    """The offer with the direction of one m-section changed."""
    head, *bodies = re.split(r"\n(?=m=)", text)
    changed = [
        re.sub(r"(?m)^a=(sendrecv|sendonly|recvonly|inactive)$", f"a={direction}", body)
        if f"a=mid:{mid}\n" in body
        else body
        for body in bodies
    ]
    return "\n".join([head, *changed])


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def connection(engine: RecordingEngine) -> AnsweringConnection:
    return AnsweringConnection(engine.engine)


def test_a_joining_client_gets_everything_but_media(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    result = connection.answer(offer("livekit-native-join"), refuse)
    answer = parse(result.sdp)
    offered = parse(offer("livekit-native-join"))
    assert answer.ice_lite
    assert answer.extmap_allow_mixed
    assert answer.bundles == offered.bundles
    assert [s.kind for s in answer.sections] == [s.kind for s in offered.sections]
    assert set(directions(result).values()) == {Direction.INACTIVE, None}
    for section, original in zip(answer.sections[:6], offered.sections[:6], strict=True):
        assert {e.uri for e in section.profile.extensions} <= {e.uri for e in original.profile.extensions}
        assert section.rtcp_mux
        assert section.rtcp_rsize
        assert section.transport.setup is Setup.PASSIVE
        assert section.transport.fingerprints == (FINGERPRINT,)
    uris = {e.uri for e in answer.sections[3].profile.extensions}
    assert "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id" in uris
    assert "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id" in uris
    assert not {"red", "ulpfec", "flexfec-03"} & {r.name for r in answer.sections[3].profile.rtpmaps}
    assert [bool(s.candidates and s.end_of_candidates) for s in answer.sections] == [True] + [False] * 6
    assert (answer.sections[6].sctp_port, answer.sections[6].max_message_size) == (5000, 262144)
    assert engine.names() == ["set_media", "connect"]
    assert (result.mid_to_track_id, result.published, result.ended) == ({}, (), ())


def test_the_engine_learns_the_clients_numbers_and_transport(
    engine: RecordingEngine, connection: AnsweringConnection
) -> None:
    connection.answer(offer("chromium-join"), refuse)
    media = engine.last("set_media")[1]
    assert media.mixed_extensions
    assert media.payload_types[96].codec is Codec.VP8
    assert media.payload_types[96].nack
    assert media.payload_types[97].associated == 96
    assert media.payload_types[63].codec is Codec.RED
    assert Extension.TRANSPORT_CC in media.extensions.values()
    assert Extension.MID in media.extensions.values()
    remote = engine.last("connect")[1]
    assert remote.role is DtlsRole.SERVER
    assert remote.sctp_port == 5000


def test_a_passive_client_is_answered_actively(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    text = offer("chromium-join").replace("a=setup:actpass", "a=setup:passive")
    for _ in range(2):
        answer = parse(connection.answer(text, refuse).sdp)
        assert {s.transport.setup for s in answer.sections} == {Setup.ACTIVE}
        text = offer("chromium-join")
    assert engine.last("connect")[1].role is DtlsRole.CLIENT
    active = AnsweringConnection(engine.engine)
    answer = parse(active.answer(offer("chromium-join").replace("actpass", "active"), refuse).sdp)
    assert {s.transport.setup for s in answer.sections} == {Setup.PASSIVE}


def test_simulcast_is_published_with_its_layers(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    asked: list[SendingSection] = []

    def decide(section: SendingSection) -> PublishDecision | None:
        asked.append(section)
        return publish(Codec.VP8)(section)

    result = connection.answer(offer("chromium-publish"), decide)
    assert [s.mid for s in asked] == ["2", "3", "4"]
    assert engine.names() == ["set_media", "publish", "publish", "publish", "connect"]
    audio, simulcast, single = result.published
    assert (audio.codec, simulcast.codec, single.codec) == (Codec.OPUS, Codec.VP8, Codec.VP8)
    assert simulcast.cid == asked[1].cid
    assert simulcast.track_sid == "TR_3"
    parameters = [call[2] for call in engine.calls if call[0] == "publish"]
    layers = (Encoding("q"), Encoding("h"), Encoding("f"))
    assert parameters[1] == PublishParameters(Kind.VIDEO, "3", layers, codecs=ALL_VIDEO)
    assert parameters[0].codecs == {Codec.RED, Codec.OPUS, Codec.AUDIO}
    assert parameters[2].encodings == (Encoding("", 1052895824, 79937692),)
    answered = parse(result.sdp).sections
    assert answered[3].simulcast == Simulcast(receive=("q", "h", "f"))
    assert answered[3].direction is Direction.RECVONLY
    assert answered[3].profile.formats[:2] == ("96", "97")
    assert answered[2].profile.formats[:2] == ("63", "111")
    assert "usedtx=1" in dict(answered[2].profile.fmtps)[111]
    assert "stereo" not in dict(answered[2].profile.fmtps)[111]
    assert result.mid_to_track_id == {"2": "TR_2", "3": "TR_3", "4": "TR_4"}


def test_svc_is_one_encoding_in_the_codec_decided(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    result = connection.answer(offer("chromium-publish"), publish(Codec.VP9))
    parameters = {call[2].mid: call[2] for call in engine.calls if call[0] == "publish"}
    assert [len(parameters[mid].encodings) for mid in "43"] == [1, 3]
    assert parse(result.sdp).sections[4].profile.formats[:2] == ("98", "99")
    assert {p.mid: p.fmtp for p in result.published}["4"] == "profile-id=0"


@pytest.mark.parametrize("codec", sorted(ALL_VIDEO))
def test_a_publisher_may_send_every_codec_and_is_told_which_one_first(
    connection: AnsweringConnection, codec: Codec
) -> None:
    answered = parse(connection.answer(offer("chromium-publish"), publish(codec)).sdp).sections[3].profile
    names = {rtpmap.payload_type: rtpmap.name for rtpmap in answered.rtpmaps}
    assert names[int(answered.formats[0])] == codec.name
    assert set(names.values()) == {"VP8", "VP9", "H264", "AV1", "rtx"}
    repaired = {int(fmtp.removeprefix("apt=")) for number, fmtp in answered.fmtps if names[number] == "rtx"}
    assert repaired == {number for number, name in names.items() if name != "rtx"}
    # with its descriptor Chromium leaves picture ids and temporal layers out of VP8's own
    assert (DEPENDENCY_URI in {e.uri for e in answered.extensions}) == (codec in (Codec.VP9, Codec.AV1))


def test_what_a_later_offer_leaves_out_may_no_longer_be_sent(
    engine: RecordingEngine, connection: AnsweringConnection
) -> None:
    first = {p.mid: p for p in connection.answer(offer("chromium-publish"), publish(Codec.VP8)).published}
    assert connection.answer(offer("chromium-publish"), refuse).changed == ()
    assert "set_codecs" not in engine.names()
    without_av1 = offer("chromium-publish").replace("AV1/90000", "AV9/90000")
    changed = {p.mid: p for p in connection.answer(without_av1, refuse).changed}
    assert set(changed) == {"3", "4"}
    assert engine.last("set_codecs") == (first["4"].engine_track, ALL_VIDEO - {Codec.AV1})
    assert {codec for _, codec, _ in changed["3"].formats} == ALL_VIDEO - {Codec.AV1}


def test_stereo_is_asked_for_as_livekit_does(connection: AnsweringConnection) -> None:
    answer = parse(connection.answer(offer("chromium-publish"), publish(stereo=True)).sdp)
    assert dict(answer.sections[2].profile.fmtps)[111].endswith(";usedtx=1;stereo=1;maxaveragebitrate=510000")


def test_a_section_is_decided_once_and_a_refused_one_again(
    engine: RecordingEngine, connection: AnsweringConnection
) -> None:
    asked: list[str] = []

    def decide(section: SendingSection) -> PublishDecision | None:
        asked.append(section.mid)
        return publish()(section) if section.kind is Kind.AUDIO else None

    first = connection.answer(offer("chromium-publish"), decide)
    second = connection.answer(offer("chromium-publish"), decide)
    assert asked == ["2", "3", "4", "3", "4"]
    assert directions(first)["3"] is Direction.INACTIVE
    assert second.published == second.ended == ()
    assert second.mid_to_track_id == {"2": "TR_2"}
    assert parse(first.sdp).sections == parse(second.sdp).sections
    assert parse(first.sdp).origin != parse(second.sdp).origin
    assert engine.names().count("publish") == 1
    assert engine.names().count("connect") == 1


@pytest.mark.parametrize("change", ["inactive", "removed", "port 0"])
def test_what_the_client_stops_sending_has_ended(
    engine: RecordingEngine, connection: AnsweringConnection, change: str
) -> None:
    (published,) = (p for p in connection.answer(offer("chromium-publish"), publish()).published if p.mid == "3")
    text = offer("chromium-publish")
    if change == "inactive":
        text = set_direction(text, "3", "inactive")
    elif change == "removed":
        text = text.replace("BUNDLE 0 1 2 3 4 5", "BUNDLE 0 1 2 4 5")
    else:
        parts = re.split(r"\n(?=m=)", text)
        parts[4] = parts[4].replace("m=video 9", "m=video 0")
        text = "\n".join(parts)
    result = connection.answer(text, refuse)
    assert result.ended == (published,)
    assert engine.last("unpublish") == (published.engine_track,)
    assert "3" not in result.mid_to_track_id
    assert set(result.mid_to_track_id) == {"2", "4"}


def test_another_track_on_the_same_section_is_another_publication(connection: AnsweringConnection) -> None:
    (first,) = (p for p in connection.answer(offer("chromium-publish"), publish()).published if p.mid == "3")
    result = connection.answer(offer("chromium-publish").replace(first.cid, "another-track"), publish())
    assert result.ended == (first,)
    assert [p.cid for p in result.published] == ["another-track"]


def test_firefox_and_gstreamer_publish(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    firefox = connection.answer(offer("firefox"), publish(Codec.H264))
    assert [p.codec for p in firefox.published] == [Codec.OPUS, Codec.VP8]
    assert engine.last("publish")[1].encodings == (Encoding("q"), Encoding("h"), Encoding("f"))
    answer = parse(firefox.sdp)
    assert all(s.port == 9 for s in answer.sections)
    assert [s.extmap_allow_mixed for s in answer.sections] == [True, True, False]
    gstreamer = AnsweringConnection(engine.engine)
    result = gstreamer.answer(offer("gstreamer"), publish())
    assert [p.cid for p in result.published] == ["webrtctransceiver0", "webrtctransceiver1"]
    assert set(directions(result).values()) == {Direction.RECVONLY}
    assert not engine.last("set_media")[1].mixed_extensions


def test_a_wanted_track_is_sent_on_a_free_section(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    connection.want(track("TR_voice", Kind.AUDIO, stereo=True))
    connection.want(track("TR_face", Kind.VIDEO, (Codec.H264, "packetization-mode=1;profile-level-id=42e01f", 7)))
    assert connection.missing_sections() is None
    assert connection.unsupported() == frozenset()
    result = connection.answer(offer("chromium-join"), refuse)
    assert result.mid_to_track_id == {"0": "TR_voice", "3": "TR_face"}
    assert engine.names() == ["set_media", "subscribe", "subscribe", "connect"]
    voice, face = (call[1:] for call in engine.calls if call[0] == "subscribe")
    assert voice[2] == SubscribeParameters("0", 111, -1, 63, "PA_p", codec=Codec.OPUS)
    assert face[0] == 7
    h264 = face[2].payload_type
    sections = parse(result.sdp).sections
    assert sections[3].direction is Direction.SENDONLY
    assert sections[3].profile.formats[:2] == (str(h264), str(face[2].rtx_payload_type))
    assert len(sections[3].profile.formats) > 4
    assert sections[3].msids == (("PA_p|TR_face", "TR_face"),)
    assert sections[3].ssrc_groups[0].semantics == "FID"
    assert "sprop-stereo=1" in dict(sections[0].profile.fmtps)[111]
    assert connection.missing_sections() is None
    assert subscription_of(connection, "TR_face") is not None
    assert subscription_of(connection, "TR_other") is None


def test_only_the_kind_that_is_reported_takes_transport_wide_numbers(
    engine: RecordingEngine, connection: AnsweringConnection
) -> None:
    connection.answer(offer("chromium-join"), refuse)
    assert engine.last("set_media")[1].unnumbered == frozenset()
    parts = re.split(r"\n(?=m=)", offer("chromium-join"))
    quiet = [
        re.sub(r"a=rtcp-fb:\d+ transport-cc\r?\n", "", part) if part.startswith("m=audio") else part for part in parts
    ]
    connection.answer("\n".join(quiet), refuse)
    assert engine.last("set_media")[1].unnumbered == {Kind.AUDIO}


def test_running_subscriptions_stay_where_they_are(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    connection.want(track("TR_a"))
    connection.answer(offer("chromium-join"), refuse)
    before = subscription_of(connection, "TR_a")
    connection.want(track("TR_b"))
    connection.want(track("TR_a", Kind.VIDEO, (Codec.VP9, "", 901), (Codec.VP8, "", 900)))
    result = connection.answer(offer("chromium-join"), refuse)
    assert result.mid_to_track_id == {"3": "TR_a", "4": "TR_b"}
    assert subscription_of(connection, "TR_a") == before
    assert "unsubscribe" not in engine.names()


def test_a_client_is_asked_for_the_sections_it_lacks(connection: AnsweringConnection) -> None:
    connection.answer(offer("chromium-join"), refuse)
    for number in range(5):
        connection.want(track(f"TR_{number}"))
    assert connection.missing_sections() == (0, 2)
    for number in range(4):
        connection.want(track(f"TR_a{number}", Kind.AUDIO))
    assert connection.missing_sections() == (1, 2)
    connection.answer(offer("chromium-join"), refuse)
    assert connection.missing_sections() == (1, 2)
    for sid in ("TR_3", "TR_4", "TR_a3"):
        connection.unwant(sid)
    assert connection.missing_sections() is None


def test_a_section_rests_for_one_answer_before_it_carries_another_track(
    engine: RecordingEngine, connection: AnsweringConnection
) -> None:
    for sid in ("TR_a", "TR_b", "TR_c"):
        connection.want(track(sid))
    connection.answer(offer("chromium-join"), refuse)
    ended = subscription_of(connection, "TR_b")
    connection.unwant("TR_b")
    assert engine.last("unsubscribe") == (ended,)
    connection.want(track("TR_d"))
    assert connection.missing_sections() == (0, 0)
    result = connection.answer(offer("chromium-join"), refuse)
    assert directions(result)["4"] is Direction.INACTIVE
    assert connection.missing_sections() == (0, 0)
    result = connection.answer(offer("chromium-join"), refuse)
    assert result.mid_to_track_id == {"3": "TR_a", "4": "TR_d", "5": "TR_c"}
    assert connection.missing_sections() is None
    ssrcs = [s.ssrcs[0].ssrc for s in parse(result.sdp).sections[3:6]]
    assert len(set(ssrcs)) == 3


def test_a_track_that_was_only_unwanted_needs_an_offer_too(connection: AnsweringConnection) -> None:
    connection.want(track("TR_a"))
    connection.answer(offer("chromium-join"), refuse)
    connection.unwant("TR_a")
    assert connection.missing_sections() == (0, 0)
    assert connection.answer(offer("chromium-join"), refuse).mid_to_track_id == {}
    assert connection.missing_sections() is None


def test_a_track_wanted_again_at_once_is_told_of_on_another_section(connection: AnsweringConnection) -> None:
    connection.want(track("TR_a"))
    first = connection.answer(offer("chromium-join"), refuse)
    connection.unwant("TR_a")
    connection.want(track("TR_a"))
    assert connection.missing_sections() == (0, 0)
    second = connection.answer(offer("chromium-join"), refuse)
    assert (first.mid_to_track_id, second.mid_to_track_id) == ({"3": "TR_a"}, {"4": "TR_a"})
    assert directions(second)["3"] is Direction.INACTIVE
    assert parse(first.sdp).sections[3].ssrcs != parse(second.sdp).sections[4].ssrcs
    assert connection.missing_sections() is None


def test_a_track_wanted_again_at_once_waits_for_the_only_section_to_rest(connection: AnsweringConnection) -> None:
    for sid in ("TR_a", "TR_b", "TR_c"):
        connection.want(track(sid))
    connection.answer(offer("chromium-join"), refuse)
    connection.unwant("TR_b")
    connection.want(track("TR_b"))
    ways = []
    for _ in range(2):
        assert connection.missing_sections() == (0, 0)
        ways.append(directions(connection.answer(offer("chromium-join"), refuse))["4"])
    assert ways == [Direction.INACTIVE, Direction.SENDONLY]
    assert connection.missing_sections() is None


def test_a_vanished_receiver_is_replaced_on_the_same_section(
    engine: RecordingEngine, connection: AnsweringConnection
) -> None:
    connection.want(track("TR_a", Kind.VIDEO, (Codec.VP9, "", 1)))
    connection.answer(offer("chromium-join"), refuse)
    connection.want(track("TR_a", Kind.VIDEO, (Codec.VP8, "", 2)))
    assert "unsubscribe" in engine.names()
    assert connection.missing_sections() == (0, 0)
    result = connection.answer(offer("chromium-join"), refuse)
    assert result.mid_to_track_id == {"3": "TR_a"}
    assert engine.last("subscribe")[0] == 2
    assert parse(result.sdp).sections[3].profile.formats[0] == "96"


def test_a_track_that_turns_to_a_codec_its_section_lacks_moves_to_another_one(connection: AnsweringConnection) -> None:
    head, *bodies = re.split(r"\n(?=m=)", offer("chromium-join"))
    bodies[3] = bodies[3].replace("VP9/90000", "VP7/90000")
    text = "\n".join([head, *bodies])
    connection.want(track("TR_a", Kind.VIDEO, (Codec.VP8, "", 1)))
    assert connection.answer(text, refuse).mid_to_track_id == {"3": "TR_a"}
    connection.want(track("TR_a", Kind.VIDEO, (Codec.VP9, "profile-id=0", 1)))
    assert connection.missing_sections() == (0, 0)
    result = connection.answer(text, refuse)
    assert result.mid_to_track_id == {"4": "TR_a"}
    assert [directions(result)[mid] for mid in "34"] == [Direction.INACTIVE, Direction.SENDONLY]
    assert connection.missing_sections() is None


def test_a_codec_that_the_client_lacks_is_reported(connection: AnsweringConnection) -> None:
    connection.answer(set_direction(offer("firefox"), "1", "recvonly"), refuse)
    h264 = (Codec.H264, "packetization-mode=1;profile-level-id=42e01f", 1)
    connection.want(track("TR_a", Kind.VIDEO, h264))
    connection.want(track("TR_none", Kind.VIDEO))
    connection.want(WantedTrack("TR_empty", "PA_p", Kind.VIDEO, (), "PA_p"))
    assert connection.unsupported() == {"TR_a"}
    assert connection.missing_sections() == (0, 0)
    connection.want(track("TR_a", Kind.VIDEO, h264, (Codec.VP8, "", 2)))
    assert connection.unsupported() == frozenset()
    assert connection.missing_sections() == (0, 1)


def test_the_codecs_of_a_client_without_sections_are_unknown(connection: AnsweringConnection) -> None:
    connection.answer(offer("firefox"), publish())
    connection.want(track("TR_a", Kind.VIDEO, (Codec.H264, "", 1)))
    assert connection.unsupported() == frozenset()
    assert connection.missing_sections() == (0, 1)


def test_forwarding_ends_where_the_client_stops_receiving(
    engine: RecordingEngine, connection: AnsweringConnection
) -> None:
    connection.want(track("TR_a"))
    connection.answer(offer("chromium-join"), refuse)
    result = connection.answer(set_direction(offer("chromium-join"), "3", "inactive"), refuse)
    assert result.mid_to_track_id == {"4": "TR_a"}
    assert engine.names().count("unsubscribe") == 1
    assert directions(result)["3"] is Direction.INACTIVE


def test_forwarding_yields_to_a_client_that_publishes_on_the_section(connection: AnsweringConnection) -> None:
    connection.want(track("TR_a"))
    connection.answer(offer("aiortc"), refuse)
    result = connection.answer(offer("aiortc"), publish())
    assert result.mid_to_track_id == {"1": "TR_1"}
    assert connection.missing_sections() == (0, 1)


def test_sections_outside_the_bundle_or_without_our_codecs_are_rejected(connection: AnsweringConnection) -> None:
    text = offer("chromium-join").replace("a=group:BUNDLE 0 1 2 3 4 5 6", "a=group:BUNDLE 1 2 3 4 5 6")
    text += "m=text 9 UDP/TLS/RTP/SAVPF 98\nc=IN IP4 0.0.0.0\na=mid:t\na=rtpmap:98 t140/1000\n"
    answer = parse(connection.answer(text, refuse).sdp)
    assert [s.port for s in answer.sections] == [0, 9, 9, 9, 9, 9, 9, 0]
    assert answer.bundles == (("1", "2", "3", "4", "5", "6"),)
    assert answer.sections[1].candidates
    assert [s.mid for s in answer.sections] == [s.mid for s in parse(text).sections]


def test_ice_restarts_when_the_client_changes_its_credentials(
    engine: RecordingEngine, connection: AnsweringConnection
) -> None:
    before = parse(connection.answer(offer("firefox"), refuse).sdp)
    restarted = offer("firefox").replace("a=ice-ufrag:7a3be19c", "a=ice-ufrag:changed0")
    after = parse(connection.answer(restarted, refuse).sdp)
    assert engine.names() == ["set_media", "connect", "set_media", "restart_ice", "connect"]
    assert engine.last("connect")[1].ice.ufrag == "changed0"
    assert {s.transport.ufrag for s in before.sections}.isdisjoint({s.transport.ufrag for s in after.sections})
    assert len({s.transport.ufrag for s in after.sections}) == 1


def test_data_channels_may_come_later(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    whole = offer("chromium-join")
    connection.answer(whole.replace("BUNDLE 0 1 2 3 4 5 6", "BUNDLE 0 1 2 3 4 5"), refuse)
    assert engine.last("connect")[1].sctp_port is None
    connection.answer(whole, refuse)
    assert engine.last("connect")[1].sctp_port == 5000
    assert "restart_ice" not in engine.names()


def test_a_data_only_offer_is_answered(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    head, *bodies = re.split(r"\n(?=m=)", offer("chromium-join"))
    text = "\n".join([head.replace("BUNDLE 0 1 2 3 4 5 6", "BUNDLE 6"), bodies[6]])
    (section,) = parse(connection.answer(text, refuse).sdp).sections
    assert section.sctp_port == 5000
    assert section.candidates
    assert engine.last("set_media")[1].payload_types == {}


def test_an_offer_that_takes_everything_away_is_answered(connection: AnsweringConnection) -> None:
    connection.want(track("TR_a"))
    connection.answer(offer("chromium-join"), refuse)
    result = connection.answer(re.sub(r"(?m)^(m=\w+) \d+", r"\1 0", offer("chromium-join")), refuse)
    assert {s.port for s in parse(result.sdp).sections} == {0}
    assert result.mid_to_track_id == {}
    assert connection.answer(offer("chromium-join"), refuse).mid_to_track_id == {"3": "TR_a"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("v=0", "v=1", "v=0"),
        ("a=group:BUNDLE", "a=group:LS", "BUNDLE"),
        ("a=rtcp-mux\n", "", "rtcp-mux"),
        ("a=fingerprint:", "a=f:", "fingerprint"),
        ("a=ice-ufrag:", "a=u:", "ice-ufrag"),
    ],
)
def test_an_unusable_offer_changes_nothing(
    engine: RecordingEngine, connection: AnsweringConnection, old: str, new: str, reason: str
) -> None:
    with pytest.raises(SdpError, match=reason):
        connection.answer(offer("gstreamer").replace(old, new), publish())
    assert engine.calls == []
    assert len(connection.answer(offer("gstreamer"), publish()).published) == 2


def test_another_certificate_is_refused(connection: AnsweringConnection) -> None:
    connection.answer(offer("firefox"), refuse)
    with pytest.raises(SdpError, match="fingerprint"):
        connection.answer(re.sub(r"(a=fingerprint:sha-256) \w\w", r"\1 00", offer("firefox")), refuse)


def test_a_full_engine_refuses_politely(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    engine.full = True
    connection.want(track("TR_a"))
    result = connection.answer(offer("chromium-publish"), publish())
    assert result.published == ()
    assert result.mid_to_track_id == {}
    assert set(directions(result).values()) == {Direction.INACTIVE, None}
    assert connection.missing_sections() is None
    assert connection.unsupported() == frozenset()
    engine.full = False
    connection.want(track("TR_a"))
    assert connection.missing_sections() == (0, 0)
    assert "TR_a" in connection.answer(offer("chromium-publish"), publish()).mid_to_track_id.values()


def test_closing_closes_the_transport(engine: RecordingEngine, connection: AnsweringConnection) -> None:
    connection.want(track("TR_a"))
    connection.answer(offer("chromium-join"), refuse)
    connection.close()
    assert engine.last("close_transport") == (connection.transport,)
    connection.unwant("TR_a")
    assert subscription_of(connection, "TR_a") is None


def test_goog_remb_is_only_for_those_without_transport_cc(connection: AnsweringConnection) -> None:
    def feedback(text: str, mid: int) -> set[str]:
        answer: SessionDescription = parse(connection.answer(text, refuse).sdp)
        return {f.value for f in answer.sections[mid].profile.feedback}

    connection.want(track("TR_a"))
    assert feedback(offer("aiortc"), 1) == {"goog-remb", "nack", "nack pli"}
    other = AnsweringConnection(RecordingEngine().engine)
    other.want(track("TR_a"))
    answer = parse(other.answer(offer("chromium-join"), refuse).sdp)
    assert {f.value for f in answer.sections[3].profile.feedback} == {"transport-cc", "ccm fir", "nack", "nack pli"}


@pytest.mark.parametrize("decide", [publish(), refuse], ids=["published", "received"])
def test_audio_is_answered_without_nack(connection: AnsweringConnection, decide: Decide) -> None:
    text = offer("chromium-publish").replace(
        "a=rtcp-fb:111 transport-cc", "a=rtcp-fb:111 transport-cc\na=rtcp-fb:111 nack"
    )
    connection.want(track("TR_voice", Kind.AUDIO))
    answer = parse(connection.answer(text, decide).sdp)
    audio = [section for section in answer.sections if section.kind == "audio"]
    assert {f.value for section in audio for f in section.profile.feedback} == {"transport-cc"}
