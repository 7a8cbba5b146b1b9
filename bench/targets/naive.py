"""The SFU of `bench.servers.naive_sfu` as a target: asyncio, aiortc's packet objects and pylibsrtp's `Session`.

Options: `loop=uvloop` for uvloop instead of asyncio's own event loop.
"""

import asyncio
import contextlib
import json
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.accounting import confined
from bench.clients.endpoint import Endpoint, make_context
from bench.plans import Connected, Plan, SendStream
from bench.servers.naive_sfu import ADDRESS
from sfu.parameters import IceCredentials

OPUS_PAYLOAD_TYPE, VP8_PAYLOAD_TYPE = 111, 96
LOOPS = ("asyncio", "uvloop")
STOP_TIMEOUT_S, SETTLE_TIMEOUT_S, POLL_S = 5.0, 30.0, 0.02
ROOT = Path(__file__).parents[2]


class NaiveTarget:
    """Starts the process and sends it requests, each as a line of JSON."""

    profile = "SRTP_AEAD_AES_128_GCM"

    def __init__(self, options: dict[str, str]) -> None:
        self._loop = options.get("loop", LOOPS[0])
        if self._loop not in LOOPS or options.keys() - {"loop"}:
            raise ValueError(f"naive: the only option is loop, one of {', '.join(LOOPS)}")
        self.name = "naive" if self._loop == LOOPS[0] else f"naive-{self._loop}"
        self._context, (_, self._fingerprint) = make_context()
        self._process: Process | None = None
        self._asking = asyncio.Lock()
        self._endpoints: list[Endpoint] = []

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start the process on these cores."""
        words = (sys.executable, "-m", "bench.servers.naive_sfu", self.profile, self._loop)
        with confined(cores):
            self._process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, cwd=ROOT)
        await self._ask("state")

    def pid(self) -> int:
        """Return the id of the process, which has no children."""
        assert self._process is not None
        return self._process.pid

    async def join(self, plan: Plan) -> Connected:
        """Let a participant join. It sends only the best layer of a track, because the server selects no other."""
        sends = [
            SendStream(
                ssrc=secrets.randbits(32),
                payload_type=OPUS_PAYLOAD_TYPE if track.kind == "audio" else VP8_PAYLOAD_TYPE,
                kind=track.kind,
                layer=max(track.layers, key=lambda layer: layer.packets_per_second * layer.packet_bytes),
                frames_per_second=track.frames_per_second,
            )
            for track in plan.publish
        ]
        answer = await self._ask(
            "join",
            room=plan.room,
            identity=plan.identity,
            subscribe=plan.subscribe,
            fingerprint=self._fingerprint,
            ssrcs=[stream.ssrc for stream in sends],
        )
        endpoint = Endpoint(self._context, (ADDRESS, answer["port"]))
        self._endpoints.append(endpoint)
        await endpoint.connect(IceCredentials(answer["ufrag"], answer["password"]))
        check = endpoint.check_datagram
        return Connected(plan, endpoint.socket, endpoint.incoming, endpoint.outgoing, sends, endpoint, check)

    async def settle(self) -> None:
        """Wait until the server has completed every handshake, after which it subscribes at once."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while (await self._ask("state"))["connected"] < len(self._endpoints):  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(POLL_S)

    async def leave(self, participant: Connected) -> None:
        """Remove a participant and close its socket."""
        await self._ask("leave", room=participant.plan.room, identity=participant.plan.identity)
        assert isinstance(participant.owner, Endpoint)
        self._endpoints.remove(participant.owner)
        participant.owner.close()

    def drops(self) -> dict[str, int]:
        """Return nothing: it counts no drops. The kernel counts those of its sockets."""
        return {}

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that it is built from."""
        return {"naive": f"aiortc {version('aiortc')}, pylibsrtp {version('pylibsrtp')}, {self._loop}"}

    async def stop(self) -> None:
        """Stop the process by ending its input."""
        for endpoint in self._endpoints:
            endpoint.close()
        self._endpoints.clear()
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._process = None

    async def _ask(self, verb: str, **request: Any) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._asking:
            self._process.stdin.write(json.dumps({"do": verb, **request}).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the naive SFU's process ended; its standard error says why")
        answer: dict[str, Any] = json.loads(line)
        return answer


TARGET = NaiveTarget
