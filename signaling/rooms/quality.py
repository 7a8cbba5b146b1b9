"""The quality of each participant's connection, as LiveKit's words and marks, from the engine's scores.

The engine judges both directions (`sfu/control/observing/scores.py`); the worst track of all of a participant's
transports counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from livekit.protocol.models import EXCELLENT, GOOD, LOST, POOR, ConnectionQuality
from livekit.protocol.rtc import ConnectionQualityInfo

from signaling.rooms.member import Member
from signaling.rooms.node import Node

QUALITY_INTERVAL_S = 5.0
"""The time between two measurements, as in livekit-server."""
BEST_SCORE, LOST_SCORE = 100.0, 20.0
"""The score of who has no media to judge, and of who lost its connection."""
GRADES = ((80.0, EXCELLENT), (40.0, GOOD), (20.0, POOR))
"""(score, the word for more than that), LiveKit's. What is left is LOST."""


def measure(node: Node) -> dict[str, float]:
    """Return the scores since the last call, from 0 to 100, by the sid of those participants who have media."""
    muted = [number for number, track in node.tracks.items() if track.info.muted]
    scores: dict[str, float] = {}
    for transport, score in node.engine.scores(muted).items():
        participant = node.participants.get(transport)
        if participant is not None:
            scores[participant.sid] = min(score, scores.get(participant.sid, BEST_SCORE))
    return scores


@dataclass(slots=True)
class Qualities:
    """The qualities of all participants of one room."""

    _of: dict[str, "Quality"] = field(default_factory=dict)
    """Participant sid -> quality."""

    def note(
        self, participants: Iterable[Member], scores: Mapping[str, float]
    ) -> tuple[list[ConnectionQualityInfo], set[Member]]:
        """Take over what `measure` returned; return the changes to tell, and who is new."""
        changed: list[ConnectionQualityInfo] = []
        newcomers: set[Member] = set()
        for participant in participants:
            quality = self._of.get(participant.sid)
            if quality is None:
                quality = self._of[participant.sid] = Quality(participant)
                newcomers.add(participant)
            failed = participant.expires_at is not None
            quality.score = LOST_SCORE if failed else scores.get(participant.sid, BEST_SCORE)
            if quality.word != quality.told and not participant.hidden:
                quality.told = quality.word
                changed.append(quality.info())
        return changed, newcomers

    def of(self, sid: str) -> "Quality | None":
        """Return the quality of a participant, if it was measured."""
        return self._of.get(sid)

    def infos(self) -> list[ConnectionQualityInfo]:
        """Return what a new participant is told about all others."""
        return [quality.info() for quality in self._of.values() if not quality.participant.hidden]

    def forget(self, sid: str) -> None:
        """Forget a participant that left."""
        self._of.pop(sid, None)


@dataclass(slots=True)
class Quality:
    """One participant's quality over the last interval."""

    participant: Member
    score: float = BEST_SCORE
    told: ConnectionQuality | None = None
    """The word that others were told last."""

    @property
    def word(self) -> ConnectionQuality:
        """LiveKit's word for the score."""
        return grade(self.score)

    def info(self) -> ConnectionQualityInfo:
        """Return the message for clients."""
        mark = opinion_score(self.score)
        return ConnectionQualityInfo(participant_sid=self.participant.sid, quality=self.word, score=mark)


def opinion_score(score: float) -> float:
    """Return the mean opinion score of ITU-T G.107 annex B, 1 to 4.5, for a score from 0 to 100."""
    return 1 + 0.035 * score + 7e-6 * score * (score - 60) * (100 - score)


def grade(score: float) -> ConnectionQuality:
    """Return LiveKit's word for a score from 0 to 100."""
    return next((word for least, word in GRADES if score > least), LOST)
