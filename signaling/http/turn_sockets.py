"""The sockets of the TURN server: bound at the start, and connections to the main port that turn out to be for it.

Who calls it: `listener.py`.
"""

import contextlib
import socket
from collections.abc import AsyncIterator

import structlog

from signaling.config.configuration import Config
from signaling.config.document import ConfigError
from signaling.config.options import TlsOptions
from signaling.config.values import ANY_ADDRESS
from signaling.http.certificates import Certificates, load_context
from signaling.http.sockets import PortInUse, bind_all
from signaling.turn.service import Engine, TurnService
from signaling.turn.thread import Sockets

log = structlog.get_logger("signaling.http")


def turn_certificate(config: Config) -> TlsOptions | None:
    """Return the files of the certificate with which the TURN server speaks TLS itself; None: it does not."""
    turn = config.turn
    if not (turn.enabled and turn.tls_port) or turn.external_tls or turn.tls_port == config.port:
        return None
    return turn.tls or config.tls


def bind_turn_sockets(config: Config) -> Sockets:
    """Bind every port of the TURN server that is its own.

    Raises:
        PortInUse: one is taken, or is not of this machine.
    """
    turn = config.turn
    if not turn.enabled:
        return Sockets()
    groups: dict[str, list[socket.socket]] = {"udp": [], "tcp": [], "tls": []}
    ports = (("udp", socket.SOCK_DGRAM, turn.udp_port), ("tcp", socket.SOCK_STREAM, turn.tcp_port))
    try:
        for name, kind, port in (*ports, ("tls", socket.SOCK_STREAM, turn.tls_port)):
            if port and (kind is socket.SOCK_DGRAM or port != config.port):
                # Without TLS of our own, a load balancer has decrypted what comes to the port of TLS.
                group = groups["tcp" if name == "tls" and turn.external_tls else name]
                group += _bind(config, kind, port)
    except BaseException:
        for bound in (each for group in groups.values() for each in group):
            bound.close()
        raise
    return Sockets(**groups)


def check_turn(config: Config) -> None:
    """Bind what `serving_turn` will bind for a moment, and read its certificate, so that a mistake is known before
    kernels are compiled.

    Raises:
        PortInUse: a port is taken.
        ConfigError: there is no certificate for TLS, or it cannot be used.
    """
    turn = config.turn
    if turn.enabled and turn.tls_port:
        certificate = config.tls if turn.tls_port == config.port else turn.tls or config.tls
        if not (certificate or turn.external_tls):
            raise ConfigError("turn.tls_port needs external_tls, or a certificate: its own, or that of tls")
    if (files := turn_certificate(config)) is not None:
        load_context(files)
    if turn.enabled and config.ice.force_tcp:
        log.warning("browsers pair a relay with UDP candidates only, which rtc.force_tcp leaves out: no TURN for them")
    sockets = bind_turn_sockets(config)
    for bound in (*sockets.udp, *sockets.tcp, *sockets.tls):
        bound.close()


@contextlib.asynccontextmanager
async def serving_turn(
    config: Config, engine: Engine, turn: TurnService, certificates: Certificates
) -> AsyncIterator[None]:
    """Serve clients of TURN while the block lasts. The engine has started.

    Args:
        config: the configuration.
        engine: whose media is relayed.
        turn: what is started.
        certificates: for TLS of the TURN server itself.

    Raises:
        PortInUse: a port cannot be bound.
    """
    if not config.turn.enabled:
        yield
        return
    sockets = bind_turn_sockets(config)
    try:
        turn.start(engine, sockets, lambda: certificates.context)
    except OSError as error:
        raise PortInUse(f"turn: cannot listen: {error.strerror}") from error
    log.info("TURN", urls=[url for server in turn.ice_servers("", 0.0) for url in server.urls])
    try:
        yield
    finally:
        turn.stop()


def _bind(config: Config, kind: socket.SocketKind, port: int) -> list[socket.socket]:
    given = config.turn.bind or config.media_bind
    try:
        return bind_all(given or ANY_ADDRESS, port, kind, optional_ipv6=not given)
    except PortInUse as error:
        raise PortInUse(f"turn: {error}") from error
