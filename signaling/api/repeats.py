"""Answers that are kept for a while, because clients repeat a request whose answer they did not get.

The header `X-Livekit-Request-Id` tells that a request is the same one. What it created must not be created twice.
"""

from collections import Counter
from collections.abc import Callable

from google.protobuf.message import Message

HEADER = "x-livekit-request-id"
KEPT_S = 600.0
"""How long the answer to a creation is kept."""
MAX_KEPT, MAX_KEPT_BYTES = 10_000, 16 * 1024 * 1024
"""Answers that are kept at a time, and their bytes. The oldest go first, and are counted as `api_answers`."""
MAX_ID_CHARACTERS = 128
"""Characters of a request's id; those of LiveKit's SDKs have 36. Longer ones are as if there were none."""

Key = tuple[str, str, str, str]
"""API key, call, the room for which the token is, and request id."""


class Repeats:
    """The answers to creations."""

    def __init__(self, clock: Callable[[], float], dropped: Counter[str]) -> None:
        """`clock` gives seconds, monotonic."""
        self._clock = clock
        self._dropped = dropped
        self._answers: dict[Key, tuple[float, Message]] = {}
        """Key -> (when it was given, the answer), oldest first."""
        self._bytes = 0

    def find(self, key: Key) -> Message | None:
        """Return the answer that was given to this request before, if it is still kept."""
        self._forget_old()
        found = self._answers.get(key)
        return found[1] if found is not None else None

    def keep(self, key: Key, answer: Message) -> None:
        """Keep a copy of an answer."""
        copy = type(answer)()
        copy.CopyFrom(answer)
        self._answers[key] = self._clock(), copy
        self._bytes += copy.ByteSize()
        while len(self._answers) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
            self._forget(next(iter(self._answers)))
            self._dropped["api_answers"] += 1

    def _forget_old(self) -> None:
        oldest = self._clock() - KEPT_S
        while self._answers and self._answers[key := next(iter(self._answers))][0] < oldest:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        self._bytes -= self._answers.pop(key)[1].ByteSize()
