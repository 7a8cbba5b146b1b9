"""Each program in `examples/` runs as its first lines say, and media really arrives."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from livekit import api, rtc

from bench.results import Report
from tests.clients.network import ADDRESS
from tests.clients.sfu_server import KEY, SECRET, ServerUnderTest, free_port, running_server
from tests.examples.media import loudest_hertz, pictures, shows_the_film, write_film
from tests.examples.programs import ended, keys, listening, running, started

pytestmark = [pytest.mark.client, pytest.mark.timeout(600)]  # kernels that are not in the cache are compiled first

FILM_S, ENOUGH_S, ENOUGH_PICTURES = 5, 2.0, 40


async def test_an_embedded_engine_forwards_a_tone(tmp_path: Path) -> None:
    said = await ended(await started("examples/embed_engine.py", tmp_path / "heard.wav"))
    assert "StreamStarted" in said
    seconds, hertz = loudest_hertz(tmp_path / "heard.wav")
    assert seconds >= ENOUGH_S
    assert hertz == pytest.approx(440, abs=2)


@pytest.mark.parametrize("name", ["heard.wav", "seen.webm", "seen.mp4"])
async def test_a_published_file_is_recorded(server: ServerUnderTest, room: str, tmp_path: Path, name: str) -> None:
    write_film(tmp_path / "film.mp4", FILM_S)
    path = tmp_path / name
    recorder = await started(
        "examples/record_track.py", path, LIVEKIT_URL=server.url, LIVEKIT_TOKEN=server.token(room, "recorder")
    )
    assert recorder.stdout is not None
    assert b"waiting" in await recorder.stdout.readline()
    film = tmp_path / "film.mp4"
    environment = {"LIVEKIT_URL": server.url, "LIVEKIT_TOKEN": server.token(room, "film")}
    await ended(await started("examples/publish_file.py", film, **environment))
    await ended(recorder)
    if name == "heard.wav":
        seconds, hertz = loudest_hertz(path)
        assert seconds >= ENOUGH_S
        assert hertz == pytest.approx(440, abs=2)
        return
    seen = pictures(path)
    assert len(seen) >= ENOUGH_PICTURES
    assert all(shows_the_film(picture) for picture in seen[len(seen) // 2 :])


async def test_a_token_server_lets_in_who_has_logged_in(server: ServerUnderTest, room: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/token?room={room}"
    program = running("examples/token_server.py", str(port), "alice:wonderland", "bob:", **keys(server))
    async with program, httpx.AsyncClient() as client:
        await listening(url)
        for known in (None, ("alice", "x"), ("alice", ""), ("eve", "wonderland"), ("bob", "")):
            assert (await client.get(url, auth=known)).status_code == 401
        assert (await client.get(url.partition("?")[0], auth=("alice", "wonderland"))).status_code == 400
        answer = (await client.get(url, auth=("alice", "wonderland"))).json()
    joined = rtc.Room()
    await joined.connect(answer["url"], answer["token"])
    assert (joined.name, joined.local_participant.identity, joined.local_participant.name) == (room, "alice", "Alice")
    await joined.disconnect()


async def test_a_moderation_bot_removes_and_mutes(own_network: None, room: str, tmp_path: Path) -> None:
    port = free_port()
    hook = f"http://127.0.0.1:{port}/webhook"
    (tmp_path / "livekit.yaml").write_text(f"webhook: {{api_key: {KEY}, urls: [{hook}]}}\n")
    serving = running_server(tmp_path, node_ip=ADDRESS, extra=("--config", str(tmp_path / "livekit.yaml")))
    with serving as server:
        async with running("examples/moderation_bot.py", str(port), "mallory", **keys(server)) as bot:
            await listening(hook)
            assert bot.stdout is not None
            mallory = rtc.Room()
            await mallory.connect(server.url, server.token(room, "mallory"))
            assert await bot.stdout.readline() == b"removed mallory\n"

            bob, told = rtc.Room(), asyncio.Queue[rtc.DataPacket]()
            bob.on("data_received", told.put_nowait)
            await bob.connect(server.url, server.token(room, "bob"))
            track = rtc.LocalVideoTrack.create_video_track("screen", rtc.VideoSource(640, 360))
            options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_SCREENSHARE)
            published = await bob.local_participant.publish_track(track, options)
            assert await bot.stdout.readline() == b"muted the screen of bob\n"
            async with asyncio.timeout(30):
                packet = await told.get()
            assert (packet.topic, json.loads(packet.data)) == ("moderation", {"muted": published.sid})
            async with api.LiveKitAPI(server.http_url, KEY, SECRET) as livekit:
                (known,) = (await livekit.room.list_participants(api.ListParticipantsRequest(room=room))).participants
            assert [(each.sid, each.muted) for each in known.tracks] == [(published.sid, True)]
            await bob.disconnect()
            await mallory.disconnect()


@pytest.mark.alone
async def test_a_target_from_elsewhere_is_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["-n", "3", "--seconds", "1", "--no-harness", "--json", str(report)]
    await ended(await started("-m", "bench", "run", "webinar", "--target", "examples.bench_target", *options))
    (measured,) = Report.read(report).measurements
    assert measured.system == "relay"
    assert measured.delivered == measured.latency.count > 0
    assert measured.cpu_us_per_packet > 0
