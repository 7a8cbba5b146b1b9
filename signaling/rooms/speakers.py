"""Who speaks in a room, as changes since the last report (LiveKit's speakers_changed).

The engine measures; here levels of tracks become levels of participants, and only differences are told.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from livekit.protocol.models import SpeakerInfo

LEVEL_STEPS = 8
"""Levels are rounded up to eighths, LiveKit's step, so that a steady voice is not news every time."""
SIMULATED_LEVEL = 0.9
MAX_STOPPED = 1_000
"""Participants of a room remembered as having stopped speaking, for clients that resume; as many as departures."""


@dataclass(slots=True)
class Speakers:
    """One room's speakers."""

    _levels: dict[str, float] = field(default_factory=dict)
    """Participant sid -> level as told last, 0 to 1; only those who speak."""
    _simulated: dict[str, float] = field(default_factory=dict)
    """Participant sid -> when its simulated speech ends."""
    _stopped: dict[str, float] = field(default_factory=dict)
    """Participant sid -> when it fell silent or left, oldest first; the last `MAX_STOPPED`."""

    def simulate(self, sid: str, until: float) -> None:
        """Let a participant count as speaking (a scenario of SDK tests)."""
        self._simulated[sid] = until

    def forget(self, sid: str, now: float) -> list[SpeakerInfo]:
        """Drop a participant who leaves at `now`, in seconds; returns what is to be told before: that it is silent.

        livekit-client keeps who left while speaking in its list of speakers for ever, since it no longer finds the
        participant when the silence comes.
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
        heard = {**measured, **dict.fromkeys(self._simulated, SIMULATED_LEVEL)}
        levels = {sid: min(1.0, math.ceil(level * LEVEL_STEPS) / LEVEL_STEPS) for sid, level in heard.items()}
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
        """Return who speaks, and who stopped at or after `time_s` and is silent, for a client that missed changes."""
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
