"""Refreshed tokens for one participant, with which a full reconnect works later and keeps its changed texts."""

import asyncio
import math
from functools import partial

from livekit.protocol.models import ParticipantInfo
from livekit.protocol.rtc import SignalResponse

from signaling.http.tokens import Claims, TokenError, TokenTooLong, refresh
from signaling.participants.owner import Owner

TOKEN_INTERVAL_S = 300.0
"""The time between refreshed tokens if nothing changes. They are valid for ten minutes."""
TOKEN_PACE_S = 1.0
"""The least time between refreshed tokens. Of a burst of changes, the first and the last state are sent."""


class TokenRefresh:
    """Sends refreshed tokens to a participant that has one."""

    def __init__(self, participant: Owner, info: ParticipantInfo) -> None:
        """`info` is the participant's description, which changes with it."""
        self._participant = participant
        self._info = info
        self._due_at = participant.node.clock() if participant.claims is not None else math.inf
        """When the next token is due, in seconds of the node's clock."""
        self._sent_at = -TOKEN_PACE_S
        self._handle: asyncio.Handle | None = None
        """The pending call that sends a token in this turn of the event loop."""

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
        """Send a token if one is due."""
        if now >= self._due_at:
            self._send_due()

    def renew(self) -> None:
        """Send a token with a new state, after the requests of this turn of the event loop or after `TOKEN_PACE_S`.

        A reconnect before that loses the new state.
        """
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
        """Cancel the token that would be sent in this turn of the event loop."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _send_due(self) -> None:
        """Send a token that a request made due, and charge the client for it: signing half a MiB takes 10 ms."""
        share = self._participant.share
        began = share.clock()
        self.send()
        share.spend(share.clock() - began)

    def _sign(self, claims: Claims) -> str:
        """Sign the participant's present state.

        If that is longer than a client could send back, the former metadata and attributes are signed. If those are too
        long as well, which only texts of control characters are, the result is empty. It is also empty if the key that
        signed the original is no longer configured: its bearer may stay, and cannot come back.
        """
        info, node = self._info, self._participant.node
        whole = partial(refresh, claims, node.config.keys, name=info.name, permission=self._participant.permission)
        for sign in (partial(whole, metadata=info.metadata, attributes=dict(info.attributes)), whole):
            try:
                return sign()
            except TokenTooLong:
                node.dropped["token too long"] += 1
            except TokenError:
                node.dropped["tokens_of_removed_keys"] += 1
                break
        return ""
