"""Records what a real Chromium sends, as fixtures for the tests of this package: `python record.py [scenario ...]`.

Needs playwright, aioice, pyOpenSSL and pylibsrtp, and Chromium (environment variable CHROMIUM, /usr/bin/chromium).
The page publishes its fake camera or microphone to a small ICE-lite receiver in this process, which decrypts RTP and
keeps the first packets: whole headers, but only the first bytes of each payload (padded packets whole).

File format: one line of JSON (codec and clock of each payload type, URI of each header extension id), then for each
packet in order of arrival: arrival in ms (u32), size on the wire (u16), kept bytes (u16), the bytes. Big endian.
"""

import asyncio
import contextlib
import datetime
import json
import os
import re
import secrets
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aioice import stun
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from playwright.async_api import async_playwright
from pylibsrtp import Error, Policy, Session

HOST = "127.0.0.1"
MAX_FILE_BYTES = 60 * 1024
KEY_FRAME_AFTER = (140, 260)
"""A picture loss indication goes out after so many packets."""
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--disable-gpu",
]


@dataclass(frozen=True)
class Scenario:
    """What to publish."""

    codec: str
    encodings: tuple[dict[str, Any], ...] = ({},)
    width: int = 1280
    height: int = 720
    bitrate_bps: int = 1_500_000
    dependency_descriptor: bool = True
    """Accept the extension; without it VP8 describes layers in its payload."""
    packets: int = 360
    kept_payload_bytes: int = 48


def _layers(mode: str) -> tuple[dict[str, Any], ...]:
    return ({"scalabilityMode": mode},)


_SIMULCAST = tuple(
    {"rid": rid, "scaleResolutionDownBy": scale, "scalabilityMode": "L1T3"}
    for rid, scale in (("q", 4), ("h", 2), ("f", 1))
)
SCENARIOS = {
    "vp8_simulcast": Scenario("video/VP8", _SIMULCAST, bitrate_bps=4_000_000, dependency_descriptor=False),
    "vp8_dependency": Scenario("video/VP8", _layers("L1T3"), 640, 360, 500_000),
    "vp9_l3t3_key": Scenario("video/VP9", _layers("L3T3_KEY")),
    "vp9_l3t3": Scenario("video/VP9", _layers("L3T3")),
    "vp9_l1t3": Scenario("video/VP9", _layers("L1T3"), 640, 360, 500_000),
    "av1_l3t3_key": Scenario("video/AV1", _layers("L3T3_KEY")),
    "av1_l1t3": Scenario("video/AV1", _layers("L1T3"), 640, 360, 500_000),
    "h264": Scenario("video/H264", ({},), 640, 360, 500_000),
    "red": Scenario("audio/red", packets=200, kept_payload_bytes=400),
}

PAGE = """async ({codec, encodings, width, height}) => {
    const kind = codec.split('/')[0];
    const wanted = kind === 'video' ? {video: {width, height, frameRate: 30}} : {audio: true};
    const stream = await navigator.mediaDevices.getUserMedia(wanted);
    const connection = window.connection = new RTCPeerConnection();
    const transceiver = connection.addTransceiver(stream.getTracks()[0], {
        direction: 'sendonly', sendEncodings: encodings, streams: [stream]});
    const all = RTCRtpSender.getCapabilities(kind).codecs;
    const fits = one => one.mimeType.toLowerCase() === codec.toLowerCase()
        && !/packetization-mode=0|profile-id=[12]/.test(one.sdpFmtpLine || '');
    const extra = all.filter(one => /rtx|opus/i.test(one.mimeType));
    transceiver.setCodecPreferences([...all.filter(fits), ...extra]);
    await connection.setLocalDescription();
    return connection.localDescription.sdp;
}"""


def acceptable(offer: str, scenario: Scenario) -> str:
    """The offer without what the scenario refuses."""
    refused = () if scenario.dependency_descriptor else ("dependency-descriptor",)
    return "\n".join(line for line in offer.splitlines() if not any(word in line for word in refused))


