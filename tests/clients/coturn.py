"""Debian's coturn beside the server under test, as docs/deploy.md sets it up."""

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.clients.sfu_server import free_port

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 10
BINDING_REQUEST = bytes.fromhex("00010000 2112a442") + b"a transaction"[:12]
EVERYBODY = ("0.0.0.0-255.255.255.255", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
RELAY_PORTS = (20_000, 20_100)
"""Those from which it sends to this server: no port that others take by themselves."""
_ALLOCATED = re.compile(r"user <(\d+):(PA_\w+)>: incoming packet ALLOCATE processed, success")


@dataclass(slots=True)
class Coturn:
    """Where it listens, and what it has logged."""

    address: str
    port: int
    log: Path

    def allocations(self) -> list[tuple[int, str]]:
        """(until when the credentials are good, the participant's sid) of every allocation so far."""
        return [(int(expiry), sid) for expiry, sid in _ALLOCATED.findall(self.log.read_text())]


def _wait_until_ready(coturn: Coturn, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.2)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                probe.sendto(BINDING_REQUEST, (coturn.address, coturn.port))
                if probe.recv(1500)[8:20] == BINDING_REQUEST[8:]:
                    return
    raise RuntimeError(f"coturn did not become ready:\n{coturn.log.read_text()[-4000:]}")


@contextlib.contextmanager
def running_coturn(folder: Path, address: str, secret: str) -> Iterator[Coturn]:
    """Start it on a free port of `address`, to which alone it relays; yield it when it answers."""
    coturn = Coturn(address, free_port(), folder / "coturn.log")
    file = folder / "turnserver.conf"
    lines = [
        f"listening-port={coturn.port}",
        f"listening-ip={address}",
        f"relay-ip={address}",
        "realm=turn.example.org",
        "use-auth-secret",
        f"static-auth-secret={secret}",
        *(f"denied-peer-ip={each}" for each in EVERYBODY),
        f"allowed-peer-ip={address}",
        f"min-port={RELAY_PORTS[0]}",
        f"max-port={RELAY_PORTS[1]}",
        "no-cli",
        # What follows is for a test only.
        "no-tls",
        "no-dtls",
        "verbose",
        "log-file=stdout",
        f"pidfile={folder / 'coturn.pid'}",
        f"userdb={folder / 'turndb'}",
    ]
    file.write_text("\n".join(lines) + "\n")
    with coturn.log.open("wb") as output:
        command = ["turnserver", "-c", os.fspath(file)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(coturn, process)
        yield coturn
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
