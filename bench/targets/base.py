"""What every target is, and what targets share: a server that is started here, its errors, a free port."""

import asyncio
import contextlib
import multiprocessing
import os
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bench.accounting import confined
from bench.plans import Connected, Plan

START_TIMEOUT_S, STOP_TIMEOUT_S = 300.0, 20.0
POLL_S = 0.05
CHILD_START_TIMEOUT_S, CHILD_ANSWER_TIMEOUT_S, CHILD_STOP_TIMEOUT_S = 900.0, 120.0, 5.0
"""A first start compiles kernels."""
LAYER_OF = {"LOW": 0, "MEDIUM": 1, "HIGH": 2}
LOG_TAIL = 2000
"""Characters of a server's log in an error."""


@runtime_checkable
class MayBeMissing(Protocol):
    """A target that needs something which not every machine has."""

    def missing(self) -> str:
        """Why it cannot be started here; empty: it can."""


class Target(Protocol):
    """A system under test."""

    name: str
    profile: str
    """SRTP protection profile."""

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start it (or find it), confined to these cores where that is ours to do."""

    def pid(self) -> int:
        """Root of its process tree."""

    async def join(self, plan: Plan) -> Connected:
        """Bring one participant in: signalling, ICE, DTLS. Subscribers get everything published in their room, also
        what is published after they joined."""

    async def settle(self) -> None:
        """Wait until everybody who joined is subscribed to everything that is there."""

    async def leave(self, participant: Connected) -> None:
        """Take a participant out and close its socket."""

    def drops(self) -> dict[str, int]:
        """What it says it dropped, by reason; empty when it does not say."""

    def versions(self) -> dict[str, str]:
        """Of the system and what matters in it, by name."""

    async def stop(self) -> None:
        """End what `start` began."""


@runtime_checkable
class Peer(Protocol):
    """A target that may be another project's server."""

    peer: bool
    """It is: whom it fails to let in while it is measured is counted, as a result. One of ours has to let everybody in,
    or it is not measured."""


def is_peer(target: Target) -> bool:
    """Whether a target is another project's server."""
    return isinstance(target, Peer) and target.peer


class TargetFailed(Exception):
    """A system under test did not start, died, or did not do what was asked of it."""


def free_port(kind: socket.SocketKind) -> int:
    """A port on loopback that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A server that was started here, with its log."""

    def __init__(
        self,
        command: list[str],
        cores: tuple[int, ...],
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command` on these cores, in `folder`, with `environment` added to ours."""
        self._log = tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log")  # noqa: SIM115 - closed by `stop`
        self._command = command
        with confined(cores):
            self._process = subprocess.Popen(
                command,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def check(self) -> None:
        """Raise TargetFailed with the end of its log if it has ended."""
        if self._process.poll() is not None:
            tail = Path(self._log.name).read_text(errors="replace")[-LOG_TAIL:]
            raise TargetFailed(f"{self._command[0]} ended with status {self._process.returncode}:\n{tail}")

    async def wait_ready(self, url: str) -> None:
        """Wait until it answers HTTP 200 at `url`."""
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            self.check()
            if await asyncio.to_thread(_answers, url):
                return
            await asyncio.sleep(POLL_S)
        raise TargetFailed(f"{self._command[0]} did not become ready in {START_TIMEOUT_S:.0f} s")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
        return bool(answer.status == 200)
    return False


class Child:
    """A process of ours, of `bench.servers`, that says (pid, port) and then answers (verb, arguments) until "stop"."""

    def __init__(self, name: str, main: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """name: for errors. main: is called in the process with its end of the pipe and `arguments`."""
        self._name, self._main, self._arguments = name, main, arguments
        self.pid = self.port = 0

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start it on these cores and wait until it is ready. Raises TargetFailed."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=self._main, args=(theirs, *self._arguments), daemon=True)
        with confined(cores):
            self._process.start()
        theirs.close()  # so that a child that ends is the end of the pipe
        self.pid, self.port = await asyncio.to_thread(self._receive, CHILD_START_TIMEOUT_S)

    def _receive(self, timeout_s: float) -> Any:
        try:
            if not self._pipe.poll(timeout_s):
                raise TargetFailed(f"{self._name} does not answer")
            return self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise TargetFailed(f"{self._name} ended") from error

    def ask(self, verb: str, *arguments: Any) -> Any:
        """What it answers. Raises TargetFailed when it has ended."""
        try:
            self._pipe.send((verb, arguments))
        except ConnectionError as error:
            raise TargetFailed(f"{self._name} ended") from error
        return self._receive(CHILD_ANSWER_TIMEOUT_S)

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(TargetFailed):
            self.ask("stop")
        self._process.join(CHILD_STOP_TIMEOUT_S)
