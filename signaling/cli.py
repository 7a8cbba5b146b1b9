"""The command line: `aiosfu serve`, which is also what happens without a command, `aiosfu token`, and others.

Who calls it: the console script. An operator's error becomes one line on standard error and exit status 2. What a
running server does is in `signaling.process`.
"""

import itertools
import os
import secrets
import string
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from signaling import process
from signaling.config.configuration import Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.settings import SHORT_FLAGS, Setting, all_settings, is_setting, take_flags
from signaling.http.tokens import DEFAULT_TTL_S, create

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
        process.serve(_flags(context, options))


@application.command()
@server_options
@click.pass_context
def serve(context: click.Context, /, **options: Any) -> None:
    """Run the server until SIGTERM, SIGINT or SIGQUIT."""
    process.serve(_flags(context, options))


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
    address = process.reachable(config.bind_addresses[0])
    state = "SERVING" if _answers(process.url_of(address, config.port)) else "NOT SERVING"
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
    process.compile_with_progress(lambda done, total: click.echo(f"compiling kernels: {done} of {total}", err=True))
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


if __name__ == "__main__":
    main()
