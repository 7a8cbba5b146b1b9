"""A livekit-server beside ours, where there is one on PATH; its binary is built by `go install`."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.network import ADDRESS
from tests.clients.sfu_server import KEY, SECRET, ServerUnderTest, free_port

START_TIMEOUT_S = 20


@contextlib.contextmanager
def running_livekit(folder: Path, **settings: Any) -> Iterator[ServerUnderTest]:
    """Start a livekit-server with more settings than it needs, and end it. Without one, the test is skipped."""
    binary = shutil.which("livekit-server")
    if binary is None:
        pytest.skip("NOT RUN: there is no livekit-server on PATH")
    port, log = free_port(), folder / "log"
    rtc = {"udp_port": free_port(), "tcp_port": free_port(), "use_external_ip": False}
    body = json.dumps({"port": port, "rtc": rtc, "keys": {KEY: SECRET}, **settings})
    command = [binary, "--dev", "--bind", "127.0.0.1", "--node-ip", ADDRESS, "--config-body", body]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            _wait(f"http://127.0.0.1:{port}/", log)
            yield ServerUnderTest(port, rtc["udp_port"], rtc["tcp_port"], process, log)
        finally:
            process.kill()


def _wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"livekit-server did not start:\n{log.read_text()[-2000:]}")
