"""Programs of `examples/` as processes of their own."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from tests.clients.sfu_server import KEY, SECRET, ServerUnderTest

ROOT = Path(__file__).parents[2]


async def started(*words: str | Path, **environment: str) -> Process:
    command = [sys.executable, *map(str, words)]
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=os.environ | environment, stdout=PIPE)


async def ended(process: Process) -> str:
    """What a program said. Its status must be 0."""
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def listening(url: str) -> None:
    """Wait until a program answers, whatever it answers."""
    async with httpx.AsyncClient() as client, asyncio.timeout(60):
        while True:
            with contextlib.suppress(httpx.TransportError):
                await client.get(url)
                return
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def running(*words: str | Path, **environment: str) -> AsyncIterator[Process]:
    """A program that runs until it is stopped."""
    process = await started(*words, **environment)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


def keys(server: ServerUnderTest) -> dict[str, str]:
    return {"LIVEKIT_URL": server.http_url, "LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": SECRET}
