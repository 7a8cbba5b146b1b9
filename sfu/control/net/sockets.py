"""UDP sockets of a media thread, and the addresses that peers hear of (ICE host candidates).

The sockets are read and written by kernels; from Python only the control thread sends through them, DTLS. Candidates
follow RFC 8445 section 5.1 for a lite agent: host candidates only, one component.
"""

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from sfu.addresses import machine_addresses
from sfu.parameters import Candidate
from sfu.schema.capacities import SOCKETS
from sfu.schema.memory import Memory
from sfu.sockets import bound_socket

BUFFER_BYTES = 8 << 20
"""Socket buffers: 40 ms of 1.6 Gbit/s. What the system does not allow is cut to its own limit."""
MAX_CANDIDATES = 16
"""A server with more addresses names them with `node_ips`; every candidate costs each client checks."""
SAME_PORT_TRIES = 16
"""How often a port that is free for IPv4 may turn out to be taken for IPv6."""
HOST_PREFERENCE, TCP_HOST_PREFERENCE = 126, 90
"""Type preferences: RFC 8445 section 5.1.2.2, for host candidates; what libwebrtc has for those over TCP."""
PASSIVE_PREFERENCE = 4 << 13
"""RFC 6544 section 4.2: the direction preference of passive host candidates, as a part of their local preference."""
MAX_REMEMBERED = 1024
"""Addresses of peers, and of ours, that are kept in the form that Python's sockets want: some 400 bytes each."""

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
SO_TIMESTAMPNS = 35
IP_PKTINFO = 8
SOL_UDP, UDP_SEGMENT = 17, 103


class _Way(NamedTuple):
    """A socket, and what does not change about it."""

    socket: socket.socket
    family: int
    wildcard: bool


class Sockets:
    """The bound sockets, entered into `state.sockets`. Construction binds: OSError when a port is in use."""

    def __init__(self, memory: Memory, port: int, bind: tuple[str, ...]) -> None:
        """port: 0 takes any that is free for all addresses. bind: local addresses; empty: all."""
        self._memory = memory
        self._sockets: list[socket.socket] = []
        self._ways: tuple[_Way, ...] = ()
        paths = memory.table("paths")
        self._socket_of_path, self._family, self._interface = paths["socket"], paths["family"], paths["local_interface"]
        self._address, self._local = paths["address"], paths["local"]
        self._open_all(port, bind or ("0.0.0.0", "::"), optional_ipv6=not bind)
        self.port = int(self._sockets[0].getsockname()[1])
        self._enter()

    @property
    def families(self) -> set[int]:
        """4 and 6, as far as there are sockets."""
        return {_version(each) for each in self._sockets}

    def close(self) -> None:
        """Close every socket; the media thread must have stopped."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        self._ways = ()
        self._memory.thread["socket_count"] = 0

    def local_addresses(self) -> list[str]:
        """Addresses under which the sockets are reached; a wildcard stands for all of the machine's in its family."""
        found = []
        for each in self._sockets:
            name = str(each.getsockname()[0])
            if ipaddress.ip_address(name).is_unspecified:
                version = _version(each)
                found += [text for text in machine_addresses() if ipaddress.ip_address(text).version == version]
            else:
                found.append(name)
        return found

    def send(self, path: int, datagram: bytes) -> bool:
        """Send from the control thread to the peer of a path row. False: it was not sent (a lost datagram)."""
        index = self._socket_of_path.item(path)
        if not 0 <= index < len(self._ways):
            return False
        via, family, wildcard = self._ways[index]
        name = socket_name(family, self._address[path].tobytes())
        try:
            if wildcard:
                local = self._local[path].tobytes()
                control = _control(self._family.item(path), local, self._interface.item(path))
                via.sendmsg((datagram,), control, 0, name)
            else:
                via.sendto(datagram, name)
        except OSError:
            return False
        return True

    def _open_all(self, port: int, addresses: Iterable[str], optional_ipv6: bool) -> None:
        for attempt in range(SAME_PORT_TRIES):
            try:
                for address in addresses:
                    self._open(address, self._sockets[0].getsockname()[1] if self._sockets else port, optional_ipv6)
            except OSError as error:
                for each in self._sockets:
                    each.close()
                self._sockets.clear()
                if port or error.errno != errno.EADDRINUSE or attempt == SAME_PORT_TRIES - 1:
                    raise
            else:
                return

    def _open(self, address: str, port: int, optional_ipv6: bool) -> None:
        opened = bound_socket(socket.SOCK_DGRAM, address, port, _set_options, optional_ipv6)
        if opened is not None:
            self._sockets.append(opened)

    def _enter(self) -> None:
        if len(self._sockets) > SOCKETS:
            self.close()
            raise OSError(errno.EMFILE, f"more than {SOCKETS} addresses to bind")
        rows = self._memory.table("sockets")
        for row, each in zip(rows, self._sockets, strict=False):
            name = each.getsockname()
            row["fd"] = each.fileno()
            row["family"] = _version(each)
            row["wildcard"] = wildcard = ipaddress.ip_address(name[0]).is_unspecified
            self._ways += (_Way(each, each.family, wildcard),)
        self._memory.thread["socket_count"] = len(self._sockets)
        self._memory.thread["segment_offload"] = has_segment_offload()


