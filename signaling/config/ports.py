"""Finds ports of a configuration on which two things would listen.

Who calls it: `configuration.py`, with a configuration that is complete. What belongs together and shares a port, such
as HTTP and TURN, is no mistake.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from signaling.config.ice_options import IceOptions
from signaling.config.turn_options import MIN_RELAY_PORTS, TurnOptions
from signaling.config.values import ANY_ADDRESS


class Prometheus(Protocol):
    """The part of `configuration.PrometheusOptions` that this file uses."""

    @property
    def port(self) -> int:
        """The TCP port of metrics; 0: there is none."""


class Config(Protocol):
    """The part of `configuration.Config` that this file uses."""

    @property
    def port(self) -> int:
        """The TCP port of HTTP; 0: any."""

    @property
    def bind_addresses(self) -> tuple[str, ...]:
        """Local addresses of HTTP."""

    @property
    def media_ports(self) -> tuple[int, ...]:
        """The UDP ports of media; 0: any."""

    @property
    def media_bind(self) -> tuple[str, ...]:
        """Local addresses of media; empty: all."""

    @property
    def ice(self) -> IceOptions:
        """With the port of ICE over TCP."""

    @property
    def prometheus(self) -> Prometheus:
        """With the port of metrics."""

    @property
    def turn(self) -> TurnOptions:
        """With the ports of TURN."""


@dataclass(frozen=True, slots=True)
class _Listener:
    key: str
    protocol: str
    port: int
    addresses: tuple[str, ...]


def find_overlap(config: Config) -> str:
    """Return what is wrong with the ports of a configuration, as one line; empty: nothing is."""
    for one, other in combinations(_listeners(config), 2):
        if (one.protocol, one.port) == (other.protocol, other.port) and _meet(one.addresses, other.addresses):
            return f"{one.key} and {other.key} are both {one.protocol} port {one.port}, and need different ones"
    if config.turn.enabled and len(free_relay_ports(config.turn, config.media_ports)) < MIN_RELAY_PORTS:
        return f"turn.relay_range_start to relay_range_end are fewer than {MIN_RELAY_PORTS} ports beside those of media"
    return ""


def free_relay_ports(turn: TurnOptions, media_ports: Iterable[int]) -> tuple[int, ...]:
    """Return the ports of relayed addresses. Those of media and of TURN over UDP, which may be in the range, are none.

    To a client that has it, the relayed address is its own. It would not find media there that are at the same address.
    """
    used = {turn.udp_port, *media_ports}
    return tuple(port for port in turn.relay_ports if port not in used)


def _listeners(config: Config) -> list[_Listener]:
    """Return everything that gets a socket of its own on a port that is known."""
    media = config.media_bind or ANY_ADDRESS
    found = [_Listener("port", "TCP", config.port, config.bind_addresses)]
    found.append(_Listener("prometheus.port", "TCP", config.prometheus.port, config.bind_addresses))
    found += (_Listener("rtc.udp_port", "UDP", port, media) for port in set(config.media_ports))
    shared = [_Listener("rtc.tcp_port", "TCP", config.ice.tcp_port, media)]
    if config.turn.enabled:
        of_turn = config.turn.bind or media
        found.append(_Listener("turn.udp_port", "UDP", config.turn.udp_port, of_turn))
        shared.append(_Listener("turn.tcp_port", "TCP", config.turn.tcp_port, of_turn))
        shared.append(_Listener("turn.tls_port", "TCP", config.turn.tls_port, of_turn))
    found += (each for each in shared if each.port != config.port)
    return [each for each in found if each.port]


def _meet(some: Iterable[str], others: Iterable[str]) -> bool:
    """Tell whether a socket of one side takes what is sent to one of the other."""
    theirs = tuple(map(ipaddress.ip_address, others))
    return any(
        one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)
        for one in map(ipaddress.ip_address, some)
        for other in theirs
    )
