"""This server, as an operator starts it: `aiosfu serve` in a process of its own."""

import importlib.metadata
import socket
import sys
from pathlib import Path

from bench.targets.livekit import LiveKit, ServerProcess, free_port

ROOT = Path(__file__).resolve().parents[2]
RELEVANT = ("numba", "pylibsrtp", "uvloop")


class Aiosfu(LiveKit):
    """aiosfu with its development keys on loopback."""

    name = "aiosfu"

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start it and wait until it answers; kernels that are not cached are compiled first."""
        port, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        command = [sys.executable, "-m", "signaling.cli", "serve", "--dev", "--log-level", "warning"]
        command += ["--bind", "127.0.0.1", "--node-ip", "127.0.0.1", "--port", str(port), "--udp-port", str(udp)]
        self.process = ServerProcess(command, cores, ROOT)
        self.url = f"ws://127.0.0.1:{port}"
        await self.process.wait_ready(f"http://127.0.0.1:{port}/")

    def versions(self) -> dict[str, str]:
        """Of aiosfu and of what its speed depends on."""
        found = {}
        for package in ("aiosfu", *RELEVANT):
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "not installed"
        return found


TARGET = Aiosfu
