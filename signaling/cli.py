"""The command line: `aiosfu serve`, `aiosfu token`, `aiosfu compile`.

Who calls it: the console script. An operator's error becomes one line on standard error and exit status 2.
The media engine is imported inside the commands that need it: it takes the time that numba takes to load.
"""

import contextlib
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="aiosfu")
@click.pass_context
def application(context: click.Context) -> None:
    """A WebRTC selective forwarding unit that speaks LiveKit's protocol."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@application.command()
@click.option("--dev", is_flag=True, help="Development: keys 'devkey: secret', loopback unless --bind says otherwise.")
@click.option("--bind", multiple=True, metavar="ADDRESS", help="Address for HTTP and WebSocket; may be repeated.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port of HTTP and WebSocket.  [default: 7880]")
@click.option("--udp-port", metavar="PORT[-PORT]", help="UDP port or ports for media.  [default: 7882]")
@click.option("--media-threads", type=int, help="Each with a UDP port of its own.  [default: cores - 1]")
@click.option("--node-ip", metavar="IPV4[,IPV6]", help="Address that clients are told to send media to.")
@click.option("--keys", metavar="'KEY: SECRET'", help="API keys, one per line.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Configuration in LiveKit's YAML.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "warning", "error"], case_sensitive=False))
def serve(**options: Any) -> None:
    """Run the server until SIGTERM or SIGINT."""
    config = load_config(Flags(**options), os.environ)
    _serve(config)


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
    """Compile the media kernels into the cache, so that the server starts at once."""
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
        status = application.main(args=arguments, prog_name="aiosfu", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        _fail(error.format_message())
    except ConfigError as error:
        _fail(str(error))
    except click.Abort:
        sys.exit(130)


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


def _serve(config: Config) -> None:
    gc.disable()  # until `_spare_the_collector`: what is imported stays, and a walk over it all takes long
    try:
        _open_and_run(config)
    finally:
        gc.enable()


def _open_and_run(config: Config) -> None:
    from signaling.http import listener
    from signaling.logs import configure_logging

    configure_logging(config.log_level, config.log_json)
    _warn(config)
    listener.raise_descriptor_limit()
    try:
        # Before anything slow, so that a taken port is known at once.
        listener.check_media_ports(config)
        listener.check_metrics_port(config)
        _run(config, listener.bind_sockets(config))
    except listener.PortInUse as error:
        raise ConfigError(str(error)) from error


def _run(config: Config, sockets: list[socket.socket]) -> None:
    _compile(lambda done, total: log.info("compiling kernels, as after each update", done=done, total=total))
    gc.disable()

    import uvloop

    from sfu.engine import Engine, EngineOptions
    from signaling.http import listener
    from signaling.registry import Rooms

    def announce(addresses: list[tuple[str, int]]) -> None:
        _yield_to_media()
        for address, port in addresses:
            log.info("listening", address=address, tcp_port=port, udp_ports=list(engine.udp_ports))
        if config.development:
            click.echo(f"Demo page: {_demo_url(addresses)}")
        # only now: nothing listens sooner for having them, but the first client would wait for them
        engine.load_data_channels()
        _spare_the_collector()

    async def run() -> None:
        await listener.serve(config, engine, Rooms(config, engine), sockets, announce)

    engine = Engine(EngineOptions(udp_ports=config.media_ports, bind=config.media_bind, node_ips=config.node_ips))
    uvloop.run(run())


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
    for name in config.ignored:
        log.warning("livekit-server's setting is known and has no effect here yet", setting=name)
    if config.development:
        log.warning("development mode: not for production", api_keys=list(config.keys))
    elif weak := config.weak_keys():
        log.warning("secrets shorter than 32 characters can be guessed", api_keys=list(weak))


def _demo_url(addresses: list[tuple[str, int]]) -> str:
    address, port = addresses[0]
    if address in ("0.0.0.0", "::"):
        address = "127.0.0.1"
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/demo/"


if __name__ == "__main__":
    main()
