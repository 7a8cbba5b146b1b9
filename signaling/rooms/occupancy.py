"""Whether a room is full, and whether it has been without people for so long that it ends.

Who calls it: `Room`, and the sessions that will join it. Agents and recorders are no people: they take no place, and
keep no room open. A permission from the server API can make one of a person, or a person of one.
"""

from signaling.config.configuration import RoomOptions
from signaling.rooms.headcount import Headcount


class Occupancy:
    """The places of one room."""

    def __init__(self, headcount: Headcount, now: float) -> None:
        """Start without people. `headcount` is the room's, and `now` the node's clock in seconds."""
        self._headcount = headcount
        self._empty_since: float | None = now
        self._was_joined = False
        self.expected = 0
        """The number of sessions that were admitted and have not joined yet."""
        self._expected_people = 0
        """How many of them are people."""

    def note(self, now: float) -> None:
        """Note whether there are people, and since when there are none."""
        if self._headcount.people():
            self._empty_since = None
            self._was_joined = True
        elif self._empty_since is None:
            self._empty_since = now

    def is_over(self, now: float, options: RoomOptions) -> bool:
        """Tell whether the room has been without people for long enough."""
        self.note(now)
        if self._empty_since is None or self._expected_people:
            return False
        timeout = options.departure_timeout_s if self._was_joined else options.empty_timeout_s
        return now - self._empty_since >= timeout

    def is_full(self, places: int) -> bool:
        """Tell whether all places are taken or promised. 0 places: there is no limit."""
        return 0 < places <= self._headcount.people() + self._expected_people

    def expect(self, person: bool) -> None:
        """Note that a session was admitted, which will call `arrive`."""
        self.expected += 1
        self._expected_people += person

    def arrive(self, person: bool) -> None:
        """Note that a session that was admitted joins now, or will not join."""
        self.expected -= 1
        self._expected_people -= person
