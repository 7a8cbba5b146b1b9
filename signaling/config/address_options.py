"""What the configuration says about the addresses that clients are told. The keys and meanings are LiveKit's.

Who calls it: `configuration.py`.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from signaling.config.sections import Section, Texts
from signaling.config.values import IpNetwork, parse_networks, parse_port, parse_texts

DEFAULT_STUN_PORT = 3478
MAX_STUN_SERVERS = 10

StunServer = tuple[str, int]
"""The name or address of a server, and its port."""


@dataclass(frozen=True, slots=True)
class AddressOptions:
    """How the addresses are found where `rtc.node_ip` does not name them."""

    interfaces: tuple[str, ...] = ()
    """`rtc.interfaces.includes`: if there are any, only their addresses are told."""
    excluded_interfaces: tuple[str, ...] = ()
    networks: tuple[IpNetwork, ...] = ()
    """`rtc.ips.includes`: if there are any, only addresses in them are told."""
    excluded_networks: tuple[IpNetwork, ...] = ()
    ask_outside: bool = False
    """`rtc.use_external_ip`: those under which STUN servers see the machine are told in the place of its own."""
    stun_servers: tuple[StunServer, ...] = ()
    """`rtc.stun_servers`: whom to ask. Nobody else is."""
    advertise_internal: bool = False
    """`rtc.advertise_internal_ip`: the machine's own are told beside these."""
    external_only: bool = False
    """`rtc.external_ip_only`: IPv4 addresses that no server saw under another one are not told."""


def parse_stun_servers(value: object) -> tuple[StunServer, ...]:
    """Read a list of servers such as `stun.example.org:3478`, `192.0.2.1` or `[2001:db8::1]:3478`."""
    if len(texts := parse_texts(value)) > MAX_STUN_SERVERS:
        raise ValueError(f"more than {MAX_STUN_SERVERS} STUN servers")
    return tuple(map(_parse_server, texts))


def _parse_server(text: str) -> StunServer:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        well_formed = not rest or colon == ":"
    else:
        host, colon, port = text.partition(":")
        well_formed = ":" not in port
    if not well_formed or not host or "/" in host or host != host.strip() or bool(colon) != bool(port):
        raise ValueError(f"{text!r} is no server like stun.example.org:3478")
    return host, parse_port(port) if port else DEFAULT_STUN_PORT


class _Interfaces(Section):
    includes: Texts = ()
    excludes: Texts = ()


class _Networks(Section):
    includes: Annotated[tuple[IpNetwork, ...], BeforeValidator(parse_networks)] = ()
    excludes: Annotated[tuple[IpNetwork, ...], BeforeValidator(parse_networks)] = ()


class RtcAddressSection(Section):
    """What of `rtc` makes `AddressOptions`."""

    interfaces: _Interfaces = Field(default_factory=_Interfaces)
    ips: _Networks = Field(default_factory=_Networks)
    use_external_ip: bool = False
    stun_servers: Annotated[tuple[StunServer, ...], BeforeValidator(parse_stun_servers)] = ()
    advertise_internal_ip: bool = False
    external_ip_only: bool = False

    def address_options(self) -> AddressOptions:
        """Return it for the rest of the server."""
        return AddressOptions(
            interfaces=self.interfaces.includes,
            excluded_interfaces=self.interfaces.excludes,
            networks=self.ips.includes,
            excluded_networks=self.ips.excludes,
            ask_outside=self.use_external_ip,
            stun_servers=self.stun_servers,
            advertise_internal=self.advertise_internal_ip,
            external_only=self.external_ip_only,
        )
