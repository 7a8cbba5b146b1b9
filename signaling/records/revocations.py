"""Tokens that are no longer good for a room, because their bearer was removed from it."""

from collections import Counter

from signaling.limits import MAX_REVOCATIONS, MAX_REVOCATIONS_OF_A_ROOM


class Revocations:
    """For each room and identity, the time before which a token must not have begun to be valid."""

    def __init__(self, dropped: Counter[str]) -> None:
        """`dropped` counts those that were forgotten because there are too many, as `revocations`."""
        self._dropped = dropped
        self._before: dict[tuple[str, str], int] = {}
        self._of_room: dict[str, dict[str, None]] = {}
        """The identities of each room, oldest first."""

    def revoke(self, room: str, identity: str, before: int) -> None:
        """Refuse tokens of this room and identity whose `nbf` is before a Unix time in seconds.

        Who may remove participants of one room could fill all places. So a room has a bound of its own.
        """
        before = max(before, self._before.get((room, identity), 0))
        self._forget(room, identity)
        if len(of_room := self._of_room.get(room, {})) >= MAX_REVOCATIONS_OF_A_ROOM:
            self._forget(room, next(iter(of_room)))
            self._dropped["revocations"] += 1
        elif len(self._before) >= MAX_REVOCATIONS:
            self._forget(*next(iter(self._before)))
            self._dropped["revocations"] += 1
        self._before[room, identity] = before
        self._of_room.setdefault(room, {})[identity] = None

    def covers(self, room: str, identity: str, not_before: int) -> bool:
        """Tell whether a token of this room and identity with this `nbf` (0: it has none) is revoked."""
        return not_before < self._before.get((room, identity), 0)

    def _forget(self, room: str, identity: str) -> None:
        if self._before.pop((room, identity), None) is None:
            return
        of_room = self._of_room[room]
        del of_room[identity]
        if not of_room:
            del self._of_room[room]
