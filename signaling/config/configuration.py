"""The configuration: LiveKit's YAML (JSON is YAML too), its environment variables and the command line in one value.

Who calls it: `cli.py` and `process.py`, at the start and when the file is to be read again; everything else gets the
frozen `Config`. Keys that LiveKit does not know and values that make no sense are errors with their line; keys that
LiveKit knows and this server does not act on are named in `Config.ignored` (`known_keys.py` lists both kinds).
"""

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError

from signaling.config.address_options import AddressOptions, RtcAddressSection
from signaling.config.api_keys import Keys, hide
from signaling.config.document import ConfigError, Document, check_names
from signaling.config.ice_options import IceOptions, RtcIceSection
from signaling.config.ice_servers import IceServerOptions, TurnServerSection, check_number, stun_urls, turn_servers
from signaling.config.known_keys import KNOWN_KEYS
from signaling.config.media_options import (
    AudioSection,
    MediaOptions,
    PlayoutDelaySection,
    RtcMediaSections,
    VideoSection,
    media_options,
)
from signaling.config.options import LimitOptions, TlsOptions, WebhookOptions
from signaling.config.ports import find_overlap
from signaling.config.presets import Presets, parse_presets
from signaling.config.secret_files import read_secrets, read_text
from signaling.config.sections import LimitSection, Section, Size, TlsSection, WebhookSection
from signaling.config.settings import Setting, read_variables
from signaling.config.turn_options import TurnOptions, TurnSection
from signaling.config.values import (
    ADDRESS_NAMES,
    ANY_ADDRESS,
    LOG_LEVELS,
    LOOPBACK,
    MAX_MEDIA_THREADS,
    MAX_UDP_PORTS,
    IpNetwork,
    LogLevel,
    parse_addresses,
    parse_codecs,
    parse_count,
    parse_key_table,
    parse_keys,
    parse_level,
    parse_networks,
    parse_node_ips,
    parse_port,
    parse_threads,
    parse_udp_ports,
    parse_username,
)
from signaling.watchdog import systemd_limit_s

