"""Files that the configuration names: read as text, and for secrets only if others cannot read them.

Who calls it: `configuration.py`, `ice_servers.py` and `sections.py`.
"""

import os
from pathlib import Path

from signaling.config.document import ConfigError, Document

READABLE_BY_OTHERS = 0o007
"""The permissions of a file that everybody on the machine has."""


def path_of(name: str) -> Path:
    """Return the path of a file whose name may have `~` and variables of the environment.

    Raises:
        ConfigError: `~` stands for nobody's directory.
    """
    try:
        return Path(os.path.expandvars(name)).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{name}: there is no such home directory") from error


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error


def read_secrets(name: str, key: tuple[str, ...], document: Document) -> str:
    """Return the text of a file that only its owner and group can read.

    Args:
        name: its path, as `path_of` reads it.
        key: the key of `document` that names it.

    Raises:
        ConfigError: it cannot be read, or others can read it too.
    """
    path = path_of(name)
    text = read_text(path)
    if path.stat().st_mode & READABLE_BY_OTHERS:
        raise document.error(key, f"{'.'.join(key)}: {path} must not be accessible to others (chmod o= {path})")
    return text
