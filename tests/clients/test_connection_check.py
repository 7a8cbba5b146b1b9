"""livekit-client's own connection test, as its users run it against a server."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from bench.network.namespaces import run_command
from tests.clients.conftest import Browsers
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

LOG = logging.getLogger(__name__)
PUBLIC = "203.0.113.1"
"""An address for documentation (RFC 5737): the client warns of a server that has private ones only."""
BUSY = ("packets lost", "bandwidth limited", "cpu limited")
"""Warnings that tell of this machine's load, with which a check succeeds all the same."""
PLAIN = "Server is insecure, clients may block connections to it"
"""The warning about every address that begins with `ws:`."""


@pytest.fixture(scope="module")
def public_server(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    run_command(f"ip addr add {PUBLIC}/32 dev test0")
    try:
        with running_server(tmp_path_factory.mktemp("public"), node_ip=PUBLIC) as running:
            yield running
    finally:
        run_command(f"ip addr del {PUBLIC}/32 dev test0")


async def _report(browsers: Browsers, pages: str, server: ServerUnderTest, room: str, check: str) -> dict[str, Any]:
    page = await browsers.open_page("chromium", pages)
    token = server.token(room, "checker")
    try:
        return dict(
            await page.evaluate(
                f"new LivekitClient.ConnectionCheck('{server.url}', '{token}').{check}()"
                ".then(({status, logs}) => ({succeeded: status === LivekitClient.CheckStatus.SUCCESS,"
                " logs: logs.map(({level, message}) => `${level}: ${message}`)}))"
            )
        )
    finally:
        await page.close()


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
async def test_the_connection_check_passes_without_a_warning(
    public_server: ServerUnderTest, browsers: Browsers, pages: str, room: str, check: str
) -> None:
    report = await _report(browsers, pages, public_server, room, check)
    LOG.info("%s: %s", check, report["logs"])
    assert report["succeeded"], report
    serious = [line for line in report["logs"] if line.startswith(("error", "warning"))]
    unexpected = [line for line in serious if not line.removeprefix("warning: ").startswith(BUSY)]
    assert unexpected == ([f"warning: {PLAIN}"] if check == "checkWebsocket" else [])
    if check == "checkWebRTC":
        told = [line for line in report["logs"] if f" {PUBLIC}:" in line]
        assert [line.split()[1] for line in told[:2]] == ["udp", "tcp"]
