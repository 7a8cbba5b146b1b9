"""Reads single values of the configuration, which are texts in a file, in a variable and in a flag.

Who calls it: the schema of the file (`configuration.py`, `sections.py`). Each function takes a raw value and returns it
checked. It raises ValueError with a text that names the value.
"""

import ipaddress
import math
import re
from typing import Literal
from urllib.parse import urlsplit

import yaml

from signaling.config.api_keys import Keys, hide
from signaling.texts import encodable

MAX_UDP_PORTS = 256
"""Ports of one range that are used at most: one is opened for each media thread."""
MAX_COUNT = 2**31 - 1
"""The largest number of seconds or participants in the settings of rooms. More counts as that: in files for
livekit-server the largest number that fits may stand for "no limit"."""
MAX_MEDIA_THREADS = 16
"""The most media threads for which the engine has tables."""
MAX_DURATION_S = 1e9
"""The longest duration."""
MAX_URLS = 20
"""URLs that get webhooks."""
MAX_NETWORKS = 100
"""Networks in one list."""

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK, ANY_ADDRESS = ("127.0.0.1", "::1"), ("0.0.0.0", "::")
ADDRESS_NAMES = {"": ANY_ADDRESS, "localhost": LOOPBACK}
"""What a local address may be called -> the addresses, of which those that this machine does not have are left out.
LiveKit's generator of configurations writes the empty name."""

LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: dict[str, LogLevel] = {
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "warning": "warning",
    "error": "error",
    "dpanic": "error",
    "panic": "error",
    "fatal": "error",
}
"""Spelling, as in livekit-server -> level."""
DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
"""The units of Go's durations."""
_OTHER_BASE = re.compile(r"[+-]?0[xob]", re.ASCII)
_EXPONENT = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_DURATION = re.compile(r"\+?(?:(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|ms|s|m|h))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|ms|s|m|h)", re.ASCII)


def parse_whole(value: object) -> int:
    """Read a whole number, also one in hexadecimal (`0x1f`), octal (`0o17`), binary (`0b1`) or with an exponent
    (`1e+06`, as templates of Helm write large numbers)."""
    text = str(value)
    try:
        return int(text, 0 if _OTHER_BASE.match(text) else 10)
    except ValueError:
        pass
    if not _EXPONENT.fullmatch(text) or not (number := float(text)).is_integer():
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def parse_udp_ports(value: object) -> tuple[int, ...]:
    """Read `7882` or a range `7882-7892`, both ends included. Of a longer range the first `MAX_UDP_PORTS` are returned.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, dict):  # LiveKit's other form, which its generated flags have
        value = "-".join(str(value[end]) for end in ("start", "end") if value.get(end))
    first, dash, last = str(value).partition("-")
    try:
        start = int(first)
        end = int(last) if dash else start
    except ValueError:
        raise ValueError(f"{value!r} is neither a port nor a range like 7882-7892") from None
    if not 0 <= start <= end <= 65535 or (dash and start == 0):
        raise ValueError(f"{value!r} is no range of ports")
    return tuple(range(start, min(end, start + MAX_UDP_PORTS - 1) + 1))


def parse_node_ips(value: object) -> tuple[str, ...]:
    """Read `192.0.2.1`, `2001:db8::1` or one of each with a comma between. An empty text names no address.

    Raises:
        ValueError: it is none of these.
    """
    if value == "":
        return ()
    if isinstance(value, dict):  # LiveKit's other form, which its generated flags have
        value = ",".join(str(value[family]) for family in ("ipv4", "ipv6") if value.get(family))
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
    return check_keys(keys)


def parse_key_table(value: object) -> Keys:
    """Read a mapping of API keys to secrets, which may be empty, as in a chart's configuration."""
    return {} if value == {} else check_keys(value)


def check_keys(keys: object) -> Keys:
    """Check a mapping of API keys to secrets."""
    if not isinstance(keys, dict) or not keys or not all(isinstance(secret, str) for secret in keys.values()):
        raise ValueError('keys must be "key: secret", with the space, one per line')
    if not all(key and secret for key, secret in keys.items()):
        raise ValueError("an API key or its secret is empty")
    if encodable(keys) != keys:
        raise ValueError("an API key or its secret has half a character in it")
    return hide(keys)