def answer(offer: str, ufrag: str, password: str, fingerprint: str, port: int) -> str:
    """An SDP answer that receives everything offered, with REMB as the only congestion control."""
    lines = []
    for line in offer.splitlines():
        if re.match(r"a=(ssrc|ssrc-group|msid|msid-semantic|candidate|ice-options|end-of-candidates)\b", line):
            continue
        if "transport-cc" in line or "transport-wide-cc" in line:
            continue
        changed = line.replace("a=sendonly", "a=recvonly").replace("a=simulcast:send", "a=simulcast:recv")
        changed = re.sub(r"^(a=rid:\S+) send", r"\1 recv", changed)
        changed = re.sub(r"^a=ice-ufrag:.*", f"a=ice-ufrag:{ufrag}", changed)
        changed = re.sub(r"^a=ice-pwd:.*", f"a=ice-pwd:{password}", changed)
        changed = re.sub(r"^a=fingerprint:.*", f"a=fingerprint:sha-256 {fingerprint}", changed)
        changed = re.sub(r"^a=setup:.*", "a=setup:passive", changed)
        if changed.startswith("m="):
            changed = re.sub(r"^m=(\w+) \d+", rf"m=\1 {port}", changed)
        lines.append(changed)
        if changed.startswith("t="):
            lines.append("a=ice-lite")
    lines.append(f"a=candidate:1 1 udp 2130706431 {HOST} {port} typ host")
    return "\r\n".join(lines) + "\r\n"


def legend(offer: str) -> dict[str, Any]:
    """Payload types and header extensions of the (only) media section."""
    codecs = {pt: [name, int(clock)] for pt, name, clock in re.findall(r"a=rtpmap:(\d+) ([^/]+)/(\d+)", offer)}
    extensions = dict(re.findall(r"a=extmap:(\d+)(?:/\w+)? (\S+)", offer))
    return {"codecs": codecs, "extensions": extensions}


def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "recorder")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    day = datetime.timedelta(days=1)
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    return builder.sign(key, hashes.SHA256()), key


