"""Writes the events of rooms into the log: joins with the client's SDK, tracks, and ends."""

import logging
from typing import assert_never

import structlog
from livekit.protocol.models import ClientInfo, DisconnectReason, TrackSource, TrackType

from signaling.profile import ClientSettings
from signaling.rooms.events import (
    ParticipantActive,
    ParticipantJoined,
    ParticipantLeft,
    RoomEvent,
    RoomFinished,
    RoomStarted,
    TrackPublished,
    TrackUnpublished,
)
from signaling.rooms.tracks import Track

MAX_LOGGED_CHARACTERS = 64
"""Characters that are logged of each text about a client's SDK or system."""

log = structlog.get_logger("signaling.rooms")


def tell(event: RoomEvent) -> None:
    """Write one line about an event."""
    if not log.is_enabled_for(logging.INFO):  # what a line says costs more than to leave it out
        return
    room = event.room.name
    match event:
        case RoomStarted():
            log.info("room created", room=room)
        case RoomFinished():
            log.info("room ended", room=room)
        case ParticipantJoined(participant=participant, client=client):
            log.info("participant joined", room=room, identity=participant.identity, **_client(client))
        case ParticipantActive(participant=participant):
            log.info("participant active", room=room, identity=participant.identity)
        case ParticipantLeft(participant=participant, reason=reason):
            why = DisconnectReason.Name(reason)
            log.info("participant left", room=room, identity=participant.identity, reason=why)
        case TrackPublished(track=track):
            log.info("track published", room=room, identity=track.publisher.identity, **_track(track))
        case TrackUnpublished(track=track):
            log.info("track ended", room=room, identity=track.publisher.identity, track=track.sid)
        case _:
            assert_never(event)


def _client(client: ClientSettings) -> dict[str, object]:
    """Return SDK and system, as far as the client told them."""
    info = client.info
    sdk = ClientInfo.SDK.Name(info.sdk) if info.sdk in ClientInfo.SDK.values() else str(info.sdk)
    told = {"sdk": sdk.lower(), "version": info.version, "os": info.os, "browser": info.browser}
    known = {key: value[:MAX_LOGGED_CHARACTERS] for key, value in told.items() if value}
    return {**known, "protocol": info.protocol, "single_pc": client.single_pc}


def _track(track: Track) -> dict[str, object]:
    info = track.info
    source = TrackSource.Name(info.source) if info.source in TrackSource.values() else str(info.source)
    kind = TrackType.Name(info.type).lower()
    return {"track": track.sid, "kind": kind, "source": source.lower(), "codec": info.mime_type}
