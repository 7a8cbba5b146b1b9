"""A client that costs next to nothing: JSON signalling, SDP from a template, and the benchmark's blocking endpoint.

Sixty native SDKs would keep two cores busy with encoding; what a large room asks of the server is the same with these.
"""

import asyncio
import contextlib
import itertools
import re
import secrets
import struct
from collections.abc import AsyncIterator

from OpenSSL import SSL

from bench.clients.endpoint import Endpoint
from sfu.parameters import IceCredentials
from tests.clients.json_peer import JsonSocket, json_socket
from tests.clients.network import ADDRESS
from tests.clients.sfu_server import ServerUnderTest

SAMPLES = 960
"""Samples in one Opus packet of 20 ms."""
SOUND = b"\xf8\xff\xfe"
"""One Opus frame in which nothing is heard."""
PACKET_INTERVAL_S, CHECK_EVERY = 0.1, 30
"""The server needs a packet now and then to take a track for alive, and a check to keep its consent (RFC 7675)."""
_HEAD = (
    "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\na=ice-ufrag:{ufrag}\r\n"
    "a=ice-pwd:{password}\r\na=fingerprint:{fingerprint[0]} {fingerprint[1]}\r\na=setup:active\r\n"
)
_SECTION = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\n"
    "a=rtpmap:111 opus/48000/2\r\n"
)


class LightClient:
    """Publishes one Opus track on section 0, and receives on the sections after it."""

    def __init__(self, socket: JsonSocket, media: tuple[str, int], dtls: tuple[SSL.Context, tuple[str, str]]) -> None:
        """`media`: the server's UDP address. `dtls`: from `bench.clients.endpoint.make_context`."""
        context, self._fingerprint = dtls
        self.socket = socket
        self.endpoint = Endpoint(context, media)
        self._cid = secrets.token_hex(8)
        self._ssrc = secrets.randbits(32)
        self._sequence = self._offers = self._receiving = 0

    async def publish(self) -> None:
        """Announce the track and connect the media transport."""
        await self.socket.expect("join")
        await self.socket.send(addTrack={"cid": self._cid, "type": "AUDIO", "source": "MICROPHONE"})
        await self.socket.expect("trackPublished")
        answer = await self.offer(1)
        ufrag, password = (re.findall(rf"a=ice-{name}:(\S+)", answer)[0] for name in ("ufrag", "pwd"))
        await self.endpoint.connect(IceCredentials(ufrag, password))

    async def offer(self, more: int = 0) -> str:
        """Negotiate, with so many more sections to receive on; returns the answer."""
        self._receiving += more
        self._offers += 1
        start = len(self.socket.seen)
        head = _HEAD.format(
            version=self._offers,
            mids=" ".join(map(str, range(self._receiving + 1))),
            ufrag=self.endpoint.ufrag,
            password=self.endpoint.password,
            fingerprint=self._fingerprint,
        )
        sending = f"a=msid:- {self._cid}\r\na=ssrc:{self._ssrc} cname:light\r\n"
        sections = _SECTION.format(mid=0, direction="sendonly") + sending
        sections += "".join(_SECTION.format(mid=n + 1, direction="recvonly") for n in range(self._receiving))
        await self.socket.send(offer={"type": "offer", "sdp": head + sections, "id": self._offers})
        return str((await self.socket.expect("answer", start))["sdp"])

    def speak(self) -> None:
        """Send one packet of sound."""
        self._sequence += 1
        timestamp = self._sequence * SAMPLES & 0xFFFFFFFF
        head = struct.pack("!BBHII", 0x80, 111, self._sequence & 0xFFFF, timestamp, self._ssrc)
        self.endpoint.send_rtp(head + SOUND)


@contextlib.asynccontextmanager
async def light_publisher(
    server: ServerUnderTest, room: str, identity: str, dtls: tuple[SSL.Context, tuple[str, str]]
) -> AsyncIterator[None]:
    """Be in the room and publish audio until the block ends. dtls: from `bench.clients.endpoint.make_context`."""
    async with json_socket(server.url, server.token(room, identity, canSubscribe=False)) as socket:
        client = LightClient(socket, (ADDRESS, server.udp_port), dtls)
        with contextlib.closing(client.endpoint):
            await client.publish()
            speaking = asyncio.get_running_loop().create_task(_speak(client))
            try:
                yield
            finally:
                speaking.cancel()


async def _speak(client: LightClient) -> None:
    for number in itertools.count():
        client.speak()
        if number % CHECK_EVERY == 0:
            client.endpoint.check()
        await asyncio.sleep(PACKET_INTERVAL_S)
