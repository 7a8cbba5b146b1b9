"""The configuration: LiveKit's YAML (JSON is YAML too), its environment variables and the command line in one value.

Who calls it: `cli.py`, once; everything else gets the frozen `Config`. Keys that LiveKit does not know and values that
make no sense are errors with their line; keys that LiveKit knows and this server does not act on are named in
`Config.ignored` (`known_keys.py` lists both kinds).
"""

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from signaling.config.api_keys import Keys, hide
from signaling.config.document import ConfigError, Document, check_names
from signaling.config.known_keys import IGNORED_ENVIRONMENT, KNOWN_KEYS
from signaling.texts import encodable
from signaling.watchdog import systemd_limit_s

DEFAULT_PORT = 7880
DEFAULT_UDP_PORT = 7882
MAX_UDP_PORTS = 256
"""Ports of one range: one is opened per media thread."""
MAX_COUNT = 1_000_000
"""The largest number of seconds or participants in the settings of rooms."""
MAX_MEDIA_THREADS = 16
"""The most media threads for which the engine has tables."""
MIN_SECRET_LENGTH = 32
"""Characters below which a secret causes a warning: HS256 needs a key as long as its hash (RFC 7518 section 3.2)."""
DEVELOPMENT_KEYS = hide({"devkey": "secret"})
LOOPBACK = ("127.0.0.1", "::1")
ANY_ADDRESS = ("0.0.0.0", "::")
NO_PASSWORD = SecretStr("")

LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: dict[str, LogLevel] = {
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "warning": "warning",
    "error": "error",
}
"""Spelling (LiveKit's `warn` included) -> level."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class RoomOptions:
    """The options of rooms that a join creates."""

    empty_timeout_s: int = 300
    """A room that nobody ever joined ends after this."""
    departure_timeout_s: int = 20
    """A room ends this long after the last participant left."""
    max_participants: int = 0
    """0: as many as the engine has room for."""
    forward_loudest: int = 0
    """How many microphones, the loudest ones, are forwarded at a time; 0: all."""


@dataclass(frozen=True, slots=True)
class PrometheusOptions:
    """Where metrics are served, and to whom."""

    port: int = 0
    """TCP port of a server of their own, on the addresses of the main one; 0: there is none."""
    username: str = ""
    password: SecretStr = NO_PASSWORD

    @property
    def is_protected(self) -> bool:
        """Whether whoever reads them must give user name and password."""
        return bool(self.username or self.password.get_secret_value())


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration, checked and with defaults filled in."""

    keys: Keys
    """API keys with their secrets, at least one. The first one signs what the server itself signs."""
    port: int = DEFAULT_PORT
    """TCP port of HTTP and WebSocket. 0 takes any free one."""
    bind_addresses: tuple[str, ...] = ANY_ADDRESS
    """Local addresses of HTTP and WebSocket."""
    bind_addresses_given: bool = False
    """False: the addresses are a default, and those that this machine does not have are left out."""
    udp_ports: tuple[int, ...] = (DEFAULT_UDP_PORT,)
    """Ports for media; each media thread takes one. 0: any free ones."""
    media_threads: int = 0
    """0: all cores but one."""
    watchdog_s: float = 0.0
    """Seconds without a turn of the control thread after which the process ends itself; 0: never."""
    room: RoomOptions = RoomOptions()
    prometheus: PrometheusOptions = PrometheusOptions()
    node_ips: tuple[str, ...] = ()
    """Addresses to tell clients, at most one per family; empty: all of the machine's."""
    log_level: LogLevel = "info"
    log_json: bool = False
    development: bool = False
    """`--dev`: placeholder keys if none are given, loopback by default, the token route of the demo page."""
    ignored: tuple[str, ...] = ()
    """Names of keys and variables that were given, that LiveKit knows, and that are not acted on."""

    @property
    def media_ports(self) -> tuple[int, ...]:
        """One port for each media thread; there are no more threads than ports."""
        if self.udp_ports == (0,):
            return self.udp_ports * max(1, self.media_threads)
        cores = len(os.sched_getaffinity(0))
        return self.udp_ports[: self.media_threads or max(1, min(cores - 1, MAX_MEDIA_THREADS))]

    @property
    def media_bind(self) -> tuple[str, ...]:
        """Local addresses for media sockets; empty: all.

        A server that advertises only loopback listens nowhere else. Other advertised addresses may be a firewall's
        and not this machine's, so they say nothing about where to bind.
        """
        loopback = self.node_ips and all(ipaddress.ip_address(address).is_loopback for address in self.node_ips)
        return self.node_ips if loopback else ()

    def weak_keys(self) -> tuple[str, ...]:
        """Return the API keys whose secret is shorter than HS256 needs."""
        return tuple(key for key, secret in self.keys.items() if len(secret.get_secret_value()) < MIN_SECRET_LENGTH)


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line's flags as texts. None and empty mean that a flag was not given."""

    dev: bool = False
    bind: tuple[str, ...] = ()
    port: int | None = None
    udp_port: str | None = None
    node_ip: str | None = None
    keys: str | None = field(default=None, repr=False)
    config: Path | None = None
    log_level: str | None = None
    media_threads: int | None = None


