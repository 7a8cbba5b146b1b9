"""The quality of each participant's connection, from the engine's statistics, as one of LiveKit's four words.

The score follows the E-model of ITU-T G.107 in its usual short form: delay and loss are subtracted from 93.2, and the
result is mapped to a mean opinion score of 1 to 4.5.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from livekit.protocol.models import EXCELLENT, GOOD, LOST, POOR, ConnectionQuality
from livekit.protocol.rtc import ConnectionQualityInfo

from sfu.engine import Engine
from sfu.parameters import TrackId
from signaling.rooms.member import Member

BEST_RATING = 93.2
"""G.107's rating of a call without impairments."""
DELAY_WEIGHT = 0.024
LATE_DELAY_MS = 177.3
LATE_DELAY_WEIGHT = 0.11
"""G.107: beyond 177.3 ms people start to talk over each other."""
LOSS_WEIGHT = 2.5
"""Rating lost per percent of packets lost after repair attempts; Opus with in-band FEC, and video with RTX."""
CODEC_DELAY_MS = 20.0
MAX_SCORE = 4.5
"""The upper end of the scale."""
EXCELLENT_SCORE = 4.1
GOOD_SCORE = 3.5
"""The bounds of "satisfied" and "some dissatisfied" in G.107 annex B, a little lower because of video."""
SAMPLED_SUBSCRIPTIONS = 4
"""How many subscriptions of a client are looked at. A few suffice, since all share one path."""


@dataclass(slots=True)
class Qualities:
    """The qualities of all participants of one room."""

    engine: Engine
    _of: dict[str, "Quality"] = field(default_factory=dict)
    """Participant sid -> quality."""

    def measure(self, participants: Iterable[Member]) -> tuple[list[ConnectionQualityInfo], set[Member]]:
        """Measure everybody; return the changes to tell, and who is measured for the first time."""
        changed: list[ConnectionQualityInfo] = []
        newcomers: set[Member] = set()
        for participant in participants:
            quality = self._of.get(participant.sid)
            if quality is None:
                quality = self._of[participant.sid] = Quality(participant)
                newcomers.add(participant)
            quality.measure(self.engine)
            if quality.word != quality.told and not participant.hidden:
                quality.told = quality.word
                changed.append(quality.info())
        return changed, newcomers

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
    _received: dict[TrackId, tuple[int, int]] = field(default_factory=dict)
    """Engine track -> packets and losses at the last measurement."""
    word: ConnectionQuality = EXCELLENT
    score: float = 0.0
    """The mean opinion score; 0: there is no media to measure."""
    told: ConnectionQuality | None = None
    """The word that others were told last."""

    def measure(self, engine: Engine) -> None:
        """Measure both directions. The worse one counts."""
        participant = self.participant
        if not participant.active or participant.expires_at is not None:
            self.word, self.score = EXCELLENT if participant.expires_at is None else LOST, 0.0
            return
        self.score = min(self._publishing_score(engine), self._subscribing_score(engine))
        self.word = grade(self.score)

    def info(self) -> ConnectionQualityInfo:
        """Return the message for clients."""
        return ConnectionQualityInfo(participant_sid=self.participant.sid, quality=self.word, score=self.score)

    def _publishing_score(self, engine: Engine) -> float:
        worst = MAX_SCORE
        seen: dict[TrackId, tuple[int, int]] = {}
        for engine_track in self.participant.engine_tracks():
            now = engine.track_statistics(engine_track)
            packets, lost = self._received.get(engine_track, (now.packets, now.lost))
            seen[engine_track] = (now.packets, now.lost)
            arrived, missing = now.packets - packets, max(0, now.lost - lost)
            if arrived + missing > 0:
                worst = min(worst, opinion_score(missing / (arrived + missing), 2 * now.jitter_ms))
        self._received = seen
        return worst

    def _subscribing_score(self, engine: Engine) -> float:
        worst_loss = worst_rtt_ms = 0.0
        for subscription in islice(self.participant.subscription_ids(), SAMPLED_SUBSCRIPTIONS):
            loss, rtt_ms = engine.subscription_path(subscription)
            worst_loss, worst_rtt_ms = max(worst_loss, loss), max(worst_rtt_ms, rtt_ms)
        return opinion_score(worst_loss, worst_rtt_ms / 2)


def opinion_score(loss: float, delay_ms: float) -> float:
    """Return the mean opinion score, 1 to 4.5, of a path with this share of lost packets and one-way delay."""
    delay_ms += CODEC_DELAY_MS
    rating = BEST_RATING - DELAY_WEIGHT * delay_ms - LATE_DELAY_WEIGHT * max(0.0, delay_ms - LATE_DELAY_MS)
    rating = max(0.0, rating - LOSS_WEIGHT * 100 * loss)
    return 1 + 0.035 * rating + 7e-6 * rating * (rating - 60) * (100 - rating)


def grade(score: float) -> ConnectionQuality:
    """Return LiveKit's word for a mean opinion score."""
    if score >= EXCELLENT_SCORE:
        return EXCELLENT
    return GOOD if score >= GOOD_SCORE else POOR