DEFAULT_PORT = 7880
DEFAULT_UDP_PORT = 7882
MIN_SECRET_LENGTH = 32
"""Characters below which a secret causes a warning: HS256 needs a key as long as its hash (RFC 7518 section 3.2)."""
DEVELOPMENT_KEYS = hide({"devkey": "secret"})
NO_PASSWORD = SecretStr("")
RENEWABLE = ("keys", "webhook", "limits", "tls", "ice_servers")
"""Fields of `Config` that may change while the server runs."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
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
    enabled_codecs: tuple[str, ...] = ()
    """The MIME types, in lower case, of the only codecs that may be published; none: all may be."""
    remote_unmute: bool = False
    """The server API may unmute tracks."""
    sync_streams: bool = False
    """Clients play the sound of a camera or screen in step with its picture."""
    playout_delay_ms: tuple[int, int] | None = None
    """Least and most time from capture to display of video that viewers are told; None: what publishers say."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """False: they are a default or were given by name, and those that this machine does not have are left out."""
    udp_ports: tuple[int, ...] = (DEFAULT_UDP_PORT,)
    """Ports for media; each media thread takes one. 0: any free ones."""
    media_threads: int = 0
    """0: all cores but one."""
    watchdog_s: float = 0.0
    """Seconds without a turn of the control thread after which the process ends itself; 0: never."""
    tls: TlsOptions | None = None
    """The certificate with which the main port speaks TLS beside HTTP; None: it does not."""
    proxy_networks: tuple[IpNetwork, ...] = ()
    """Where proxies are whose connections to the main port begin with a PROXY header."""
    room: RoomOptions = RoomOptions()
    media: MediaOptions = field(default_factory=MediaOptions)
    ice: IceOptions = field(default_factory=IceOptions)
    prometheus: PrometheusOptions = PrometheusOptions()
    webhook: WebhookOptions = field(default_factory=WebhookOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    auto_create: bool = True
    """A join creates a room that is missing. Else only the API does, and joins whose token may."""
    room_presets: Presets = field(default_factory=dict)
    """Named settings of rooms, which tokens and the server API refer to."""
    data_tracks: bool = True
    """Participants may publish data tracks."""
    data_blobs: bool = False
    """Participants may store data blobs."""
    region: str = ""
    """The name of the place where this server is, which clients are told."""
    ice_servers: IceServerOptions = field(default_factory=IceServerOptions)
    turn: TurnOptions = field(default_factory=TurnOptions)
    node_ips: tuple[str, ...] = ()
    """Addresses to tell clients, at most one per family; empty: all of the machine's."""
    log_level: LogLevel = "info"
    log_json: bool = False
    development: bool = False
    """`--dev`: placeholder keys if none are given, loopback by default, the token route of the demo page."""
    addresses: AddressOptions = field(default_factory=AddressOptions)
    """How addresses to tell clients are found where `node_ips` is empty."""
    ignored: tuple[str, ...] = ()
    """Names of keys and variables that were given, that LiveKit knows, and that are not acted on."""
    files: tuple[str, ...] = ()
    """The files from which it was read, which may be read again."""
    unknown: tuple[str, ...] = ()
    """Names of keys that nobody knows. Only a configuration that is not read strictly may have some."""
    remarks: tuple[str, ...] = ()
    """What the operator should know of the file beside these, one line each."""

    @property
    def media_ports(self) -> tuple[int, ...]:
        """One port for each media thread; there are no more threads than ports."""
        if self.udp_ports == (0,):
            return self.udp_ports * max(1, self.media_threads)
        cores = len(os.sched_getaffinity(0))
        return self.udp_ports[: self.media_threads or max(1, min(cores - 1, MAX_MEDIA_THREADS))]

    @property
    def shares_port(self) -> bool:
        """Whether ICE over TCP comes to the port of HTTP."""
        return self.ice.tcp_port != 0 and self.ice.tcp_port == self.port

    @property
    def media_bind(self) -> tuple[str, ...]:
        """Local addresses for media sockets; empty: all.

        A server that advertises only loopback listens nowhere else. Other advertised addresses may be a firewall's
        and not this machine's, so they say nothing about where to bind.
        """
        loopback = self.node_ips and all(ipaddress.ip_address(address).is_loopback for address in self.node_ips)
        return self.node_ips if loopback else ()

    def renewed(self, fresh: "Config") -> "Config":
        """Return this configuration with what may change while the server runs taken from `fresh`."""
        return replace(self, **{name: getattr(fresh, name) for name in RENEWABLE})

    def differences(self, other: "Config") -> tuple[str, ...]:
        """Return the names of the fields in which `other` is different."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name))

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
    config_body: str | None = field(default=None, repr=False)
    lenient: bool = False
    """Unknown keys are warned of, and no errors."""
    needs_keys: bool = True
    """False: the configuration is read for something else than API keys, which need not be there."""
    settings: tuple[Setting, ...] = field(default=(), repr=False)
    """Single settings, of which the last one for a key wins."""


def load_config(flags: Flags, environment: Mapping[str, str]) -> Config:
    """Put together file, environment and flags; later ones win. A configuration in a flag or in LIVEKIT_CONFIG replaces
    the file, as in livekit-server.

    Raises:
        ConfigError: a value cannot be used. The text is one line that names file and line, variable or flag.
    """
    document = _read(flags, environment)
    for setting in (*read_variables(environment), *flags.settings):
        document.set(*setting)
    ignored, unknown = check_names(document, KNOWN_KEYS, strict=not flags.lenient)
    if flags.config is not None and document.name != os.fspath(flags.config):
        ignored.append(f"--config ({document.name} is set)")
    file = _validate(document)
    development = flags.dev or file.development

    keys = _keys(file, flags, environment, document) if flags.needs_keys else {}
    if not keys and not development and flags.needs_keys:
        raise ConfigError("no API keys: give keys in the configuration, LIVEKIT_KEYS or --keys, or use --dev")
    keys = keys or DEVELOPMENT_KEYS
    if flags.needs_keys and file.webhook.urls and file.webhook.api_key not in keys:
        text = f"webhook.api_key: {file.webhook.api_key!r} is none of the API keys, and webhooks need one"
        raise document.error(("webhook", "api_key"), text)
    threads = _latest(parse_threads, file.media_threads, ("--media-threads", flags.media_threads))
    ports = _latest(
        parse_udp_ports, file.rtc.udp_ports, ("UDP_PORT", environment.get("UDP_PORT")), ("--udp-port", flags.udp_port)
    )
    if threads > len(ports) and ports != (0,):
        example = f"{ports[0]}-{ports[0] + threads - 1}"
        raise ConfigError(f"media_threads: {threads} threads need as many UDP ports, such as rtc.udp_port: {example}")
    port = _latest(parse_port, file.port, ("--port", flags.port))
    metrics_port = file.prometheus_port or file.prometheus.port
    given = set(flags.bind or document.values.get("bind_addresses", ()))
    addresses = tuple(file.bind_addresses) or (LOOPBACK if development else ANY_ADDRESS)
    room, tls = file.room, file.tls.options()
    level, about_level = _level(file, document)
    config = Config(
        keys=keys,
        port=port,
        bind_addresses=_latest(parse_addresses, addresses, ("--bind", flags.bind or None)),
        bind_addresses_given=bool(given) and not ADDRESS_NAMES.keys() & given,
        udp_ports=ports,
        media_threads=threads,
        watchdog_s=systemd_limit_s(environment) if file.watchdog is None else file.watchdog,
        tls=tls,
        proxy_networks=file.proxy_protocol_trusted_cidrs,
        room=room.options(),
        media=media_options(file.rtc, file.audio, file.video),
        ice=file.rtc.ice_options(),
        prometheus=PrometheusOptions(
            port=metrics_port, username=file.prometheus.username, password=file.prometheus.password
        ),
        webhook=file.webhook.options(full_room=room.enable_full_room_in_webhooks),
        limits=file.limit.options(
            room.max_metadata_size, room.max_room_name_length, room.max_participant_identity_length
        ),
        auto_create=room.auto_create,
        room_presets=room.room_configurations,
        data_tracks=file.enable_data_tracks,
        data_blobs=file.enable_participant_data_blob,
        region=file.region,
        ice_servers=IceServerOptions(stun_urls(file.rtc.stun_servers), turn_servers(file.rtc.turn_servers, document)),
        turn=file.turn.options(),
        node_ips=_latest(
            parse_node_ips, file.rtc.node_ip, ("NODE_IP", environment.get("NODE_IP")), ("--node-ip", flags.node_ip)
        ),
        log_level=_latest(parse_level, level, ("--log-level", flags.log_level)),
        log_json=file.logging.json_,
        development=development,
        addresses=file.rtc.address_options(),
        ignored=tuple(ignored),
        files=_files(file, flags, document),
        unknown=tuple(unknown),
        remarks=(*document.remarks, *about_level),
    )
    if overlap := find_overlap(config):
        raise ConfigError(overlap)
    return config


def _read(flags: Flags, environment: Mapping[str, str]) -> Document:
    if flags.config_body:
        return Document("--config-body", flags.config_body)
    if body := environment.get("LIVEKIT_CONFIG"):
        return Document("LIVEKIT_CONFIG", body)
    if flags.config is None:
        return Document("", "")
    return Document(os.fspath(flags.config), read_text(flags.config))


def _files(file: "_File", flags: Flags, document: Document) -> tuple[str, ...]:
    """Return the files from which a configuration was read."""
    pairs = (file.tls.options(), file.turn.options().tls)
    certificates = (name for tls in pairs if tls for name in (tls.cert_file, tls.key_file))
    secrets = (server.secret_file for server in file.rtc.turn_servers if server.reads_secret)
    named = document.name if document.name == str(flags.config) else ""
    return tuple(filter(None, (named, file.key_file, *certificates, *secrets)))


def _keys(file: "_File", flags: Flags, environment: Mapping[str, str], document: Document) -> Keys:
    """Return the API keys: those of a key file if there is one, as in livekit-server, else the last ones given."""
    given = (("LIVEKIT_KEYS", environment.get("LIVEKIT_KEYS")), ("--keys", flags.keys))
    if not file.key_file:
        return _latest(parse_keys, file.keys, *given)
    text = read_secrets(file.key_file, ("key_file",), document)
    try:
        return parse_keys(text)
    except ValueError as error:
        raise ConfigError(f"{file.key_file}: {error}") from error


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


def _level(file: "_File", document: Document) -> tuple[LogLevel, tuple[str, ...]]:
    """Return the log level of the file, and a remark if nobody knows its name: that counts as info, as in LiveKit."""
    path, name = (("log_level",), file.log_level) if file.log_level else (("logging", "level"), file.logging.level)
    if level := LOG_LEVELS.get(name.lower() or "info"):
        return level, ()
    text = f"{'.'.join(path)}: {name!r} is none of {', '.join(LOG_LEVELS)}; info is taken"
    return "info", (str(document.error(path, text)),)


class _Rtc(RtcMediaSections, RtcAddressSection, RtcIceSection):
    udp_port: Annotated[tuple[int, ...], BeforeValidator(parse_udp_ports)] = ()
    node_ip: Annotated[tuple[str, ...], BeforeValidator(parse_node_ips)] = ()
    port_range_start: Annotated[int, BeforeValidator(parse_port)] = 0
    port_range_end: Annotated[int, BeforeValidator(parse_port)] = 0
    turn_servers: Annotated[tuple[TurnServerSection, ...], BeforeValidator(check_number)] = ()

    @property
    def udp_ports(self) -> tuple[int, ...]:
        """The ports for media: `udp_port`, else as many of the range as are used, else LiveKit's of development."""
        if self.udp_port:
            return self.udp_port
        if not self.port_range_start:
            return (DEFAULT_UDP_PORT,)
        last = max(self.port_range_start, self.port_range_end)
        return tuple(range(self.port_range_start, min(last, self.port_range_start + MAX_UDP_PORTS - 1) + 1))


