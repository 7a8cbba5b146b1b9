"""Who left a room, for clients that resume and may have missed it."""

from collections import deque
from collections.abc import Mapping

from livekit.protocol.models import ParticipantInfo

from signaling.limits import MAX_DEPARTURES
from signaling.rooms.member import Member
from signaling.rooms.updates import without_texts

RETOLD_S = 10.0
"""What a client was sent up to this long before its own last message is sent again when it resumes. Its last message
does not prove that it had received ours, and later ones went to a socket that had ended."""


class Departures:
    """The last departures from one room. Times are seconds of the node's clock."""

    def __init__(self, now: float) -> None:
        """Start with none."""
        self._left: deque[tuple[float, str, bytes]] = deque()
        """Departures as (time, identity, what others were told). The last is a serialized `ParticipantInfo`, which
        takes a tenth of the message's memory."""
        self._forgotten_before = now
        """The time before which departures are forgotten."""

    def note(self, info: ParticipantInfo, now: float) -> None:
        """Remember that a participant left."""
        if len(self._left) >= MAX_DEPARTURES:
            self._forgotten_before = self._left.popleft()[0]
        self._left.append((now, info.identity, without_texts(info).SerializeToString()))

    def since(self, time_s: float, present: Mapping[str, Member]) -> list[ParticipantInfo] | None:
        """Return who left after `time_s` or up to `RETOLD_S` before, and is not back; None: too many to remember.

        A client that knows of a departure already ignores it. `present` are the participants by identity.
        """
        if time_s < self._forgotten_before:
            return None
        return [
            ParticipantInfo.FromString(info)
            for left_at, identity, info in self._left
            if left_at >= time_s - RETOLD_S and ((now := present.get(identity)) is None or now.hidden)
        ]
