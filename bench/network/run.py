"""One run of one case against one server: who is started where, and what they said."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bench.network.bottleneck import LATE_MS, OUTSIDE, ROOT, Bottleneck, bottleneck
from bench.network.case import CLIENTS, Case, ViewerPlan
from bench.network.counts import Record
from bench.targets.livekit import LiveKit

ROOM = "network"
START_TIMEOUT_S = 30.0
"""How long the publisher's layers and each viewer's first picture are waited for."""
SETTLE_S = 3.0
BEFORE_S = 1.5
"""What clients said in so long before the begin is kept: their counters then are those that the case adds to."""
TRIES = 3
"""How often a case is run at most, while the bottleneck is late."""
STOP_TIMEOUT_S = 10.0
Say = dict[str, Any]


class CaseFailed(Exception):
    """A client did not do what it should, so that there is nothing to judge."""


@dataclass
class Client:
    """A client process and the lines that it has printed, oldest first."""

    name: str
    process: asyncio.subprocess.Process
    said: list[Say] = field(default_factory=list)
    reading: "asyncio.Task[None] | None" = None

    @classmethod
    async def start(cls, module: str, name: str, arguments: list[str], prefix: list[str], log: Path) -> Self:
        """Start `python -m bench.network.MODULE ARGUMENTS`, with `prefix` before it. Its error messages go to `log`."""
        words = [*prefix, sys.executable, "-m", f"bench.network.{module}", *arguments]
        pipe = asyncio.subprocess.PIPE
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=errors, cwd=ROOT)
        client = cls(name, process)
        client.reading = asyncio.create_task(client._read())
        return client

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))

    def tell(self, command: Say) -> None:
        """Write a command to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def until(self, fact: Callable[[Say], bool], what: str) -> Say:
        """Wait for a line of which `fact` is true, and return it.

        Raises:
            CaseFailed: there is none within START_TIMEOUT_S.
        """
        deadline, place = time.monotonic() + START_TIMEOUT_S, 0
        while time.monotonic() < deadline and self.process.returncode is None:
            for line in self.said[place:]:
                if fact(line):
                    return line
            place = len(self.said)
            await asyncio.sleep(0.05)
        raise CaseFailed(f"{self.name}: no {what} within {START_TIMEOUT_S:.0f} s")

    async def stop(self) -> None:
        """Let it leave the room and end; kill it if it does not."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        if self.reading is not None:
            await self.reading


@dataclass
class Outcome:
    """What a run produced. The times in clients' lines are seconds after the begin."""

    case: Case
    system: str
    record: Record
    viewers: dict[str, list[Say]]
    publisher: list[Say]
    tries: int = 1

    @property
    def measured(self) -> bool:
        """Whether the bottleneck was punctual. Otherwise the run measured nothing."""
        return self.record.late_ms <= LATE_MS