class _Room(Section):
    empty_timeout: Annotated[int, BeforeValidator(parse_count)] = 300
    departure_timeout: Annotated[int, BeforeValidator(parse_count)] = 20
    max_participants: Annotated[int, BeforeValidator(parse_count)] = 0
    forward_loudest: Annotated[int, BeforeValidator(parse_count)] = 0
    enabled_codecs: Annotated[tuple[str, ...], BeforeValidator(parse_codecs)] = ()
    auto_create: bool = True
    enable_full_room_in_webhooks: bool = False
    enable_remote_unmute: bool = False
    sync_streams: bool = False
    room_configurations: Annotated[dict[str, Any], BeforeValidator(parse_presets)] = Field(default_factory=dict)
    max_metadata_size: Size = 0
    max_room_name_length: Size = 0
    max_participant_identity_length: Size = 0
    playout_delay: PlayoutDelaySection = Field(default_factory=PlayoutDelaySection)

    def options(self) -> RoomOptions:
        """Return what of the section concerns rooms that a join creates."""
        return RoomOptions(
            empty_timeout_s=self.empty_timeout,
            departure_timeout_s=self.departure_timeout,
            max_participants=self.max_participants,
            forward_loudest=self.forward_loudest,
            enabled_codecs=self.enabled_codecs,
            remote_unmute=self.enable_remote_unmute,
            sync_streams=self.sync_streams,
            playout_delay_ms=self.playout_delay.limits(),
        )


