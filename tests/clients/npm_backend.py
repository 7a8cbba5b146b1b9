"""An application's backend on LiveKit's server SDK of npm: a process of Node.js that a test tells what to call."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any

from tests.clients.conftest import without_client
from tests.clients.pages import WEB
from tests.clients.peers import eventually
from tests.clients.sfu_server import KEY, SECRET

PROGRAM = WEB / "backend.mjs"
MAX_LINE_BYTES = 1 << 24


class BackendError(Exception):
    """The SDK threw an error; `error` has its `message`, and if a server answered so, `code` and `status`."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


class NpmBackend:
    """The backend. `tests/clients/web/backend.mjs` has the names of its objects; methods are the SDK's own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, called: str, *arguments: Any) -> Any:
        """Call `OBJECT.METHOD`; messages come back as JSON.

        Raises:
            BackendError: it threw.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([*called.split("."), arguments]).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, "the backend's process has ended"
        answer = json.loads(line)
        if "error" in answer:
            raise BackendError(answer["error"])
        return answer["result"]

    async def fails(self, called: str, *arguments: Any) -> tuple[int | None, str | None, str]:
        """Call what must throw; returns status, code and text of the error."""
        try:
            result = await self.call(called, *arguments)
        except BackendError as thrown:
            return thrown.error.get("status"), thrown.error.get("code"), thrown.error["message"]
        raise AssertionError(f"{called} returned {result}")

    async def webhooks(self, number: int) -> list[dict[str, Any]]:
        """Wait until so many webhooks came, and return them."""

        async def came() -> list[dict[str, Any]] | None:
            told: list[dict[str, Any]] = await self.call("backend.webhooks")
            return told if len(told) >= number else None

        events: list[dict[str, Any]] = await eventually(
            came, f"{number} webhooks", detail=lambda: self.call("backend.webhooks")
        )
        return events


@contextlib.asynccontextmanager
async def npm_backend(url: str) -> AsyncIterator[NpmBackend]:
    """A backend for the server at `url` until the block ends."""
    node = shutil.which("node")
    if node is None or not (WEB / "node_modules" / "livekit-server-sdk").exists():
        without_client("livekit-server-sdk is not installed (npm ci in tests/clients/web)")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        str(node), str(PROGRAM), url, KEY, SECRET, stdin=pipe, stdout=pipe, limit=MAX_LINE_BYTES
    )
    try:
        yield NpmBackend(process)
    finally:
        process.kill()
        await process.communicate()
