"""The connection on which we offer, against answers made by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sfu.parameters import Codec, DtlsRole, Extension, Kind, SubscribeParameters, TrackId
from signaling.sdp import offering
from signaling.sdp.codecs import OWN_FORMATS
from signaling.sdp.offering import OfferingConnection
from signaling.sdp.parsing import parse
from signaling.sdp.peer_connection import SdpError, WantedTrack
from signaling.sdp.session_description import Direction, Section, SessionDescription, Setup, Transport
from tests.signaling.support.recording_engine import RecordingEngine, subscription_of

FINGERPRINT = ("sha-256", ":".join(["CD"] * 32))
H264 = (Codec.H264, "packetization-mode=1;profile-level-id=42e01f", 7)

Edit = Callable[[Section], Section]


def track(sid: str, *sources: tuple[Codec, str, int], stereo: bool = False) -> WantedTrack:
    listed = sources or ((Codec.VP8, "", 900),)
    kind = Kind.AUDIO if listed[0][0] in (Codec.OPUS, Codec.AUDIO) else Kind.VIDEO
    return WantedTrack(sid, "PA_p", kind, tuple((c, f, TrackId(r)) for c, f, r in listed), "PA_p", stereo)


def unchanged(section: Section) -> Section:
    return section


def without(*payload_types: int) -> Edit:
    """A client that does not know these payload types."""
    gone = {str(number) for number in payload_types}

    def edit(section: Section) -> Section:
        profile = section.profile
        kept = tuple(number for number in profile.formats if number not in gone)
        maps = tuple(m for m in profile.rtpmaps if str(m.payload_type) not in gone)
        return replace(section, profile=replace(profile, formats=kept, rtpmaps=maps))

    return edit


class Client:
    """Answers as a browser does, after an edit of each audio and video section."""

    def __init__(self, connection: OfferingConnection, edit: Edit = unchanged) -> None:
        self.connection = connection
        self.edit = edit
        self.setup = Setup.ACTIVE
        self.ufrag = "client"

    def answer(self, text: str) -> str:
        offer = parse(text)
        sections = [self._section(section) for section in offer.sections]
        mids = tuple(section.mid for section in sections if section.port)
        return SessionDescription(bundles=(mids,), extmap_allow_mixed=True, sections=tuple(sections)).serialize()

    def _section(self, section: Section) -> Section:
        transport = Transport(self.ufrag, "p" * 22, (), (FINGERPRINT,), self.setup)
        section = replace(section, transport=transport, candidates=(), end_of_candidates=False)
        if section.port == 0 or section.kind == "application":
            return section
        mirrored = Direction.RECVONLY if section.direction is Direction.SENDONLY else Direction.INACTIVE
        return self.edit(replace(section, direction=mirrored, msids=(), ssrcs=(), ssrc_groups=()))

    def negotiate(self, *, ice_restart: bool = False) -> dict[str, str]:
        """One exchange; returns what the offer said."""
        offer = self.connection.offer(ice_restart)
        assert offer is not None
        self.connection.accept_answer(self.answer(offer[0]))
        return offer[1]


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def connection(engine: RecordingEngine) -> OfferingConnection:
    return OfferingConnection(engine.engine)


def sections(connection: OfferingConnection, *, ice_restart: bool = False) -> tuple[Section, ...]:
    offer = connection.offer(ice_restart)
    assert offer is not None
    return parse(offer[0]).sections


def test_the_first_offer_is_for_data_channels(engine: RecordingEngine, connection: OfferingConnection) -> None:
    offer = connection.offer()
    assert offer is not None
    session = parse(offer[0])
    (data,) = session.sections
    assert session.ice_lite
    assert session.extmap_allow_mixed
    assert (data.sctp_port, data.max_message_size, data.transport.setup) == (5000, 262144, Setup.ACTPASS)
    assert data.candidates
    assert data.end_of_candidates
    assert connection.offer() is None
    connection.accept_answer(Client(connection).answer(offer[0]))
    remote = engine.last("connect")[1]
    assert (remote.role, remote.sctp_port) == (DtlsRole.SERVER, 5000)
    assert connection.offer() is None


def test_a_passive_client_makes_us_the_dtls_client(engine: RecordingEngine, connection: OfferingConnection) -> None:
    client = Client(connection)
    client.setup = Setup.PASSIVE
    client.negotiate()
    assert engine.last("connect")[1].role is DtlsRole.CLIENT


def test_tracks_are_offered_with_their_ssrcs(engine: RecordingEngine, connection: OfferingConnection) -> None:
    connection.want(track("TR_voice", (Codec.OPUS, "", 1), stereo=True))
    connection.want(track("TR_face", (Codec.VP9, "profile-id=0", 2), (Codec.VP8, "", 3)))
    connection.want(track("TR_screen", H264))
    connection.want(track("TR_phone", (Codec.AUDIO, "PCMA/8000", 4)))
    offer = connection.offer()
    assert offer is not None
    assert offer[1] == {"1": "TR_voice", "2": "TR_face", "3": "TR_screen", "4": "TR_phone"}
    _, voice, face, screen, phone = parse(offer[0]).sections
    assert voice.profile.formats == ("111", "63")
    assert dict(voice.profile.fmtps) == {111: "minptime=10;useinbandfec=1;sprop-stereo=1", 63: "111/111"}
    assert face.profile.formats == ("98", "99", "96", "97", "108", "109")
    assert screen.profile.formats[:4] == ("108", "109", "102", "103")
    assert screen.profile.formats[-2:] == ("96", "97")
    assert phone.profile.formats == ("8", "111")
    assert face.direction is Direction.SENDONLY
    assert face.msids == (("PA_p|TR_face", "TR_face"),)
    assert len(face.ssrc_groups[0].ssrcs) == 2
    assert {f.value for f in face.profile.feedback} == {"transport-cc", "goog-remb", "ccm fir", "nack", "nack pli"}
    assert {f.value for f in voice.profile.feedback} == {"transport-cc"}
    assert engine.names() == ["set_media", "subscribe", "subscribe", "subscribe", "subscribe"]
    parameters = [call[3] for call in engine.calls if call[0] == "subscribe"]
    assert parameters[0] == SubscribeParameters("1", 111, -1, 63, "PA_p", True, codec=Codec.OPUS)
    assert parameters[1] == SubscribeParameters("2", 98, 99, -1, "PA_p", True, codec=Codec.VP9)
    ids = {extension.uri: extension.id for section in (voice, face) for extension in section.profile.extensions}
    assert len(set(ids.values())) == len(ids)


def test_only_the_kind_that_is_reported_takes_transport_wide_numbers(
    engine: RecordingEngine, connection: OfferingConnection
) -> None:
    def edit(section: Section) -> Section:
        kept = tuple(e for e in section.profile.extensions if "transport-wide" not in e.uri)
        is_video = section.kind == "video"
        return section if is_video else replace(section, profile=replace(section.profile, extensions=kept))

    connection.want(track("TR_a"))
    connection.want(track("TR_v", (Codec.OPUS, "", 1)))
    Client(connection, edit).negotiate()
    media = engine.last("set_media")[1]
    assert media.unnumbered == {Kind.AUDIO}
    assert Extension.TRANSPORT_CC in media.extensions.values()


def test_the_engine_learns_what_was_accepted(engine: RecordingEngine, connection: OfferingConnection) -> None:
    def edit(section: Section) -> Section:
        kept = tuple(e for e in section.profile.extensions if "playout-delay" not in e.uri)
        profile = replace(section.profile, extensions=kept, feedback=section.profile.feedback[:1])
        return replace(section, profile=profile)

    connection.want(track("TR_a"))
    connection.want(track("TR_v", (Codec.OPUS, "", 1)))
    connection.offer(ice_restart=False)
    assert not engine.last("set_media")[1].mixed_extensions
    before = engine.last("set_media")[1]
    client = Client(connection, edit)
    client.negotiate(ice_restart=True)
    media = engine.last("set_media")[1]
    assert media.mixed_extensions
    assert Extension.PLAYOUT_DELAY in before.extensions.values()
    assert Extension.PLAYOUT_DELAY not in media.extensions.values()
    assert Extension.DEPENDENCY in media.extensions.values()
    assert before.payload_types[96].nack
    assert not media.payload_types[96].nack
    assert connection.offer() is None


def test_changes_while_an_offer_is_outstanding_go_out_together(connection: OfferingConnection) -> None:
    first = connection.offer()
    assert first is not None
    connection.want(track("TR_a"))
    connection.want(track("TR_b"))
    connection.unwant("TR_a")
    assert connection.offer() is None
    connection.accept_answer(Client(connection).answer(first[0]))
    assert Client(connection).negotiate() == {"1": "TR_b"}


def test_nothing_is_sent_before_the_client_has_answered(
    engine: RecordingEngine, connection: OfferingConnection
) -> None:
    client = Client(connection)
    connection.want(track("TR_a"))
    offer = connection.offer()
    assert offer is not None
    assert engine.last("subscribe")[2].paused
    answered = [connection.forwardings["TR_a"].answered]
    connection.accept_answer(client.answer(offer[0]))
    answered.append(connection.forwardings["TR_a"].answered)
    assert answered == [False, True]
    connection.want(track("TR_b"))
    connection.offer()
    assert [connection.forwardings[sid].answered for sid in ("TR_a", "TR_b")] == [True, False]
    connection.unwant("TR_b")
    connection.want(track("TR_b"))
    again = connection.offer(ice_restart=True)
    assert again is not None
    answered = [connection.forwardings["TR_b"].answered]
    connection.accept_answer(client.answer(again[0]))
    answered.append(connection.forwardings["TR_b"].answered)
    assert answered == [False, True]


def test_sections_keep_their_mids_and_rest_before_they_are_used_again(connection: OfferingConnection) -> None:
    client = Client(connection)
    for sid in ("TR_a", "TR_b"):
        connection.want(track(sid))
    assert client.negotiate() == {"1": "TR_a", "2": "TR_b"}
    connection.unwant("TR_a")
    connection.want(track("TR_c"))
    assert client.negotiate() == {"2": "TR_b", "3": "TR_c"}
    connection.want(track("TR_d"))
    connection.want(track("TR_v", (Codec.OPUS, "", 1)))
    assert client.negotiate() == {"1": "TR_d", "2": "TR_b", "3": "TR_c", "4": "TR_v"}
    connection.unwant("TR_d")
    assert [s.direction for s in sections(connection)[1:]] == [Direction.INACTIVE] + [Direction.SENDONLY] * 3


def test_a_track_wanted_again_at_once_is_offered_on_another_section(connection: OfferingConnection) -> None:
    client = Client(connection)
    connection.want(track("TR_a"))
    assert client.negotiate() == {"1": "TR_a"}
    connection.unwant("TR_a")
    connection.want(track("TR_a"))
    assert [s.direction for s in sections(connection)[1:]] == [Direction.INACTIVE, Direction.SENDONLY]


@pytest.fixture
def renewing(engine: RecordingEngine) -> OfferingConnection:
    return OfferingConnection(engine.engine, renews_sections=True)


class HearsOnce(Client):
    """Announces each pair of mid and track once, and knows of each m-section what was offered there last."""

    def __init__(self, connection: OfferingConnection) -> None:
        super().__init__(connection)
        self.heard: list[tuple[str, str]] = []
        self.now: dict[str, str] = {}
        self.offered: tuple[Section, ...] = ()

    def take(self, offer: str) -> str:
        """See an offer as libwebrtc does: a mid changes only on an m-section that was rejected and is not any more."""
        before, self.offered = self.offered, parse(offer).sections
        for old, new in zip(before, self.offered, strict=False):
            assert old.mid == new.mid or (old.port == 0 and new.port != 0), "an m-section has another mid"
        assert len({section.mid for section in self.offered}) == len(self.offered) >= len(before)
        sent = {s.mid: s.msids[0][1] for s in self.offered if s.direction is Direction.SENDONLY and s.port}
        self.heard += [pair for pair in sent.items() if pair not in self.heard]
        self.now = sent
        assert set(parse(offer).bundles[0]) == {section.mid for section in self.offered if section.port}
        return self.answer(offer)

    def settle(self) -> None:
        """Answer until there is nothing more to offer."""
        for _ in range(5):
            if (offer := self.connection.offer()) is None:
                return
            self.connection.accept_answer(self.take(offer[0]))
        raise AssertionError("offers go on for ever")


@pytest.mark.parametrize("pause", [False, True])
def test_a_client_that_hears_once_of_a_track_on_a_section_never_has_it_there_again(
    monkeypatch: pytest.MonkeyPatch, engine: RecordingEngine, renewing: OfferingConnection, pause: bool
) -> None:
    monkeypatch.setattr(offering, "MAX_SECTIONS", 4)
    client = HearsOnce(renewing)
    for sid in ("TR_a", "TR_b"):
        renewing.want(track(sid))
    for times in range(1, 20):
        client.settle()
        assert [sid for _, sid in client.heard].count("TR_a") == times
        assert sorted(client.now.values()) == ["TR_a", "TR_b"]
        assert client.now[client.heard[-1][0]] == client.heard[-1][1]
        assert client.now[engine.last("subscribe")[2].mid] in ("TR_a", "TR_b")
        renewing.unwant("TR_a")
        if pause:
            client.settle()
            assert list(client.now.values()) == ["TR_b"]
        renewing.want(track("TR_a"))
    assert [sid for _, sid in client.heard].count("TR_b") == 1


@pytest.mark.parametrize("seen", [False, True])
def test_a_new_mid_that_a_resumed_client_may_not_have_seen_is_not_rejected_at_once(
    renewing: OfferingConnection, seen: bool
) -> None:
    client = HearsOnce(renewing)
    renewing.want(track("TR_a"))
    client.settle()
    renewing.unwant("TR_a")
    client.settle()
    renewing.want(track("TR_a"))
    lost = renewing.offer()
    assert lost is not None
    if seen:
        client.take(lost[0])  # and its answer does not arrive
    renewing.unwant("TR_a")
    again = renewing.offer(ice_restart=True)
    assert again is not None
    renewing.accept_answer(client.take(again[0]))
    client.settle()
    renewing.want(track("TR_a"))
    client.settle()
    assert list(client.now.values()) == ["TR_a"]
    assert client.now.items() <= {client.heard[-1]}
    assert len(client.offered) == 2


def test_a_section_that_is_renewed_without_room_in_the_engine_takes_the_next_track(
    engine: RecordingEngine, renewing: OfferingConnection
) -> None:
    client = HearsOnce(renewing)
    renewing.want(track("TR_a"))
    client.settle()
    renewing.unwant("TR_a")
    client.settle()
    engine.full = True
    renewing.want(track("TR_a"))
    client.settle()
    assert client.now == {}
    engine.full = False
    renewing.want(track("TR_a"))
    client.settle()
    assert len(client.heard) == 2
    assert len(client.offered) == 2


def test_a_track_that_left_while_its_offer_was_outstanding_does_not_return_unnoticed(
    connection: OfferingConnection,
) -> None:
    client = Client(connection)
    connection.want(track("TR_a"))
    first = connection.offer()
    assert first is not None
    connection.unwant("TR_a")
    connection.want(track("TR_a"))
    connection.accept_answer(client.answer(first[0]))
    assert client.negotiate() == {"2": "TR_a"}


def test_a_track_waits_for_the_only_section_to_rest(
    monkeypatch: pytest.MonkeyPatch, connection: OfferingConnection
) -> None:
    monkeypatch.setattr(offering, "MAX_SECTIONS", 2)
    client = Client(connection)
    connection.want(track("TR_a"))
    assert client.negotiate() == {"1": "TR_a"}
    connection.unwant("TR_a")
    connection.want(track("TR_a"))
    assert client.negotiate() == {}
    assert client.negotiate() == {"1": "TR_a"}
    assert connection.offer() is None


def test_unchanged_tracks_make_no_offer(connection: OfferingConnection) -> None:
    connection.want(track("TR_a"))
    Client(connection).negotiate()
    connection.want(track("TR_a"))
    connection.want(track("TR_a", (Codec.VP9, "", 5), (Codec.VP8, "", 900)))
    connection.unwant("TR_unknown")
    assert connection.offer() is None


def test_a_vanished_receiver_is_replaced_on_the_same_section(
    engine: RecordingEngine, connection: OfferingConnection
) -> None:
    client = Client(connection)
    connection.want(track("TR_a", (Codec.VP9, "", 1)))
    client.negotiate()
    connection.want(track("TR_a", (Codec.VP8, "", 2)))
    assert subscription_of(connection, "TR_a") is None
    assert client.negotiate() == {"1": "TR_a"}
    assert engine.last("subscribe")[0] == 2


def test_a_codec_that_the_client_refuses_is_replaced_by_the_tracks_other_one(
    engine: RecordingEngine, connection: OfferingConnection
) -> None:
    h264 = [f.payload_type for f in OWN_FORMATS[Kind.VIDEO] if f.codec is Codec.H264]
    client = Client(connection, without(*h264))
    connection.want(track("TR_a", H264, (Codec.VP8, "", 8)))
    connection.want(track("TR_b", H264))
    assert client.negotiate() == {"1": "TR_a", "2": "TR_b"}
    assert connection.unsupported() == {"TR_b"}
    assert client.negotiate() == {"1": "TR_a"}
    assert engine.last("subscribe")[2].payload_type == 96
    assert connection.offer() is None
    connection.want(track("TR_c", H264))
    assert connection.unsupported() == {"TR_b", "TR_c"}


@pytest.mark.parametrize(("only", "published"), [(108, (Codec.VP8, "", 8)), (96, H264), (108, (Codec.VP9, "", 8))])
def test_a_client_with_one_common_codec_answers_any_video_section(
    connection: OfferingConnection, only: int, published: tuple[Codec, str, int]
) -> None:
    numbers = {f.payload_type for f in OWN_FORMATS[Kind.VIDEO]}
    client = Client(connection, without(*(numbers - {only})))
    connection.want(track("TR_a", published))
    offer = connection.offer()
    assert offer is not None
    answer = client.answer(offer[0])
    assert parse(answer).sections[1].profile.formats == (str(only),), "the m-section has a codec that the client knows"
    connection.accept_answer(answer)
    assert connection.unsupported() == {"TR_a"}
    connection.want(track("TR_b", H264 if only == 108 else (Codec.VP8, "", 9)))
    while (following := connection.offer()) is not None:
        connection.accept_answer(client.answer(following[0]))
        mids = following[1]
    assert list(mids.values()) == ["TR_b"]


def test_another_h264_profile_is_used_where_the_best_one_is_refused(
    engine: RecordingEngine, connection: OfferingConnection
) -> None:
    client = Client(connection, without(108, 109))
    connection.want(track("TR_a", H264))
    for _ in range(2):
        assert client.negotiate() == {"1": "TR_a"}
    assert engine.last("subscribe")[2].payload_type == 102
    assert connection.offer() is None


def test_red_and_rtx_are_given_up_where_they_are_refused(
    engine: RecordingEngine, connection: OfferingConnection
) -> None:
    client = Client(connection, without(63, 97))
    connection.want(track("TR_voice", (Codec.OPUS, "", 1)))
    connection.want(track("TR_face"))
    both = {"1": "TR_voice", "2": "TR_face"}
    assert client.negotiate() == both
    assert subscription_of(connection, "TR_face") is None
    assert client.negotiate() == both
    voice, face = [call[3] for call in engine.calls if call[0] == "subscribe"][-2:]
    assert voice == SubscribeParameters("1", 111, -1, -1, "PA_p", True, codec=Codec.OPUS)
    assert face == SubscribeParameters("2", 96, -1, -1, "PA_p", True, codec=Codec.VP8)
    assert connection.offer() is None
    assert connection.unsupported() == frozenset()
    assert 97 not in engine.last("set_media")[1].payload_types


@pytest.mark.parametrize("way", ["port 0", "inactive"])
def test_a_track_that_the_client_declines_is_given_up(connection: OfferingConnection, way: str) -> None:
    def edit(section: Section) -> Section:
        return replace(section, port=0) if way == "port 0" else replace(section, direction=Direction.INACTIVE)

    connection.want(track("TR_a"))
    Client(connection, edit).negotiate()
    client = Client(connection)
    assert connection.unsupported() == {"TR_a"}
    assert subscription_of(connection, "TR_a") is None
    client.negotiate()
    connection.want(track("TR_a"))
    assert connection.offer() is None
    connection.want(track("TR_b"))
    mids = client.negotiate()
    assert mids == ({"2": "TR_b"} if way == "port 0" else {"1": "TR_b"})
    connection.want(track("TR_a", (Codec.VP9, "", 3)))
    assert connection.unsupported() == frozenset()
    assert "TR_a" in client.negotiate().values()


def test_an_ice_restart_replaces_an_outstanding_offer(engine: RecordingEngine, connection: OfferingConnection) -> None:
    client = Client(connection)
    connection.want(track("TR_a"))
    client.negotiate()
    connection.want(track("TR_b"))
    lost = sections(connection)
    again = sections(connection, ice_restart=True)
    assert {s.transport.ufrag for s in lost}.isdisjoint({s.transport.ufrag for s in again})
    assert [s.ssrcs for s in lost] == [s.ssrcs for s in again]
    client.ufrag = "restarted"
    assert client.negotiate(ice_restart=True) == {"1": "TR_a", "2": "TR_b"}
    assert engine.last("connect")[1].ice.ufrag == "restarted"
    assert engine.names().count("connect") == 2


def test_before_the_first_answer_there_is_nothing_to_restart(
    engine: RecordingEngine, connection: OfferingConnection
) -> None:
    connection.offer()
    assert connection.offer(ice_restart=True) is not None
    assert "restart_ice" not in engine.names()


def test_a_full_engine_leaves_the_section_quiet(engine: RecordingEngine, connection: OfferingConnection) -> None:
    engine.full = True
    connection.want(track("TR_a"))
    assert Client(connection).negotiate() == {}
    assert connection.offer() is None
    engine.full = False
    connection.want(track("TR_a"))
    assert Client(connection).negotiate() == {"1": "TR_a"}


def test_the_number_of_sections_is_bounded(monkeypatch: pytest.MonkeyPatch, connection: OfferingConnection) -> None:
    monkeypatch.setattr(offering, "MAX_SECTIONS", 3)
    for number in range(4):
        connection.want(track(f"TR_{number}"))
    assert Client(connection).negotiate() == {"1": "TR_0", "2": "TR_1"}
    assert connection.offer() is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: "nonsense", "v=0"),
        (lambda text: text + "m=text 9 UDP/TLS/RTP/SAVPF 1\r\n", "number of m-sections"),
        (lambda text: text.replace("a=mid:1", "a=mid:9"), 'm-section "9"'),
        (lambda text: text.replace("BUNDLE 0 1", "BUNDLE"), "no m-section of the bundle"),
        (lambda text: text.replace("CD:CD", "CD-CD"), "fingerprint"),
    ],
)
def test_an_answer_that_does_not_fit_changes_nothing(
    engine: RecordingEngine, connection: OfferingConnection, spoil: Callable[[str], str], reason: str
) -> None:
    connection.want(track("TR_a"))
    offer = connection.offer()
    assert offer is not None
    answer = Client(connection).answer(offer[0])
    with pytest.raises(SdpError, match=reason):
        connection.accept_answer(spoil(answer))
    assert "connect" not in engine.names()
    connection.accept_answer(answer)
    assert subscription_of(connection, "TR_a") is not None
    with pytest.raises(SdpError, match="without an offer"):
        connection.accept_answer(answer)


def test_closing_closes_the_transport(engine: RecordingEngine, connection: OfferingConnection) -> None:
    connection.want(track("TR_a"))
    Client(connection).negotiate()
    connection.close()
    assert engine.last("close_transport") == (connection.transport,)
    connection.unwant("TR_a")
    assert subscription_of(connection, "TR_a") is None
