"""GStreamer as a client of WHIP: `gstreamer_publisher.py` in a process of its own.

Debian 12's simple-whip-client cannot do this: it is linked with libsoup 2, and the ICE of its GStreamer with libsoup 3
(by libnice and libgupnp-igd), which ends every process that has both.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from tests.clients.conftest import without_client
from tests.clients.sfu_server import ServerUnderTest

PYTHON = "/usr/bin/python3"
PROGRAM = Path(__file__).with_name("gstreamer_publisher.py")
CHECK_TIMEOUT_S = 60
"""The first start of GStreamer looks at all plugins."""
STOP_TIMEOUT_S = 10


def require_gstreamer() -> None:
    command = [PYTHON, os.fspath(PROGRAM), "--check"]
    try:
        there = subprocess.run(command, capture_output=True, timeout=CHECK_TIMEOUT_S, check=False).returncode == 0
    except OSError:
        there = False
    if not there:
        without_client("GStreamer with its bindings for Python is not installed")


class Publishing:
    """The program while it publishes."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    def said(self) -> str:
        """All that it has printed."""
        return self._log.read_text(errors="replace")

    async def stop(self) -> int:
        """Interrupt it, so that it sends DELETE; returns its exit status."""
        self._process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)

    async def kill(self) -> None:
        """End it without a chance to say anything, if it runs still."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@contextlib.asynccontextmanager
async def publishing(
    folder: Path, server: ServerUnderTest, room: str, identity: str, codec: str, candidates: str, relay: str = ""
) -> AsyncIterator[Publishing]:
    """Publish until the block ends.

    codec: "vp8" or "h264". candidates: they "trickle", or come with the "whole" offer. relay: the URI of a TURN server
    without which it reaches nothing.
    """
    url, token = f"{server.http_url}/whip/v1", server.token(room, identity)
    log = folder / f"{identity}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            PYTHON, PROGRAM, url, token, codec, candidates, *filter(None, (relay,)), stdout=output, stderr=output
        )
    client = Publishing(process, log)
    try:
        yield client
    finally:
        await client.kill()