def _version(each: socket.socket) -> int:
    return 4 if each.family == socket.AF_INET else 6


def _set_options(opened: socket.socket) -> None:
    opened.setblocking(False)
    for forced, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        opened.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
        with contextlib.suppress(OSError):  # past the system's limit only with CAP_NET_ADMIN
            opened.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    if opened.family == socket.AF_INET:
        opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


@lru_cache(MAX_REMEMBERED)
def socket_name(family: int, address: bytes) -> tuple[Any, ...]:
    """Python's form of a sockaddr_in or sockaddr_in6."""
    port = struct.unpack_from("!H", address, 2)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[4:8]), port
    return socket.inet_ntop(socket.AF_INET6, address[8:24]), port, 0, struct.unpack_from("=I", address, 24)[0]


def socket_address(connection: socket.socket) -> bytes:
    """The sockaddr_in or sockaddr_in6 of a connected socket's peer, flow info zeroed.

    Raises:
        OSError: the connection has ended.
    """
    name = connection.getpeername()
    return packed_address(name[0].partition("%")[0], name[1], name[3] if len(name) > 3 else 0)


def packed_address(host: str, port: int, scope: int = 0) -> bytes:
    """The sockaddr_in or sockaddr_in6 of an IP address and a port. scope: the interface of a link-local address."""
    if ":" not in host:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))
    address = socket.inet_pton(socket.AF_INET6, host)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16s", port, 0, address) + struct.pack("=I", scope)


def source_control(path: Any) -> list[tuple[int, int, bytes]]:
    """Control data that makes a datagram leave from the address that the peer reached (`path_t.local`)."""
    return list(_control(int(path["family"]), bytes(path["local"]), int(path["local_interface"])))


@lru_cache(MAX_REMEMBERED)
def _control(family: int, local: bytes, interface: int) -> tuple[tuple[int, int, bytes], ...]:
    if not any(local):
        return ()
    if family == 4:
        return ((socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", 0, local[:4])),)
    return ((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16sI", local, interface)),)


def has_segment_offload() -> bool:
    """Whether UDP_SEGMENT cuts a message in two here. Tried over loopback: some systems accept and ignore it."""
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 4))]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            receiver.bind(("127.0.0.1", 0))
            receiver.settimeout(0.2)
            sender.sendmsg([b"leftside"], control, 0, receiver.getsockname())
            return receiver.recv(64) == b"left" and receiver.recv(64) == b"side"
        except OSError:
            return False


def candidates(
    addresses: Iterable[str], families: set[int], port: int, tcp_port: int | None = None
) -> tuple[Candidate, ...]:
    """Host candidates for addresses in order of preference; those of families without a socket are left out. Those over
    TCP, if there is a port for it, come last.

    RFC 8421 section 4: a dual-stack agent interleaves IPv6 and IPv4, so that neither waits for the other to fail.
    """
    usable = [ipaddress.ip_address(text) for text in addresses]
    six = [each for each in usable if each.version == 6 and 6 in families]
    four = [each for each in usable if each.version == 4 and 4 in families]
    ordered: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for k in range(max(len(six), len(four))):
        ordered += six[k : k + 1]
        ordered += four[k : k + 1]
    del ordered[MAX_CANDIDATES:]
    found = [
        Candidate(str(k + 1), HOST_PREFERENCE << 24 | (65_535 - k) << 8 | 255, str(address), port)
        for k, address in enumerate(ordered)
    ]
    for k, address in enumerate(ordered if tcp_port else ()):
        priority = TCP_HOST_PREFERENCE << 24 | (PASSIVE_PREFERENCE + 8_191 - k) << 8 | 255
        found.append(Candidate(str(len(ordered) + k + 1), priority, str(address), tcp_port or 0, tcp=True))
    return tuple(found)
