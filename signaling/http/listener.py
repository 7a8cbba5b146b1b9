"""Starts and stops the server.

Who calls it: `process.py` runs `serve`. It starts in this order: bind TCP sockets (so that a taken port is known at
once), media engine, rooms, HTTP. It stops in this order: rooms (which tell clients to leave), HTTP, engine.
"""

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from functools import partial
from typing import Protocol

import structlog
from starlette.applications import Starlette

from signaling.config.configuration import Config
from signaling.config.document import ConfigError
from signaling.drops import telling_drops
from signaling.http.certificates import Certificates, keeping_fresh
from signaling.http.first_bytes import Address
from signaling.http.first_bytes import Protocol as FirstBytes
from signaling.http.http_server import Doors, HttpServer, http_server
from signaling.http.metrics import metrics_route
from signaling.http.server import Rooms, build_app
from signaling.http.sockets import PortInUse, bind_metrics_sockets, media_port_in_use
from signaling.http.turn_sockets import serving_turn, turn_certificate
from signaling.metrics import numbers
from signaling.metrics.collector import Scrapes, ServerCollector
from signaling.turn.net.tls import TlsEnd
from signaling.turn.service import TurnService
from signaling.watchdog import notify, watching

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

    def media_addresses(self) -> tuple[tuple[str, int], ...]:
        """Return the addresses and UDP ports that clients are told."""

    def take_connection(
        self, connection: socket.socket, client: str = "", peer: tuple[str, int] | None = None, protocol: str = "tcp"
    ) -> None:
        """Own a stream that begins with a connectivity check. client: its client's IP address; peer: the address from
        which it seems to come, if that is another."""


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
            raise media_port_in_use(config, error) from error
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
    config: Config,
    engine: Engine,
    turn: TurnService,
    connection: socket.socket,
    protocol: FirstBytes,
    client: Address,
    tls: TlsEnd | None,
) -> bool:
    """Give the engine or the TURN server what came to the main port for media, counted under the client, also behind a
    proxy."""
    if protocol is FirstBytes.TURN:
        return turn.take(connection, client, tls)
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
    of_turn = Certificates(turn_certificate(config))
    take_framed = partial(_take_framed, config, engine, rooms.turn)
    server = http_server(app, Doors(certificates, config.proxy_networks, take_framed))

    async def leave() -> None:
        app.state.ready = False
        await rooms.stop()

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving_turn(config, engine, rooms.turn, of_turn))
        await stack.enter_async_context(_listening(server, sockets, leave))
        if metrics_sockets or config.development:
            collector = ServerCollector(engine, rooms, (lambda: server.intake.dropped,), app.state.joins)
            await stack.enter_async_context(_telling_metrics(config, app, collector, metrics_sockets))
        app.state.ready = True
        await stack.enter_async_context(keeping_fresh(certificates))
        await stack.enter_async_context(keeping_fresh(of_turn))
        if read_again is not None:
            stack.enter_context(_renewing(app, rooms, (certificates, of_turn), read_again))
        await stack.enter_async_context(telling_drops(engine.drops, rooms.drops, lambda: server.intake.dropped))
        yield


@contextlib.contextmanager
def _renewing(
    app: Starlette, rooms: Rooms, certificates: tuple[Certificates, Certificates], read_again: Callable[[], Config]
) -> Generator[None, None, None]:
    """While the block lasts, take over with SIGHUP what may change in the configuration while the server runs.
    `certificates` are that of the main port and that of the TURN server."""

    def renew_certificates(config: Config) -> None:
        for each, files in zip(certificates, (config.tls, turn_certificate(config)), strict=True):
            each.renew(files)

    def renew() -> None:
        before: Config = app.state.config
        try:
            fresh = read_again()
        except Exception as error:
            # Also what only a mistake of ours raises: the server goes on with what it has.
            is_mistake_of_ours = not isinstance(error, ConfigError)
            log.error("the configuration was not read again", why=str(error), exc_info=is_mistake_of_ours)
            renew_certificates(before)
            return
        app.state.config = renewed = before.renewed(fresh)
        rooms.renew(renewed)
        renew_certificates(renewed)
        log.info("the configuration was read again", changed=before.differences(renewed))
        if waiting := renewed.differences(fresh):
            log.warning("changed settings that need a new start", settings=waiting)

    loop, ordinary = asyncio.get_running_loop(), signal.getsignal(signal.SIGHUP)
    loop.add_signal_handler(signal.SIGHUP, renew)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, ordinary)


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
