"""How good each participant's connection is, from the engine's statistics, in LiveKit's four words.

The score follows the E-model of ITU-T G.107 in its usual short form: delay and loss are subtracted from 93.2, and the
result is mapped to a mean opinion score of 1 to 4.5.
"""

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from livekit.protocol.models import EXCELLENT, GOOD, LOST, POOR, ConnectionQuality
from livekit.protocol.rtc import ConnectionQualityInfo

from sfu.parameters import ReceiverId

if TYPE_CHECKING:
    from signaling.participant import Participant

BEST_RATING = 93.2
"""G.107's rating of a call without impairments."""
DELAY_WEIGHT = 0.024
LATE_DELAY_MS = 177.3
LATE_DELAY_WEIGHT = 0.11
"""G.107: beyond 177.3 ms people start to talk over each other."""
LOSS_WEIGHT = 2.5
"""Rating lost per percent of packets lost after repair attempts; Opus with in-band FEC, and video with RTX."""
CODEC_DELAY_MS = 20.0
EXCELLENT_SCORE = 4.1
GOOD_SCORE = 3.5
"""The bounds of "satisfied" and "some dissatisfied" in G.107 annex B, a little lower for video's sake."""
SAMPLED_SUBSCRIPTIONS = 4
"""All subscriptions of a client share one path, so a few of them tell enough."""


@dataclass(slots=True)
class Quality:
    """One participant's quality over the last interval."""

    _received: dict[ReceiverId, tuple[int, int]] = field(default_factory=dict)
    """Receiver -> packets and losses at the last look."""
    told: ConnectionQuality | None = None
    """What others were told last."""

    def measure(self, participant: "Participant") -> ConnectionQualityInfo:
        """Look at both directions and return the worse one."""
        if not participant.active or participant.expires_at is not None:
            quality = EXCELLENT if participant.expires_at is None else LOST
            return ConnectionQualityInfo(participant_sid=participant.sid, quality=quality, score=0)
        score = min(self._publishing_score(participant), _subscribing_score(participant))
        return ConnectionQualityInfo(participant_sid=participant.sid, quality=grade(score), score=score)

    def _publishing_score(self, participant: "Participant") -> float:
        worst = opinion_score(0, 0)
        seen: dict[ReceiverId, tuple[int, int]] = {}
        for track in participant.publishing.tracks.values():
            for receiver in track.receivers:
                now = participant.node.engine.receiver_statistics(receiver)
                packets, lost = self._received.get(receiver, (now.packets, now.lost))
                seen[receiver] = (now.packets, now.lost)
                arrived, missing = now.packets - packets, max(0, now.lost - lost)
                if arrived + missing > 0:
                    worst = min(worst, opinion_score(missing / (arrived + missing), 2 * now.jitter_ms))
        self._received = seen
        return worst


def _subscribing_score(participant: "Participant") -> float:
    worst = opinion_score(0, 0)
    ids = (entry.id for entry in participant.subscriptions.active.values() if entry.id is not None)
    for subscription in islice(ids, SAMPLED_SUBSCRIPTIONS):
        now = participant.node.engine.subscription_statistics(subscription)
        worst = min(worst, opinion_score(now.lost_fraction, now.rtt_ms / 2))
    return worst


def opinion_score(loss: float, delay_ms: float) -> float:
    """Return the mean opinion score, 1 to 4.5, of a path with this fraction lost and one-way delay."""
    delay_ms += CODEC_DELAY_MS
    rating = BEST_RATING - DELAY_WEIGHT * delay_ms - LATE_DELAY_WEIGHT * max(0.0, delay_ms - LATE_DELAY_MS)
    rating = max(0.0, rating - LOSS_WEIGHT * 100 * loss)
    return 1 + 0.035 * rating + 7e-6 * rating * (rating - 60) * (100 - rating)


def grade(score: float) -> ConnectionQuality:
    """Return LiveKit's word for a mean opinion score."""
    if score >= EXCELLENT_SCORE:
        return EXCELLENT
    return GOOD if score >= GOOD_SCORE else POOR
