"""Runs code in a Python interpreter of its own, for what happens once in a process."""

import os
import subprocess
import sys
from pathlib import Path


def run(code: str, directory: Path, home: Path, **options: str) -> str:
    """Standard output of a new interpreter in `directory`, with its own user cache."""
    environment = os.environ | {"XDG_CACHE_HOME": str(home), "PYTHONPATH": str(directory)}
    for name in ("NUMBA_BOUNDSCHECK", "NUMBA_OPT", "NUMBA_CACHE_DIR"):
        environment.pop(name, None)
    environment |= options
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
