"""What strangers send does not reach a call: garbage by the hundred thousand, and clients that vanish."""

import asyncio
import os
import socket
import sys

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.network import ADDRESS
from tests.clients.peers import BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

FLOOD_S, FLOOD_PER_S = 30, 100_000
_FLOOD = """
import os, socket, struct, sys, time
address, port, seconds, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect((address, port))
# looks like a binding request with a USERNAME and a MESSAGE-INTEGRITY that nobody computed
body = struct.pack("!HH", 6, 17) + b"abcdefgh:12345678" + bytes(3) + struct.pack("!HH", 8, 20) + os.urandom(20)
garbage = struct.pack("!HHI", 1, len(body), 0x2112A442) + os.urandom(12) + body
start, sent = time.monotonic(), 0
while (elapsed := time.monotonic() - start) < seconds:
    due = int(elapsed * rate)
    while sent < due:
        try:
            out.send(garbage)
        except OSError:
            pass
        sent += 1
    time.sleep(0.001)
print(sent)
"""


@pytest.mark.alone
async def test_nobody_is_lost_under_a_flood_of_garbage_checks(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    speaker: BrowserPeer = await make_peer("chromium", "speaker")
    listener: SdkPeer = await make_peer("sdk", "listener")
    await speaker.join(server, room)
    await listener.join(server, room)
    await speaker.publish_audio()

    async def heard() -> int:
        media = (await listener.received()).get("speaker", {}).get("microphone")
        return media.packets if media is not None and media.energy > 0 else 0

    await eventually(heard, "audio", detail=listener.received)
    flood = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FLOOD, ADDRESS, str(server.udp_port), str(FLOOD_S), str(FLOOD_PER_S),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await flood.communicate()
    assert int(output) > FLOOD_S * FLOOD_PER_S / 2
    assert (await speaker.state())["connection"] == "connected"
    assert not [event for event, *_ in (await speaker.state())["events"] if "econnect" in event]
    before = await heard()

    async def goes_on() -> bool:
        return await heard() > before > 0

    await eventually(goes_on, "audio after the flood", detail=listener.received)


async def test_garbage_from_a_stranger_is_not_answered(server: ServerUnderTest) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect((ADDRESS, server.udp_port))
        stranger.setblocking(False)
        for first in (0, 1, 20, 22, 63, 64, 127, 128, 191, 200, 255):
            stranger.send(bytes([first]) + os.urandom(100))
        await asyncio.sleep(0.5)
        with pytest.raises(BlockingIOError):
            stranger.recv(2048)


async def test_a_client_that_vanishes_is_gone_within_twenty_seconds(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    watcher: BrowserPeer = await make_peer("chromium", "watcher")
    await watcher.join(server, room)
    code = (
        "import asyncio, sys\n"
        "from livekit import rtc\n"
        "async def main():\n"
        "    room = rtc.Room()\n"
        "    await room.connect(sys.argv[1], sys.argv[2])\n"
        "    source = rtc.AudioSource(48000, 1)\n"
        "    track = rtc.LocalAudioTrack.create_audio_track('a', source)\n"
        "    await room.local_participant.publish_track(track)\n"
        "    await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    vanishing = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, server.url, server.token(room, "ghost"), stderr=asyncio.subprocess.DEVNULL
    )

    async def seen() -> bool:
        return "ghost" in (await watcher.state())["participants"]

    async def gone() -> bool:
        return not await seen()

    await eventually(seen, "the ghost joins", detail=watcher.state)
    vanishing.kill()  # no BYE, no leave, no close of the WebSocket handshake
    await vanishing.wait()
    await eventually(gone, "the ghost is removed", 20, detail=watcher.state)
