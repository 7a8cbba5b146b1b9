"""Which payload types are ours, and what decodes what."""

from pathlib import Path

import pytest

from sfu.parameters import Codec, Kind
from signaling.sdp.codecs import (
    OWN_FORMATS,
    RTCP_CONFLICT,
    Format,
    H264Profile,
    best_decoder,
    decodes,
    h264_profile,
    most_compatible,
    supported_formats,
)
from signaling.sdp.parsing import parse
from signaling.sdp.session_description import RtpMap


def formats(kind: Kind, text: str) -> tuple[Format, ...]:
    head = f"v=0\no=-\ns=-\nt=0 0\nm={kind.value} 9 UDP/TLS/RTP/SAVPF "
    return supported_formats(parse(head + text).sections[0].profile, kind)


def h264(profile: str, mode: int = 1, payload_type: int = 100) -> Format:
    fmtp = f"level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}"
    return Format(RtpMap(payload_type, "H264", 90_000), Codec.H264, fmtp)


def test_a_browsers_video_formats_are_taken_without_red_and_fec() -> None:
    offer = (Path(__file__).parents[1] / "offers" / "chromium-publish.sdp").read_text()
    found = supported_formats(parse(offer).sections[3].profile, Kind.VIDEO)
    assert {f.codec for f in found} == {Codec.VP8, Codec.H264, Codec.VP9, Codec.AV1, Codec.RTX}
    assert not {118, 119, 120} & {f.payload_type for f in found}
    assert [f.payload_type for f in found][:4] == [96, 97, 102, 103]
    assert found[1].associated == 96
    assert "nack pli" in found[0].feedback


def test_static_payload_types_need_no_rtpmap() -> None:
    found = formats(Kind.AUDIO, "0 8 9 13\n")
    assert [f.description for f in found] == ["PCMU/8000", "PCMA/8000", "G722/8000"]
    assert {f.codec for f in found} == {Codec.AUDIO}


@pytest.mark.parametrize(
    "text",
    [
        "96\na=rtpmap:96 VP8/8000\n",
        "72\na=rtpmap:72 VP8/90000\n",
        "x 200 ²\n",
        "96\na=rtpmap:96 rtx/90000\na=fmtp:96 apt=x\n",
        "96\na=rtpmap:96 rtx/90000\na=fmtp:96 apt=97\n",
        "96\na=rtpmap:96 rtx/90000\na=fmtp:96 apt=96\n",
        "96\na=rtpmap:96 VP9/90000\na=fmtp:96 profile-id=1\n",
        "96\na=rtpmap:96 opus/48000/2\n",
        "96\n",
    ],
)
def test_payload_types_that_cannot_be_forwarded_are_left_out(text: str) -> None:
    assert formats(Kind.VIDEO, text) == ()


def test_red_counts_only_around_opus() -> None:
    around = "111 63\na=rtpmap:111 opus/48000/2\na=rtpmap:63 red/48000/2\na=fmtp:63 {}\n"
    assert [f.codec for f in formats(Kind.AUDIO, around.format("111/111"))] == [Codec.OPUS, Codec.RED]
    assert [f.codec for f in formats(Kind.AUDIO, around.format("0/0"))] == [Codec.OPUS]


def test_feedback_for_all_payload_types_counts_for_each() -> None:
    (vp8,) = formats(Kind.VIDEO, "96\na=rtpmap:96 VP8/90000\na=rtcp-fb:* nack\na=rtcp-fb:97 ccm fir\n")
    assert vp8.feedback == ("nack",)
    assert vp8.parameters().nack


def test_audio_is_never_sent_again() -> None:
    text = "111 0\na=rtpmap:111 opus/48000/2\na=rtcp-fb:111 nack\na=rtcp-fb:* transport-cc\na=rtcp-fb:0 nack pli\n"
    for each in formats(Kind.AUDIO, text):
        assert each.feedback == ("transport-cc",)
        assert not each.parameters().nack


