"""signaling/watchdog.py: a control thread that is stuck is noticed from outside."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from signaling import watchdog as module
from signaling.watchdog import EXIT_STALLED, STALLED_CHECKS, Watchdog, notify, systemd_limit_s, watching

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
CHECK_S = 0.001
DEADLINE_S = 20.0


def stuck_until(done: Callable[[], object]) -> None:
    """A parser that never ends, played."""
    give_up = time.monotonic() + DEADLINE_S
    while not done() and time.monotonic() < give_up:
        time.sleep(CHECK_S)


def events(logs: list[Any], level: str) -> list[Any]:
    return [entry for entry in logs if entry["log_level"] == level]


def test_a_stuck_thread_is_logged_once_with_its_stack_and_again_when_it_turns() -> None:
    watchdog = Watchdog(0, check_s=CHECK_S)
    with capture_logs() as logs:
        watchdog.start()
        stuck_until(lambda: events(logs, "error"))
        time.sleep(STALLED_CHECKS * CHECK_S * 5)
        watchdog.beat()
        stuck_until(lambda: events(logs, "warning"))
        stuck_until(lambda: len(events(logs, "error")) == 2)
        watchdog.stop()
    first, second = events(logs, "error")
    assert first["event"] == "the control thread does not turn"
    assert "stuck_until" in first["stack"]
    assert "watchdog.py" not in first["stack"].replace("test_watchdog.py", "")
    assert second["event"] == first["event"]
    assert len(events(logs, "warning")) == 1


def test_a_thread_that_turns_is_left_alone() -> None:
    ended: list[int] = []
    watchdog = Watchdog(module.BEAT_S, ended.append, check_s=0.02)
    # Looks are slower than beats, so each look finds some.
    with capture_logs() as logs:
        watchdog.start()
        for _ in range(200):
            watchdog.beat()
            time.sleep(CHECK_S)
        watchdog.stop()
    assert (logs, ended) == ([], [])


def test_a_process_is_ended_after_its_time_and_says_so() -> None:
    ended: list[int] = []
    done = threading.Event()

    def end(status: int) -> None:
        ended.append(status)
        done.set()

    watchdog = Watchdog(2 * STALLED_CHECKS * module.BEAT_S, end, check_s=CHECK_S)
    with capture_logs() as logs:
        watchdog.start()
        stuck_until(done.is_set)
        watchdog.stop()
    assert ended[0] == EXIT_STALLED
    assert [entry["log_level"] for entry in logs][:2] == ["error", "critical"]


def test_it_never_ends_the_process_unless_it_should() -> None:
    ended: list[int] = []
    watchdog = Watchdog(0, ended.append, check_s=CHECK_S)
    with capture_logs() as logs:
        watchdog.start()
        stuck_until(lambda: events(logs, "error"))
        time.sleep(STALLED_CHECKS * CHECK_S * 5)
        watchdog.stop()
    assert ended == []


def test_a_log_that_nobody_reads_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read, ended = threading.Event(), threading.Event()

    class Blocked:
        def error(self, *_: Any, **__: Any) -> None:
            read.wait(DEADLINE_S)

        critical = error

    monkeypatch.setattr(module, "log", Blocked())
    monkeypatch.setattr(module, "LOG_TIMEOUT_S", 0.01)
    watchdog = Watchdog(module.BEAT_S, lambda _: ended.set(), check_s=CHECK_S)
    watchdog.start()
    assert ended.wait(DEADLINE_S)
    assert not read.is_set()
    watchdog.stop()
    read.set()


STUCK = """
import asyncio
from signaling.config.configuration import Config
from signaling.http.listener import serve
from signaling.http.sockets import bind_sockets
from signaling.logs import configure_logging
from signaling.registry import Rooms
from signaling.config.api_keys import hide
from tests.signaling.support.fake_engine import FakeEngine

async def main():
    keys, address = hide({"devkey": "secret"}), ("127.0.0.1",)
    config = Config(keys=keys, port=0, bind_addresses=address, bind_addresses_given=True, watchdog_s=1.0)
    engine = FakeEngine()
    await serve(config, engine, Rooms(config, engine), bind_sockets(config), parser_that_never_ends)

def parser_that_never_ends(addresses):
    while True:
        pass

configure_logging("info", False)
asyncio.run(main())
"""


def test_a_stuck_process_says_where_and_ends() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_STALLED
    assert "in parser_that_never_ends" in done.stderr


@pytest.mark.parametrize("abstract", [False, True])
async def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    path = f"@aiosfu-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + path[1:] if abstract else path)
        listener.settimeout(DEADLINE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        async with watching(0):
            assert await asyncio.to_thread(listener.recv, 100) == b"WATCHDOG=1"
        notify("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_nobody_is_told_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nothing"))
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "20000000"}, 15.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "-5"}, 0.0),
    ],
)
def test_systemds_timeout_is_taken_from_the_environment(environment: dict[str, str], seconds: float) -> None:
    assert systemd_limit_s(environment) == seconds
