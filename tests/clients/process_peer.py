"""A native client in a process of its own, which a test can stop and continue as a laptop is put to sleep and woken.

`python -m tests.clients.process_peer IDENTITY KIND` reads calls as lines of JSON and answers each with one.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from tests.clients.peers import Media, SdkPeer
from tests.clients.sfu_server import ServerUnderTest

CALLS = frozenset(("connect", "publish_audio", "publish_video", "say", "messages", "received", "leave"))
MAX_LINE_BYTES = 1 << 24


class ProcessPeer:
    """The `Peer` that runs in the other process."""

    def __init__(self, identity: str, process: asyncio.subprocess.Process) -> None:
        self.identity = identity
        self._process = process
        self._turn = asyncio.Lock()

    async def _call(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
            line = await self._process.stdout.readline()
        assert line, f"the process of {self.identity} has ended"
        return json.loads(line)

    async def join(self, server: ServerUnderTest, room: str, **grants: Any) -> None:
        await self._call("connect", server.url, server.token(room, self.identity, **grants))

    async def publish_audio(self) -> str:
        return str(await self._call("publish_audio"))

    async def publish_video(self, codec: str = "vp8") -> str:
        return str(await self._call("publish_video", codec))

    async def say(self, text: str) -> None:
        await self._call("say", text)

    async def messages(self) -> list[tuple[str, str]]:
        return [(sender, text) for sender, text in await self._call("messages")]

    async def received(self) -> dict[str, dict[str, Media]]:
        seen = await self._call("received")
        return {identity: {source: Media(**row) for source, row in tracks.items()} for identity, tracks in seen.items()}

    async def leave(self) -> None:
        await self._call("leave")

    def sleep(self) -> None:
        """Stop the process; nothing in it runs, its sockets stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def process_peer(
    identity: str, kind: str = "sdk", environment: dict[str, str] | None = None
) -> AsyncIterator[ProcessPeer]:
    """A native client, "sdk" or "sdk-dual", until the block ends. `environment`: what its process gets beside ours."""
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "tests.clients.process_peer", identity, kind]
    env = os.environ | (environment or {})
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=MAX_LINE_BYTES, env=env)
    peer = ProcessPeer(identity, process)
    try:
        yield peer
    finally:
        peer.wake()
        process.kill()
        await process.communicate()


async def _serve(peer: SdkPeer) -> None:
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr
    while line := await reader.readline():
        method, arguments = json.loads(line)
        assert method in CALLS
        result = await getattr(peer, method)(*arguments)
        if method == "received":
            result = {who: {source: asdict(row) for source, row in tracks.items()} for who, tracks in result.items()}
        answers.write(json.dumps(result) + "\n")
        answers.flush()


async def _main() -> None:
    identity, kind = sys.argv[1:]
    await _serve(SdkPeer(identity, single_pc=kind == "sdk"))


if __name__ == "__main__":
    asyncio.run(_main())
