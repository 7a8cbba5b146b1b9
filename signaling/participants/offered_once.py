"""The negotiation of a client that offers once, by HTTP, and is told nothing afterwards (WHIP, WHEP).

Whatever changes later is negotiated by that same offer: tracks come and go on its m-sections, and the client learns
of them by their packets. Only its ICE credentials can change.
"""

from signaling.participants.owner import Owner
from signaling.participants.publishing import Publishing
from signaling.participants.renegotiation import SingleConnection
from signaling.participants.subscriptions import Subscriptions
from signaling.sdp.peer_connection import AnswerResult

ROUNDS = 2
"""Answers that bring another track to an m-section: one takes the former track away, the next one puts it there."""


class OfferedOnce(SingleConnection):
    """One connection, on which the client has offered once."""

    def __init__(self, participant: Owner, publishing: Publishing, subscriptions: Subscriptions) -> None:
        """Open the transport."""
        super().__init__(participant, publishing, subscriptions)
        self._offer = ""

    def accept(self, offer: str) -> str:
        """Answer the client's offer, or the same one with new ICE credentials; return the answer.

        Raises:
            SdpError: the offer cannot be used; nothing was changed.
        """
        answers: list[AnswerResult] = []
        self._take(offer, answers.append)
        self._offer = offer
        return answers[0].sdp

    def _negotiate(self) -> None:
        """Give m-sections the tracks that are wanted now. Those for which there is no m-section are not sent."""
        for _ in range(ROUNDS):
            if not self._offer or self._answering.missing_sections() is None:
                return
            self._take(self._offer, _ignore)

    def _answered(self) -> None:
        self._subscriptions.negotiated()


def _ignore(answer: AnswerResult) -> None:
    """Keep an answer from the client, which could do nothing with it."""
