"""The systems that can be measured, by name: each module beside this one that has a `TARGET` is one."""

import importlib
import re
from pathlib import Path

from bench.targets import Target

_TARGET = re.compile(r"^TARGET\b", re.MULTILINE)


def names() -> list[str]:
    """The names of all systems, in alphabetical order."""
    modules = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in modules if _TARGET.search(path.read_text(encoding="utf-8")))


def make(name: str, options: dict[str, str]) -> Target:
    """The system `name`, not started. Raises ValueError when there is none of this name."""
    if name not in names():
        raise ValueError(f"no target {name!r}; there are {', '.join(names())}")
    module = importlib.import_module(f"bench.targets.{name}")
    target: Target = module.TARGET(options)
    return target
