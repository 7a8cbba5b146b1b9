"""signaling/logs.py: what a log line shows of an exception, and what it must never show."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "the-secret-that-nobody-may-read-in-a-log"
MAX_LOG_BYTES = 16_000
"""For four exceptions; tracebacks with local variables took 70 KB each."""
SERVER = """
import asyncio, sys
import jwt, websockets
from livekit.protocol import rtc
from signaling import handlers, join, rooms, server
from signaling.config import Config
from signaling.listener import bind_sockets, running
from signaling.logs import configure_logging
from signaling.tokens import hide
from tests.signaling.fake_engine import FakeEngine

def bug(*_, **__):
    raise RuntimeError("a bug")

async def broken():
    bug()

async def visit(port, name):
    claims = {"iss": "devkey", "sub": name, "exp": 2**32, "video": {"roomJoin": True, "room": "r"}}
    token = jwt.encode(claims, SECRET)
    try:
        async with websockets.connect(f"ws://127.0.0.1:{port}/rtc?access_token={token}", proxy=None) as client:
            await client.recv()
            await client.send(rtc.SignalRequest(mute=rtc.MuteTrackRequest(sid="x")).SerializeToString())
            async for _ in client:
                pass
    except websockets.WebSocketException:
        pass

async def main():
    config = Config(keys=hide({"devkey": SECRET}), port=0, bind_addresses=("127.0.0.1",), bind_addresses_given=True)
    print(config)
    registry = rooms.Rooms(config, FakeEngine())
    async with running(config, FakeEngine(), registry, bind_sockets(config)) as addresses:
        handlers.HANDLERS["mute"] = bug              # below a room
        await visit(addresses[0][1], "below")
        registry.node.spawn(broken())                # beside everything
        await registry.node.finish()
        rooms.Session.run = bug                      # in a session
        await visit(addresses[0][1], "session")
        rooms.Rooms.admit = bug                      # before one
        await visit(addresses[0][1], "admit")

SECRET, as_json = sys.argv[1], sys.argv[2] == "json"
configure_logging("info", as_json)
asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_an_exception_is_logged_with_its_stack_and_without_secrets(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVER, SECRET, form], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for event in ("error while serving a participant", "background work failed", "session failed"):
        assert event in done.stderr
    assert done.stderr.count("RuntimeError: a bug") == 4
    assert done.stderr.count("in bug") == 4
    assert SECRET not in done.stderr + done.stdout
    assert len(done.stderr) < MAX_LOG_BYTES
    if form == "json":
        assert all(json.loads(line)["level"] for line in done.stderr.splitlines())
