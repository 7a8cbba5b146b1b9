"""A server of your own under the load generator: a target is a class with the methods of `bench.targets.base.Target`.

    .venv/bin/python -m bench run webinar --target examples.bench_target --target aiosfu -n 10

The server here is a relay of plain RTP in a few lines of asyncio. It is told by datagrams who is in which room:
"join ROOM media" (or "nothing", from who only publishes) and "leave".
"""

import asyncio
import os
import secrets
import socket
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any, cast

from bench.plans import Connected, Plan, SendStream

PAYLOAD_TYPES = {"audio": 111, "video": 96}
TIMEOUT_S = 30


class Relay(asyncio.DatagramProtocol):
    """The server: what comes from a member of a room goes to the others who want it."""

    def __init__(self) -> None:
        self._rooms: dict[Any, bytes] = {}
        self._viewers: dict[bytes, set[Any]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to send by."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        """An RTP packet begins with a byte above 127, so it is no word of ours."""
        match data.split():
            case [b"join", room, wants]:
                self._rooms[address] = room
                self._viewers.setdefault(room, set()).update([address] if wants == b"media" else [])
                self._transport.sendto(b"welcome", address)
            case [b"leave"]:
                self._viewers[self._rooms.pop(address)].discard(address)
            case _:
                for viewer in self._viewers.get(self._rooms.get(address, b""), set()) - {address}:
                    self._transport.sendto(data, viewer)


class RelayTarget:
    """What the generator asks of a system: be started, let participants in and out, end."""

    name = "relay"
    profile = "none"

    def __init__(self, options: dict[str, str]) -> None:
        """Options come from the command line, as in `--target examples.bench_target:color=red`; there are none."""
        if options:
            raise ValueError("the relay has no options")

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start the server in a process of its own: its CPU time and memory are measured by process."""
        self._process: Process = await asyncio.create_subprocess_exec(sys.executable, __file__, stdout=PIPE)
        os.sched_setaffinity(self._process.pid, cores or os.sched_getaffinity(0))
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            self._port = int(await self._process.stdout.readline())  # the first thing that it says

    def pid(self) -> int:
        """The process id of the server, whose CPU time and memory are measured with those of its children."""
        return self._process.pid

    async def join(self, plan: Plan) -> Connected:
        """Signal a participant in. The generator then sends `sends` and counts what comes to the socket."""
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.connect(("127.0.0.1", self._port))
        opened.send(f"join {plan.room} {'media' if plan.subscribe else 'nothing'}".encode())
        async with asyncio.timeout(TIMEOUT_S):
            while await asyncio.get_running_loop().sock_recv(opened, 2048) != b"welcome":
                pass  # media of others may come before
        sends = [
            # Of simulcast layers only the best: this server would not choose one.
            SendStream(
                secrets.randbits(32), PAYLOAD_TYPES[track.kind], track.kind, track.layers[-1], track.frames_per_second
            )
            for track in plan.publish
        ]
        return Connected(plan, opened, incoming=0, outgoing=0, sends=sends)  # 0: no SRTP

    async def settle(self) -> None:
        """Do nothing: everybody who joined is sent every packet."""

    async def leave(self, participant: Connected) -> None:
        """Signal a participant out."""
        participant.socket.send(b"leave")
        participant.socket.close()

    def drops(self) -> dict[str, int]:
        """What it says that it dropped."""
        return {}

    def versions(self) -> dict[str, str]:
        """Goes into the report."""
        return {"relay": f"Python {sys.version.split()[0]}"}

    async def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        await self._process.wait()


async def _serve() -> None:
    bound, _ = await asyncio.get_running_loop().create_datagram_endpoint(Relay, local_addr=("127.0.0.1", 0))
    print(bound.get_extra_info("sockname")[1], flush=True)
    await asyncio.Event().wait()


TARGET = RelayTarget

if __name__ == "__main__":
    asyncio.run(_serve())
