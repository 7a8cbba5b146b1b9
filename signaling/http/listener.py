"""Starts and stops the server.

Who calls it: `cli.py` runs `serve`. It starts in this order: bind TCP sockets (so that a taken port is known at once),
media engine, rooms, HTTP. It stops in this order: rooms (which tell clients to leave), HTTP, engine.
"""

import asyncio
import contextlib
import errno
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Protocol

import structlog
from starlette.applications import Starlette

from signaling.config.configuration import Config
from signaling.config.document import ConfigError
from signaling.drops import telling_drops
from signaling.http.certificates import Certificates, keeping_fresh, load_context
from signaling.http.first_bytes import Address
from signaling.http.first_bytes import Protocol as FirstBytes
from signaling.http.http_server import Doors, HttpServer, http_server
from signaling.http.metrics import metrics_route
from signaling.http.server import Rooms, build_app
from signaling.metrics import numbers
from signaling.metrics.collector import Scrapes, ServerCollector
from signaling.watchdog import notify, watching

UNACKNOWLEDGED_TIMEOUT_MS = 20_000
"""TCP_USER_TIMEOUT: how long bytes may stay unacknowledged before the kernel closes the connection."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Signals that stop the server cleanly, which are livekit-server's."""

Announce = Callable[[list[tuple[str, int]]], None]
"""A function that takes the (address, port) pairs on which HTTP listens."""

log = structlog.get_logger("signaling.http")


class Engine(numbers.Engine, Protocol):
    """The part of `sfu.engine.Engine` that this file uses."""

    async def start(self) -> None:
        """Bind the media sockets.

        Raises:
            OSError: a port cannot be bound.
        """

    async def stop(self) -> None:
        """Close the media sockets."""

    def take_connection(self, connection: socket.socket, client: str = "") -> None:
        """Own a TCP connection that begins with a connectivity check. client: its client's IP address."""


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
                sockets.append(_bind(address, port))
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
                    raise _media_port_in_use(config, error) from error
    return _check_ice_tcp_port(config)


def _check_ice_tcp_port(config: Config) -> Config:
    ice = config.ice
    for address in config.media_bind or ("0.0.0.0",) if ice.tcp_port and not config.shares_port else ():
        try:
            _bind(address, ice.tcp_port).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                continue
            if ice.tcp_port_given:
                raise PortInUse(f"cannot listen on {address} TCP port {ice.tcp_port}: {error.strerror}") from error
            log.warning("no ICE over TCP: its port is taken", tcp_port=ice.tcp_port, setting="rtc.tcp_port")
            return replace(config, ice=replace(ice, tcp_port=0, force_tcp=False))
    return config


def _media_port_in_use(config: Config, error: OSError) -> PortInUse:
    first, last = config.media_ports[0], config.media_ports[-1]
    ports = f"port {first}" if first == last else f"ports {first}-{last}"
    return PortInUse(f"cannot bind UDP {ports}: {error.strerror or error}")


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted sockets inherit these options. asyncio's own loop sets the first one only on sockets that name TCP as
        # their protocol, which these do not. Without it, the body of an answer waits for the head's acknowledgement,
        # which takes 40 ms.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A client that stopped reading is given up, and not kept for the kernel's minutes.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_TIMEOUT_MS)
        bound.bind((address, port))
    except BaseException:
        bound.close()
        raise
    return bound


@contextlib.asynccontextmanager
async def running(
    config: Config,
    engine: Engine,
    rooms: Rooms,
    sockets: list[socket.socket],
    read_again: Callable[[], Config] | None = None,
) -> AsyncIterator[list[tuple[str, int]]]:
    """Run everything while the block lasts. Yield the (address, port) pairs on which HTTP listens.

    `sockets` come from `bind_sockets` and are closed at the end. SIGHUP calls `read_again` for a new configuration.

    Raises:
        PortInUse: a TCP or UDP port cannot be bound.
    """
    metrics_sockets: list[socket.socket] = []
    try:
        metrics_sockets = bind_metrics_sockets(config)
        addresses = [bound.getsockname()[:2] for bound in sockets]
        try:
            await engine.start()
        except OSError as error:
            raise _media_port_in_use(config, error) from error
        try:
            await rooms.start()
            async with _serving(config, engine, rooms, sockets, metrics_sockets, read_again):
                yield addresses
        finally:
            await engine.stop()
    finally:
        for bound in (*sockets, *metrics_sockets):
            bound.close()


