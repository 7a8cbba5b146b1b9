"""The systems that can be measured, by name: each module beside this one that has a `TARGET` is one.

A name with a dot is that of a module elsewhere, such as `examples.bench_target`: anything that Python can import.
"""

import importlib
import re
from collections.abc import Callable
from pathlib import Path

from bench.targets.base import Target

_TARGET = re.compile(r"^TARGET\b", re.MULTILINE)
_ELSEWHERE = re.compile(r"\w+(\.\w+)+")


def names() -> list[str]:
    """Return the names of all systems that have a module here, in alphabetical order."""
    modules = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in modules if _TARGET.search(path.read_text(encoding="utf-8")))


def find(name: str) -> Callable[[dict[str, str]], Target]:
    """Return the function that makes the system `name` from its options.

    Raises:
        ValueError: there is no such system.
    """
    own = name in names()
    if not own and not _ELSEWHERE.fullmatch(name):
        raise ValueError(f"no target {name!r}; there are {', '.join(names())}, or name a module as in package.module")
    try:
        module = importlib.import_module(f"bench.targets.{name}" if own else name)
    except ImportError as error:
        raise ValueError(f"no target {name!r}: {error}") from error
    if not hasattr(module, "TARGET"):
        raise ValueError(f"no target {name!r}: the module has no TARGET")
    target: Callable[[dict[str, str]], Target] = module.TARGET
    return target


def check(name: str) -> None:
    """Check that there is a system of this name. Only modules outside this folder are imported for that.

    Raises:
        ValueError: there is no such system.
    """
    if name not in names():
        find(name)


def make(name: str, options: dict[str, str]) -> Target:
    """Make the system `name`, not started.

    Raises:
        ValueError: there is no such system, or an option is wrong.
    """
    return find(name)(options)