class _Prometheus(Section):
    port: Annotated[int, BeforeValidator(parse_port)] = 0
    username: Annotated[str, BeforeValidator(parse_username)] = ""
    password: SecretStr = NO_PASSWORD


class _Logging(Section):
    level: str = ""
    json_: bool = Field(default=False, alias="json")


class _File(Section):
    """The keys of the file that are acted on."""

    port: Annotated[int, BeforeValidator(parse_port)] = DEFAULT_PORT
    bind_addresses: Annotated[tuple[str, ...], BeforeValidator(parse_addresses)] = ()
    keys: Annotated[Keys, BeforeValidator(parse_key_table)] = Field(default_factory=dict)
    log_level: str = ""
    media_threads: Annotated[int, BeforeValidator(parse_threads)] = 0
    watchdog: Annotated[int, BeforeValidator(parse_count)] | None = None
    rtc: _Rtc = Field(default_factory=_Rtc)
    room: _Room = Field(default_factory=_Room)
    audio: AudioSection = Field(default_factory=AudioSection)
    video: VideoSection = Field(default_factory=VideoSection)
    prometheus: _Prometheus = Field(default_factory=_Prometheus)
    prometheus_port: Annotated[int, BeforeValidator(parse_port)] = 0
    logging: _Logging = Field(default_factory=_Logging)
    webhook: WebhookSection = Field(default_factory=WebhookSection)
    limit: LimitSection = Field(default_factory=LimitSection)
    tls: TlsSection = Field(default_factory=TlsSection)
    turn: TurnSection = Field(default_factory=TurnSection)
    proxy_protocol_trusted_cidrs: Annotated[tuple[IpNetwork, ...], BeforeValidator(parse_networks)] = ()
    key_file: str = ""
    region: str = ""
    development: bool = False
    enable_data_tracks: bool = True
    enable_participant_data_blob: bool = False


def _validate(document: Document) -> _File:
    try:
        return _File.model_validate(document.values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise document.error(path, f"{'.'.join(path)}: {text}") from error
