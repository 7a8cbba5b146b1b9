"""A long and lossy way between one client and the server: a relay for its datagrams, and one for its signalling.

The signalling relay names the datagram relay's port in place of the server's and leaves the candidates of TCP out, so
the client's ICE finds nothing else.
Losses come from a seeded generator and concern RTP on its way up only; every datagram is late in both directions. On
the way down a rate can be set, before which datagrams queue.
"""

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import websockets
from livekit.protocol.rtc import SignalResponse
from websockets.asyncio.server import ServerConnection

from tests.clients.network import ADDRESS
from tests.clients.sfu_server import ServerUnderTest, free_port

MAX_FRAME_BYTES = 16 * 1024 * 1024
CANDIDATE_OF_TCP = re.compile(r"a=candidate:\S+ \d+ tcp [^\r\n]*\r?\n", re.IGNORECASE)
MAX_QUEUE_S = 0.3
"""What would wait longer before the rate is lost."""
PADDING_BIT = 0x20
"""The padding bit of an RTP packet's first byte; libwebrtc sets it where there is padding and nothing else."""


def is_rtp(datagram: bytes) -> bool:
    """Whether a datagram is RTP and not STUN, DTLS or RTCP (RFC 7983, RFC 5761)."""
    return len(datagram) > 12 and 128 <= datagram[0] < 192 and not 192 <= datagram[1] <= 223


@dataclass
class LossyPath:
    """What the relays do, and what they have done. `server` is where the client is to connect."""

    server: ServerUnderTest
    delay_s: float
    loss: float
    random: random.Random
    packets: Counter[int] = field(default_factory=Counter)
    """RTP packets from the client by SSRC, lost ones included and padding not."""
    lost: Counter[int] = field(default_factory=Counter)
    down_bps: float = 0.0
    """Bit/s that get through to the client; 0: as many as come."""
    _free_at: float = 0.0
    """When the queue on the way down is empty, in the loop's time."""
    _ways: dict[tuple[str, int], asyncio.DatagramTransport] = field(default_factory=dict)

    def later(
        self,
        transport: asyncio.DatagramTransport,
        data: bytes,
        address: tuple[str, int] | None = None,
        queued_s: float = 0.0,
    ) -> None:
        """Send a datagram when it has been on its way for delay_s, and queued before, unless the way has ended."""

        def send() -> None:
            if not transport.is_closing():
                transport.sendto(data, address)

        asyncio.get_running_loop().call_later(self.delay_s + queued_s, send)

    def queued_s(self, datagram: bytes) -> float | None:
        """How long a datagram waits on its way down; None: the queue is full."""
        if not self.down_bps:
            return 0.0
        now = asyncio.get_running_loop().time()
        free_at = max(self._free_at, now) + 8 * len(datagram) / self.down_bps
        if free_at - now > MAX_QUEUE_S:
            return None
        self._free_at = free_at
        return free_at - now

    def goes_up(self, datagram: bytes) -> bool:
        """Count a datagram from the client; False: it is lost."""
        if not is_rtp(datagram):
            return True
        ssrc = int.from_bytes(datagram[8:12], "big")
        gone = self.random.random() < self.loss
        if not datagram[0] & PADDING_BIT:
            self.packets[ssrc] += 1
            self.lost[ssrc] += gone
        return not gone


class _Down(asyncio.DatagramProtocol):
    """From the server to one client address."""

    def __init__(self, path: LossyPath, client: asyncio.DatagramTransport, address: tuple[str, int]) -> None:
        self._path, self._client, self._address = path, client, address

    def datagram_received(self, data: bytes, _source: object) -> None:
        if (queued_s := self._path.queued_s(data)) is not None:
            self._path.later(self._client, data, self._address, queued_s)


class _Up(asyncio.DatagramProtocol):
    """From the client, each of whose addresses gets a socket of its own towards the server."""

    def __init__(self, path: LossyPath, server_port: int) -> None:
        self._path, self._port = path, server_port
        self._opening: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        loop, path = asyncio.get_running_loop(), self._path
        if source in path._ways:
            if path.goes_up(data):
                path.later(path._ways[source], data)
        elif source not in self._opening:  # the client repeats a check that came before its socket is there
            self._opening[source] = loop.create_task(self._open(source))

    async def _open(self, source: tuple[str, int]) -> None:
        assert self._transport is not None
        down, port = _Down(self._path, self._transport, source), (ADDRESS, self._port)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: down, remote_addr=port)
        self._path._ways[source] = transport


def _renamed(frame: str | bytes, server_port: int, relay_port: int) -> str | bytes | None:
    """A SignalResponse whose descriptions name the relay's port, and no way past the relay. None: it tells of the
    candidates alone, which are in the descriptions too."""
    response = SignalResponse.FromString(frame if isinstance(frame, bytes) else frame.encode())
    kind = response.WhichOneof("message")
    if kind == "trickle":
        return None
    if kind not in ("answer", "offer"):
        return frame
    description = getattr(response, kind)
    udp = CANDIDATE_OF_TCP.sub("", description.sdp)
    description.sdp = udp.replace(f" {server_port} typ host", f" {relay_port} typ host")
    return response.SerializeToString()


@contextlib.asynccontextmanager
async def lossy_path(
    server: ServerUnderTest, *, round_trip_s: float, loss: float, seed: int = 1
) -> AsyncIterator[LossyPath]:
    """Relays towards `server` for one client. loss: share of the RTP packets on the way up, 0 to 1."""
    path = LossyPath(server, round_trip_s / 2, loss, random.Random(seed))
    loop = asyncio.get_running_loop()
    up, _ = await loop.create_datagram_endpoint(lambda: _Up(path, server.udp_port), local_addr=(ADDRESS, 0))
    relay_port = up.get_extra_info("sockname")[1]

    async def signal(client: ServerConnection) -> None:
        assert client.request is not None
        url, headers = server.url + client.request.path, client.request.headers
        kept = {name: headers[name] for name in ("Authorization",) if name in headers}
        async with websockets.connect(url, additional_headers=kept, max_size=MAX_FRAME_BYTES) as upstream:

            async def down() -> None:
                async for frame in upstream:
                    if (renamed := _renamed(frame, server.udp_port, relay_port)) is not None:
                        await client.send(renamed)
                await client.close()

            task = asyncio.create_task(down())
            with contextlib.suppress(websockets.ConnectionClosed):
                async for frame in client:
                    await upstream.send(frame)
            task.cancel()

    port = free_port()
    try:
        async with websockets.serve(signal, "127.0.0.1", port, max_size=MAX_FRAME_BYTES):
            path.server = replace(server, port=port, udp_port=relay_port)
            yield path
    finally:
        for transport in (up, *path._ways.values()):
            transport.close()
        await asyncio.sleep(0)  # sockets are closed by the loop
