"""Tokens that are no longer good for a room, because their bearer was removed from it."""

from collections import Counter

from signaling.limits import MAX_REVOCATIONS


class Revocations:
    """For each room and identity, the time before which a token must not have begun to be valid."""

    def __init__(self, dropped: Counter[str]) -> None:
        """`dropped` counts those that were forgotten because there are too many, as `revocations`."""
        self._dropped = dropped
        self._before: dict[tuple[str, str], int] = {}

    def revoke(self, room: str, identity: str, before: int) -> None:
        """Refuse tokens of this room and identity whose `nbf` is before a Unix time in seconds."""
        key = room, identity
        before = max(before, self._before.pop(key, 0))
        if len(self._before) >= MAX_REVOCATIONS:
            del self._before[next(iter(self._before))]
            self._dropped["revocations"] += 1
        self._before[key] = before

    def covers(self, room: str, identity: str, not_before: int) -> bool:
        """Tell whether a token of this room and identity with this `nbf` (0: it has none) is revoked."""
        return not_before < self._before.get((room, identity), 0)
