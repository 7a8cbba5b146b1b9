"""The protocol of targets, and what they share: starting a server, its errors, a free port."""

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
"""Seconds to start, answer and stop. A first start compiles kernels."""
LAYER_OF = {"LOW": 0, "MEDIUM": 1, "HIGH": 2}
LOG_TAIL = 2000
"""Characters of a server's log in an error."""


@runtime_checkable
class MayBeMissing(Protocol):
    """A target that needs something which not every machine has."""

    def missing(self) -> str:
        """Return why it cannot be started here; empty: it can."""


class Target(Protocol):
    """A system under test."""

    name: str
    profile: str
    """The SRTP protection profile of its media."""

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start the system, confined to these cores, or find it if it runs already."""

    def pid(self) -> int:
        """Return the root of its process tree."""

    async def join(self, plan: Plan) -> Connected:
        """Let a participant join: signalling, ICE and DTLS.

        Subscribers receive everything that is published in their room, also what is published later.
        """

    async def settle(self) -> None:
        """Wait until everybody who joined is subscribed to everything that is there."""

    async def leave(self, participant: Connected) -> None:
        """Remove a participant and close its socket."""

    def drops(self) -> dict[str, int]:
        """Return how many packets it counted as dropped, by reason; empty if it does not count them."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the system and of its important parts, by name."""

    async def stop(self) -> None:
        """Stop what `start` started."""


@runtime_checkable
class MayBeForeign(Protocol):
    """A target that may be another project's server."""

    foreign: bool
    """Whether the target is another project's server. Failed joins in the window are then counted as a result. A
    server of ours has to let everybody in, or it is not measured."""


def is_foreign(target: Target) -> bool:
    """Tell whether a target is another project's server."""
    return isinstance(target, MayBeForeign) and target.foreign


class TargetFailed(Exception):
    """A system under test did not start, died, or did not do what was asked of it."""


def free_port(kind: socket.SocketKind) -> int:
    """Return a port on loopback that is unused now."""
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
        """Return the id of the process."""
        return self._process.pid

    def check(self) -> None:
        """Check that the process runs.

        Raises:
            TargetFailed: it has ended. The text has the end of its log.
        """
        if self._process.poll() is not None:
            tail = Path(self._log.name).read_text(errors="replace")[-LOG_TAIL:]
            raise TargetFailed(f"{self._command[0]} ended with status {self._process.returncode}:\n{tail}")

    async def wait_ready(self, url: str) -> None:
        """Wait until the server answers HTTP 200 at `url`."""
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            self.check()
            if await asyncio.to_thread(_answers, url):
                return
            await asyncio.sleep(POLL_S)
        raise TargetFailed(f"{self._command[0]} did not become ready in {START_TIMEOUT_S:.0f} s")

    def stop(self) -> None:
        """Stop the process by SIGTERM, or by SIGKILL if it does not stop."""
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
    """A process of `bench.servers`. It sends (pid, port) and then answers requests (verb, arguments) until "stop"."""

    def __init__(self, name: str, main: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """`name` is for errors. The process calls `main` with its end of the pipe and `arguments`."""
        self._name, self._main, self._arguments = name, main, arguments
        self.pid = self.port = 0

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start the process on these cores and wait until it is ready.

        Raises:
            TargetFailed: it does not start.
        """
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
        """Send a request and return the answer.

        Raises:
            TargetFailed: the process has ended.
        """
        try:
            self._pipe.send((verb, arguments))
        except ConnectionError as error:
            raise TargetFailed(f"{self._name} ended") from error
        return self._receive(CHILD_ANSWER_TIMEOUT_S)

    def stop(self) -> None:
        """Stop the process."""
        with contextlib.suppress(TargetFailed):
            self.ask("stop")
        self._process.join(CHILD_STOP_TIMEOUT_S)
