"""A publisher encodes only what somebody wants to see (livekit-client's dynacast)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.facts import media
from tests.clients.lossy_path import lossy_path
from tests.clients.network import ADDRESS
from tests.clients.peers import BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

WITHIN_S = 45
NARROW_BPS = 250_000
"""Carries no more than the lowest layer and a part of the middle one."""
SOON = "video: {dynacast_pause_delay: 1s, dynacast_denied_delay: 5s}\n"
LOOKS = 4
"""In a row: one alone may fall between two frames."""
Sent = dict[str, dict[str, Any]]


async def _sent(publisher: BrowserPeer) -> Sent:
    """Outbound video by rid ("" when there is only one)."""
    return {row["rid"]: row for row in await publisher.sent() if row["source"] == "camera"}


def _ask(request: str) -> str:
    return f"void peer.publication('publisher', 'camera').{request}"


async def _moving(publisher: BrowserPeer, wanted: set[str]) -> None:
    """Wait until exactly these layers are being sent: from look to look their packets grow, and no others do."""
    before: dict[str, int] = {}
    looks = 0

    async def exactly() -> bool:
        nonlocal before, looks
        now = {rid: row["packets"] for rid, row in (await _sent(publisher)).items()}
        earlier, before = before, now
        looks = looks + 1 if earlier and {rid for rid in now if now[rid] > earlier.get(rid, 0)} == wanted else 0
        return looks >= LOOKS

    await eventually(exactly, f"only the layers {wanted} move", WITHIN_S, detail=lambda: _sent(publisher))


async def _shown(viewer: BrowserPeer, height: int) -> None:
    async def shown() -> bool:
        now = await media(viewer, "publisher", "camera")
        return now is not None and now.height == height

    await eventually(shown, f"{height} lines are shown", WITHIN_S, detail=viewer.received)


@pytest.fixture
def join(server: ServerUnderTest, make_peer: PeerFactory, room: str) -> Callable[..., Awaitable[BrowserPeer]]:
    async def joined(identity: str, **options: Any) -> BrowserPeer:
        peer: BrowserPeer = await make_peer("chromium", identity, **options)
        await peer.join(server, room)
        return peer

    return joined


async def test_simulcast_layers_that_nobody_wants_stop_and_come_back(
    join: Callable[..., Awaitable[BrowserPeer]],
) -> None:
    publisher = await join("publisher", dynacast=True)
    viewer = await join("viewer")
    await publisher.publish_video("vp8", width=1280, height=720, fps=10, simulcast=True)
    await _shown(viewer, 720)
    await viewer.run(_ask("setVideoQuality(LivekitClient.VideoQuality.LOW)"))
    await _shown(viewer, 180)
    await _moving(publisher, {"q"})
    await viewer.run(_ask("setVideoQuality(LivekitClient.VideoQuality.HIGH)"))
    await _shown(viewer, 720)
    await _moving(publisher, {"q", "h", "f"})


async def test_the_most_demanding_viewer_decides(join: Callable[..., Awaitable[BrowserPeer]]) -> None:
    publisher = await join("publisher", dynacast=True)
    modest, demanding = await join("modest"), await join("demanding")
    await publisher.publish_video("vp8", width=1280, height=720, fps=10, simulcast=True)
    for viewer, quality, height in ((modest, "LOW", 180), (demanding, "MEDIUM", 360)):
        await _shown(viewer, 720)
        await viewer.run(_ask(f"setVideoQuality(LivekitClient.VideoQuality.{quality})"))
        await _shown(viewer, height)
    await _moving(publisher, {"q", "h"})
    await demanding.leave()
    await _moving(publisher, {"q"})


async def test_nothing_is_sent_while_nobody_looks(join: Callable[..., Awaitable[BrowserPeer]]) -> None:
    publisher = await join("publisher", dynacast=True)
    viewer = await join("viewer")
    await publisher.publish_video("vp8", width=1280, height=720, fps=10, simulcast=True)
    await _shown(viewer, 720)
    await viewer.run(_ask("setEnabled(false)"))
    await _moving(publisher, set())
    await viewer.run(_ask("setEnabled(true)"))
    await _moving(publisher, {"q", "h", "f"})
    await viewer.leave()
    await _moving(publisher, set())
    late = await join("late")
    await _shown(late, 720)


async def test_an_svc_publisher_rests_while_nobody_looks(join: Callable[..., Awaitable[BrowserPeer]]) -> None:
    # livekit-client encodes all spatial layers of one SVC stream or none of them
    publisher = await join("publisher", dynacast=True)
    viewer = await join("viewer")
    await publisher.publish_video("vp9", width=1280, height=720, fps=10, backupCodec=False)
    await _shown(viewer, 720)
    await viewer.run(_ask("setVideoQuality(LivekitClient.VideoQuality.LOW)"))
    await _shown(viewer, 180)
    await _moving(publisher, {""})
    await viewer.run(_ask("setEnabled(false)"))
    await _moving(publisher, set())
    await viewer.run(_ask("setEnabled(true)"))
    await _moving(publisher, {""})
    await viewer.run(_ask("setVideoQuality(LivekitClient.VideoQuality.HIGH)"))
    await _shown(viewer, 720)


async def test_a_layer_that_no_viewers_path_carries_stops_and_comes_back(
    own_network: None, make_peer: PeerFactory, room: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(SOON)
    with running_server(tmp_path, node_ip=ADDRESS, extra=("--config", str(config))) as server:
        publisher: BrowserPeer = await make_peer("chromium", "publisher", dynacast=True)
        await publisher.join(server, room)
        await publisher.publish_video("vp8", width=1280, height=720, fps=10, simulcast=True)
        async with lossy_path(server, round_trip_s=0.02, loss=0.0) as path:
            path.down_bps = NARROW_BPS
            viewer: SdkPeer = await make_peer("sdk", "viewer")
            await viewer.join(path.server, room)
            await _moving(publisher, {"q", "h"})
            path.down_bps = 0
            await _moving(publisher, {"q", "h", "f"})

            async def is_shown() -> bool:
                now = await media(viewer, "publisher", "camera")
                return now is not None and now.height == 720

            await eventually(is_shown, "720 lines are shown", WITHIN_S, detail=viewer.received)
            await viewer.leave()
