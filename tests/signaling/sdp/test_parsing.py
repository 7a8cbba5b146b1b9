"""Law: any text parses to a value or raises SdpError; parse(serialize(x)) == x."""

import gc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.sdp import parsing as sdp
from signaling.sdp.parsing import KnownSections, SdpError, format_parameters, parse
from signaling.sdp.session_description import (
    Direction,
    Extmap,
    Feedback,
    Profile,
    Rid,
    RtpMap,
    Section,
    SessionDescription,
    Setup,
    Simulcast,
    SsrcAttribute,
    SsrcGroup,
    Transport,
)

OFFERS = sorted((Path(__file__).parents[1] / "offers").glob("*.sdp"))
HEAD = "v=0\no=- 1 2 IN IP4 127.0.0.1\ns=-\nt=0 0\n"
AUDIO = HEAD + "m=audio 9 UDP/TLS/RTP/SAVPF 111\n"


def offer(name: str) -> str:
    return (Path(__file__).parents[1] / "offers" / f"{name}.sdp").read_text()


def section(lines: str) -> Section:
    return parse(AUDIO + lines).sections[0]


# Values that the grammar can carry.

names = st.text("abcXYZ019-_.{}/+", min_size=1, max_size=12)
words = st.lists(names, min_size=1, max_size=3).map(" ".join)
ssrcs = st.integers(0, 0xFFFFFFFF)
payload_types = st.integers(0, 127)
ids = st.text("abcxyz019", min_size=1, max_size=8)
directions = st.none() | st.sampled_from(Direction)
profiles = st.builds(
    Profile,
    formats=st.lists(payload_types.map(str), min_size=1, max_size=5).map(tuple),
    rtpmaps=st.lists(st.builds(RtpMap, payload_types, ids, ssrcs, st.integers(0, 255)), max_size=3).map(tuple),
    fmtps=st.lists(st.tuples(payload_types, words), max_size=3).map(tuple),
    feedback=st.lists(st.builds(Feedback, st.integers(-1, 127), words), max_size=3).map(tuple),
    extensions=st.lists(st.builds(Extmap, st.integers(1, 255), names, directions, words | st.just("")), max_size=3).map(
        tuple
    ),
)
digests = st.binary(min_size=2, max_size=32).map(lambda raw: raw.hex(":").upper())
transports = st.builds(
    Transport,
    ufrag=names | st.just(""),
    password=names | st.just(""),
    options=st.lists(names, max_size=2).map(tuple),
    fingerprints=st.lists(st.tuples(st.sampled_from(["sha-256", "sha-512"]), digests), max_size=2).map(tuple),
    setup=st.none() | st.sampled_from(Setup),
)
streams = st.lists(ids, max_size=3).map(tuple)
sections = st.builds(
    Section,
    kind=st.sampled_from(["audio", "video", "application", "text"]),
    port=st.integers(0, 0xFFFF),
    profile=profiles,
    direction=directions,
    msids=st.lists(st.tuples(names, names | st.just("")), max_size=2).map(tuple),
    bundle_only=st.booleans(),
    rtcp_mux=st.booleans(),
    rtcp_rsize=st.booleans(),
    extmap_allow_mixed=st.booleans(),
    transport=transports,
    rids=st.lists(st.builds(Rid, ids, st.sampled_from(["send", "recv"]), words | st.just("")), max_size=3).map(tuple),
    simulcast=st.none() | st.builds(Simulcast, streams, streams),
    ssrcs=st.lists(st.builds(SsrcAttribute, ssrcs, ids, words | st.just("")), max_size=3).map(tuple),
    ssrc_groups=st.lists(st.builds(SsrcGroup, ids, st.lists(ssrcs, min_size=1, max_size=3).map(tuple)), max_size=2).map(
        tuple
    ),
    sctp_port=st.none() | st.integers(0, 0xFFFF),
    max_message_size=st.none() | st.integers(0, 1 << 62),
    candidates=st.lists(words, max_size=2).map(tuple),
    end_of_candidates=st.booleans(),
)


@st.composite
def sessions(draw: st.DrawFn) -> SessionDescription:
    mids = draw(st.lists(ids, max_size=3, unique=True))
    made = [draw(sections) for _ in mids]
    return SessionDescription(
        origin=draw(words),
        bundles=tuple(draw(st.lists(st.lists(ids, max_size=3).map(tuple), max_size=2))),
        ice_lite=draw(st.booleans()),
        extmap_allow_mixed=draw(st.booleans()),
        direction=draw(directions),
        transport=draw(transports),
        sections=tuple(
            Section(**({f: getattr(s, f) for f in Section.__slots__} | {"mid": m}))
            for s, m in zip(made, mids, strict=True)
        ),
    )


