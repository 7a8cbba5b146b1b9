"""livekit-client's own connection test, as its users run it against a server."""

import pytest

from tests.clients.conftest import Browsers
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize(
    "check",
    [
        "checkWebsocket",
        "checkWebRTC",
        "checkReconnect",
        "checkPublishAudio",
        "checkPublishVideo",
        "checkConnectionProtocol",
    ],
)
async def test_the_connection_check_passes(
    server: ServerUnderTest, browsers: Browsers, pages: str, room: str, check: str
) -> None:
    page = await browsers.open_page("chromium", pages)
    token = server.token(room, "checker")
    report = await page.evaluate(
        f"new LivekitClient.ConnectionCheck('{server.url}', '{token}').{check}()"
        ".then(({status, logs}) => ({status, logs: logs.map(({level, message}) => `${level}: ${message}`)}))"
    )
    assert report["status"] == await page.evaluate("LivekitClient.CheckStatus.SUCCESS"), report
    assert not [line for line in report["logs"] if line.startswith("error")]
    await page.close()
