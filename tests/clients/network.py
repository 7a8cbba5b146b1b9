"""A network of the tests' own: a namespace with loopback and one veth pair, so that nothing reaches the outside.

Firefox refuses loopback candidates, and a server with several addresses needs several: 10.9.0.1 and 10.9.1.1 are ours,
and fd00:9::1 for IPv6. The calling process (and so every process and thread that it starts later) moves into it.
"""

import functools

from bench.network.namespaces import NetworkUnavailable, enter_new_namespace, run_command

ADDRESS, SECOND_ADDRESS, ADDRESS_V6 = "10.9.0.1", "10.9.1.1", "fd00:9::1"
_COMMANDS = (
    "ip link add test0 type veth peer name test1",
    "ip link set test0 up",
    "ip link set test1 up",
    f"ip addr add {ADDRESS}/24 dev test0",
    f"ip addr add {SECOND_ADDRESS}/24 dev test0",
    f"ip -6 addr add {ADDRESS_V6}/64 dev test0 nodad",
    "ip route add default dev test0",
)


@functools.cache
def enter_own_network() -> None:
    """Move this process into a fresh network namespace, once.

    Raises:
        NetworkUnavailable: it cannot be made; with the reason.
    """
    enter_new_namespace()
    for command in _COMMANDS:
        try:
            run_command(command)
        except NetworkUnavailable:
            if "-6" not in command:
                raise
