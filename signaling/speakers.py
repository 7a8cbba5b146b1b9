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


@dataclass(slots=True)
class Speakers:
    """One room's speakers."""

    _levels: dict[str, float] = field(default_factory=dict)
    """Participant sid -> level as told last, 0 to 1; only those who speak."""
    _simulated: dict[str, float] = field(default_factory=dict)
    """Participant sid -> when its simulated speech ends."""

    def simulate(self, sid: str, until: float) -> None:
        """Let a participant count as speaking (a scenario of SDK tests)."""
        self._simulated[sid] = until

    def forget(self, sid: str) -> None:
        """Drop a participant who left; clients do so by themselves."""
        self._levels.pop(sid, None)
        self._simulated.pop(sid, None)

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
        changes += [SpeakerInfo(sid=sid, level=0, active=False) for sid in self._levels if sid not in levels]
        self._levels = levels
        return changes

    def current(self) -> list[SpeakerInfo]:
        """Return everybody who speaks, for a client that has just come."""
        return [SpeakerInfo(sid=sid, level=level, active=True) for sid, level in self._levels.items()]
