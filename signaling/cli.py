"""The command line: `aiosfu serve`, which is also what happens without a command, `aiosfu token`, and others.

Who calls it: the console script. An operator's error becomes one line on standard error and exit status 2.
The media engine is imported inside the commands that need it: it takes the time that numba takes to load.
"""

import contextlib
import gc
import ipaddress
import itertools
import os
import secrets
import signal
import socket
import string
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.settings import SHORT_FLAGS, Setting, all_settings, is_setting, take_flags
from signaling.http.tokens import DEFAULT_TTL_S, create

CONTROL_NICE = 10
"""The nice value of the control thread. Where cores are scarce, many joins must not delay media."""
COLLECT_AFTER = (10_000, 10, 10)
"""Thresholds of Python's cyclic garbage collector: new objects (700 by default), and younger collections. A client
that joins makes some thousand objects that stay."""
PROGRESS_LINES = 10
"""The number of log lines about a compilation, without a terminal."""
EXIT_USAGE = 2
"""The exit status for errors that the operator can correct."""
SOURCES = ("camera", "microphone", "screen_share", "screen_share_audio")
"""The sources that a token may allow, as LiveKit names them in `canPublishSources`."""
DURATION_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LOG_LEVEL_NAMES = ("debug", "info", "warn", "warning", "error")
PROBE_TIMEOUT_S = 2.0
"""How long `list-nodes` waits for an answer."""
JOIN_TOKEN_TTL_S = 30 * 86_400
"""Validity of a token of `create-join-token`, as livekit-server gives it."""
API_KEY_PREFIX, KEY_CHARACTERS, SECRET_BYTES = "API", 12, 32
"""The shape of generated API keys and secrets, which is LiveKit's."""

log = structlog.get_logger("signaling.cli")


class Duration(click.ParamType[int]):
    """A validity such as `90s`, `10m`, `6h` or `2d`, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text. An int counts as seconds."""
        if isinstance(value, int):
            return value
        number, unit = str(value)[:-1], str(value)[-1:]
        if not number.isdecimal() or unit not in DURATION_UNITS_S or int(number) == 0:
            self.fail(f"{value!r} is not like 90s, 10m, 6h or 2d", param, ctx)
        return int(number) * DURATION_UNITS_S[unit]


