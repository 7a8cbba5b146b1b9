import asyncio
import os
import re
import shutil
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.clients.janus import HOW_TO_GET_IT, Installation, JanusFailed, configuration, write_configuration
from bench.clients.janus_sdp import fingerprint_of, publisher_offer, viewer_answer
from bench.clients.passive_endpoint import PassiveEndpoint
from bench.plans import Connected, Layer, Plan, TrackPlan
from bench.targets.base import TargetFailed
from bench.targets.janus import JanusTarget, Leg

CAMERA = TrackPlan("video", (Layer("", 230, 1200),))
MICROPHONE = TrackPlan("audio", (Layer("", 50, 100),), frames_per_second=0)
FINGERPRINT = ":".join(["AB"] * 32)
CANDIDATE = "a=candidate:1 1 udp 2130706431 192.0.2.7 4000 typ host\r\na=end-of-candidates\r\n"
OFFER = """v=0
a=group:BUNDLE 0 1 2
a=fingerprint:sha-256 {fingerprint}
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=sendonly
a=mid:0
a=rtcp-mux
a=setup:actpass
a=rtpmap:111 opus/48000/2
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
m=video 0 UDP/TLS/RTP/SAVPF 96
a=inactive
a=mid:1
m=video 9 UDP/TLS/RTP/SAVPF 96 97
a=sendonly
a=mid:2
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=ssrc:1 cname:janus
a=candidate:1 1 udp 1 192.0.2.2 5 typ host
""".replace("\n", "\r\n").replace("{fingerprint}", FINGERPRINT)

JANUS_ROOT = os.environ.get("JANUS_ROOT", "")
"""A folder of unpacked packages, for a machine without Janus on its PATH."""
needs_janus = pytest.mark.skipif(not JANUS_ROOT and not shutil.which("janus"), reason="there is no Janus here")


def installed(root: Path) -> Path:
    """The skeleton of a folder with Janus; returns its folder of modules."""
    modules = root / "usr/lib/x86_64-linux-gnu/janus"
    for name in ("plugins/libjanus_videoroom.so", "plugins/libjanus_sip.so", "transports/libjanus_websockets.so"):
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).touch()
    (modules / "transports/libjanus_http.so").touch()
    (root / "usr/bin").mkdir()
    (root / "usr/bin/janus").touch()
    return modules


def test_the_configuration_has_one_plugin_one_transport_and_one_address(tmp_path: Path) -> None:
    modules = installed(tmp_path / "root")
    folder = tmp_path / "configuration"
    folder.mkdir()
    write_configuration(folder, modules, "192.0.2.7", 4711, 1)
    text = (folder / "janus.jcfg").read_text()
    assert "event_loops = 1\n" in text
    assert "ice_lite = true\n" in text
    assert 'ice_enforce_list = "192.0.2.7"\n' in text
    assert re.findall(r'disable = "(.*)"', text) == ["libjanus_sip.so", "libjanus_http.so"]
    assert f'plugins_folder = "{modules}/plugins"' in text
    assert "ws_port = 4711\n" in (folder / "janus.transport.websockets.jcfg").read_text()
    assert "string_ids = true\n" in (folder / "janus.plugin.videoroom.jcfg").read_text()


def test_a_thread_for_each_peer_connection_is_what_janus_does_untold(tmp_path: Path) -> None:
    write_configuration(tmp_path, installed(tmp_path / "root"), "192.0.2.7", 4711, 0)
    assert "event_loops" not in (tmp_path / "janus.jcfg").read_text()


def test_values_are_written_as_libconfig_reads_them() -> None:
    text = configuration({"general": {"name": "a", "number": 3, "yes": True, "no": False}})
    assert text == 'general: {\n\tname = "a"\n\tnumber = 3\n\tyes = true\n\tno = false\n}\n'


def test_an_installation_is_found_and_started_with_its_own_libraries(tmp_path: Path) -> None:
    modules = installed(tmp_path)
    found = Installation.find(str(tmp_path), "/opt/srtp")
    assert found.modules == modules
    assert found.command(["-o"]) == [
        "env",
        f"LD_LIBRARY_PATH=/opt/srtp:{modules.parent}",
        f"{tmp_path}/usr/bin/janus",
        "-o",
    ]


def test_it_says_how_to_get_janus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JanusFailed, match="apt-get install"):
        Installation.find("", "")
    with pytest.raises(JanusFailed, match="usr/bin/janus"):
        Installation.find(str(tmp_path), "")
    assert "\n" not in HOW_TO_GET_IT


def test_a_publisher_offers_its_tracks_and_leaves_the_dtls_client_to_janus() -> None:
    offer = publisher_offer(Plan("room", "a", (MICROPHONE, CAMERA)), ("u", "p"), FINGERPRINT, CANDIDATE, [[1], [2]])
    assert re.findall(r"m=(\w+)", offer) == ["audio", "video"]
    assert offer.count("a=setup:actpass") == 1
    assert "a=setup:active" not in offer
    assert offer.count("a=candidate") == 1
    assert offer.index("a=candidate") < offer.index("m=video")
    assert fingerprint_of(offer) == FINGERPRINT