def _whole(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no whole number") from None


def parse_udp_ports(value: object) -> tuple[int, ...]:
    """Read `7882` or a range `7882-7892`, both ends included.

    Raises:
        ValueError: it is neither.
    """
    first, dash, last = str(value).partition("-")
    try:
        start = int(first)
        end = int(last) if dash else start
    except ValueError:
        raise ValueError(f"{value!r} is neither a port nor a range like 7882-7892") from None
    if not 0 <= start <= end <= 65535 or (dash and start == 0):
        raise ValueError(f"{value!r} is no range of ports")
    if end - start >= MAX_UDP_PORTS:
        raise ValueError(f"{value!r} has more than {MAX_UDP_PORTS} ports")
    return tuple(range(start, end + 1))


def parse_node_ips(value: object) -> tuple[str, ...]:
    """Read `192.0.2.1`, `2001:db8::1` or one of each with a comma between.

    Raises:
        ValueError: it is none of these.
    """
    addresses = [ipaddress.ip_address(part.strip()) for part in str(value).split(",")]
    if len({address.version for address in addresses}) != len(addresses):
        raise ValueError(f"{value!r} has more than one address of a family")
    if any(address.is_unspecified for address in addresses):
        raise ValueError(f"{value!r} is no address that a client could send to")
    return tuple(str(address) for address in addresses)


def parse_keys(text: object) -> Keys:
    """Read `key: secret`, one per line, as `--keys` and `LIVEKIT_KEYS` have them.

    Raises:
        ValueError: a line has another form.
    """
    try:
        keys = yaml.load(str(text), Loader=yaml.BaseLoader)  # the base loader makes strings only
    except yaml.YAMLError:
        keys = None
    return _check_keys(keys)


def load_config(flags: Flags, environment: Mapping[str, str]) -> Config:
    """Put together file, environment and flags; later ones win. LIVEKIT_CONFIG replaces the file, as in livekit-server.

    Raises:
        ConfigError: a value cannot be used. The text is one line that names file and line, variable or flag.
    """
    document = _read(flags, environment)
    ignored = check_names(document, KNOWN_KEYS)
    ignored += [f"{name} (environment)" for name in IGNORED_ENVIRONMENT if environment.get(name)]
    if flags.config is not None and environment.get("LIVEKIT_CONFIG"):
        ignored.append("--config (LIVEKIT_CONFIG is set)")
    file = _validate(document)

    keys = _latest(parse_keys, file.keys, ("LIVEKIT_KEYS", environment.get("LIVEKIT_KEYS")), ("--keys", flags.keys))
    if not keys and not flags.dev:
        raise ConfigError("no API keys: give keys in the configuration, LIVEKIT_KEYS or --keys, or use --dev")
    threads = _latest(_check_threads, file.media_threads, ("--media-threads", flags.media_threads))
    ports = _latest(
        parse_udp_ports, file.rtc.udp_port, ("UDP_PORT", environment.get("UDP_PORT")), ("--udp-port", flags.udp_port)
    )
    if threads > len(ports) and ports != (0,):
        example = f"{ports[0]}-{ports[0] + threads - 1}"
        raise ConfigError(f"media_threads: {threads} threads need as many UDP ports, such as rtc.udp_port: {example}")
    port = _latest(_check_port, file.port, ("--port", flags.port))
    metrics_port = file.prometheus_port or file.prometheus.port
    if metrics_port and metrics_port == port:
        raise ConfigError(f"prometheus.port: {port} is the main port; metrics need another one")
    addresses = tuple(file.bind_addresses) or (LOOPBACK if flags.dev else ANY_ADDRESS)
    return Config(
        keys=keys or DEVELOPMENT_KEYS,
        port=port,
        bind_addresses=_latest(_check_addresses, addresses, ("--bind", flags.bind or None)),
        bind_addresses_given=bool(flags.bind or file.bind_addresses),
        udp_ports=ports,
        media_threads=threads,
        watchdog_s=systemd_limit_s(environment) if file.watchdog is None else file.watchdog,
        room=RoomOptions(
            file.room.empty_timeout, file.room.departure_timeout, file.room.max_participants, file.room.forward_loudest
        ),
        prometheus=PrometheusOptions(metrics_port, file.prometheus.username, file.prometheus.password),
        node_ips=_latest(
            parse_node_ips, file.rtc.node_ip, ("NODE_IP", environment.get("NODE_IP")), ("--node-ip", flags.node_ip)
        ),
        log_level=_latest(
            _check_level, file.logging.level or file.log_level or "info", ("--log-level", flags.log_level)
        ),
        log_json=file.logging.json_,
        development=flags.dev,
        ignored=tuple(ignored),
    )


def _read(flags: Flags, environment: Mapping[str, str]) -> Document:
    if body := environment.get("LIVEKIT_CONFIG"):
        return Document("LIVEKIT_CONFIG", body)
    if flags.config is None:
        return Document("", "")
    try:
        return Document(os.fspath(flags.config), flags.config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{flags.config}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{flags.config}: not UTF-8 text") from error


def _latest(read: Callable[[object], Value], value: Value, *given: tuple[str, object]) -> Value:
    """Return the last of `given` (name, raw value) that is neither None nor empty, read; else `value`."""
    for name, raw in given:
        if raw in (None, ""):
            continue
        try:
            value = read(raw)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error
    return value


def _check_keys(keys: object) -> Keys:
    if not isinstance(keys, dict) or not keys or not all(isinstance(secret, str) for secret in keys.values()):
        raise ValueError('keys must be "key: secret", with the space, one per line')
    if not all(key and secret for key, secret in keys.items()):
        raise ValueError("an API key or its secret is empty")
    if encodable(keys) != keys:
        raise ValueError("an API key or its secret has half a character in it")
    return hide(keys)


def _check_port(value: object) -> int:
    port = _whole(value)
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is no port")
    return port


def _check_count(value: object) -> int:
    count = _whole(value)
    if not 0 <= count <= MAX_COUNT:
        raise ValueError(f"{count} is not between 0 and {MAX_COUNT}")
    return count


def _check_threads(value: object) -> int:
    threads = _whole(value)
    if not 0 <= threads <= MAX_MEDIA_THREADS:
        raise ValueError(f"{threads} is not between 0 and {MAX_MEDIA_THREADS}")
    return threads


def _check_addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of addresses")
    return tuple(str(ipaddress.ip_address(address)) for address in value)


def _check_level(value: object) -> LogLevel:
    level = LOG_LEVELS.get(str(value).lower())
    if level is None:
        raise ValueError(f"{value!r} is none of {', '.join(LOG_LEVELS)}")
    return level


class _Section(BaseModel):
    # Unknown keys never get here: `check_names` has refused them with their line.
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class _Rtc(_Section):
    udp_port: Annotated[tuple[int, ...], BeforeValidator(parse_udp_ports)] = (DEFAULT_UDP_PORT,)
    node_ip: Annotated[tuple[str, ...], BeforeValidator(parse_node_ips)] = ()


class _Room(_Section):
    empty_timeout: Annotated[int, BeforeValidator(_check_count)] = 300
    departure_timeout: Annotated[int, BeforeValidator(_check_count)] = 20
    max_participants: Annotated[int, BeforeValidator(_check_count)] = 0
    forward_loudest: Annotated[int, BeforeValidator(_check_count)] = 0


def _check_username(value: object) -> str:
    if ":" in str(value):
        raise ValueError("a user name has no colon (RFC 7617)")
    return str(value)


class _Prometheus(_Section):
    port: Annotated[int, BeforeValidator(_check_port)] = 0
    username: Annotated[str, BeforeValidator(_check_username)] = ""
    password: SecretStr = NO_PASSWORD


class _Logging(_Section):
    level: Annotated[LogLevel, BeforeValidator(_check_level)] | None = None
    json_: bool = Field(default=False, alias="json")


class _File(_Section):
    """The keys of the file that are acted on."""

    port: Annotated[int, BeforeValidator(_check_port)] = DEFAULT_PORT
    bind_addresses: Annotated[tuple[str, ...], BeforeValidator(_check_addresses)] = ()
    keys: Annotated[Keys, BeforeValidator(_check_keys)] = Field(default_factory=dict)
    log_level: Annotated[LogLevel, BeforeValidator(_check_level)] | None = None
    media_threads: Annotated[int, BeforeValidator(_check_threads)] = 0
    watchdog: Annotated[int, BeforeValidator(_check_count)] | None = None
    rtc: _Rtc = Field(default_factory=_Rtc)
    room: _Room = Field(default_factory=_Room)
    prometheus: _Prometheus = Field(default_factory=_Prometheus)
    prometheus_port: Annotated[int, BeforeValidator(_check_port)] = 0
    logging: _Logging = Field(default_factory=_Logging)


def _validate(document: Document) -> _File:
    try:
        return _File.model_validate(document.values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise document.error(path, f"{'.'.join(path)}: {text}") from error
