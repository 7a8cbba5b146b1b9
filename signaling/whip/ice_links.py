"""STUN and TURN servers as `Link` headers of WHIP and WHEP (RFC 9725 section 4.6).

Who calls it: `endpoint.py`.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import quote

from livekit.protocol.rtc import ICEServer


def ice_links(servers: Iterable[ICEServer]) -> Iterator[str]:
    """Yield a value of the header `Link` for each URL of the servers."""
    for server in servers:
        for url in server.urls:
            parts = [f"<{url}>", 'rel="ice-server"']
            if server.username:
                parts += [_parameter("username", server.username), _parameter("credential", server.credential)]
                parts.append('credential-type="password"')
            yield "; ".join(parts)


def _parameter(name: str, value: str) -> str:
    """Return a parameter as a quoted string (RFC 9110 section 5.6.4), or encoded (RFC 8187) if it is not all ASCII."""
    if not value.isascii():
        return f"{name}*=UTF-8''{quote(value, safe='')}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'