class Receiver(asyncio.DatagramProtocol):
    """ICE-lite, DTLS server, SRTP; `packets` are (arrival in s, plaintext RTP) of everything but RTX."""

    def __init__(self, ignored_payload_types: set[int], packet_count: int) -> None:
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(16)
        signed, key = certificate()
        self.fingerprint = signed.fingerprint(hashes.SHA256()).hex(":").upper()
        context = SSL.Context(SSL.DTLS_METHOD)
        context.use_certificate(signed)
        context.use_privatekey(key)
        context.set_tlsext_use_srtp(b"SRTP_AES128_CM_SHA1_80")
        self.dtls = SSL.Connection(context, None)
        self.dtls.set_accept_state()
        self.ignored = ignored_payload_types
        self.packet_count = packet_count
        self.inbound: Session | None = None
        self.outbound: Session | None = None
        self.packets: list[tuple[float, bytes]] = []
        self.ssrcs: set[int] = set()
        self.enough = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: Any) -> None:
        if data[0] < 4:
            self._answer_check(data, address)
        elif 20 <= data[0] < 64:
            self.dtls.bio_write(data)
            self._handshake()
        elif 128 <= data[0] < 192 and not 192 <= data[1] <= 223 and self.inbound:
            try:
                self._take(self.inbound.unprotect(data))
            except Error:
                return

    def _answer_check(self, data: bytes, address: Any) -> None:
        request = stun.parse_message(data)
        if request.message_class != stun.Class.REQUEST:
            return
        response = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = address[:2]
        response.add_message_integrity(self.password.encode())
        self.transport.sendto(bytes(response), address)
        self.address = address

    def _handshake(self) -> None:
        done = False
        if self.inbound is None:
            with contextlib.suppress(SSL.WantReadError):
                self.dtls.do_handshake()
                done = True
        with contextlib.suppress(SSL.WantReadError):
            self.transport.sendto(self.dtls.bio_read(65_536), self.address)
        if done:
            material = self.dtls.export_keying_material(b"EXTRACTOR-dtls_srtp", 60)
            theirs, ours = material[:16] + material[32:46], material[16:32] + material[46:60]
            self.inbound = Session(Policy(theirs, Policy.SSRC_ANY_INBOUND))
            self.outbound = Session(Policy(ours, Policy.SSRC_ANY_OUTBOUND))

    def _take(self, packet: bytes) -> None:
        if packet[1] & 127 in self.ignored or self.enough.is_set():
            return
        self.packets.append((asyncio.get_running_loop().time(), packet))
        self.ssrcs.add(struct.unpack_from("!I", packet, 8)[0])
        if len(self.packets) in KEY_FRAME_AFTER:
            self._send(b"".join(struct.pack("!BBHII", 0x81, 206, 2, 1, ssrc) for ssrc in self.ssrcs))
        if len(self.packets) == self.packet_count:
            self.enough.set()

    def _send(self, feedback: bytes) -> None:
        assert self.outbound
        compound = struct.pack("!BBHI", 0x80, 201, 1, 1) + feedback
        self.transport.sendto(self.outbound.protect_rtcp(compound), self.address)

    def estimate(self, bitrate_bps: int) -> None:
        """Send a REMB (draft-alvestrand-rmcat-remb-03) for every SSRC seen."""
        if self.outbound is None or not self.ssrcs:
            return
        exponent = max(bitrate_bps.bit_length() - 18, 0)
        words = struct.pack("!4sI", b"REMB", len(self.ssrcs) << 24 | exponent << 18 | bitrate_bps >> exponent)
        words += b"".join(struct.pack("!I", ssrc) for ssrc in sorted(self.ssrcs))
        self._send(struct.pack("!BBHII", 0x8F, 206, 2 + len(words) // 4, 1, 0) + words)


def kept_bytes(packet: bytes, payload_bytes: int) -> int:
    """The header with its extensions, and the first bytes of the payload; all of it when it ends in padding."""
    if packet[0] & 32:
        return len(packet)
    at = 12 + 4 * (packet[0] & 15)
    if packet[0] & 16:
        at += 4 + 4 * struct.unpack_from("!H", packet, at + 2)[0]
    return min(at + payload_bytes, len(packet))


def save(path: Path, described: dict[str, Any], packets: list[tuple[float, bytes]], payload_bytes: int) -> None:
    data = bytearray(json.dumps(described).encode() + b"\n")
    for arrival, packet in packets:
        kept = kept_bytes(packet, payload_bytes)
        if len(data) + 8 + kept > MAX_FILE_BYTES:
            break
        data += struct.pack("!IHH", int((arrival - packets[0][0]) * 1000), len(packet), kept) + packet[:kept]
    path.write_bytes(data)
    sys.stdout.write(f"{path.name}: {len(packets)} packets, {len(data)} bytes\n")


async def record(browser: Any, name: str) -> None:
    scenario = SCENARIOS[name]
    page = await browser.new_page()
    await page.goto("http://localhost/")  # any secure context; answered by `blank`
    offer = await page.evaluate(
        PAGE,
        {"codec": scenario.codec, "encodings": scenario.encodings, "width": scenario.width, "height": scenario.height},
    )
    offer = acceptable(offer, scenario)
    described = legend(offer)
    ignored = {int(pt) for pt, (codec, _) in described["codecs"].items() if codec == "rtx"}
    loop = asyncio.get_running_loop()
    transport, receiver = await loop.create_datagram_endpoint(lambda: Receiver(ignored, scenario.packets), (HOST, 0))
    text = answer(offer, receiver.ufrag, receiver.password, receiver.fingerprint, receiver.port)
    await page.evaluate("sdp => connection.setRemoteDescription({type: 'answer', sdp})", text)
    while not receiver.enough.is_set():
        receiver.estimate(scenario.bitrate_bps)
        await asyncio.wait([asyncio.create_task(receiver.enough.wait())], timeout=0.1)
    transport.close()
    await page.close()
    save(Path(__file__).with_name(f"{name}.bin"), described, receiver.packets, scenario.kept_payload_bytes)


async def main(names: list[str]) -> None:
    async def blank(route: Any) -> None:
        await route.fulfill(body="<html></html>", content_type="text/html")

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=CHROMIUM_ARGUMENTS
        )
        context = await browser.new_context()
        await context.route("**/*", blank)
        for name in names:
            await record(context, name)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or list(SCENARIOS)))
