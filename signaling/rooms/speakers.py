"""The speakers of a room, as changes since the last report (LiveKit's `speakers_changed`).

The engine measures levels. This file finds what changed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from livekit.protocol.models import SpeakerInfo

LEVEL_STEPS = 8
"""Levels are rounded up to eighths, as in livekit-server, so that a steady voice makes no changes."""
SIMULATED_LEVEL = 0.9
MAX_STOPPED = 1_000
"""Participants who stopped speaking that a room remembers for clients that resume; as many as departures."""


@dataclass(slots=True)
class Speakers:
    """One room's speakers."""

    _levels: dict[str, float] = field(default_factory=dict)
    """Sids of participants who speak -> the level that was told last, 0 to 1."""
    _simulated: dict[str, float] = field(default_factory=dict)
    """Participant sid -> when its simulated speech ends."""
    _stopped: dict[str, float] = field(default_factory=dict)
    """Sids of participants who stopped speaking or left -> when, oldest first; at most `MAX_STOPPED`."""

    def simulate(self, sid: str, until: float) -> None:
        """Let a participant count as speaking until `until`, for tests of SDKs."""
        self._simulated[sid] = until

    def forget(self, sid: str, now: float) -> list[SpeakerInfo]:
        """Forget a participant who leaves at `now`, in seconds; return the change to tell before that, if it spoke.

        livekit-client otherwise keeps it in its list of speakers for ever, since it cannot find a participant that
        left.
        """
        self._simulated.pop(sid, None)
        return [self._stop(sid, now)] if self._levels.pop(sid, None) is not None else []

    def update(self, measured: Mapping[str, float], now: float) -> list[SpeakerInfo]:
        """Return what changed, loudest first: new levels of speakers, and those who fell silent with level 0.

        Args:
            measured: participant sid -> linear level 0 to 1 of everybody who speaks.
            now: the node's clock, in seconds.
        """
        self._simulated = {sid: until for sid, until in self._simulated.items() if until > now}
        speaking = {**measured, **dict.fromkeys(self._simulated, SIMULATED_LEVEL)}
        levels = {sid: min(1.0, math.ceil(level * LEVEL_STEPS) / LEVEL_STEPS) for sid, level in speaking.items()}
        changes = [
            SpeakerInfo(sid=sid, level=level, active=True)
            for sid, level in levels.items()
            if self._levels.get(sid) != level
        ]
        changes.sort(key=lambda speaker: -speaker.level)
        changes += [self._stop(sid, now) for sid in self._levels if sid not in levels]
        self._levels = levels
        for sid in levels.keys() & self._stopped.keys():
            del self._stopped[sid]
        return changes

    def since(self, time_s: float) -> list[SpeakerInfo]:
        """Return who speaks now, and who stopped speaking at or after `time_s`, for a client that missed changes."""
        speaking = [SpeakerInfo(sid=sid, level=level, active=True) for sid, level in self._levels.items()]
        return speaking + [_silent(sid) for sid, stopped_at in self._stopped.items() if stopped_at >= time_s]

    def _stop(self, sid: str, now: float) -> SpeakerInfo:
        self._stopped.pop(sid, None)
        if len(self._stopped) >= MAX_STOPPED:
            del self._stopped[next(iter(self._stopped))]
        self._stopped[sid] = now
        return _silent(sid)


def _silent(sid: str) -> SpeakerInfo:
    return SpeakerInfo(sid=sid, level=0, active=False)
