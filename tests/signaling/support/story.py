"""What an application knows that reads the webhooks: which rooms there are, who is in them, and what they publish."""

from collections import Counter
from collections.abc import Iterable

from livekit.protocol.webhook import WebhookEvent


class Story:
    """The state after some messages. A message that contradicts those before it raises an AssertionError."""

    def __init__(self, told: Iterable[WebhookEvent]) -> None:
        self.rooms: list[str] = []
        self.here: dict[str, str] = {}
        """Sid -> identity of those who have joined and not left."""
        self.tracks: dict[str, str] = {}
        """Sid of a track -> sid of its publisher."""
        self._seen: Counter[str] = Counter()
        self._ids: set[str] = set()
        for message in told:
            self._read(message)

    def _read(self, message: WebhookEvent) -> None:
        sid, identity = message.participant.sid, message.participant.identity
        match message.event:
            case "room_started":
                assert self.rooms == []
                self.rooms = [message.room.sid]
            case "room_finished":
                assert self.here == self.tracks == {}
                self.rooms.remove(message.room.sid)
            case "participant_joined":
                assert identity not in self.here.values()
                self.here[sid] = identity
                self._seen[sid] += 1
            case "participant_left":
                assert sid not in self.tracks.values()
                assert self.here.pop(sid) == identity
            case "participant_connection_aborted":
                assert sid not in self.here
                self._seen[sid] += 1
            case "track_published":
                assert sid in self.here
                self.tracks[message.track.sid] = sid
            case "track_unpublished":
                assert self.tracks.pop(message.track.sid) == sid
        if message.event != "room_finished":
            assert [message.room.sid] == self.rooms
        assert self._seen[sid] <= 1
        assert message.id not in self._ids
        self._ids.add(message.id)
