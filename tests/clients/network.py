"""A network of the tests' own: a namespace with loopback and one veth pair, so that nothing reaches the outside.

Firefox refuses loopback candidates, and a server with several addresses needs several: 10.9.0.1 and 10.9.1.1 are ours,
and fd00:9::1 for IPv6. The calling process (and so every process and thread that it starts later) moves into it.
"""

import ctypes
import functools
import os
import subprocess

ADDRESS, SECOND_ADDRESS, ADDRESS_V6 = "10.9.0.1", "10.9.1.1", "fd00:9::1"
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_COMMANDS = (
    "ip link set lo up",
    "ip link add test0 type veth peer name test1",
    "ip link set test0 up",
    "ip link set test1 up",
    f"ip addr add {ADDRESS}/24 dev test0",
    f"ip addr add {SECOND_ADDRESS}/24 dev test0",
    f"ip -6 addr add {ADDRESS_V6}/64 dev test0 nodad",
    "ip route add default dev test0",
)


class NetworkUnavailable(Exception):
    """This machine does not let us make a network namespace."""


@functools.cache
def enter_own_network() -> None:
    """Move this process into a fresh network namespace, once. Raises NetworkUnavailable with the reason."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid = os.geteuid()
    flags = _CLONE_NEWNET if uid == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        raise NetworkUnavailable(f"unshare: {os.strerror(ctypes.get_errno())}")
    for command in _COMMANDS:
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        if done.returncode and "-6" not in command:
            raise NetworkUnavailable(f"{command}: {done.stderr.strip()}")
