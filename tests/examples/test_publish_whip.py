"""FFmpeg's WHIP client publishes a file, and LiveKit's SDK records it."""

from pathlib import Path

import pytest

from tests.clients.sfu_server import ServerUnderTest
from tests.examples.media import pictures, shows_the_film, write_film
from tests.examples.programs import ended, started

# it encodes video, which takes a core; kernels that are not in the cache are compiled first
pytestmark = [pytest.mark.client, pytest.mark.alone, pytest.mark.timeout(600)]

FILM_S, ENOUGH_PICTURES = 25, 40
CONSENT_S = 16.0
"""After this time a participant is gone whose ICE checks have stopped."""


async def test_a_file_published_by_whip_is_recorded(server: ServerUnderTest, room: str, tmp_path: Path) -> None:
    film, path = tmp_path / "film.mp4", tmp_path / "seen.mp4"
    write_film(film, FILM_S)
    recorder = await started(
        "examples/record_track.py", path, LIVEKIT_URL=server.url, LIVEKIT_TOKEN=server.token(room, "recorder")
    )
    assert recorder.stdout is not None
    assert b"waiting" in await recorder.stdout.readline()
    environment = {"WHIP_URL": f"{server.http_url}/whip/v1", "WHIP_TOKEN": server.token(room, "film")}
    await ended(await started("examples/publish_whip.py", film, **environment))
    await ended(recorder)
    seen = pictures(path)
    assert len(seen) >= ENOUGH_PICTURES
    assert (seen[-1].time or 0.0) > CONSENT_S  # so FFmpeg's ICE checks go on
    assert all(shows_the_film(picture) for picture in seen[len(seen) // 2 :])