@given(sessions())
def test_what_is_serialised_parses_to_the_same_value(session: SessionDescription) -> None:
    text = session.serialize()
    assert parse(text) == session
    assert parse(text.replace("\r\n", "\n")) == session


@given(st.text(max_size=300))
def test_any_text_is_a_value_or_an_sdp_error(text: str) -> None:
    for candidate in (text, HEAD + text, AUDIO + text, AUDIO + "a=" + text):
        try:
            value = parse(candidate)
        except SdpError:
            continue
        assert parse(value.serialize()) == value


attribute_names = st.sampled_from(
    [
        *("rtpmap", "fmtp", "rtcp-fb", "extmap", "ssrc", "ssrc-group", "rid", "simulcast", "msid", "mid"),
        *("fingerprint", "setup", "ice-ufrag", "ice-options", "sctp-port", "max-message-size", "candidate", "group"),
    ]
)
odd_values = st.text(" :/;,=*~0123456789abcdef\t\u00a0\u2028é", max_size=30)


@given(st.lists(st.tuples(attribute_names, odd_values), max_size=10))
def test_odd_attributes_never_raise(lines: list[tuple[str, str]]) -> None:
    for start in (HEAD, AUDIO):
        value = parse(start + "".join(f"a={name}:{content}\n" for name, content in lines))
        assert parse(value.serialize()) == value


@pytest.mark.parametrize("path", OFFERS, ids=lambda path: path.stem)
def test_offers_of_real_clients_survive_a_round_trip(path: Path) -> None:
    session = parse(path.read_text())
    assert parse(session.serialize()) == session
    assert parse(path.read_text().replace("\n", "\r\n")) == session
    assert all(session.transport_of(s).fingerprints and session.transport_of(s).ufrag for s in session.sections)


def test_everything_in_a_publishing_section_is_kept() -> None:
    session = parse(offer("chromium-publish"))
    video = session.sections[3]
    assert session.extmap_allow_mixed
    assert session.bundles == (("0", "1", "2", "3", "4", "5"),)
    assert [rid.id for rid in video.rids] == ["q", "h", "f"]
    assert video.simulcast == Simulcast(send=("q", "h", "f"))
    assert Feedback(96, "nack pli") in video.profile.feedback
    assert (97, "apt=96") in video.profile.fmtps
    assert video.transport.setup is Setup.ACTPASS
    assert session.sections[4].ssrc_groups[0].semantics == "FID"
    assert session.sections[5].sctp_port == 5000


