"""The shares of the control thread that callers of the API have.

An API key and an identity are a caller, as for joins. The tokens of an application's backend have no identity. So a
participant that may manage its room uses none of its backend's share.
"""

from signaling.http.shares import Share, Shares
from signaling.http.tokens import Claims

MAX_CALLERS = 1_000
"""Callers whose shares are remembered. Who has not called for longest is forgotten first, and begins anew."""


class Callers:
    """The shares of all callers."""

    def __init__(self, shares: Shares) -> None:
        """`shares` are the node's."""
        self._shares = shares
        self._of: dict[tuple[str, str], Share] = {}
        """API key and identity -> share, those that have not called for longest first."""

    def share(self, claims: Claims) -> Share:
        """Return the share of the bearer of a token."""
        share = self._of.pop(claims.who, None) or Share(self._shares)
        if len(self._of) >= MAX_CALLERS:
            del self._of[next(iter(self._of))]
        self._of[claims.who] = share
        return share
