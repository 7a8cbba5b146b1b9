"""This server as an operator starts it: `aiosfu serve` in its own process."""

import asyncio
import importlib.metadata
import json
import os
import socket
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from livekit.protocol.rtc import ICEServer

from bench.clients.livekit import Reach
from bench.plans import Plan
from bench.servers import bridge
from bench.targets.base import Child, ServerProcess, free_port
from bench.targets.livekit import LiveKit

ROOT = Path(__file__).resolve().parents[2]
RELEVANT = ("numba", "pylibsrtp", "uvloop")


class Aiosfu(LiveKit):
    """aiosfu with its development keys.

    Options: `address` instead of loopback's; `threads`, media threads (all on the server's cores); `loudest`, how many
    microphones a room forwards; `way`, how who only receives gets to the server instead of by UDP: `tcp`, `turn-udp`,
    `turn-tcp` or `turn-tls`.
    """

    name = "aiosfu"
    foreign = False

    def __init__(self, options: dict[str, str]) -> None:
        """Read the options.

        Raises:
            ValueError: one is unknown, or no number.
        """
        super().__init__(options)
        self.threads, self.loudest = int(options.get("threads", "1")), int(options.get("loudest", "0"))
        self.way = options.get("way", "")
        if self.way and self.way not in bridge.WAYS:
            raise ValueError(f"way is one of {', '.join(bridge.WAYS)}")
        self._bridge = Child("the bridge", bridge.main, ()) if self.way else None
        self._ports: dict[str, int] = {}
        self._asking = asyncio.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if self.threads > 1:
            self.name += f"-{self.threads}-threads"
        if self.loudest:
            self.name += f"-loudest-{self.loudest}"
        if self.way:
            self.name += f"-over-{self.way}"

    def missing(self) -> str:
        """Return nothing: this server is always installed."""
        return ""

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start it and wait until it answers; kernels that are not cached are compiled first."""
        port = free_port(socket.SOCK_STREAM)
        settings: dict[str, Any] = {"media_threads": self.threads, "room": {"forward_loudest": self.loudest}}
        if self._bridge is not None:
            await self._bridge.start(tuple(os.sched_getaffinity(0)))
            settings |= self._other_ways()
        configuration = json.dumps(settings)
        command = [sys.executable, "-m", "signaling.cli", "serve", "--dev", "--log-level", "warning"]
        command += ["--bind", self.address, "--node-ip", self.address, "--port", str(port), "--udp-port", "0"]
        self.process = ServerProcess(command, cores, ROOT, {"LIVEKIT_CONFIG": configuration})
        self.url = f"ws://{self.address}:{port}"
        await self.process.wait_ready(f"http://{self.address}:{port}/")

    def _other_ways(self) -> dict[str, Any]:
        """Return what of the configuration opens a port for each way, and note the ports."""
        kinds = {way: socket.SOCK_DGRAM if way == "turn-udp" else socket.SOCK_STREAM for way in bridge.WAYS}
        self._ports = {way: free_port(kind) for way, kind in kinds.items()}
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        turn = {f"{way.removeprefix('turn-')}_port": port for way, port in self._ports.items() if way != "tcp"}
        files = dict(zip(("cert_file", "key_file"), write_certificate(Path(self._folder.name)), strict=True))
        return {
            "rtc": {"tcp_port": self._ports["tcp"]},
            "turn": {"enabled": True, "domain": "bench.example.org", **turn, **files},
        }

    def reach(self, plan: Plan) -> Reach | None:
        """Return how a participant gets to the server: receivers by the way of the options."""
        child, way, ports = self._bridge, self.way, self._ports
        if child is None or plan.publish:
            return None

        async def reach(media: tuple[str, int], told: list[ICEServer]) -> tuple[str, int]:
            credentials = (told[0].username, told[0].credential)
            async with self._asking:  # the pipe takes one question at a time
                return self.address, int(await asyncio.to_thread(child.ask, "open", way, media, ports, credentials))

        return reach

    async def stop(self) -> None:
        """Stop the server, and the bridge before it."""
        await super().stop()
        if self._bridge is not None:
            self._bridge.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def versions(self) -> dict[str, str]:
        """Return the versions of aiosfu and of what its speed depends on."""
        found = {}
        for package in ("aiosfu", *RELEVANT):
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "not installed"
        return found


def write_certificate(folder: Path) -> tuple[str, str]:
    """Write a certificate that nobody signed, and its key; return the names of the files."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench.example.org")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    certificate = builder.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files = folder / "server.pem", folder / "server.key"
    files[0].write_bytes(certificate.public_bytes(encoding))
    files[1].write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    files[1].chmod(0o600)
    return os.fspath(files[0]), os.fspath(files[1])


TARGET = Aiosfu
