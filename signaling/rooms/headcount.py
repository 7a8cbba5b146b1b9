"""How many participants of a room are people, how many of these are visible, and how many visible ones publish.

Who calls it: `Room`, for the description that every join is answered with, and to learn whether it is full or empty. To
count everybody for each join would cost a room as much as the square of its size, so only those are looked at that have
changed since the last count.
"""

from signaling.profile import is_person
from signaling.rooms.member import Member

_Standing = tuple[bool, bool, bool]
"""What one participant counts as: (a person, a visible person, a visible publisher)."""
_NOBODY: _Standing = (False, False, False)


class Headcount:
    """The count of one room."""

    def __init__(self) -> None:
        """Start with an empty room."""
        self._changed: dict[str, Member] = {}
        """The members who came or changed since the last count, by sid."""
        self._counted: dict[str, _Standing] = {}
        """What each participant counted as, by sid."""
        self._people = self._visible = self._publishers = 0

    def note(self, member: Member) -> None:
        """Note that a participant of the room came, or may count as something else than before."""
        self._changed[member.sid] = member

    def forget(self, member: Member) -> None:
        """Note that a participant has left the room."""
        self._changed.pop(member.sid, None)
        self._recount(self._counted.pop(member.sid, _NOBODY), _NOBODY)

    def people(self) -> int:
        """Return the number of people, hidden ones included, without agents and recorders."""
        self._look()
        return self._people

    def count(self) -> tuple[int, int]:
        """Return the number of visible people, and of visible participants who have published."""
        self._look()
        return self._visible, self._publishers

    def _look(self) -> None:
        while self._changed:
            sid, member = self._changed.popitem()
            now = _standing(member)
            self._recount(self._counted.get(sid, _NOBODY), now)
            self._counted[sid] = now

    def _recount(self, before: _Standing, now: _Standing) -> None:
        self._people += now[0] - before[0]
        self._visible += now[1] - before[1]
        self._publishers += now[2] - before[2]


def counts_as_person(member: Member) -> bool:
    """Tell whether a participant keeps its room open and takes one of its places."""
    info = member.info
    return is_person(info.kind, info.permission.agent, info.permission.recorder)


def _standing(member: Member) -> _Standing:
    person = counts_as_person(member)
    return (person, False, False) if member.hidden else (person, person, member.info.is_publisher)
