"""The sockets on which the server listens: bound at the start, so that a taken port is known at once.

Who calls it: `process.py`, before anything slow, and `listener.py`.
"""

import errno
import socket
from collections.abc import Iterable
from dataclasses import replace

import structlog

from sfu.sockets import UNACKNOWLEDGED_MS, bound_socket
from signaling.config.configuration import Config
from signaling.config.values import ANY_ADDRESS
from signaling.http.certificates import load_context

log = structlog.get_logger("signaling.http")


class PortInUse(Exception):
    """An address cannot be bound. The text is one line that names it and the reason."""


def bind_sockets(config: Config) -> list[socket.socket]:
    """Bind (and not yet listen on) every address of `config` for clients.

    Raises:
        PortInUse: an address is taken, or is not of this machine. Default addresses may be missing.
    """
    return bind_all(config.bind_addresses, config.port, optional_ipv6=not config.bind_addresses_given)


def bind_metrics_sockets(config: Config) -> list[socket.socket]:
    """Bind the same addresses for metrics, if `config` has a port for them.

    Raises:
        PortInUse: as `bind_sockets` does.
    """
    if not config.prometheus.port:
        return []
    return bind_all(config.bind_addresses, config.prometheus.port, optional_ipv6=not config.bind_addresses_given)


def bind_all(
    addresses: Iterable[str], port: int, kind: socket.SocketKind = socket.SOCK_STREAM, *, optional_ipv6: bool
) -> list[socket.socket]:
    """Bind a port of every address.

    Args:
        addresses: local ones.
        port: 0 means any, but the same one on every address.
        kind: for TCP or for UDP.
        optional_ipv6: those of IPv6 are a default, and left out where the machine does not have them.

    Raises:
        PortInUse: one is taken, or is not of this machine. None of them is bound then.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            try:
                bound = bound_socket(kind, address, port, _set_options, optional_ipv6)
            except OSError as error:
                protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
                text = f"cannot listen on {address} {protocol} port {port}: {error.strerror}"
                raise PortInUse(text) from error
            if bound is not None:
                sockets.append(bound)
                port = bound.getsockname()[1]
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def check_metrics_port(config: Config) -> None:
    """Bind what `running` will bind for metrics for a moment, so that a taken port is known before kernels are
    compiled.

    Raises:
        PortInUse: as `bind_sockets` does.
    """
    for bound in bind_metrics_sockets(config):
        bound.close()


def check_certificate(config: Config) -> None:
    """Read the certificate that `running` will read, so that a mistake is known before kernels are compiled.

    Raises:
        ConfigError: it cannot be used.
    """
    if config.tls is not None:
        load_context(config.tls)


def check_media_ports(config: Config) -> Config:
    """Bind every port of `config` for media for a moment, so that a taken one is known before kernels are compiled.

    Other errors are left to the engine, which binds the ports for good. Returns the configuration, without ICE over TCP
    if its port is taken and only a default.

    Raises:
        PortInUse: a port is taken.
    """
    for port in config.media_ports:
        if (taken := _taken(config, port, socket.SOCK_DGRAM)) is not None:
            raise media_port_in_use(config, taken[1]) from taken[1]
    ice = config.ice
    if not ice.tcp_port or config.shares_port or (taken := _taken(config, ice.tcp_port, socket.SOCK_STREAM)) is None:
        return config
    address, error = taken
    if ice.tcp_port_given:
        raise PortInUse(f"cannot listen on {address} TCP port {ice.tcp_port}: {error.strerror}") from error
    log.warning("no ICE over TCP: its port is taken", tcp_port=ice.tcp_port, setting="rtc.tcp_port")
    return replace(config, ice=replace(ice, tcp_port=0, force_tcp=False))


def _taken(config: Config, port: int, kind: socket.SocketKind) -> tuple[str, OSError] | None:
    """Return the address for media on which a port is taken, with the error that tells; None: on none."""
    for address in config.media_bind or ANY_ADDRESS:
        try:
            bound = bound_socket(kind, address, port, _set_options, optional_ipv6=True)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return address, error
            continue
        if bound is not None:
            bound.close()
    return None


def media_port_in_use(config: Config, error: OSError) -> PortInUse:
    """Return the exception for a UDP port of media that cannot be bound."""
    first, last = config.media_ports[0], config.media_ports[-1]
    ports = f"port {first}" if first == last else f"ports {first}-{last}"
    return PortInUse(f"cannot bind UDP {ports}: {error.strerror or error}")


def _set_options(bound: socket.socket) -> None:
    if bound.type is not socket.SOCK_STREAM:
        return
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit these options. asyncio's own loop sets the first one only on sockets that name TCP as
    # their protocol, which these do not. Without it, the body of an answer waits for the head's acknowledgement,
    # which takes 40 ms.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client that stopped reading is given up, and not kept for the kernel's minutes.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
