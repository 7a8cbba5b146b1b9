"""A container with a bridge network: a namespace of its own, which is reached through ports that its host passes on."""

import contextlib
from collections.abc import Iterator

from bench.network.namespaces import Namespace, run_command

HOST_LINK, HOST_ADDRESS, INSIDE = "docker0", "172.17.0.1", "172.17.0.2"
CHAIN = ("nft", "add chain ip published output { type nat hook output priority -100 ; }")


class Container:
    """A namespace in which a server has the address `INSIDE`, and which is known under its host's alone."""

    def __init__(self, namespace: Namespace, outside: str) -> None:
        """Pass nothing on yet. `outside`: the address of the host."""
        self.outside = outside
        self._namespace = namespace

    def prefix(self) -> list[str]:
        """The words that run a command in it."""
        return self._namespace.prefix()

    def publish(self, tcp_port: int, udp_port: int) -> None:
        """Pass on these ports of the host, as `docker run -p` does.

        Raises:
            NetworkUnavailable: the packet filter cannot do it.
        """
        for kind, port in (("tcp", tcp_port), ("udp", udp_port)):
            run_command(
                f"nft add rule ip published output ip daddr {self.outside} {kind} dport {port} dnat to {INSIDE}:{port}"
            )


@contextlib.contextmanager
def container(outside: str) -> Iterator[Container]:
    """Make one for the length of the block, in the network of this process.

    Raises:
        NetworkUnavailable: this machine does not allow it.
    """
    namespace = Namespace()
    try:
        _join(namespace)
        run_command("nft add table ip published")
        run_command(CHAIN[1], [CHAIN[0]])
        yield Container(namespace, outside)
        run_command("nft delete table ip published")
        run_command(f"ip link del {HOST_LINK}")
    finally:
        namespace.close()


def _join(namespace: Namespace) -> None:
    run_command(f"ip link add {HOST_LINK} type veth peer name eth0 netns {namespace.pid}")
    run_command(f"ip addr add {HOST_ADDRESS}/16 dev {HOST_LINK}")
    run_command(f"ip link set {HOST_LINK} up")
    inside = namespace.prefix()
    for command in (
        "ip link set lo up",
        f"ip addr add {INSIDE}/16 dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {HOST_ADDRESS}",
    ):
        run_command(command, inside)