def _take_framed(
    config: Config, engine: Engine, connection: socket.socket, protocol: FirstBytes, client: Address
) -> bool:
    """Give the engine what came to the main port for media, counted under the client, also behind a proxy."""
    if protocol is not FirstBytes.ICE_TCP or not config.ice.tcp_port:
        return False
    engine.take_connection(connection, client[0])
    return True


@contextlib.asynccontextmanager
async def _serving(
    config: Config,
    engine: Engine,
    rooms: Rooms,
    sockets: list[socket.socket],
    metrics_sockets: list[socket.socket],
    read_again: Callable[[], Config] | None,
) -> AsyncIterator[None]:
    app = build_app(config, rooms)
    certificates = Certificates(config.tls)
    server = http_server(app, Doors(certificates, config.proxy_networks, partial(_take_framed, config, engine)))

    async def leave() -> None:
        app.state.ready = False
        await rooms.stop()

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_listening(server, sockets, leave))
        if metrics_sockets or config.development:
            collector = ServerCollector(engine, rooms, (lambda: server.intake.dropped,), app.state.joins)
            await stack.enter_async_context(_telling_metrics(config, app, collector, metrics_sockets))
        app.state.ready = True
        await stack.enter_async_context(keeping_fresh(certificates))
        if read_again is not None:
            stack.enter_context(_renewing(app, rooms, certificates, read_again))
        await stack.enter_async_context(telling_drops(engine.drops, rooms.drops, lambda: server.intake.dropped))
        yield


@contextlib.contextmanager
def _renewing(
    app: Starlette, rooms: Rooms, certificates: Certificates, read_again: Callable[[], Config]
) -> Generator[None, None, None]:
    """While the block lasts, take over with SIGHUP what may change in the configuration while the server runs."""

    def renew() -> None:
        before: Config = app.state.config
        try:
            fresh = read_again()
        except ConfigError as error:
            log.error("the configuration was not read again", why=str(error))
            certificates.renew(before.tls)
            return
        app.state.config = renewed = before.renewed(fresh)
        rooms.renew(renewed)
        certificates.renew(renewed.tls)
        log.info("the configuration was read again", changed=before.differences(renewed))
        if waiting := renewed.differences(fresh):
            log.warning("changed settings that need a new start", settings=waiting)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, renew)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


@contextlib.asynccontextmanager
async def _telling_metrics(
    config: Config, app: Starlette, collector: ServerCollector, sockets: list[socket.socket]
) -> AsyncIterator[None]:
    """Serve metrics while the block lasts: on `sockets` if there are any, and in `app` with `--dev`."""
    route = metrics_route(Scrapes(collector), config.prometheus)
    if config.development:
        app.router.routes.append(route)
    sampling = asyncio.create_task(collector.samples.keep(), name="metrics")
    try:
        if not sockets:
            yield
            return
        async with _listening(http_server(Starlette(routes=[route])), sockets):
            log.info("metrics", tcp_port=config.prometheus.port)
            yield
    finally:
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling


async def _nothing() -> None:
    pass


@contextlib.asynccontextmanager
async def _listening(
    server: HttpServer, sockets: list[socket.socket], before_end: Callable[[], Awaitable[None]] = _nothing
) -> AsyncIterator[None]:
    """Listen on `sockets` while the block lasts. At its end `before_end` is called, then connections are closed."""
    serving = asyncio.create_task(server.serve(sockets=sockets), name="http")
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait((serving, listening), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        yield
    except OSError as error:
        # Two processes may both bind; only one of them may listen.
        raise PortInUse(f"cannot listen on TCP port {sockets[0].getsockname()[1]}: {error.strerror}") from error
    finally:
        listening.cancel()
        await before_end()
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


async def serve(
    config: Config,
    engine: Engine,
    rooms: Rooms,
    sockets: list[socket.socket],
    announce: Announce,
    read_again: Callable[[], Config] | None = None,
) -> None:
    """Run until one of `STOP_SIGNALS`. `sockets` come from `bind_sockets`.

    `announce` is called once with the listening addresses, when joins are accepted. SIGHUP calls `read_again`.

    Raises:
        PortInUse: a TCP or UDP port cannot be bound.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stopped.set)
    try:
        async with watching(config.watchdog_s), running(config, engine, rooms, sockets, read_again) as addresses:
            announce(addresses)
            notify("READY=1")
            await stopped.wait()
            notify("STOPPING=1")
            log.info("stopping")
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


def raise_descriptor_limit() -> None:
    """Raise the limit of open sockets to the hard limit. The usual soft limit ends at about 1,000 participants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
