"""A plain UDP reflector without cryptography. It shows the latency that the generator itself adds, and its ceiling.

Publishers protect and subscribers decrypt as usual, but all with one key. So the reflector can pass datagrams on
unchanged while the generator does all of its work.
"""

import os

from bench.targets.floor import KEY_BYTES, Floor


class Reflector(Floor):
    """A child process that copies datagrams."""

    name = "reflector"
    protects = False

    def __init__(self, options: dict[str, str]) -> None:
        """Read the options, which are those of the floor."""
        super().__init__(options)
        self._key = os.urandom(KEY_BYTES)

    def keys(self) -> tuple[bytes, bytes, bytes]:
        """Return one key for all participants, and none for the child."""
        return self._key, b"", self._key


TARGET = Reflector
