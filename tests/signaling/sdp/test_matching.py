"""signaling/sdp/matching.py: which m-section takes which track, at a cost that does not grow with the pairs of them."""

import pytest

from sfu.parameters import Codec, Kind, TrackId
from signaling.sdp.codecs import OWN_FORMATS, best_decoder, supported_formats
from signaling.sdp.matching import Matching
from signaling.sdp.offering import OfferingConnection
from signaling.sdp.parsing import parse
from signaling.sdp.peer_connection import AnsweringConnection, PublishDecision, SendingSection, WantedTrack
from tests.counting import calls_of
from tests.signaling.support.recording_engine import RecordingEngine, subscription_of

PROFILES = ("42001f", "42e01f", "4d001f", "640c1f", "64001f")
CALLS_PER_SECTION = 400
"""Parsing one, placing a track and writing the answer, with two formats; each further format is about 15."""
CALLS_PER_FORMAT = 60


def offer(sections: int, formats: int, different: int = 1) -> str:
    """An offer of video m-sections for receiving, whose H.264 formats are of so many different lengths."""
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE " + " ".join(map(str, range(sections)))]
    for mid in range(sections):
        numbers = [*range(35, 64), *range(96, 128)][: formats - mid % different]
        lines += [f"m=video 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, numbers))}", f"a=mid:{mid}"]
        lines += ["a=recvonly", "a=rtcp-mux", "a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuvwx"]
        lines += ["a=fingerprint:sha-256 " + ":".join(["AA"] * 32), "a=setup:actpass"]
        for index, number in enumerate(numbers):
            lines.append(f"a=rtpmap:{number} H264/90000")
            profile = PROFILES[index % len(PROFILES)]
            lines.append(f"a=fmtp:{number} packetization-mode={index % 2};profile-level-id={profile}")
    return "\r\n".join(lines) + "\r\n"


def wanted(number: int, codec: Codec, fmtp: str = "") -> WantedTrack:
    return WantedTrack(f"TR_{number}", "PA_x", Kind.VIDEO, ((codec, fmtp, TrackId(number + 1)),), "cname")


def nobody(section: SendingSection) -> PublishDecision | None:
    return None


@pytest.mark.parametrize("codec", [Codec.H264, Codec.VP8], ids=lambda codec: codec.name)
@pytest.mark.parametrize(("sections", "formats", "tracks", "different"), [(150, 48, 100, 1), (150, 48, 100, 7)])
@pytest.mark.parametrize("many", [1, 2])
def test_the_cost_of_an_offer_grows_with_its_length_alone(
    codec: Codec, sections: int, formats: int, tracks: int, different: int, many: int
) -> None:
    connection = AnsweringConnection(RecordingEngine())  # type: ignore[arg-type]
    for number in range(tracks * many):
        connection.want(wanted(number, codec, "packetization-mode=1;profile-level-id=64001f"))
    text = offer(sections, formats, different)

    def negotiate() -> None:
        connection.answer(text, nobody)
        connection.missing_sections()
        connection.unsupported()

    assert calls_of(negotiate) <= sections * (CALLS_PER_SECTION + CALLS_PER_FORMAT * formats)
    assert len(connection.unsupported()) == (0 if codec is Codec.H264 else tracks * many)


@pytest.mark.parametrize("codec", [Codec.H264, Codec.VP8], ids=lambda codec: codec.name)
def test_a_thousand_sections_and_a_thousand_tracks_are_not_a_million_steps(codec: Codec) -> None:
    connection = AnsweringConnection(RecordingEngine())  # type: ignore[arg-type]
    for number in range(1000):
        connection.want(wanted(number, codec))
    text = offer(1000, 2)
    assert calls_of(lambda: connection.answer(text, nobody)) <= 1000 * (CALLS_PER_SECTION + 2 * CALLS_PER_FORMAT)
    assert calls_of(connection.missing_sections) <= 50_000
    assert calls_of(connection.unsupported) <= 50_000
    taken = [subscription_of(connection, f"TR_{number}") is not None for number in range(1000)]
    assert taken == [codec is Codec.H264] * 1000


def test_our_own_offer_of_many_tracks_grows_with_their_number_alone() -> None:
    def cost(tracks: int) -> int:
        connection = OfferingConnection(RecordingEngine())  # type: ignore[arg-type]
        for number in range(tracks):
            connection.want(wanted(number, Codec.VP8))
        return calls_of(connection.offer)

    assert cost(400) <= 4.4 * cost(100)


def test_a_match_is_what_the_ranking_says() -> None:
    session = parse(offer(1, 24))
    offered = supported_formats(session.sections[0].profile, Kind.VIDEO)
    matching = Matching()
    descriptions = [f"packetization-mode={mode};profile-level-id={each}" for mode in (0, 1) for each in PROFILES]
    for formats in (offered, OWN_FORMATS[Kind.VIDEO]):
        for description in [*descriptions, "profile-level-id=ffffff", *descriptions]:
            selection = matching.select(wanted(0, Codec.H264, description), formats)
            expected = best_decoder(Codec.H264, description, formats)
            assert (selection.media if selection else None) == expected
            assert matching.takes(wanted(0, Codec.H264, description), formats) is (expected is not None)
