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
from signaling.participants import handlers
from signaling import registry as rooms
from signaling.http import join, server
from signaling.config.configuration import Config
from signaling.http.listener import running
from signaling.http.sockets import bind_sockets
from signaling.logs import configure_logging
from signaling.config.api_keys import hide
from tests.signaling.support.fake_engine import FakeEngine

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


HOSTILE = "eve\x1b[2J\x9b1A\r\n2026-01-01 00:00:00 [info     ] participant left\u202e\x7f\x07"
LOGGING = """
import json, logging, sys
import structlog
from signaling.logs import configure_logging

text, as_json = json.loads(sys.argv[1]), sys.argv[2] == "json"
configure_logging("info", as_json)
log = structlog.get_logger("signaling.test")
log.info("participant joined", identity=text, several=[text], table={text: text}, raw=text.encode())
log.error("stuck", stack="first\\n" + text)
logging.getLogger("uvicorn").warning("refused %s", text)
try:
    raise ValueError(text)
except ValueError:
    log.exception("failed")
    logging.getLogger("asyncio").exception("failed too")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_what_clients_send_reaches_no_terminal_and_begins_no_line(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOGGING, json.dumps(HOSTILE), form], cwd=ROOT, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    text = done.stderr.decode()
    assert all(character.isprintable() or character == "\n" for character in text.replace("\x7f", ""))
    assert text.count("\x7f") == 0 or form == "json"
    if form == "json":
        events = [json.loads(line) for line in text.splitlines()]
        assert events[0]["identity"] == HOSTILE
        assert len(events) == 5
    else:
        assert "eve\\x1b[2J\\x9b1A\\r\\n2026" in text
        begins = [line for line in text.split("\n") if line and not line.startswith("  ")]
        assert [line.split("] ", 1)[1].split()[0] for line in begins] == [
            "participant", "stuck", "refused", "failed", "failed",
        ]  # fmt: skip
        assert len(set(text.split("\n"))) > 10
