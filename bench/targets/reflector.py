"""A plain UDP reflector without cryptography: what the generator itself adds to latency, and what it can take at most.

Publishers protect and subscribers decrypt as ever, all with one key, so the reflector can pass datagrams on untouched
while the generator does all of its work.
"""

import os

from bench.targets.floor import KEY_BYTES, Floor


class Reflector(Floor):
    """A child process that copies datagrams."""

    name = "reflector"
    protects = False

    def __init__(self, options: dict[str, str]) -> None:
        """Options: those of the floor."""
        super().__init__(options)
        self._key = os.urandom(KEY_BYTES)

    def keys(self) -> tuple[bytes, bytes, bytes]:
        """One key for everybody; the child has none."""
        return self._key, b"", self._key


TARGET = Reflector
