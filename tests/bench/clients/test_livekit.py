"""What other servers behind LiveKit's signalling do differently from ours, and that the generator takes it."""

import contextlib
import json
import shutil
import socket
import threading

import pytest
from aioice import stun
from OpenSSL import SSL
from pylibsrtp import Policy, Session

from bench.clients import sdp
from bench.clients.arrivals import is_dtls, is_stun
from bench.clients.dtls_server import PROFILES, server_context
from bench.clients.endpoint import Endpoint, make_context
from bench.measure.run import SessionProcess, Subject
from bench.plans import Layer, Plan, TrackPlan
from bench.scenarios import Scenario
from bench.targets.livekit import LiveKit
from sfu.parameters import DtlsRole, IceCredentials

PROFILE = "SRTP_AEAD_AES_128_GCM"
SINGLE = TrackPlan("video", (Layer("", 30, 1200),))
LAYERED = TrackPlan("video", (Layer("q", 10, 1200), Layer("f", 30, 1200)))
ANSWER = "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\na=setup:{setup}\r\na=extmap:1 mid\r\n"
CANDIDATE = "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host"
RTP = bytes.fromhex("80600001000000010000002a") + b"payload"


def test_candidates_may_come_beside_the_answer() -> None:
    remote = sdp.Remote.parse(
        ANSWER.format(setup="passive"), ["candidate:2 1 tcp 1 127.0.0.1 7881 typ host", CANDIDATE]
    )
    assert remote.address == ("127.0.0.1", 7882)
    assert remote.our_role is DtlsRole.CLIENT
    with pytest.raises(ValueError, match="candidate"):
        sdp.Remote.parse(ANSWER.format(setup="passive"))


def test_the_answer_decides_on_the_dtls_role() -> None:
    assert sdp.Remote.parse(ANSWER.format(setup="active"), [CANDIDATE]).our_role is DtlsRole.SERVER


def test_a_track_with_one_stream_names_its_ssrc_and_one_with_layers_their_rids() -> None:
    plan = Plan("room", "a", (SINGLE, LAYERED))
    ssrcs = sdp.choose_ssrcs(plan)
    text = sdp.offer(plan, ["c0", "c1"], [], ("u", "p"), ("sha-256", "00"), 1, ssrcs)
    _, single, layered = text.split("m=video")
    assert f"a=ssrc:{ssrcs[0][0]} msid:- c0" in single
    assert "a=ssrc:" not in layered
    assert "a=simulcast:send q;f" in layered
    sends = sdp.send_streams(plan, sdp.Remote.parse(ANSWER.format(setup="active"), [CANDIDATE]), ssrcs)
    assert [stream.ssrc for stream in sends] == [ssrc for track in ssrcs for ssrc in track]


class ActiveServer(threading.Thread):
    """A server that answers checks and then begins the DTLS handshake itself, as pion's do."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5)
        self.connection = SSL.Connection(server_context(PROFILE)[0], None)
        self.connection.set_connect_state()
        self.connection.set_ciphertext_mtu(1200)
        self.done = False

    def run(self) -> None:
        while not self.done:
            datagram, peer = self.socket.recvfrom(4096)
            if is_stun(datagram):
                request = stun.parse_message(datagram)
                response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
                self.socket.sendto(bytes(response), peer)
            elif is_dtls(datagram):
                self.connection.bio_write(datagram)
            with contextlib.suppress(SSL.WantReadError):
                self.connection.do_handshake()
                self.done = True
            with contextlib.suppress(SSL.WantReadError):
                for record in _records(self.connection.bio_read(1 << 16)):
                    self.socket.sendto(record, peer)

    def keys(self) -> bytes:
        profile = PROFILES[PROFILE]
        length = 2 * (profile.key_bytes + profile.salt_bytes)
        return self.connection.export_keying_material(b"EXTRACTOR-dtls_srtp", length)


def _records(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = 13 + int.from_bytes(data[11:13], "big")
        found.append(data[:size])
        data = data[size:]
    return found


async def test_an_endpoint_can_be_the_dtls_server() -> None:
    server = ActiveServer()
    server.start()
    endpoint = Endpoint(make_context()[0], server.socket.getsockname(), role=DtlsRole.SERVER)
    await endpoint.connect(IceCredentials("abcd", "efgh"))
    server.join(5)
    assert server.done
    material, profile = server.keys(), PROFILES[PROFILE]
    client_key = material[: profile.key_bytes] + material[2 * profile.key_bytes :][: profile.salt_bytes]
    server_key = material[profile.key_bytes :][: profile.key_bytes] + material[-profile.salt_bytes :]
    # RFC 5764 section 4.2: the endpoint is the DTLS server, so what it sends is protected by the server's key.
    theirs = Session(Policy(server_key, Policy.SSRC_ANY_INBOUND, srtp_profile=profile.number))
    assert theirs.unprotect(endpoint._sessions[0].protect(RTP)) == RTP
    ours = Session(Policy(client_key, Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile.number))
    assert endpoint._sessions[1].unprotect(ours.protect(RTP)) == RTP
    endpoint.close()
    server.socket.close()


def test_a_livekit_server_is_on_loopback_alone() -> None:
    rtc = json.loads(LiveKit({})._configuration(7880, 7882))["rtc"]
    # Another interface's candidate would be called 127.0.0.1 too, and who checks on loopback would not be known there.
    assert rtc["ips"] == {"includes": ["127.0.0.1/32"]}
    assert rtc["node_ip"] == "127.0.0.1"


@pytest.mark.alone
@pytest.mark.skipif(shutil.which("livekit-server") is None, reason="no livekit-server on the PATH")
def test_a_real_livekit_server_is_measured() -> None:
    scenario = Scenario("webinar", "", "viewers", 3, 0.5, audio=True, video="single")
    with SessionProcess(Subject("livekit"), scenario) as session:
        measured = session.measure()
    assert 0 < measured.delivered <= measured.offered