def _tell_no_effect(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Say that a flag of livekit-server's, which profiles a Go program, does nothing."""
    if value is not None:
        click.echo(f"aiosfu: {option.opts[0]} has no effect: profile this server with py-spy or perf", err=True)


SERVER_OPTIONS = (
    click.option("--dev", is_flag=True, help="Development: keys 'devkey: secret', loopback by default."),
    click.option("--bind", multiple=True, metavar="ADDRESS[,...]", help="For HTTP and WebSocket; may be repeated."),
    click.option("--port", type=click.IntRange(0, 65535), help="TCP port of HTTP and WebSocket.  [default: 7880]"),
    click.option("--udp-port", metavar="PORT[-PORT]", help="UDP port or ports for media.  [default: 7882]"),
    click.option("--media-threads", type=int, help="Each with a UDP port of its own.  [default: cores - 1]"),
    click.option("--node-ip", metavar="IPV4[,IPV6]", help="Address that clients are told to send media to."),
    click.option("--keys", metavar="'KEY: SECRET'", help="API keys, one per line."),
    click.option("--key-file", metavar="FILE", help="A file of API keys, which others must not be able to read."),
    click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Configuration in LiveKit's YAML."),
    click.option("--config-body", metavar="YAML", help="A configuration itself, in the place of a file."),
    click.option("--disable-strict-config", "lenient", is_flag=True, help="Warn of keys that nobody knows."),
    click.option("--region", help="The name of the place where the server is."),
    click.option("--redis-host", metavar="HOST:PORT", help="Accepted; not used yet."),
    click.option("--redis-password", help="Accepted; not used yet."),
    click.option("--turn-cert", metavar="FILE", help="Certificate of the TURN server, in PEM."),
    click.option("--turn-key", metavar="FILE", help="Private key of that certificate."),
    click.option("--log-level", type=click.Choice(LOG_LEVEL_NAMES, case_sensitive=False)),
    click.option("--cpuprofile", metavar="FILE", hidden=True, expose_value=False, callback=_tell_no_effect),
    click.option("--memprofile", metavar="FILE", hidden=True, expose_value=False, callback=_tell_no_effect),
)
OWN_FLAGS = frozenset(("port", "keys", "region"))
"""Flags of the commands that are spelled like a key of the configuration."""
HELP_FLAGS = ["-h", "--help"]

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(command: Command) -> Command:
    """Give a command the flags of the server. Every scalar key of the configuration is a flag, too, as in LiveKit."""
    for option in reversed(SERVER_OPTIONS):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": HELP_FLAGS}, invoke_without_command=True)
@click.version_option(None, "-v", "--version", package_name="aiosfu")
@server_options
@click.pass_context
def application(context: click.Context, /, **options: Any) -> None:
    """A WebRTC selective forwarding unit that speaks LiveKit's protocol. Without a command, it serves."""
    if context.invoked_subcommand is None:
        _serve(_flags(context, options))


@application.command()
@server_options
@click.pass_context
def serve(context: click.Context, /, **options: Any) -> None:
    """Run the server until SIGTERM, SIGINT or SIGQUIT."""
    _serve(_flags(context, options))


@application.command()
@server_options
@click.pass_context
def ports(context: click.Context, /, **options: Any) -> None:
    """Print the ports that the server uses."""
    config = load_config(_flags(context, options, needs_keys=False), os.environ)
    tcp = [f"{config.port} - HTTP service"]
    if config.prometheus.port:
        tcp.append(f"{config.prometheus.port} - Prometheus")
    if config.ice.tcp_port:
        tcp.append(f"{config.ice.tcp_port} - ICE/TCP")
    first, last = config.media_ports[0], config.media_ports[-1]
    udp = [f"{first} - ICE/UDP" if first == last else f"{first}-{last} - ICE/UDP"]
    if config.turn.enabled:
        turn = config.turn
        tcp += [f"{port} - TURN/{name}" for name, port in (("TCP", turn.tcp_port), ("TLS", turn.tls_port)) if port]
        udp += [f"{turn.udp_port} - TURN/UDP"] if turn.udp_port else []
    click.echo("\n".join(("TCP Ports", *tcp, "UDP Ports", *udp)))


@application.command("list-nodes")
@server_options
@click.pass_context
def list_nodes(context: click.Context, /, **options: Any) -> None:
    """Print this server and whether it answers. It is the only one of its rooms."""
    config = load_config(_flags(context, options, needs_keys=False), os.environ)
    address = _reachable(config.bind_addresses[0])
    state = "SERVING" if _answers(_url(address, config.port)) else "NOT SERVING"
    rows = {
        "STATE": state,
        "ADDRESS": f"{address}:{config.port}",
        "REGION": config.region or "-",
        "MEDIA THREADS": len(config.media_ports),
        "CPUS": os.cpu_count(),
    }
    click.echo("\n".join(f"{name:14} {value}" for name, value in rows.items()))


@application.command("help")
@click.pass_context
def print_help(context: click.Context) -> None:
    """Print what `--help` prints."""
    click.echo(context.find_root().get_help())


@application.command("help-verbose")
@click.pass_context
def print_whole_help(context: click.Context) -> None:
    """Print the help with the flags of all settings."""
    lines = (f"  --{name:60} {variable}" + ("" if acts else "  (no effect)") for name, variable, acts in all_settings())
    title = "Settings of the configuration as flags and variables:"
    click.echo("\n".join((context.find_root().get_help(), "", title, *lines)))


@application.command("generate-keys")
def generate_keys() -> None:
    """Print a new API key with its secret."""
    key = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(KEY_CHARACTERS))
    click.echo(f"API Key:  {API_KEY_PREFIX}{key}")
    click.echo(f"API Secret:  {secrets.token_urlsafe(SECRET_BYTES)}")


@application.command("create-join-token")
@click.option("--room", required=True)
@click.option("--identity", required=True)
@click.option("--recorder", is_flag=True, help="Hidden, and may only receive.")
@server_options
@click.pass_context
def create_join_token(context: click.Context, /, room: str, identity: str, recorder: bool, **options: Any) -> None:
    """Print a token, as livekit-server does. `token` has more grants."""
    keys = load_config(_flags(context, options), os.environ).keys
    api_key, secret = next(iter(keys.items()))
    video: dict[str, Any] = {"room": room, "roomJoin": True}
    if recorder:
        video |= {"hidden": True, "recorder": True, "canPublish": False, "canPublishData": False}
    click.echo(f"Token: {create(api_key, secret, identity=identity, video=video, ttl_s=JOIN_TOKEN_TTL_S)}")


