"""signaling/process.py: how the server starts and ends, and what it tells of that."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from signaling import process
from signaling.config.configuration import Config, Flags
from signaling.config.document import ConfigError
from signaling.process import CONTROL_NICE

ROOT = Path(__file__).parents[2]
ENVIRONMENT_NAMES = ("LIVEKIT_CONFIG", "LIVEKIT_KEYS", "NODE_IP", "UDP_PORT")


@pytest.fixture(autouse=True)
def no_inherited_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT_NAMES:
        monkeypatch.delenv(name, raising=False)


def test_a_server_that_was_configured_without_files_outlives_sighup(monkeypatch: pytest.MonkeyPatch) -> None:
    renewals: list[Callable[[], Config] | None] = []
    ignored: list[bool] = []

    def start(_: Config, read_again: Callable[[], Config] | None) -> None:
        renewals.append(read_again)
        ignored.append(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who starts the tests may ignore it, as nohup does
    monkeypatch.setattr(process, "_open_and_run", start)
    try:
        monkeypatch.setenv("LIVEKIT_CONFIG", "keys: {envkey: envsecret}")
        process.serve(Flags())
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        monkeypatch.delenv("LIVEKIT_CONFIG")
        process.serve(Flags(dev=True))
    finally:
        signal.signal(signal.SIGHUP, before)
    read_again, in_a_terminal = renewals
    assert read_again is not None
    monkeypatch.setenv("LIVEKIT_CONFIG", "keys: {another: one}")
    assert list(read_again().keys) == ["another"]
    assert in_a_terminal is None
    assert ignored == [True, False]  # it may come before there is something to renew


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def serve(*arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT_NAMES}
    command = [sys.executable, "-m", "signaling.cli", "serve", "--dev", "--bind", "127.0.0.1", "--node-ip", "127.0.0.1"]
    return subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_taken_tcp_port_is_one_line_and_status_2(taken_port: int) -> None:
    with serve("--port", str(taken_port), "--udp-port", "0", "--log-level", "error") as server:
        _, err = server.communicate(timeout=120)
    assert server.returncode == 2
    assert err == f"aiosfu: cannot listen on 127.0.0.1 TCP port {taken_port}: Address already in use\n"


def test_a_taken_udp_port_is_one_line_and_status_2() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with serve("--port", "0", "--udp-port", str(port), "--log-level", "error") as server:
            _, err = server.communicate(timeout=120)
    assert server.returncode == 2
    assert re.fullmatch(rf"aiosfu: cannot bind UDP port {port}: [^\n]*\n", err)


def test_a_taken_udp_port_is_told_before_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfu.compile.compile_all", lambda _: pytest.fail("compiled first"))
    # A logger keeps the level at which it was first used, and other tests of this process read what is logged.
    monkeypatch.setattr("signaling.logs.configure_logging", lambda *_: None)
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot bind UDP port {port}: Address already in use"):
            process.serve(Flags(dev=True, port=0, udp_port=str(port)))


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_a_signal_stops_the_server_cleanly(signal_name: str) -> None:
    with serve("--port", "0", "--udp-port", "0") as server:
        assert server.stdout is not None
        assert re.fullmatch(r"Demo page: http://127\.0\.0\.1:\d+/demo/\n", server.stdout.readline())
        server.send_signal(signal.Signals[signal_name])
        _, err = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in err


def test_a_server_that_stops_outlives_sighup(tmp_path: Path) -> None:
    file = tmp_path / "livekit.yaml"
    file.write_text("keys: {a: b}\n")
    with serve("--port", "0", "--udp-port", "0", "--config", str(file)) as server:
        assert server.stdout is not None
        server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        while server.poll() is None:
            server.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        _, err = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in err


def test_the_control_thread_gives_way_to_the_media_threads() -> None:
    with serve("--port", "0", "--udp-port", "0", "--media-threads", "2") as server:
        assert server.stdout is not None
        server.stdout.readline()  # it is running
        nice = {int(task.name): os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in _tasks(server.pid)}
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice.pop(server.pid) == max(before, CONTROL_NICE)
    assert list(nice.values()).count(before) >= 2


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())
