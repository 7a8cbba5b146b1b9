"""Clients of TURN over UDP, and the socket to which they send.

Who calls it: `thread.py` makes the sockets; the poller tells when something has come. Answers leave from the address to
which the client sent, also where the socket is bound to all.
"""

import ipaddress
import socket
import struct
import time
from functools import partial
from typing import Any

from signaling.turn.allocation.allocations import Allocations
from signaling.turn.net.clients import Client
from signaling.turn.net.paths import Common
from signaling.turn.wire.framing import MAX_MESSAGE_BYTES, frame_of
from signaling.turn.wire.stun_messages import Address

DATAGRAMS_AT_ONCE = 64
"""Datagrams that are read before others have their turn."""
BUFFER_BYTES = 4 << 20
"""What the operating system keeps for each direction; it cuts this to its own limit."""
CONTROL_BYTES = 128
IP_PKTINFO = 8

Control = list[tuple[int, int, bytes]]


class DatagramClient(Client):
    """An address from which datagrams come."""

    def __init__(
        self,
        common: Common,
        allocations: Allocations,
        server: "DatagramServer",
        key: "tuple[Any, bytes]",
        control: Control,
        now: float,
    ) -> None:
        """Begin without an allocation.

        Args:
            common: what the thread has for all clients.
            allocations: who decides.
            server: the socket.
            key: the client's address as sockets have it, and ours.
            control: what makes datagrams leave from our address.
            now: the monotonic time, in seconds.
        """
        host, port = key[0][0].partition("%")[0], key[0][1]
        super().__init__(common, allocations, Address(ipaddress.ip_address(host).packed, port), now)
        self.key = key
        self._server = server
        self._control = control

    @property
    def way(self) -> str:
        """How it reaches the server, as statistics call it."""
        return "turn_udp"

    def say(self, data: bytes) -> None:
        """Send a STUN message to the client."""
        self._server.send([data], self._control, self.key[0])

    def deliver_channel(self, channel: int, frames: list[memoryview]) -> None:
        """Send frames of the media in a channel, each in a datagram."""
        number = channel.to_bytes(2)
        for frame in frames:
            self._server.send([number, frame], self._control, self.key[0])

    def set_reading(self, reads: bool) -> None:
        """Do nothing: what the media does not take is dropped, as by a network."""

    def allocation_ended(self) -> None:
        """Close the paths, and forget the client."""
        super().allocation_ended()
        self._server.forget(self)


class DatagramServer:
    """A UDP socket, and the clients that have allocations over it."""

    def __init__(self, common: Common, allocations: Allocations, bound: socket.socket) -> None:
        """Serve a bound socket, which is ours now."""
        self._common = common
        self._allocations = allocations
        self._socket = bound
        self._clients: dict[tuple[Any, bytes], DatagramClient] = {}
        bound.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            bound.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if bound.family == socket.AF_INET:
            bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        common.poller.watch(bound.fileno(), self)

    def ready(self, events: int) -> None:
        """Take what has come."""
        now = time.monotonic()
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                data, control, _, address = self._socket.recvmsg(MAX_MESSAGE_BYTES, CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an answer that could not be delivered (ICMP)
            self._common.poller.catch_up()
            self._common.poller.attempt(partial(self._take, data, control, address, now))

    def tick(self) -> None:
        """Close paths whose permission has expired."""
        for client in tuple(self._clients.values()):
            client.close_forbidden()

    def forget(self, client: DatagramClient) -> None:
        """Forget a client whose allocation has ended."""
        self._clients.pop(client.key, None)

    def send(self, parts: list[bytes | memoryview], control: Control, address: Any) -> None:
        """Send a datagram, or drop it if the operating system does not take it."""
        try:
            self._socket.sendmsg(parts, control, 0, address)
        except OSError:
            self._common.dropped["turn_unsent"] += 1

    def close(self) -> None:
        """Close the socket."""
        self._common.poller.forget(self._socket.fileno())
        self._socket.close()

    def _take(self, data: bytes, control: Control, address: Any, now: float) -> None:
        info = control[0][2] if control else b""
        key = (address, info[-4:] if len(info) == 12 else info[:16])  # by whichever interface it came
        client = self._clients.get(key)
        if not data or data[0] & 0xC0 == 0:
            if client is None:
                reply = _from_local(info, address)
                client = DatagramClient(self._common, self._allocations, self, key, reply, now)
            client.hear(data, now)
            if client.allocation is not None:
                self._clients[key] = client
            return
        frame = frame_of(memoryview(data))
        if data[0] & 0xC0 != 0x40 or frame is None:
            self._common.dropped["turn_malformed"] += 1
        elif client is None:
            self._common.dropped["turn_forbidden"] += 1
        else:
            client.relay_channel(int.from_bytes(data[:2]), [frame], now)


def _from_local(info: bytes, address: Any) -> Control:
    """Return what makes an answer leave from where a datagram of `address` came to, by its `in_pktinfo`."""
    if len(info) == 12:
        return [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", 0, info[4:8]))]
    if len(info) == 20:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info[:16] + struct.pack("=I", address[3]))]
    return []