def test_a_viewer_accepts_what_is_offered_and_nothing_that_was_not() -> None:
    answer = viewer_answer(OFFER, ("u", "p"), "00:11", CANDIDATE)
    head, *sections = re.split(r"(?m)^(?=m=)", answer)
    assert "a=group:BUNDLE 0 1 2\r\n" in head
    assert "a=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:sha-256 00:11\r\n" in head
    assert [section.splitlines()[0] for section in sections] == [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "m=video 0 UDP/TLS/RTP/SAVPF 96",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
    ]
    assert ["a=recvonly" in section for section in sections] == [True, False, True]
    assert all("a=setup:passive" in section for section in sections)
    assert re.findall(r"a=extmap:\S+ \S+", answer) == ["a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid"]
    assert "a=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n" in sections[2]
    assert "cname" not in answer
    assert answer.count("a=candidate") == 1
    assert "192.0.2.2" not in answer


def test_a_description_without_a_fingerprint_is_refused() -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        fingerprint_of("v=0\r\n")


def test_an_endpoint_says_where_it_is() -> None:
    endpoint = PassiveEndpoint("127.0.0.1")
    assert f"127.0.0.1 {endpoint.socket.getsockname()[1]} typ host" in endpoint.candidate
    assert not endpoint.socket.getblocking()
    endpoint.close()
    assert endpoint.socket.fileno() == -1


async def test_an_endpoint_answers_checks_with_its_own_password() -> None:
    from aioice import stun

    endpoint = PassiveEndpoint("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        endpoint.socket.connect(server.getsockname())
        check = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        endpoint._answer(bytes(check))
        answer = stun.parse_message(server.recv(2048))
        assert answer.transaction_id == check.transaction_id
        assert answer.check_message_integrity(endpoint.password.encode())
        endpoint._answer(b"\x00\x01garbage")
    endpoint.close()


@pytest.mark.parametrize("options", [{"speed": "more"}, {"profile": "none"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="janus"):
        JanusTarget(options)


async def test_who_sends_and_receives_is_not_measured() -> None:
    with pytest.raises(TargetFailed, match="two transports"):
        await JanusTarget({}).join(Plan("room", "a", (CAMERA,)))


@pytest.fixture
async def target() -> AsyncIterator[JanusTarget]:
    janus = JanusTarget({"root": JANUS_ROOT} if JANUS_ROOT else {})
    await janus.start((0,))
    yield janus
    await janus.stop()


def endpoint_of(participant: Connected) -> PassiveEndpoint:
    assert isinstance(participant.owner, Leg)
    return participant.owner.endpoint


def send(participant: Connected, sequence_number: int, payload: bytes) -> None:
    stream = participant.sends[0]
    elements = stream.extensions + bytes(-len(stream.extensions) % 4)
    header = struct.pack("!BBHII", 0x90, 0x80 | stream.payload_type, sequence_number, 3000, stream.ssrc)
    packet = header + struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements + payload
    dtls = endpoint_of(participant)._dtls
    assert dtls is not None
    assert dtls.outgoing is not None
    participant.socket.send(dtls.outgoing.protect(packet))


async def payload_received(participant: Connected) -> bytes:
    """The end of the next RTP packet."""
    dtls = endpoint_of(participant)._dtls
    assert dtls is not None
    assert dtls.incoming is not None
    while True:
        datagram = await asyncio.get_running_loop().sock_recv(participant.socket, 2048)
        if datagram[0] >> 6 == 2 and not 192 <= datagram[1] <= 223:
            return bytes(dtls.incoming.unprotect(datagram))[-8:]


@needs_janus
async def test_janus_forwards_also_what_is_published_later(target: JanusTarget) -> None:
    first = await target.join(Plan("room", "first", (CAMERA,), subscribe=False))
    viewers = [await target.join(Plan("room", f"viewer{k}")) for k in range(2)]
    await target.settle()
    send(first, 1, b"\x10\x00 video 1")
    assert [await payload_received(viewer) for viewer in viewers] == [b" video 1"] * 2
    second = await target.join(Plan("room", "second", (MICROPHONE,), subscribe=False))
    await target.settle()
    send(second, 1, b"sound  1")
    assert [await payload_received(viewer) for viewer in viewers] == [b"sound  1"] * 2
    await target.leave(viewers[0])
    send(first, 2, b"\x00\x00 video 2")
    assert await payload_received(viewers[1]) == b" video 2"
    assert target.drops() == {}
    versions = target.versions()
    assert versions["janus"][0].isdigit()
    assert "cryptography" in versions["libsrtp of janus"]


@needs_janus
async def test_a_viewer_of_an_empty_room_is_refused(target: JanusTarget) -> None:
    with pytest.raises(TargetFailed, match="nobody publishes"):
        await target.join(Plan("room", "viewer"))
