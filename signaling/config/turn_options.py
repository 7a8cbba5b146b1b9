"""What the configuration says about the TURN server of this process. Most keys and meanings are LiveKit's.

Who calls it: `configuration.py`.
"""

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BeforeValidator, model_validator

from signaling.config.ice_servers import parse_host
from signaling.config.options import TlsOptions
from signaling.config.sections import Section, files_of_tls
from signaling.config.values import parse_addresses, parse_count, parse_port

DEFAULT_ADVERTISED_TLS_PORT = 443
"""What clients are told in place of `turn.tls_port`, as in livekit-server: load balancers have that port."""
DEFAULT_RELAY_PORTS = range(30_000, 40_000)
DEFAULT_TTL_S = 300
MAX_TTL_S = 366 * 86_400
"""User names hold the time until which they are good in few digits."""
DEFAULT_QUOTA = 12
MIN_RELAY_PORTS = 64
"""Ports of relayed addresses: each rests for two minutes after its use."""


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """The TURN server: where clients find it, and what they get."""

    enabled: bool = False
    domain: str = ""
    """The name of the server in its certificate."""
    udp_port: int = 0
    tcp_port: int = 0
    tls_port: int = 0
    """Where it listens; 0: nowhere. The port of HTTP is shared."""
    advertised_tcp_port: int = 0
    advertised_tls_port: int = DEFAULT_ADVERTISED_TLS_PORT
    """What clients are told in place of these ports."""
    tls: TlsOptions | None = None
    """The certificate; None: that of the main port."""
    external_tls: bool = False
    """A load balancer ends TLS, and connections to `tls_port` come without."""
    relay_ports: range = DEFAULT_RELAY_PORTS
    ttl_s: int = DEFAULT_TTL_S
    """How long credentials are good for a new allocation, in seconds."""
    quota: int = DEFAULT_QUOTA
    """Allocations of one participant at a time."""
    bind: tuple[str, ...] = ()
    """Local addresses; empty: those of media."""


class TurnSection(Section):
    """`turn`."""

    enabled: bool = False
    domain: str = ""
    udp_port: Annotated[int, BeforeValidator(parse_port)] = 0
    tcp_port: Annotated[int, BeforeValidator(parse_port)] = 0
    tls_port: Annotated[int, BeforeValidator(parse_port)] = 0
    advertised_tcp_port: Annotated[int, BeforeValidator(parse_port)] = 0
    advertised_tls_port: Annotated[int, BeforeValidator(parse_port)] = 0
    cert_file: str = ""
    key_file: str = ""
    external_tls: bool = False
    relay_range_start: Annotated[int, BeforeValidator(parse_port)] = 0
    relay_range_end: Annotated[int, BeforeValidator(parse_port)] = 0
    ttl_seconds: Annotated[int, BeforeValidator(parse_count)] = 0
    per_user_relay_allocation_limit: Annotated[int, BeforeValidator(parse_count)] = 0
    bind_addresses: Annotated[tuple[str, ...], BeforeValidator(parse_addresses)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse a server that nobody could reach, or that could give nobody an address."""
        if not self.enabled:
            return self
        if not (self.udp_port or self.tcp_port or self.tls_port):
            raise ValueError("needs udp_port, tcp_port or tls_port")
        if self.tls_port:
            if not self.domain:
                raise ValueError("tls_port needs domain")
            parse_host(self.domain)
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file are needed together")
        if len(self._relay_ports()) < MIN_RELAY_PORTS:
            raise ValueError(f"relay_range_start to relay_range_end are fewer than {MIN_RELAY_PORTS} ports")
        return self

    def options(self) -> TurnOptions:
        """Return the section for the rest of the server."""
        return TurnOptions(
            enabled=self.enabled,
            domain=self.domain,
            udp_port=self.udp_port,
            tcp_port=self.tcp_port,
            tls_port=self.tls_port,
            advertised_tcp_port=self.advertised_tcp_port or self.tcp_port,
            advertised_tls_port=self.advertised_tls_port or DEFAULT_ADVERTISED_TLS_PORT,
            tls=files_of_tls(self.cert_file, self.key_file),
            external_tls=self.external_tls,
            relay_ports=self._relay_ports(),
            ttl_s=min(self.ttl_seconds, MAX_TTL_S) or DEFAULT_TTL_S,
            quota=self.per_user_relay_allocation_limit or DEFAULT_QUOTA,
            bind=self.bind_addresses,
        )

    def _relay_ports(self) -> range:
        """Return the ports of relayed addresses, with the last one that is named."""
        first = self.relay_range_start or DEFAULT_RELAY_PORTS.start
        last = self.relay_range_end or DEFAULT_RELAY_PORTS.stop - 1
        return range(first, last + 1)