def parse_port(value: object) -> int:
    """Read the number of a TCP port; 0 is one."""
    port = parse_whole(value)
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is no port")
    return port


def parse_count(value: object) -> int:
    """Read a number of seconds or participants."""
    count = parse_whole(value)
    if count < 0:
        raise ValueError(f"{count} is below 0")
    return min(count, MAX_COUNT)


def parse_threads(value: object) -> int:
    """Read a number of media threads."""
    threads = parse_whole(value)
    if not 0 <= threads <= MAX_MEDIA_THREADS:
        raise ValueError(f"{threads} is not between 0 and {MAX_MEDIA_THREADS}")
    return threads


def parse_addresses(value: object) -> tuple[str, ...]:
    """Read a list of local addresses. Among them may be names of `ADDRESS_NAMES`, as in livekit-server."""
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of addresses")
    addresses: list[str] = []
    for text in value:
        addresses += ADDRESS_NAMES.get(text) or (str(ipaddress.ip_address(text)),)
    return tuple(dict.fromkeys(addresses))


def parse_networks(value: object) -> tuple[IpNetwork, ...]:
    """Read a list of networks such as `10.0.0.0/8`. An address alone is a network of one; bits behind the prefix do not
    matter, as in Go."""
    if len(texts := parse_texts(value)) > MAX_NETWORKS:
        raise ValueError(f"more than {MAX_NETWORKS} networks")
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def parse_level(value: object) -> LogLevel:
    """Read the name of a log level."""
    level = LOG_LEVELS.get(str(value).lower())
    if level is None:
        raise ValueError(f"{value!r} is none of {', '.join(LOG_LEVELS)}")
    return level


def parse_username(value: object) -> str:
    """Read the user name of an HTTP authentication."""
    if ":" in str(value):
        raise ValueError("a user name has no colon (RFC 7617)")
    return str(value)


def parse_duration_s(value: object) -> float:
    """Read a duration as LiveKit's files have it, such as `30s`, `1m30s` or `500ms`, in seconds.

    A number without a unit counts nanoseconds, as in Go.
    """
    text = str(value).strip()
    if text.isascii() and text.isdecimal():
        seconds = int(text[:30]) * DURATION_UNITS_S["ns"]
    elif _DURATION.fullmatch(text):
        seconds = math.fsum(float(number) * DURATION_UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))
    else:
        raise ValueError(f"{value!r} is no duration like 30s, 1m30s or 500ms")
    if seconds > MAX_DURATION_S:
        raise ValueError(f"{value!r} is too long")
    return seconds


def parse_size(value: object) -> int:
    """Read a bound on bytes or on a number of things; 0 or less: there is none, which is returned as 0."""
    return max(0, min(parse_whole(value), 2**53))


def parse_rate(value: object) -> float:
    """Read a number that may have a fraction, such as bytes a second; 0 or less: none, which is returned as 0."""
    try:
        rate = float(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no number") from None
    if not math.isfinite(rate):
        raise ValueError(f"{value!r} is no number")
    return max(0.0, rate)


def parse_texts(value: object) -> tuple[str, ...]:
    """Read a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def parse_codecs(value: object) -> tuple[str, ...]:
    """Read LiveKit's list of codecs, `- mime: video/vp8`. The MIME types are returned in lower case."""
    if not isinstance(value, list) or not all(isinstance(item, dict) and item.get("mime") for item in value):
        raise ValueError("must be a list of codecs like `- mime: video/vp8`")
    return tuple(str(item["mime"]).lower() for item in value)


def parse_urls(value: object) -> tuple[str, ...]:
    """Read a list of URLs of web servers, each of them once."""
    urls = tuple(dict.fromkeys(parse_texts(value)))
    if len(urls) > MAX_URLS:
        raise ValueError(f"more than {MAX_URLS} URLs")
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
            raise ValueError(f"{url!r} is no URL like https://example.org/path")
        _ = parts.port  # raises ValueError
    return urls