class Run:
    """One run of a case with a server that is already running."""

    def __init__(self, case: Case, target: LiveKit, link: Bottleneck, folder: Path) -> None:
        """Prepare a run; the error messages of clients go to files in `folder`."""
        self._case, self._target, self._link, self._folder = case, target, link, folder
        self._clients: list[Client] = []
        self._viewers: dict[str, Client] = {}

    async def _client(self, module: str, name: str, behind: bool) -> Client:
        prefix = self._link.clients.prefix() if behind else []
        arguments = [self._target.url, self._target.token(ROOM, name)]
        client = await Client.start(module, name, arguments, prefix, self._folder / f"{name}.log")
        self._clients.append(client)
        return client

    async def _view(self, plan: ViewerPlan) -> Client:
        viewer = self._viewers[plan.name] = await self._client(CLIENTS[plan.client], plan.name, plan.behind)
        return viewer

    async def measure(self) -> Outcome:
        """Start the clients, let the case happen and return what was observed.

        Raises:
            CaseFailed: a client failed.
            NetworkUnavailable: the bottleneck ended.
        """
        case = self._case
        try:
            publisher = await self._client("publisher", "publisher", case.publisher_behind)
            await publisher.until(_sends_all, "highest layer")
            for plan in case.viewers:
                if plan.joins_s is None:
                    await self._view(plan)
            for viewer in self._viewers.values():
                await viewer.until(lambda line: bool(line.get("pictures")), "picture")
            await asyncio.sleep(SETTLE_S)
            began = await self._link.begin()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(case.seconds))
                for plan in case.viewers:
                    if plan.joins_s is not None:
                        tasks.create_task(self._later(plan))
                if case.download is not None:
                    tasks.create_task(_download(self._link, case.download.begins_s, case.download.ends_s))
                if case.message is not None:
                    tasks.create_task(_message(publisher, case.message.at_s, case.message.size))
            record = await self._link.end()
        finally:
            await asyncio.gather(*(client.stop() for client in self._clients))
        viewers = {name: since(viewer.said, began, case.seconds) for name, viewer in self._viewers.items()}
        return Outcome(case, self._target.name, record, viewers, since(publisher.said, began, case.seconds))

    async def _later(self, plan: ViewerPlan) -> None:
        await asyncio.sleep(plan.joins_s or 0)
        await self._view(plan)


def _sends_all(line: Say) -> bool:
    layers = line.get("layers", {}).values()
    return len(layers) > 1 and all(layer["frames"] > 0 and layer["height"] for layer in layers)


def since(lines: list[Say], began: float, seconds: float) -> list[Say]:
    """Return the lines of the case, and of BEFORE_S before it, with times relative to its begin."""
    moved = []
    for line in lines:
        if began - BEFORE_S <= line["at"] <= began + seconds:
            pictures = [[at - began, *rest] for at, *rest in line.get("pictures", [])]
            moved.append({**line, "at": line["at"] - began} | ({"pictures": pictures} if "pictures" in line else {}))
    return moved


async def _download(link: Bottleneck, begins_s: float, ends_s: float) -> None:
    """Download over TCP through the bottleneck, as fast as possible."""
    block = bytes(1 << 16)
    writers: list[asyncio.StreamWriter] = []
    ended = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while True:
                writer.write(block)
                await writer.drain()
        ended.set()

    await asyncio.sleep(begins_s)
    async with await asyncio.start_server(serve, OUTSIDE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        connect = f"import socket; s = socket.create_connection(({OUTSIDE!r}, {port}))\nwhile s.recv(1 << 16): pass"
        process = await asyncio.create_subprocess_exec(*link.clients.prefix(), sys.executable, "-c", connect)
        try:
            await asyncio.sleep(ends_s - begins_s)
        finally:
            process.kill()
            await process.wait()
            for writer in writers:
                writer.transport.abort()
        if writers:
            await ended.wait()


async def _message(publisher: Client, at_s: float, size: int) -> None:
    await asyncio.sleep(at_s)
    publisher.tell({"message": size})


@contextlib.asynccontextmanager
async def serving(target: LiveKit) -> AsyncIterator[LiveKit]:
    """Start the target, and stop it at the end."""
    await target.start(())
    try:
        yield target
    finally:
        await target.stop()


async def run_case(case: Case, make: Callable[[], LiveKit], folder: Path, seed: int = 1) -> Outcome:
    """Run a case, and again while the bottleneck is late, TRIES times at most.

    Args:
        case: what happens.
        make: returns a server that is not started yet.
        folder: for the error messages of clients.
        seed: of losses and jitter.

    Raises:
        CaseFailed: a client failed.
        NetworkUnavailable: this machine allows no bottleneck.
        TargetFailed: the server failed.
    """
    tries = 0
    while True:
        tries += 1
        async with bottleneck(case.down, case.up, seed) as link, serving(make()) as target:
            outcome = replace(await Run(case, target, link, folder).measure(), tries=tries)
        if outcome.measured or tries == TRIES:
            return outcome
