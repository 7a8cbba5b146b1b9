"""Fresh tokens for one participant, so that a full reconnect later still works, and as who the participant is then."""

import asyncio
import math
from functools import partial

from livekit.protocol.models import ParticipantInfo
from livekit.protocol.rtc import SignalResponse

from signaling.http.tokens import Claims, TokenTooLong, refresh
from signaling.participants.owner import Owner

TOKEN_INTERVAL_S = 300.0
"""Between two refreshed tokens when nothing changes; they live for ten minutes."""
TOKEN_PACE_S = 1.0
"""Between two refreshed tokens at least: of a burst of changes the first and the last state are sent."""


class TokenRefresh:
    """Sends a participant's fresh tokens; nothing to a participant that came without one."""

    def __init__(self, participant: Owner, info: ParticipantInfo) -> None:
        """`info` is the participant's own, which changes with it."""
        self._participant = participant
        self._info = info
        self._due_at = participant.node.clock() if participant.claims is not None else math.inf
        """When the next one is due; seconds of the node's clock."""
        self._sent_at = -TOKEN_PACE_S
        self._handle: asyncio.Handle | None = None
        """One will be sent in this turn of the event loop."""

    def send(self) -> None:
        """Send a token now."""
        self.cancel()
        claims = self._participant.claims
        if claims is None:
            return
        self._sent_at = self._participant.node.clock()
        self._due_at = self._sent_at + TOKEN_INTERVAL_S
        if token := self._sign(claims):
            self._participant.send(SignalResponse(refresh_token=token))

    def tick(self, now: float) -> None:
        """Send one if it is due."""
        if now >= self._due_at:
            self._send_due()

    def renew(self) -> None:
        """The token says something else now: send it when the requests of this turn of the event loop are handled, or
        after the pace. Until then a reconnect loses it."""
        participant = self._participant
        if participant.claims is None:
            return
        due_at = self._sent_at + TOKEN_PACE_S
        if participant.node.clock() < due_at:
            self._due_at = min(self._due_at, due_at)
        elif self._handle is None:
            send = partial(participant.room.guard, participant, self._send_due)
            self._handle = asyncio.get_running_loop().call_soon(send)

    def cancel(self) -> None:
        """Send none in this turn of the event loop."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _send_due(self) -> None:
        """Send a fresh token later than in the request that made it due: to sign half a MiB takes ten milliseconds, and
        those are the client's."""
        share = self._participant.share
        began = share.clock()
        self.send()
        share.spend(share.clock() - began)

    def _sign(self, claims: Claims) -> str:
        """Sign what the participant is now; where that is more than a client can bring back, its former metadata and
        attributes; empty if even those are too much. Text of control characters alone is so long."""
        info, node = self._info, self._participant.node
        whole = partial(refresh, claims, node.config.keys, name=info.name, permission=self._participant.permission)
        for sign in (partial(whole, metadata=info.metadata, attributes=dict(info.attributes)), whole):
            try:
                return sign()
            except TokenTooLong:
                node.dropped["token too long"] += 1
        return ""