@pytest.mark.parametrize(
    ("fmtp", "profile", "mode"),
    [
        ("profile-level-id=42e01f;packetization-mode=1", H264Profile.CONSTRAINED_BASELINE, 1),
        ("profile-level-id=42001f", H264Profile.BASELINE, 0),
        ("profile-level-id=4D001F", H264Profile.MAIN, 0),
        ("profile-level-id=4d801f", H264Profile.CONSTRAINED_BASELINE, 0),
        ("profile-level-id=640c1f", H264Profile.CONSTRAINED_HIGH, 0),
        ("profile-level-id=640034;packetization-mode=2", H264Profile.HIGH, 0),
        ("profile-level-id=f4001f", None, 0),
        ("profile-level-id=42e0", None, 0),
        ("profile-level-id=hello!", None, 0),
        ("", H264Profile.CONSTRAINED_BASELINE, 0),
    ],
)
def test_h264_profiles_are_read(fmtp: str, profile: H264Profile | None, mode: int) -> None:
    assert h264_profile(fmtp) == (profile, mode)


@pytest.mark.parametrize(
    ("published", "offered", "possible"),
    [
        (h264("42e01f"), h264("42e034"), True),
        (h264("42e01f"), h264("42001f"), True),
        (h264("42001f"), h264("42e01f"), True),
        (h264("42e01f"), h264("640c1f"), True),
        (h264("4d001f"), h264("64001f"), True),
        (h264("640c1f"), h264("64001f"), True),
        (h264("64001f"), h264("640c1f"), False),
        (h264("64001f"), h264("42e01f"), False),
        (h264("4d001f"), h264("42e01f"), False),
        (h264("42e01f", mode=0), h264("42e01f", mode=1), True),
        (h264("42e01f", mode=1), h264("42e01f", mode=0), False),
        (h264("f4001f"), h264("f4001f"), False),
    ],
)
def test_h264_is_forwarded_to_whom_can_decode_it(published: Format, offered: Format, possible: bool) -> None:
    assert (decodes(Codec.H264, published.fmtp, offered) is not None) is possible


def test_the_exact_h264_profile_is_the_best_decoder() -> None:
    offered = [h264("64001f", 1, 1), h264("42e01f", 1, 2), h264("42e01f", 0, 3)]
    best = best_decoder(Codec.H264, h264("42e01f", mode=0).fmtp, offered)
    assert best is not None
    assert best.payload_type == 3
    assert best_decoder(Codec.VP8, "", offered) is None


def test_a_publisher_uses_the_format_that_most_can_decode() -> None:
    offered = [h264("64001f", 1, 1), h264("42001f", 1, 2), h264("42e01f", 0, 3), h264("42e01f", 1, 4)]
    numbers = []
    while offered:
        chosen = most_compatible(Codec.H264, offered)
        assert chosen is not None
        numbers.append(chosen.payload_type)
        offered.remove(chosen)
    assert numbers == [4, 2, 3, 1]
    profiles = formats(Kind.VIDEO, "1 2\na=rtpmap:1 VP9/90000\na=fmtp:1 profile-id=2\na=rtpmap:2 VP9/90000\n")
    chosen = most_compatible(Codec.VP9, profiles)
    assert chosen is not None
    assert chosen.payload_type == 2


@pytest.mark.parametrize(
    ("codec", "published", "fmtp", "possible"),
    [
        (Codec.VP9, "profile-id=0", "", True),
        (Codec.VP9, "profile-id=2", "profile-id=0", False),
        (Codec.AV1, "level-idx=5;profile=0;tier=0", "", True),
        (Codec.AV1, "profile=1", "profile=0", False),
        (Codec.VP8, "max-fs=12288", "", True),
    ],
)
def test_profiles_of_other_codecs_must_be_equal(codec: Codec, published: str, fmtp: str, possible: bool) -> None:
    assert (decodes(codec, published, Format(RtpMap(1, codec.name, 90_000), codec, fmtp)) is not None) is possible


def test_other_audio_codecs_are_told_apart() -> None:
    pcmu, pcma, _ = formats(Kind.AUDIO, "0 8 9\n")
    assert decodes(Codec.AUDIO, pcmu.description, pcmu) == 0
    assert decodes(Codec.AUDIO, pcmu.description, pcma) is None


def test_our_own_payload_types_are_unique_and_legal() -> None:
    numbers = [f.payload_type for kind in Kind for f in OWN_FORMATS[kind]]
    assert len(numbers) == len(set(numbers))
    assert not set(numbers) & set(RTCP_CONFLICT)
    assert all(0 <= number <= 127 for number in numbers)
    assert all(f.associated in numbers for f in OWN_FORMATS[Kind.VIDEO] if f.codec is Codec.RTX)
