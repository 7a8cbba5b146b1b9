"""The process of the server: what happens between the command line and the first client.

Who calls it: the command line. Ports are bound first, then kernels are compiled, and the media engine is imported after
that: it takes the time that numba takes to load.
"""

import contextlib
import gc
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial

import click
import structlog

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError

CONTROL_NICE = 10
"""The nice value of the control thread. Where cores are scarce, many joins must not delay media."""
COLLECT_AFTER = (10_000, 10, 10)
"""Thresholds of Python's cyclic garbage collector: new objects (700 by default), and younger collections. A client
that joins makes some thousand objects that stay."""
PROGRESS_LINES = 10
"""The number of log lines about a compilation, without a terminal."""

log = structlog.get_logger("signaling.process")


def serve(flags: Flags) -> None:
    """Run the server until a signal ends it.

    Raises:
        ConfigError: the configuration is wrong, or a port is taken.
    """
    config = load_config(flags, os.environ)
    gc.disable()  # until `_spare_the_collector`: what is imported stays, and a walk over it all takes long
    # A server under a supervisor outlives SIGHUP even if it has no files; one in a terminal ends with the terminal.
    # That holds from now on: while kernels are compiled there is nothing to renew yet.
    is_renewable = config.files or not config.development
    if is_renewable:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _open_and_run(config, partial(load_config, flags, os.environ) if is_renewable else None)
    finally:
        gc.enable()


def _open_and_run(config: Config, read_again: Callable[[], Config] | None) -> None:
    from signaling.http import listener, sockets, turn_sockets
    from signaling.logs import configure_logging

    configure_logging(config.log_level, config.log_json)
    _warn(config)
    listener.raise_descriptor_limit()
    try:
        # Before anything slow, so that a taken port is known at once.
        config = sockets.check_media_ports(config)
        sockets.check_metrics_port(config)
        sockets.check_certificate(config)
        turn_sockets.check_turn(config)
        _run(config, read_again, sockets.bind_sockets(config))
    except sockets.PortInUse as error:
        raise ConfigError(str(error)) from error


def _run(config: Config, read_again: Callable[[], Config] | None, sockets: list[socket.socket]) -> None:
    compile_with_progress(
        lambda done, total: log.info("compiling kernels, as after each update", done=done, total=total)
    )
    gc.disable()

    import uvloop

    from sfu.engine import Engine, EngineOptions
    from signaling.addresses import told_addresses
    from signaling.http import listener
    from signaling.registry import Rooms

    def announce(addresses: list[tuple[str, int]]) -> None:
        _yield_to_media()
        for address, port in addresses:
            ports = {"udp_ports": list(engine.udp_ports), "ice_tcp_port": engine.tcp_port}
            log.info("listening", address=address, tcp_port=port, **ports)
        if config.development:
            address, port = addresses[0]
            click.echo(f"Demo page: {url_of(reachable(address), port)}demo/")
        # only now: nothing listens sooner for having them, but the first client would wait for them
        engine.load_data_channels()
        _spare_the_collector()

    async def run() -> None:
        await listener.serve(config, engine, Rooms(config, engine), sockets, announce, read_again)

    node_ips = config.node_ips or uvloop.run(told_addresses(config.addresses, _local_addresses(config)))
    engine = Engine(
        EngineOptions(
            udp_ports=config.media_ports,
            bind=config.media_bind,
            node_ips=node_ips,
            limits_bandwidth=config.media.limits_bandwidth,
            proxies_loss=config.media.proxies_loss,
            key_frame_retry_ms=config.media.key_frame_retry_ms,
            tcp_port=None if config.shares_port else config.ice.tcp_port or None,
            shared_tcp_port=config.port if config.shares_port else None,
        )
    )
    uvloop.run(run())


def compile_with_progress(tell: Callable[[int, int], None]) -> None:
    """Compile the kernels that are not in the cache, and show the progress if there are any.

    A terminal shows a bar. Elsewhere, as in a journal or a build, `tell` is called from time to time with the number of
    functions that are done and of all.
    """
    from sfu.compile import compile_all

    gc.enable()  # a compilation makes garbage for a minute or more
    if not sys.stderr.isatty():
        compile_all(partial(_tell_sometimes, tell))
        return

    from rich.console import Console
    from rich.progress import Progress

    with contextlib.ExitStack() as stack:
        progress = Progress(console=Console(stderr=True))
        task = progress.add_task("compiling kernels", total=None)

        def report(done: int, total: int, name: str) -> None:
            if not progress.live.is_started:
                stack.enter_context(progress)
            progress.update(task, completed=done, total=total, description=f"compiling {name or 'kernels'}")

        compile_all(report)


def _tell_sometimes(tell: Callable[[int, int], None], done: int, total: int, _: str) -> None:
    """Pass on the first report of progress, and then about one for each tenth of the work."""
    if done == 1 or done == total or done % max(1, total // PROGRESS_LINES) == 0:
        tell(done, total)


def _local_addresses(config: Config) -> list[str]:
    """Return the addresses of this machine that the operator chooses; without a choice, all that may be reached."""
    from sfu.addresses import AddressChoice, machine_addresses

    given = config.addresses
    choice = AddressChoice(given.interfaces, given.excluded_interfaces, given.networks, given.excluded_networks)
    found = machine_addresses(choice)
    if choice != AddressChoice() and all(ipaddress.ip_address(each).is_loopback for each in found):
        log.warning("rtc.interfaces and rtc.ips leave no address but loopback")
    return found


def _yield_to_media() -> None:
    """Lower the priority of this thread, so that media threads, which run already, go first on a shared core."""
    this = threading.get_native_id()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, this, max(os.getpriority(os.PRIO_PROCESS, this), CONTROL_NICE))


def _spare_the_collector() -> None:
    """Keep Python's cyclic garbage collector from visiting the libraries' objects repeatedly while clients join."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()


def _warn(config: Config) -> None:
    ignored = [name for name in config.ignored if not name.startswith("redis.")]
    if len(ignored) < len(config.ignored):
        log.info("redis is accepted and not used: this server needs no other")
    for name in ignored:
        log.warning("livekit-server's setting is known and has no effect here yet", setting=name)
    for name in config.unknown:
        log.warning("unknown setting", setting=name)
    for remark in config.remarks:
        log.warning("a remark on the configuration", remark=remark)
    if config.development:
        log.warning("development mode: not for production", api_keys=list(config.keys))
    elif weak := config.weak_keys():
        log.warning("secrets shorter than 32 characters can be guessed", api_keys=list(weak))


def reachable(address: str) -> str:
    """Return an address at which a server that listens on `address` answers on this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def url_of(address: str, port: int) -> str:
    """Return the URL of what listens there by HTTP."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/"
