"""The server under test: `aiosfu serve` in a process of its own, as an operator starts it."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt

from tests.clients.container import Container

KEY, SECRET = "devkey", "secret"
START_TIMEOUT_S = 180  # a first start may compile kernels
STOP_TIMEOUT_S = 20


@dataclass(slots=True)
class ServerUnderTest:
    """Where it listens, and its process."""

    port: int
    udp_port: int
    tcp_port: int
    """The port of ICE over TCP."""
    process: "subprocess.Popen[bytes]"
    log: Path
    command: tuple[str, ...] = ()
    secure: bool = False
    """Clients are to come over TLS."""
    host: str = "127.0.0.1"
    """The address at which clients find it."""

    @property
    def url(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.host}:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def token(self, room: str, identity: str, claims: dict[str, object] | None = None, **grants: object) -> str:
        """A join token as an application's backend would make it; `grants` go into the video claim."""
        now = int(time.time())
        video = {"room": room, "roomJoin": True, **grants}
        known = {"iss": KEY, "sub": identity, "name": identity, "nbf": now - 10, "exp": now + 3600, "video": video}
        return jwt.encode(known | (claims or {}), SECRET.ljust(len(SECRET)), algorithm="HS256")

    def kill(self) -> None:
        """End it without a chance to say anything to anybody."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start it as it was started before, after it has ended; return when it is ready."""
        self.process = _start(self.command, self.log)
        _wait_until_ready(self.http_url, self.process, self.log)


def _start(command: tuple[str, ...], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not become ready:\n{log.read_text()[-4000:]}")


@contextlib.contextmanager
def running_server(
    folder: Path,
    *,
    node_ip: str | None,
    extra: tuple[str, ...] = (),
    port: int = 0,
    dev: bool = True,
    container: Container | None = None,
) -> Iterator[ServerUnderTest]:
    """Start a server, yield it when ready, stop it by SIGTERM.

    node_ip None: it offers all addresses it has. port 0: a free one. dev: whether it is a development server.
    container: where it runs, if not in our network.
    """
    port, udp_port, tcp_port = port or free_port(), free_port(socket.SOCK_DGRAM), free_port()
    log = folder / f"server-{port}.log"
    bind, host = ("127.0.0.1", "127.0.0.1") if container is None else ("0.0.0.0", container.outside)
    command = [sys.executable, "-m", "signaling.cli", "serve", "--bind", bind, "--port", str(port)]
    command += ["--udp-port", str(udp_port), "--rtc.tcp_port", str(tcp_port)]
    command += [*(("--dev",) if dev else ("--keys", f"{KEY}: {SECRET}")), *extra]
    if node_ip is not None:
        command += ["--node-ip", node_ip]
    if container is not None:
        container.publish(port, udp_port)
        command = [*container.prefix(), *command]
    process = _start(tuple(command), log)
    server = ServerUnderTest(port, udp_port, tcp_port, process, log, tuple(command), host=host)
    try:
        _wait_until_ready(server.http_url, process, log)
        yield server
        if server.process.poll() is not None:
            raise RuntimeError(f"the server died with {server.process.returncode}:\n{log.read_text()[-4000:]}")
    finally:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.process.kill()
            raise RuntimeError(f"the server did not stop:\n{log.read_text()[-4000:]}") from None
