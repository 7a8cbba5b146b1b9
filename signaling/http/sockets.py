"""The sockets on which the server listens: bound at the start, so that a taken port is known at once.

Who calls it: `cli.py`, before anything slow, and `listener.py`.
"""

import errno
import socket
from dataclasses import replace

import structlog

from signaling.config.configuration import Config
from signaling.http.certificates import load_context

UNACKNOWLEDGED_TIMEOUT_MS = 20_000
"""TCP_USER_TIMEOUT: how long bytes may stay unacknowledged before the kernel closes the connection."""

log = structlog.get_logger("signaling.http")


class PortInUse(Exception):
    """An address cannot be bound. The text is one line that names it and the reason."""


def bind_sockets(config: Config) -> list[socket.socket]:
    """Bind (and not yet listen on) every address of `config` for clients.

    Raises:
        PortInUse: an address is taken, or is not of this machine. Default addresses may be missing.
    """
    return _bind_addresses(config, config.port)


def bind_metrics_sockets(config: Config) -> list[socket.socket]:
    """Bind the same addresses for metrics, if `config` has a port for them.

    Raises:
        OSError: as `bind_sockets` does.
    """
    return _bind_addresses(config, config.prometheus.port) if config.prometheus.port else []


def _bind_addresses(config: Config, port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for address in config.bind_addresses:
            try:
                sockets.append(bind(address, port))
            except OSError as error:
                optional = not config.bind_addresses_given and ":" in address
                if optional and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    continue
                raise PortInUse(f"cannot listen on {address} TCP port {port}: {error.strerror}") from error
            # Port 0 means any, but the same one on every address.
            port = port or sockets[0].getsockname()[1]
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets


def check_metrics_port(config: Config) -> None:
    """Bind what `running` will bind for metrics for a moment, so that a taken port is known before kernels are
    compiled.

    Raises:
        OSError: as `bind_sockets` does.
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
    for address in config.media_bind or ("0.0.0.0",):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port in config.media_ports:
            try:
                with socket.socket(family, socket.SOCK_DGRAM) as trial:
                    trial.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise media_port_in_use(config, error) from error
    return _check_ice_tcp_port(config)


def _check_ice_tcp_port(config: Config) -> Config:
    ice = config.ice
    for address in config.media_bind or ("0.0.0.0",) if ice.tcp_port and not config.shares_port else ():
        try:
            bind(address, ice.tcp_port).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                continue
            if ice.tcp_port_given:
                raise PortInUse(f"cannot listen on {address} TCP port {ice.tcp_port}: {error.strerror}") from error
            log.warning("no ICE over TCP: its port is taken", tcp_port=ice.tcp_port, setting="rtc.tcp_port")
            return replace(config, ice=replace(ice, tcp_port=0, force_tcp=False))
    return config


def media_port_in_use(config: Config, error: OSError) -> PortInUse:
    """Return the exception for a UDP port of media that cannot be bound."""
    first, last = config.media_ports[0], config.media_ports[-1]
    ports = f"port {first}" if first == last else f"ports {first}-{last}"
    return PortInUse(f"cannot bind UDP {ports}: {error.strerror or error}")


def bind(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Bind a socket for clients.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind is socket.SOCK_STREAM:
            _set_stream_options(bound)
        bound.bind((address, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _set_stream_options(bound: socket.socket) -> None:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit these options. asyncio's own loop sets the first one only on sockets that name TCP as
    # their protocol, which these do not. Without it, the body of an answer waits for the head's acknowledgement,
    # which takes 40 ms.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client that stopped reading is given up, and not kept for the kernel's minutes.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_TIMEOUT_MS)