def test_extension_directions_and_session_level_attributes_are_inherited() -> None:
    session = parse(offer("firefox"))
    audio, video, data = session.sections
    assert Direction.SENDONLY in {extension.direction for extension in video.profile.extensions}
    assert session.transport_of(video).fingerprints == session.transport.fingerprints != ()
    assert session.direction_of(audio) is Direction.SENDONLY
    assert not video.rejected
    assert video.port == 0
    assert session.direction_of(data) is Direction.SENDRECV
    assert session.allows_mixed(video)
    assert not session.allows_mixed(data)
    only_session = parse(HEAD + "a=inactive\na=ice-ufrag:abcd\nm=audio 9 UDP/TLS/RTP/SAVPF 0\n")
    assert only_session.direction_of(only_session.sections[0]) is Direction.INACTIVE
    assert only_session.transport_of(only_session.sections[0]).ufrag == "abcd"


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        (
            "a=extmap:9 uri some attributes",
            "profile",
            Profile(("111",), extensions=(Extmap(9, "uri", None, "some attributes"),)),
        ),
        ("a=extmap:4096 uri", "profile", Profile(("111",))),
        ("a=extmap:3/sideways uri", "profile", Profile(("111",))),
        ("a=ssrc:1", "ssrcs", ()),
        ("a=ssrc:1 foo", "ssrcs", (SsrcAttribute(1, "foo"),)),
        ("a=ssrc:4294967296 cname:x", "ssrcs", ()),
        ("a=fmtp:120 x=1", "profile", Profile(("111",), fmtps=((120, "x=1"),))),
        ("a=fmtp:128 x=1", "profile", Profile(("111",))),
        ("a=rtpmap:111 opus", "profile", Profile(("111",))),
        ("a=rtcp-fb:* nack  pli", "profile", Profile(("111",), feedback=(Feedback(-1, "nack pli"),))),
        ("a=setup:holdconn", "transport", Transport(setup=Setup.HOLDCONN)),
        ("a=setup:whatever", "transport", Transport()),
        ("a=fingerprint:sha-256 nonsense", "transport", Transport()),
        ("a=fingerprint:SHA-256 ab:cd", "transport", Transport(fingerprints=(("sha-256", "AB:CD"),))),
        ("a=mid:0 1", "mid", ""),
        ("a=msid:a b c", "msids", ()),
        ("a=msid:stream", "msids", (("stream", ""),)),
        ("a=simulcast: send rid=q;h", "simulcast", Simulcast(send=("q", "h"))),
        ("a=simulcast:send 1,~4;2 recv x", "simulcast", Simulcast(("1,~4", "2"), ("x",))),
        ("a=sctp-port:65536", "sctp_port", None),
        ("a=ssrc-group:FID 1 x", "ssrc_groups", ()),
    ],
)
def test_odd_lines_are_read_as_far_as_they_make_sense(line: str, field: str, value: object) -> None:
    assert getattr(section(line), field) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "v=0"),
        ("garbage", "v=0"),
        (HEAD + "m=audio\n", "m-section 0: .* is not an m= line"),
        (HEAD + "m=audio nine UDP/TLS/RTP/SAVPF 0\n", "is not a port"),
        (HEAD + "m=audio 65536 UDP/TLS/RTP/SAVPF 0\n", "is not a port"),
        (AUDIO + "a=mid:\x00\n", "control characters"),
        (AUDIO + "a=mid:1\nm=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:1\n", "same a=mid"),
        (AUDIO + "a=x\n" * (1 << 18), "1048576 characters"),
        (HEAD + "m=audio 9 P 0\n" * 1001, "1000 m-sections"),
        (AUDIO + "a=extmap:1 u\n" * 65, "64 a=extmap"),
        (AUDIO + "a=rid:q send\n" * 33, "32 a=rid"),
        (AUDIO + "a=ssrc:1 a:b\n" * 513, "512 a=ssrc"),
        (HEAD + "a=group:BUNDLE 1\n" * 513, "session level: more than 512"),
        (HEAD + "m=audio 9 P" + " 0" * 129, "128 formats"),
        (AUDIO + f"a=fmtp:111 {'x' * 65536}\n", "65536 characters"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(SdpError, match=reason):
        parse(text)


def test_a_thousand_sections_are_fine() -> None:
    assert len(parse(HEAD + "m=audio 9/2 P 0\n" * 1000).sections) == 1000


def test_a_section_that_the_last_description_of_a_connection_had_is_not_parsed_again() -> None:
    known = KnownSections()
    first = parse(offer("chromium-join"), known)
    changed = offer("chromium-join").replace("a=mid:2", "a=mid:two").replace("BUNDLE 0 1 2", "BUNDLE 0 1 two")
    again = parse(changed, known)
    assert [a is b for a, b in zip(first.sections, again.sections, strict=True)] == [
        True,
        True,
        False,
        True,
        True,
        True,
        True,
    ]
    assert again.sections[2].mid == "two"
    assert again.sections[2].profile is first.sections[2].profile


def test_only_the_last_description_of_a_connection_is_remembered() -> None:
    known = KnownSections()

    def section(text: str) -> Section:
        return parse(f"{AUDIO}{text}\n", known).sections[0]

    kept = section("a=mid:kept")
    assert section("a=mid:kept") is kept
    section("a=mid:other")
    assert section("a=mid:kept") is not kept
    big = "a=candidate:" + "x" * sdp.MAX_KNOWN_SECTION
    assert section(big) is not section(big)


def test_a_description_that_cannot_be_used_leaves_nothing_more_behind() -> None:
    known = KnownSections()
    for number in range(50):
        with pytest.raises(SdpError):
            parse(f"{AUDIO}a=mid:{number}\nm=audio nine P 0\n", known)
    assert len(known._before) + len(known._now) <= 2


def test_what_a_connection_sent_is_forgotten_with_it() -> None:
    def sections() -> int:
        gc.collect()
        return sum(type(each) is Section for each in gc.get_objects())

    before = sections()
    known = KnownSections()
    parse(AUDIO + "a=mid:1\na=ssrc:4711 cname:x\n", known)
    assert sections() == before + 1
    del known
    assert sections() == before


def test_format_parameters_are_split_leniently() -> None:
    assert format_parameters("Profile-Level-ID=42e01f; packetization-mode=1;;flag") == {
        "profile-level-id": "42e01f",
        "packetization-mode": "1",
        "flag": "",
    }
