"""What an operator's Prometheus reads while two native clients talk."""

import asyncio
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import parser

from tests.clients.network import ADDRESS
from tests.clients.peers import SdkPeer, eventually
from tests.clients.sfu_server import free_port, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]


def scrape(url: str, username: str, password: str) -> dict[str, float]:
    """Every sample by its name, those with labels added up."""
    manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    manager.add_password(None, url, username, password)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
    with opener.open(url, timeout=10) as answer:
        text = answer.read().decode()
    values: dict[str, float] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return values


async def test_a_call_shows_in_a_scrape(own_network: None, tmp_path: Path, room: str) -> None:
    port = free_port()
    config = tmp_path / "livekit.yaml"
    config.write_text(f"prometheus: {{port: {port}, username: scraper, password: a password}}\n")
    url = f"http://127.0.0.1:{port}/metrics"
    one, other = SdkPeer("one"), SdkPeer("other", single_pc=False)
    with running_server(tmp_path, node_ip=ADDRESS, extra=("--config", str(config))) as server:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            await asyncio.to_thread(urllib.request.urlopen, url, None, 10)
        try:
            await one.join(server, room)
            await other.join(server, room)
            await one.publish_audio()
            await one.publish_video()

            async def busy() -> dict[str, float]:
                values = await asyncio.to_thread(scrape, url, "scraper", "a password")
                moved = values["aiosfu_packets_received_total"] > 100 and values["aiosfu_packets_sent_total"] > 100
                return values if moved and values["aiosfu_subscriptions"] == 2 else {}

            values = await eventually(busy, "media of both tracks")
            assert values["aiosfu_rooms"] == values["livekit_room_total"] == 1
            assert values["aiosfu_participants"] == values["livekit_participant_total"] == 2
            assert values["aiosfu_tracks"] == values["livekit_track_published_total"] == 2
            assert values["aiosfu_joins_total"] == 2
            assert values["aiosfu_received_bytes_total"] > 100 * 40
            assert values["livekit_packet_total"] > 200
            assert values["aiosfu_media_thread_cpu_seconds_total"] > 0
            assert values["aiosfu_control_loop_delay_seconds_count"] > 0
        finally:
            await one.leave()
            await other.leave()