@application.command()
@click.option("--room", required=True)
@click.option("--identity", required=True)
@click.option("--name", default="", help="Shown to others.  [default: the identity]")
@click.option("--can-publish/--no-can-publish", default=True)
@click.option("--can-subscribe/--no-can-subscribe", default=True)
@click.option("--can-publish-data/--no-can-publish-data", default=True)
@click.option(
    "--can-publish-source", "sources", type=click.Choice(SOURCES), multiple=True, help="This only; may be repeated."
)
@click.option("--can-update-own-metadata", is_flag=True)
@click.option("--hidden", is_flag=True, help="Invisible to other participants.")
@click.option("--admin", is_flag=True, help="Room administration.")
@click.option("--metadata", default="")
@click.option("--valid-for", type=Duration(), default=DEFAULT_TTL_S, help="Such as 90s, 10m, 6h, 2d.  [default: 6h]")
@click.option("--keys", help="'KEY: SECRET'.  [default: LIVEKIT_KEYS, then the development keys]")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The server's file, for its keys.")
def token(room: str, identity: str, keys: str | None, config: Path | None, valid_for: int, **options: Any) -> None:
    """Print a token with which IDENTITY may join ROOM."""
    known = load_config(Flags(dev=config is None, keys=keys, config=config), os.environ).keys
    api_key, secret = next(iter(known.items()))
    video = {"room": room, "roomJoin": True} | _grants(options)
    name = options["name"] or identity
    click.echo(
        create(
            api_key, secret, identity=identity, name=name, video=video, metadata=options["metadata"], ttl_s=valid_for
        )
    )


@application.command("compile")
def compile_kernels() -> None:
    """Compile the media kernels. The server then starts at once."""
    _compile(lambda done, total: click.echo(f"compiling kernels: {done} of {total}", err=True))
    click.echo("kernels are compiled", err=True)


@application.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Run the benchmarks, as `python -m bench` does."""
    # in its own process: the server depends on nothing in there
    os.execv(sys.executable, [sys.executable, "-m", "bench", *arguments])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        rest, settings = take_flags([_with_two_dashes(argument) for argument in given], OWN_FLAGS)
        status = application.main(args=rest, prog_name="aiosfu", standalone_mode=False, obj=settings)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        _fail(error.format_message())
    except ConfigError as error:
        _fail(str(error))
    except click.Abort:
        sys.exit(130)


def _with_two_dashes(argument: str) -> str:
    """Return a flag that is spelled `-config`, as programs in Go allow, as `--config`; other arguments as they are."""
    name = argument.removeprefix("-").partition("=")[0]
    if not argument.startswith("-") or len(name) < 2 or name.startswith("-"):
        return argument
    known = f"--{name}" in itertools.chain.from_iterable(option.opts for option in application.params)
    return f"-{argument}" if known or is_setting(tuple(name.split("."))) else argument


def _flags(context: click.Context, options: Mapping[str, Any], needs_keys: bool = True) -> Flags:
    """Put together the flags before and behind the name of a command; the latter win."""
    root = context.find_root()
    both = (*root.params.items(), *options.items())
    given = {name: value for name, value in both if value is not None and value is not False and value != ()}
    if "bind" in given:  # as in livekit-server, one flag may have several addresses
        given["bind"] = tuple(address for text in given["bind"] for address in text.split(","))
    settings: tuple[Setting, ...] = context.obj or ()
    for flag, path in SHORT_FLAGS.items():
        if text := given.pop(flag.replace("-", "_"), None):
            settings += (Setting(path, text, f"--{flag}"),)
    return Flags(**given, settings=settings, needs_keys=needs_keys)


def _reachable(address: str) -> str:
    """Return an address at which a server that listens on `address` answers on this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def _url(address: str, port: int) -> str:
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/"


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=PROBE_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _fail(text: str) -> None:
    click.echo(f"aiosfu: {' '.join(text.split())}", err=True)
    sys.exit(EXIT_USAGE)


def _grants(options: Mapping[str, Any]) -> dict[str, Any]:
    grants: dict[str, Any] = {
        "canPublish": options["can_publish"],
        "canSubscribe": options["can_subscribe"],
        "canPublishData": options["can_publish_data"],
        "canUpdateOwnMetadata": options["can_update_own_metadata"],
        "hidden": options["hidden"],
        "roomAdmin": options["admin"],
    }
    if options["sources"]:
        grants["canPublishSources"] = list(options["sources"])
    return grants


def _compile(tell: Callable[[int, int], None]) -> None:
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


def _serve(flags: Flags) -> None:
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
    _compile(lambda done, total: log.info("compiling kernels, as after each update", done=done, total=total))
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
            click.echo(f"Demo page: {_url(_reachable(address), port)}demo/")
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


if __name__ == "__main__":
    main()
