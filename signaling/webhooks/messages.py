"""Makes LiveKit's webhook messages of the events of rooms.

A participant counts as joined when its media is connected. So `participant_joined` and its tracks are told only then,
and who leaves before is told as `participant_connection_aborted`, without its tracks.
"""

import time
from collections.abc import Iterator
from typing import assert_never

from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from signaling import identifiers
from signaling.rooms.events import (
    EventRoom,
    ParticipantActive,
    ParticipantJoined,
    ParticipantLeft,
    RoomEvent,
    RoomFinished,
    RoomStarted,
    TrackPublished,
    TrackUnpublished,
)
from signaling.rooms.tracks import Publisher

ROOM_STARTED, ROOM_FINISHED = "room_started", "room_finished"
PARTICIPANT_JOINED, PARTICIPANT_LEFT = "participant_joined", "participant_left"
CONNECTION_ABORTED = "participant_connection_aborted"
TRACK_PUBLISHED, TRACK_UNPUBLISHED = "track_published", "track_unpublished"
END_REASONS = {
    models.ROOM_DELETED: models.ROOM_END_API_DELETE,
    models.ROOM_CLOSED: models.ROOM_END_IDLE_TIMEOUT,
    models.SERVER_SHUTDOWN: models.ROOM_END_SERVER_SHUTDOWN,
}
"""Why a room ended, as members were told -> as applications are told."""


class Messages:
    """Turns events into messages, and remembers which participants have joined and not left."""

    def __init__(self) -> None:
        self._here: set[str] = set()
        """Sids of participants that were told as joined."""

    def note(self, event: RoomEvent) -> None:
        """Remember what an event says, without messages about it."""
        if isinstance(event, ParticipantActive):
            self._here.add(event.participant.sid)
        elif isinstance(event, ParticipantLeft):
            self._here.discard(event.participant.sid)

    def of(self, event: RoomEvent, full_room: bool) -> Iterator[WebhookEvent]:
        """Yield the messages for an event, in order. All of them must be taken.

        They are about the moment of the call, which must come from a listener of the event.

        Args:
            event: what happened.
            full_room: messages about tracks have the whole description of the room, and not only its sid and name.
        """
        match event:
            case RoomStarted():
                yield _message(ROOM_STARTED, room=event.room.info)
            case RoomFinished():
                message = _message(ROOM_FINISHED, room=event.room.info)
                message.room_end_reason = END_REASONS.get(event.reason, models.ROOM_END_UNKNOWN)
                yield message
            case ParticipantJoined():
                pass
            case ParticipantActive():
                yield from self._joined(event, full_room)
            case ParticipantLeft():
                yield self._left(event)
            case TrackPublished():
                yield from self._track(TRACK_PUBLISHED, event, full_room)
            case TrackUnpublished():
                yield from self._track(TRACK_UNPUBLISHED, event, full_room)
            case _:
                assert_never(event)

    def _joined(self, event: ParticipantActive, full_room: bool) -> Iterator[WebhookEvent]:
        participant = event.participant
        self._here.add(participant.sid)
        yield _message(PARTICIPANT_JOINED, room=event.room.info, participant=participant.info)
        for track in participant.info.tracks:
            yield _track_message(TRACK_PUBLISHED, event.room, participant, track, full_room)

    def _left(self, event: ParticipantLeft) -> WebhookEvent:
        was_here = event.participant.sid in self._here
        self._here.discard(event.participant.sid)
        kind = PARTICIPANT_LEFT if was_here else CONNECTION_ABORTED
        return _message(kind, room=event.room.info, participant=event.participant.info)

    def _track(self, kind: str, event: TrackPublished | TrackUnpublished, full_room: bool) -> Iterator[WebhookEvent]:
        publisher = event.track.publisher
        if publisher.sid in self._here:
            yield _track_message(kind, event.room, publisher, event.track.info, full_room)


def _message(kind: str, **parts: models.Room | models.ParticipantInfo | models.TrackInfo) -> WebhookEvent:
    """Return a message, which has copies of `parts`."""
    return WebhookEvent(event=kind, id=identifiers.event_id(), created_at=int(time.time()), **parts)  # type: ignore[arg-type]


def _track_message(
    kind: str, room: EventRoom, publisher: Publisher, track: models.TrackInfo, full_room: bool
) -> WebhookEvent:
    described = room.info if full_room else models.Room(sid=room.info.sid, name=room.name)
    who = models.ParticipantInfo(sid=publisher.sid, identity=publisher.identity)
    return _message(kind, room=described, participant=who, track=track)
