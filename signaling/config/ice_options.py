"""What the configuration says about the ways on which clients reach the media. The keys and meanings are LiveKit's.

Who calls it: `configuration.py`.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

from signaling.config.sections import Section
from signaling.config.values import parse_port

DEFAULT_TCP_PORT = 7881


@dataclass(frozen=True, slots=True)
class IceOptions:
    """Which candidates clients are given."""

    tcp_port: int = DEFAULT_TCP_PORT
    """`rtc.tcp_port`: the port of ICE over TCP; 0: there is none."""
    tcp_port_given: bool = False
    """False: the port is a default, and a server that finds it taken goes without."""
    force_tcp: bool = False
    """`rtc.force_tcp`: clients are given TCP candidates only."""
    tcp_fallback: bool = True
    """`rtc.allow_tcp_fallback`: so is who could not connect over UDP."""


class RtcIceSection(Section):
    """What of `rtc` makes `IceOptions`."""

    tcp_port: Annotated[int | None, BeforeValidator(parse_port)] = None
    force_tcp: bool = False
    allow_tcp_fallback: bool = True

    def ice_options(self) -> IceOptions:
        """Return it for the rest of the server."""
        given = self.tcp_port is not None
        port = DEFAULT_TCP_PORT if self.tcp_port is None else self.tcp_port
        return IceOptions(port, given, self.force_tcp and port != 0, self.allow_tcp_fallback)
