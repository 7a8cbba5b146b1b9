"""STUN and TURN servers beside this one that clients are told: `rtc.stun_servers` and `rtc.turn_servers`.

Who calls it: `configuration.py`. The keys and meanings are LiveKit's.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, SecretStr, model_validator

from signaling.config.address_options import StunServer
from signaling.config.document import Document
from signaling.config.secret_files import read_secrets
from signaling.config.sections import Section
from signaling.config.values import parse_count, parse_port
from signaling.texts import encodable

MAX_TURN_SERVERS = 16
"""TURN servers of one configuration. Each costs clients time while they look for their addresses."""
DEFAULT_TTL_S = 14_400
"""How long a credential that is made of a secret is good for a new allocation, as in livekit-server."""
NO_SECRET = SecretStr("")

Protocol = Literal["udp", "tcp", "tls"]
SCHEMES: dict[Protocol, tuple[str, int, str]] = {
    "udp": ("turn", 3478, "udp"),
    "tcp": ("turn", 3478, "tcp"),
    "tls": ("turns", 5349, "tcp"),
}
"""Protocol of LiveKit's -> scheme, default port and transport of the URL (RFC 7065 section 3)."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class TurnServer:
    """A TURN server that somebody else runs."""

    url: str
    """As RFC 7065 has it, such as `turn:turn.example.org:3478?transport=udp`."""
    username: str = ""
    credential: SecretStr = NO_SECRET
    """The user name and password that all clients are told, if there is no secret."""
    secret: SecretStr = NO_SECRET
    """What the server shares with this one, to make credentials for each client; empty: there is none."""
    ttl_s: int = DEFAULT_TTL_S
    """How long such credentials are good, in seconds."""


@dataclass(frozen=True, slots=True)
class IceServerOptions:
    """What clients are told beside our own addresses. By default that is nothing."""

    stun_urls: tuple[str, ...] = ()
    turn_servers: tuple[TurnServer, ...] = ()


def stun_urls(servers: Iterable[StunServer]) -> tuple[str, ...]:
    """Return the URLs of RFC 7064 for the servers of `rtc.stun_servers`."""
    return tuple(f"stun:{f'[{host}]' if ':' in host else host}:{port}" for host, port in servers)


def check_number(servers: object) -> object:
    """Return a list as it is; refuse it if it has more than `MAX_TURN_SERVERS` entries."""
    if isinstance(servers, list | tuple) and len(servers) > MAX_TURN_SERVERS:
        raise ValueError(f"more than {MAX_TURN_SERVERS} servers")
    return servers


def parse_host(value: object) -> str:
    """Read the name or address of a server as URLs have it: an IPv6 address stands in brackets."""
    host = str(value)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if not _NAME.fullmatch(host):
            raise ValueError(f"{value!r} is no name or address of a server") from None
        return host
    return f"[{address}]" if address.version == 6 else host


def parse_protocol(value: object) -> str:
    """Read how clients reach a TURN server. Nothing is TCP, as in livekit-server."""
    protocol = str(value) or "tcp"
    if protocol not in SCHEMES:
        raise ValueError(f"{value!r} is none of {', '.join(SCHEMES)}")
    return protocol


def _parse_text(value: object) -> str:
    """Read a user name or password. What it is must not be seen in the error."""
    text = str(value)
    if encodable(text) != text or not text.isprintable():
        raise ValueError("there is a character in it that cannot be sent")
    return text


Text = Annotated[str, BeforeValidator(_parse_text)]
HiddenText = Annotated[SecretStr, BeforeValidator(_parse_text)]


class TurnServerSection(Section):
    """An entry of `rtc.turn_servers`."""

    host: Annotated[str, BeforeValidator(parse_host)]
    port: Annotated[int, BeforeValidator(parse_port)] = 0
    protocol: Annotated[Protocol, BeforeValidator(parse_protocol)] = "tcp"
    username: Text = ""
    credential: HiddenText = NO_SECRET
    secret: HiddenText = NO_SECRET
    secret_file: str = ""
    ttl: Annotated[int, BeforeValidator(parse_count)] = 0

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        """Refuse a server that browsers refuse: they want a user name and a password for each."""
        both = self.username and self.credential.get_secret_value()
        if not (both or self.secret.get_secret_value() or self.secret_file):
            raise ValueError("needs secret, secret_file, or username and credential")
        return self

    @property
    def reads_secret(self) -> bool:
        """Whether its secret is in the file. A secret that is given itself wins, as in livekit-server."""
        return bool(self.secret_file) and not self.secret.get_secret_value()

    def server(self, secret: str) -> TurnServer:
        """Return the entry for the rest of the server; `secret` is what the file has, if it was read."""
        scheme, port, transport = SCHEMES[self.protocol]
        return TurnServer(
            url=f"{scheme}:{self.host}:{self.port or port}?transport={transport}",
            username=self.username,
            credential=self.credential,
            secret=SecretStr(secret) if self.reads_secret else self.secret,
            ttl_s=self.ttl or DEFAULT_TTL_S,
        )


def turn_servers(sections: Sequence[TurnServerSection], document: Document) -> tuple[TurnServer, ...]:
    """Return the entries of `rtc.turn_servers` with the secrets of the files that they name.

    Raises:
        ConfigError: such a file cannot be read, others can read it too, or it holds no secret.
    """
    servers = []
    for index, section in enumerate(sections):
        secret = ""
        if section.reads_secret:
            key = ("rtc", "turn_servers", str(index), "secret_file")
            secret = read_secrets(section.secret_file, key, document).strip()
            if not secret or not secret.isprintable():
                raise document.error(
                    key, f"{'.'.join(key)}: {section.secret_file} does not hold one line with a secret"
                )
        servers.append(section.server(secret))
    return tuple(servers)
