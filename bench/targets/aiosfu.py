"""This server as an operator starts it: `aiosfu serve` in its own process."""

import importlib.metadata
import json
import socket
import sys
from pathlib import Path

from bench.targets.base import ServerProcess, free_port
from bench.targets.livekit import LiveKit

ROOT = Path(__file__).resolve().parents[2]
RELEVANT = ("numba", "pylibsrtp", "uvloop")


class Aiosfu(LiveKit):
    """aiosfu with its development keys.

    Options: `address` instead of loopback's; `threads`, media threads (all on the server's cores); `loudest`, how many
    microphones a room forwards.
    """

    name = "aiosfu"
    peer = False

    def __init__(self, options: dict[str, str]) -> None:
        """Read the options.

        Raises:
            ValueError: one is unknown, or no number.
        """
        super().__init__(options)
        self.threads, self.loudest = int(options.get("threads", "1")), int(options.get("loudest", "0"))
        if self.threads > 1:
            self.name += f"-{self.threads}-threads"
        if self.loudest:
            self.name += f"-loudest-{self.loudest}"

    def missing(self) -> str:
        """Return nothing: this server is always installed."""
        return ""

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start it and wait until it answers; kernels that are not cached are compiled first."""
        port = free_port(socket.SOCK_STREAM)
        configuration = json.dumps({"media_threads": self.threads, "room": {"forward_loudest": self.loudest}})
        command = [sys.executable, "-m", "signaling.cli", "serve", "--dev", "--log-level", "warning"]
        command += ["--bind", self.address, "--node-ip", self.address, "--port", str(port), "--udp-port", "0"]
        self.process = ServerProcess(command, cores, ROOT, {"LIVEKIT_CONFIG": configuration})
        self.url = f"ws://{self.address}:{port}"
        await self.process.wait_ready(f"http://{self.address}:{port}/")

    def versions(self) -> dict[str, str]:
        """Return the versions of aiosfu and of what its speed depends on."""
        found = {}
        for package in ("aiosfu", *RELEVANT):
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "not installed"
        return found


TARGET = Aiosfu
