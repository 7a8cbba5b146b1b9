"""Chooses which tracks a player of WHEP is sent: those of one participant, or of whoever speaks.

A player cannot be asked for another offer, so it has at most one picture and one sound at a time. Who calls it:
`sessions.py`, when a player comes and at each tick of the rooms.
"""

import math
from dataclasses import dataclass

from livekit.protocol.models import CAMERA, TrackSource

from sfu.parameters import Kind
from signaling.rooms.room import Room
from signaling.rooms.tracks import Track
from signaling.whip.offers import SOUND_OF

LEAST_TURN_S = 2.0
"""How long a speaker is shown at least, so that a short word takes nobody's turn. A switch needs a key frame."""

Newest = dict[str, tuple[str, ...]]
"""Participant sid -> the sids of its picture and its sound."""


@dataclass(frozen=True, slots=True)
class PlayRequest:
    """What a player asks for."""

    participant: str = ""
    """The identity of the participant to show; empty: whoever speaks."""
    source: TrackSource = CAMERA
    """The source of the picture. The sound that belongs to it comes along."""


@dataclass(slots=True)
class Stage:
    """The speaker whom players in one room are shown, for pictures of one source."""

    sid: str = ""
    """The speaker's sid; empty: nobody was shown yet."""
    since: float = -math.inf
    """When the speaker's turn began, in seconds of the node's clock."""

    def renew(self, room: Room, source: TrackSource, now: float) -> None:
        """Let the loudest speaker have the next turn, if the present one is over."""
        candidates = _candidates(room, source)
        loudest = sorted(room.speakers.since(math.inf), key=lambda each: -each.level)
        speaking = [each.sid for each in loudest if each.sid in candidates]
        if self.sid in candidates and (self.sid in speaking or not speaking or now - self.since < LEAST_TURN_S):
            return
        chosen = next(iter(speaking), None) or next(iter(candidates), "")
        if chosen != self.sid:
            self.sid, self.since = chosen, now


def _candidates(room: Room, source: TrackSource) -> dict[str, None]:
    """Return the sids of those with a picture of this source, in the order of their tracks; without any, with sound."""
    shown = [track for track in room.tracks.values() if not track.publisher.hidden]
    pictures = dict.fromkeys(track.publisher.sid for track in shown if _is_picture(track, source))
    return pictures or dict.fromkeys(track.publisher.sid for track in shown if _is_sound(track, source))


def newest_tracks(room: Room, source: TrackSource) -> Newest:
    """Return the picture of this source and the sound of each participant that has any, the newest of each."""
    pictures: dict[str, str] = {}
    sounds: dict[str, str] = {}
    for track in room.tracks.values():
        if _is_picture(track, source):
            pictures[track.publisher.sid] = track.sid
        elif _is_sound(track, source):
            sounds[track.publisher.sid] = track.sid
    both = {sid: (pictures.get(sid, ""), sounds.get(sid, "")) for sid in pictures | sounds}
    return {sid: tuple(filter(None, tracks)) for sid, tracks in both.items()}


def shown_participant(room: Room, identity: str) -> str:
    """Return the sid of the participant with this identity; empty: there is none, or it is hidden."""
    publisher = room.participants.get(identity)
    return publisher.sid if publisher is not None and not publisher.hidden else ""


def _is_picture(track: Track, source: TrackSource) -> bool:
    return track.kind is Kind.VIDEO and track.info.source == source


def _is_sound(track: Track, source: TrackSource) -> bool:
    return track.kind is Kind.AUDIO and track.info.source == SOUND_OF.get(source, source)
