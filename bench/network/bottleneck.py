"""A bottleneck with a network namespace behind it: everything of the clients in there goes through its two queues."""

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from bench.network.counts import DOWN, UP, Record
from bench.network.link import Conditions
from bench.network.namespaces import Namespace, NetworkUnavailable, run_command

OUTSIDE, INSIDE = "10.9.20.1", "10.9.20.2"
"""The address of the server, in the namespace of the process that makes the bottleneck, and that of the clients."""
LATE_MS = 5.0
"""If the bottleneck was later than this at the 99th percentile, the run measured nothing."""
ROOT = Path(__file__).resolve().parents[2]
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_LINE_LIMIT = 1 << 26


def _device(name: str) -> int:
    """Create a TUN device in the namespace of the calling thread. Closing the descriptor removes it."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        raise NetworkUnavailable(f"TUN device: {error.strerror}") from error
    return descriptor


def _bring_up(name: str, address: str, prefix: list[str]) -> None:
    run_command(f"ip addr add {address}/24 dev {name}", prefix)
    run_command(f"ip link set {name} up", prefix)


class Bottleneck:
    """A bottleneck that runs. `clients` is the namespace behind it."""

    def __init__(self, clients: Namespace, process: asyncio.subprocess.Process) -> None:
        """Take the forwarder's process; the function `bottleneck` calls this."""
        self.clients = clients
        self._process = process

    async def begin(self) -> float:
        """Start the time of the conditions' steps, discard the counts so far, and return time.monotonic()."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"begin\n")
        return float(await self.answer())

    async def answer(self) -> str:
        """Return the next line that the forwarder prints.

        Raises:
            NetworkUnavailable: the forwarder has ended.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise NetworkUnavailable("the bottleneck ended")
        return line.decode()

    async def end(self) -> Record:
        """Stop the forwarder and return what it has counted since `begin`."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        record = Record.from_json(json.loads(await self.answer()))
        await self._process.wait()
        return record


@contextlib.asynccontextmanager
async def bottleneck(down: Conditions, up: Conditions, seed: int = 1) -> AsyncIterator[Bottleneck]:
    """Connect a new namespace with that of this process through a bottleneck.

    Args:
        down: the direction towards the clients.
        up: the direction from the clients.
        seed: of losses and jitter.

    Raises:
        NetworkUnavailable: this machine does not allow it.
    """
    async with contextlib.AsyncExitStack() as exits:
        clients = exits.enter_context(contextlib.closing(Namespace()))
        run_command("ip link set lo up", clients.prefix())
        outside, inside = _device("bench-out"), clients.inside(lambda: _device("bench-in"))
        devices = exits.enter_context(contextlib.ExitStack())
        for descriptor in (outside, inside):
            devices.callback(os.close, descriptor)
        _bring_up("bench-out", OUTSIDE, [])
        _bring_up("bench-in", INSIDE, clients.prefix())
        run_command("ip route add default dev bench-in", clients.prefix())
        settings = {"outside": outside, "inside": inside, DOWN: asdict(down), UP: asdict(up), "seed": seed}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.network.forwarder",
            json.dumps(settings),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(outside, inside),
            cwd=ROOT,
            limit=_LINE_LIMIT,
        )
        devices.close()  # the process has them now; with it they go
        made = Bottleneck(clients, process)
        try:
            await made.answer()
            yield made
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
