"""Network namespaces: one that this process moves into, others that it only holds and runs programs in.

Nothing of a benchmark or test in there reaches the outside. Linux only, and as root or where users may make namespaces.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
Made = TypeVar("Made")


class NetworkUnavailable(Exception):
    """This machine does not allow a network namespace, or something that is needed in it."""


def run_command(command: str, prefix: list[str] | None = None) -> None:
    """Run the words of `command` after those of `prefix`.

    Raises:
        NetworkUnavailable: it failed; the text is its error message.
    """
    words = [*(prefix or []), *command.split()]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NetworkUnavailable(f"{words[0]}: {error.strerror}") from error
    if done.returncode:
        raise NetworkUnavailable(f"{command}: {done.stderr.strip()}")


def enter_new_namespace() -> None:
    """Move this process, and whatever it starts later, into a new namespace that has loopback alone.

    Raises:
        NetworkUnavailable: this is not allowed; the text says why.
    """
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise NetworkUnavailable(f"unshare: {os.strerror(ctypes.get_errno())}")
    run_command("ip link set lo up")


class Namespace:
    """A network namespace, held by a process of ours that waits in it."""

    def __init__(self) -> None:
        """Make a namespace without any link that is up.

        Raises:
            NetworkUnavailable: this is not allowed.
        """
        command = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        except OSError as error:
            raise NetworkUnavailable(f"unshare: {error}") from error
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self.close()
            raise NetworkUnavailable("unshare --net is refused")
        self.path = f"/proc/{self._process.pid}/ns/net"
        self.pid = self._process.pid

    def prefix(self) -> list[str]:
        """Return the words that have to precede a command to run it in the namespace."""
        return ["nsenter", f"--net={self.path}"]

    def inside(self, make: Callable[[], Made]) -> Made:
        """Call `make` inside the namespace and return what it returns.

        A socket or device stays in the namespace of the thread that made it.

        Raises:
            NetworkUnavailable: the namespace cannot be entered.
        """

        def enter_and_make() -> Made:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(self.path) as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    raise NetworkUnavailable(f"setns: {os.strerror(ctypes.get_errno())}")
            return make()

        with ThreadPoolExecutor(1) as threads:  # one thread for this alone: it does not come back from there
            return threads.submit(enter_and_make).result()

    def close(self) -> None:
        """Remove the namespace; nothing may run in it any more."""
        self._process.communicate()  # ends it: its input ends
