"""Single settings outside the file: a dotted flag (`--rtc.tcp_port 7881`) or a variable (`LIVEKIT_RTC_TCP_PORT`) for
every scalar key of it, as livekit-server generates them.

Who calls it: `cli.py` takes the flags out of the command line, `configuration.py` reads the variables. Both kinds are
put into the document, so that they are checked like the values of the file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from signaling.config.document import ConfigError, Path
from signaling.config.known_keys import BOOLEANS, KNOWN_KEYS, ONLY_IN_FILES, PARTS, Each, KeyTable, Use

PREFIX = "LIVEKIT_"
WHOLE = frozenset(("LIVEKIT_CONFIG", "LIVEKIT_KEYS"))
"""Variables that are no single settings."""
SHORT_FLAGS: Mapping[str, Path] = {
    "key-file": ("key_file",),
    "region": ("region",),
    "redis-host": ("redis", "address"),
    "redis-password": ("redis", "password"),
    "turn-cert": ("turn", "cert_file"),
    "turn-key": ("turn", "key_file"),
}
"""livekit-server's own flags for some settings."""
SHORT_VARIABLES: Mapping[str, Path] = {
    "REDIS_HOST": ("redis", "address"),
    "REDIS_PASSWORD": ("redis", "password"),
    "LIVEKIT_REGION": ("region",),
    "LIVEKIT_TURN_CERT": ("turn", "cert_file"),
    "LIVEKIT_TURN_KEY": ("turn", "key_file"),
}
SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://")
"""How Kubernetes names a service in each container, as in `LIVEKIT_PORT=tcp://10.0.0.1:7880`: that is no setting."""
_FLAG = re.compile(r"--([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)(?:=(.*))?", re.ASCII | re.DOTALL)


class Setting(NamedTuple):
    """One value from outside the file."""

    path: Path
    text: str
    origin: str
    """The flag or variable."""


def take_flags(arguments: Sequence[str], own: frozenset[str]) -> tuple[list[str], tuple[Setting, ...]]:
    """Take the dotted flags out of a command line; return the other arguments and the settings.

    Args:
        arguments: the command line without the program.
        own: names of flags that the command line has itself.

    Raises:
        ConfigError: a flag that needs a value is the last argument.
    """
    rest: list[str] = []
    settings: list[Setting] = []
    waiting = iter(arguments)
    for argument in waiting:
        found = _FLAG.fullmatch(argument)
        path = tuple(found[1].split(".")) if found else ()
        if found is None or found[1] in own or not is_setting(path):
            rest.append(argument)
            continue
        text: str | None = found[2]
        if text is None:
            text = "true" if found[1] in BOOLEANS else next(waiting, None)
        if text is None:
            raise ConfigError(f"--{found[1]} needs a value")
        settings.append(Setting(path, text, f"--{found[1]}"))
    return rest, tuple(settings)


def read_variables(environment: Mapping[str, str]) -> Iterator[Setting]:
    """Yield the settings of an environment. Empty variables count as absent."""
    for name, path in SHORT_VARIABLES.items():
        if text := environment.get(name):
            yield Setting(path, text, name)
    names = {PREFIX + "_".join(path).upper(): path for path, _ in _leaves(KNOWN_KEYS, ())}
    for name, text in environment.items():
        if not text or not name.startswith(PREFIX) or name in WHOLE or name in SHORT_VARIABLES:
            continue
        found = names.get(name) or _inside(name, names)
        if found is not None and not SERVICE_LINK.match(text):
            yield Setting(found, text, name)


def all_settings() -> Iterator[tuple[str, str, bool]]:
    """Yield each setting that is one value: the name of its flag, of its variable, and whether it has an effect here.

    Of a group without any effect only the name of the whole group is given.
    """
    for path, use in _leaves(KNOWN_KEYS, ()):
        name = ".".join(path)
        if name not in ONLY_IN_FILES:
            yield name, PREFIX + "_".join(path).upper(), use is Use.ACTED_ON


def is_setting(path: Path) -> bool:
    """Tell whether LiveKit has a key here that is no mapping nor a list of them, or one that is not looked into."""
    table: KeyTable | Use | Each | None = KNOWN_KEYS
    for position, name in enumerate(path):
        if isinstance(table, Use):
            return table is Use.IGNORED or path[position:] in PARTS.get(path[:position], ())
        table = table.get(name) if isinstance(table, Mapping) else None
    return isinstance(table, Use)


def _leaves(table: KeyTable, path: Path) -> Iterator[tuple[Path, Use]]:
    for name, below in table.items():
        if isinstance(below, Use):
            yield (*path, name), below
        elif isinstance(below, Mapping):
            yield from _leaves(below, (*path, name))


def _inside(name: str, names: Mapping[str, Path]) -> Path | None:
    """Return the path for a variable about something inside of one of `names`, the longest; None: there is none."""
    for known in sorted(names, key=len, reverse=True):
        if name.startswith(f"{known}_"):
            path = (*names[known], name.removeprefix(f"{known}_").lower())
            if is_setting(path):
                return path
    return None
