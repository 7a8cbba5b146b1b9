"""Sockets as the media engine and signalling both open them: which may be missing, and how streams are sent to.

Who calls it: whoever binds an address, accepts connections, or serves a TCP connection over which media go.
"""

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable

NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
"""Errors that tell that a machine lacks IPv6, or one of its addresses."""
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors that tell that no more connections can be accepted until others have ended."""
UNSENT_BYTES = 16_384
"""Bytes that the operating system keeps of a connection beyond what is on its way: others wait where they can still be
left out."""
UNACKNOWLEDGED_MS = 20_000
"""How long a peer may acknowledge nothing: as long as one that vanished may be in its room."""


def bound_socket(
    kind: socket.SocketKind, address: str, port: int, prepare: Callable[[socket.socket], None], optional_ipv6: bool
) -> socket.socket | None:
    """A socket of this kind, bound to an address after `prepare` has set its options. One of IPv6 takes nothing else.
    None: it is one of IPv6, which is optional, and this machine does not have that.

    Raises:
        OSError: it cannot be bound.
    """
    version = ipaddress.ip_address(address).version
    opened: socket.socket | None = None
    try:
        opened = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind)
        if version == 6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(opened)
        opened.bind((address, port))
    except OSError as error:
        if opened is not None:
            opened.close()
        if version == 6 and optional_ipv6 and error.errno in NO_IPV6:
            return None
        raise
    return opened


def set_stream_options(connection: socket.socket) -> None:
    """How a connection is sent to, and read: nothing waits in it that can be left out, and every byte makes it readable
    again. One end of a pair has the second alone.

    Raises:
        OSError: it has ended.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
